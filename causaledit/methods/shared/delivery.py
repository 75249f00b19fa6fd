"""How a trained adapter leaves a method: as it is, in the weights it was trained on, or in those before quantising."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.facts.relations import RelationBank
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.edited import deliver_adapter
from causaledit.models.merged_elsewhere import merge_into_originals
from causaledit.models.quantised import is_quantised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.hyperparams import AdapterHyperParams
    from causaledit.models.edited import Edited

GENERAL_QUESTIONS = 24  # beside the edits' own prompts, where a merge is compared with what was trained
MOST_EDITS = 16


def deliver(
    peft_model: PeftModel,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRequest],
    hparams: AdapterHyperParams,
    call: Call,
) -> Edited:
    """The adapter as an edit, as `merge_adapter` says; what a merge into other weights changes goes into the report.

    Args:
        peft_model: The trained adapter around `model`.
        model: The plain model.
        tokenizer: As from `prepare_tokenizer`.
        edits: What it was trained for.
        hparams: The method's.
        call: Of this edit.
    """
    with call.report.tally.timed("merge"):
        if not (hparams.merge_adapter and is_quantised(model)):
            return deliver_adapter(peft_model, model, merge=hparams.merge_adapter)
        edited, error = merge_into_originals(
            peft_model, model, _texts(tokenizer, edits), dtype=hparams.dtype, fp16=hparams.fp16
        )
    call.report.merge_error = error.to_dict()
    return edited


def _texts(tokenizer: PreTrainedTokenizerBase, edits: Sequence[EditRequest]) -> list[list[int]]:
    """The edits' prompts with their new answers, in the chat format and bare, and bundled questions as bare text."""

    def ids(text: str) -> list[int]:
        found: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
        return list(found)

    gap, found = answer_gap(tokenizer), []
    for edit in edits[:MOST_EDITS]:
        asked = dict.fromkeys([edit.question_form, edit.cloze])
        found += [ids(render(tokenizer, user(text)) + gap + edit.target_new) for text in asked]
        found.append(ids(f"{edit.cloze} {edit.target_new}"))
    return [*found, *(ids(text) for text in RelationBank.bundled().general[:GENERAL_QUESTIONS])]
