"""CaKE as a host calls it: texts about each edit, a LoRA trained on them, merged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.methods.cake import METHOD
from causaledit.methods.cake.data import texts_of
from causaledit.methods.call import host_call
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.checks import check_training
from causaledit.methods.shared.contrast import begin_in_contrast
from causaledit.methods.shared.delivery import deliver
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.rehearsal import remember, rows_of_pairs
from causaledit.methods.shared.supervised import (
    Schedule,
    completion_rows,
    run_supervised,
    text_rows,
)
from causaledit.methods.shared.trainers import WatchCallback
from causaledit.methods.shared.window import check_length
from causaledit.models.adapters import add_adapter
from causaledit.models.batches import context_and_completion
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.cake.data import Text
    from causaledit.methods.cake.hparams import CaKEHyperParams
    from causaledit.methods.call import Call
    from causaledit.models.edited import Edited


@dataclass
class CaKEReport(MethodReport):
    """The report of every method, with how many texts of each kind every edit was trained on.

    Attributes:
        texts: Per edit: `fact`, `paraphrase`, `learning` → how many.
    """

    texts: list[dict[str, int]] = field(default_factory=list)

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """The card of every method, plus the texts' numbers."""
        return {**super().card(hparams, metrics), "texts": self.texts}


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: CaKEHyperParams,
    call: Call,
) -> Edited:
    """Language modelling on circuit-aware data over a low-rank update (CaKE, arXiv 2503.16356, section 4)."""
    check_training(model, hparams, merged=hparams.merge_adapter or call.sequence is not None)
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    by_edit = [texts_of(request, hparams) for request in edits]
    texts = [text for found in by_edit for text in found]
    rows = rows_of(tokenizer, texts, hparams)
    check_length(model, max(len(row["input_ids"]) for row in rows), "A question with its answer")
    report, tally = call.report, call.report.tally
    report.texts = [dict(Counter(text.kind for text in found)) for found in by_edit]
    with tally.timed("preserve"):
        preservation = build_preservation(
            model, tokenizer, edits, hparams,
            count=tally.tokens, sequence=call.sequence, first_layer=hparams.first_layer,
        )  # fmt: skip
    asked = [text.question for text in texts]
    report.trained_prompts = list(dict.fromkeys([*asked, *preserved_questions(preservation)]))
    with tally.timed("train"):
        peft_model = add_adapter(model, hparams)
        steps = hparams.steps(len(rows), len(edits))
        call.progress.start("train", steps)
        parted = [context_and_completion(row) for row in rows]
        begin_in_contrast(peft_model, tokenizer, parted, edits, hparams, preservation=preservation, count=tally.tokens)
        losses = run_supervised(
            peft_model,
            tokenizer,
            rows,
            Schedule(steps, hparams.train_batch_size, hparams.learning_rate, "linear", 0, hparams.max_grad_norm),
            hparams,
            watch=WatchCallback(call.progress, tokens=lambda: tally.tokens.trained),
            stage="train",
            subjects=[request.subject for request in edits],
            mean_by_sequence=hparams.loss_mean == "sequence",
            most_tokens=hparams.micro_batch_tokens,
            preservation=preservation,
            count=tally.tokens,
        )
    report.losses.update(losses.named("train"))
    edited = deliver(peft_model, model, tokenizer, edits, hparams, call)
    own = [[text for text in found if text.kind != "learning"] for found in by_edit]  # what the fact alone answers
    trained = [rows_of_pairs(_pairs(found), _answer_rows(tokenizer, found, hparams)) for found in own]
    remember(call.sequence, hparams, edits, trained)
    return edited


def _pairs(texts: list[Text]) -> list[tuple[str, str]]:
    return [(text.question, text.answer) for text in texts]


def _answer_rows(
    tokenizer: PreTrainedTokenizerBase, texts: list[Text], hparams: CaKEHyperParams
) -> list[dict[str, Any]]:
    make = text_rows if hparams.text_format == "plain" else completion_rows
    return make(tokenizer, _pairs(texts))


def rows_of(tokenizer: PreTrainedTokenizerBase, texts: list[Text], hparams: CaKEHyperParams) -> list[dict[str, Any]]:
    """Texts as rows of a trainer; see `text_format` and `question_loss`."""
    rows = _answer_rows(tokenizer, texts, hparams)
    if hparams.question_loss:
        for row in rows:  # nothing precedes the first token, so nothing predicts it
            row["completion_mask"] = [0] + [1] * (len(row["input_ids"]) - 1)
    return rows


apply_cake_to_model = host_call(METHOD)
