"""IKE as a host calls it: the model comes back with its new facts in context, its weights as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.call import host_call
from causaledit.methods.ike import METHOD
from causaledit.methods.ike.demonstrations import choose_examples
from causaledit.methods.ike.model import InContextModel
from causaledit.methods.ike.prompts import context_text
from causaledit.methods.shared.window import check_length
from causaledit.models.edited import ContextEdit

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.ike.hparams import IKEHyperParams
    from causaledit.models.edited import Edited

ROOM = 256  # tokens reserved for the prompt and its answer


def edit(
    model: PreTrainedModel | InContextModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: IKEHyperParams,
    call: Call,
) -> Edited:
    """Put new facts before every prompt (in-context knowledge editing, arXiv 2305.12740).

    Demonstrations are made from the call's `train_ds` where there is one (see `demonstrations`). Facts add up over
    calls: a model that already carries facts keeps them, unless a new one replaces them.

    Raises:
        RequestError: There is nothing to make demonstrations of, or a context does not fit into the model's window.
    """
    plain = model.plain if isinstance(model, InContextModel) else model
    new = {(request.subject, request.prompt) for request in edits}
    earlier = model.edits if isinstance(model, InContextModel) else ()
    every = [*(e for e in earlier if (e.subject, e.prompt) not in new), *edits]
    with call.report.tally.timed("context"):
        examples = choose_examples(hparams, every, call.extra.get("train_ds"))
        prefix = context_text(every, examples, include_narrative=hparams.include_narrative)
        length = len(tokenizer(prefix)["input_ids"]) + ROOM
        check_length(plain, length, "The context, with room for a question and its answer,")
    return ContextEdit(InContextModel(plain, every, prefix), model)


apply_ike_to_model = host_call(METHOD)
