"""IKE as a host calls it: the model comes back with its new facts in context, its weights as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.methods.call import ready_edits
from causaledit.methods.ike.model import InContextModel
from causaledit.methods.ike.prompts import context_text, read_examples
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.finetune.rows import TargetRow, check_window

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.ike.hparams import IKEHyperParams
    from causaledit.support.progress import ProgressSink

ROOM = 256  # tokens left for the prompt and its answer


def apply_ike_to_model(
    model: PreTrainedModel | InContextModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: IKEHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: MethodReport | None = None,
    **kwargs: Any,
) -> tuple[InContextModel, dict[str, torch.Tensor]]:
    """Put new facts before every prompt (in-context knowledge editing, arXiv 2305.12740).

    Facts add up over calls: a model that already carries facts keeps them, unless a new one replaces them.

    Args:
        model: The network; its weights are never written, so `copy` makes no difference.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s.
        hparams: The configuration.
        copy, return_orig_weights, keep_original_weight, progress: Part of the host's contract.
        report: Filled in.

    Returns:
        The model behind its context, and no weights: there is nothing to restore.

    Raises:
        RequestError: Unusable input, or a context that does not fit into the model's window.
    """
    report = report if report is not None else MethodReport()
    plain = model.plain if isinstance(model, InContextModel) else model
    edits = ready_edits(plain, requests, needs_subject=False)
    new = {(edit.subject, edit.prompt) for edit in edits}
    earlier = model.edits if isinstance(model, InContextModel) else ()
    every = [*(e for e in earlier if (e.subject, e.prompt) not in new), *edits]
    with report.tally.timed("context"):
        examples = read_examples(hparams, every)
        prefix = context_text(every, examples, include_narrative=hparams.include_narrative)
        check_window(plain, [TargetRow(tok(prefix)["input_ids"], [])], further=ROOM)
    report.requests = edits
    return InContextModel(plain, every, prefix), {}
