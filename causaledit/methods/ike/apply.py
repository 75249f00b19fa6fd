"""IKE as a host calls it: the model comes back with its new facts in context, its weights as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.call import host_call
from causaledit.methods.ike import METHOD
from causaledit.methods.ike.model import InContextModel
from causaledit.methods.ike.prompts import context_text, read_examples
from causaledit.methods.shared.finetune.rows import TargetRow, check_window
from causaledit.models.edited import ContextEdit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.ike.hparams import IKEHyperParams
    from causaledit.models.edited import Edited

ROOM = 256  # tokens left for the prompt and its answer


def edit(
    model: PreTrainedModel | InContextModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: IKEHyperParams,
    call: Call,
) -> Edited:
    """Put new facts before every prompt (in-context knowledge editing, arXiv 2305.12740).

    Facts add up over calls: a model that already carries facts keeps them, unless a new one replaces them.

    Raises:
        RequestError: A context does not fit into the model's window.
    """
    plain = model.plain if isinstance(model, InContextModel) else model
    new = {(request.subject, request.prompt) for request in edits}
    earlier = model.edits if isinstance(model, InContextModel) else ()
    every = [*(e for e in earlier if (e.subject, e.prompt) not in new), *edits]
    with call.report.tally.timed("context"):
        examples = read_examples(hparams, every)
        prefix = context_text(every, examples, include_narrative=hparams.include_narrative)
        check_window(plain, [TargetRow(tokenizer(prefix)["input_ids"], [])], further=ROOM)
    return ContextEdit(InContextModel(plain, every, prefix), model)


apply_ike_to_model = host_call(METHOD)
