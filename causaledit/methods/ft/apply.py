"""FT as a host calls it: AdamW on chosen weights, target tokens only, until the loss is low."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.methods.call import editing, ready_edits
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.finetune.descent import ConstrainedAdam, descend
from causaledit.methods.shared.finetune.rows import check_window, target_batches, target_rows
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.layout import select_weights
from causaledit.models.weights import rewriting

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.ft.hparams import FTHyperParams
    from causaledit.support.progress import ProgressSink


def apply_ft_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: FTHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: MethodReport | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Minimise −log p(new answer | prompt) over chosen weights W, with ‖W − W₀‖∞ ≤ ε where ε is given.

    Source: the fine-tuning baselines FT and FT+L of ROME (arXiv 2202.05262, section 3.1 and appendix E.1);
    all target tokens are trained on (the standard autoregressive loss).

    Args:
        model: The network to edit. Changed in place unless `copy`.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s; applied together.
        hparams: The configuration.
        copy: Edit a copy.
        return_orig_weights: Also return the original tensors by name.
        keep_original_weight: Part of the host's contract; nothing depends on it.
        progress: Where progress goes; bars in a terminal by default.
        report: Filled in while editing.

    Returns:
        The edited model and the originals (empty unless asked for).

    Raises:
        RequestError, ModelError: Unusable input, before any compute.
        EditFailedError: The loss is not finite; the model is restored.
    """
    report = report if report is not None else MethodReport()
    edits = ready_edits(model, requests, needs_subject=False)
    names = select_weights(model, hparams.layers, hparams.modules)
    tokenizer = prepare_tokenizer(tok)
    rows = [row for edit in edits for row in target_rows(tokenizer, edit, hparams.prompt_forms)]
    check_window(model, rows)
    report.requests = edits
    with (
        editing(model, copy=copy, seed=hparams.seed, progress=progress) as (target, sink),
        rewriting(target, names) as originals,
        report.tally.timed("train"),
    ):
        optimizer = ConstrainedAdam(
            [target.get_parameter(name) for name in names],
            learning_rate=hparams.learning_rate,
            weight_decay=hparams.weight_decay,
            norm_constraint=hparams.norm_constraint,
        )
        report.losses["train"] = descend(
            optimizer,
            lambda _: target_batches(target, rows, hparams.micro_batch_size, report.tally.tokens),
            stage="training",
            steps=hparams.steps,
            stop_loss=hparams.stop_loss,
            progress=sink,
            count=report.tally.tokens,
        )
    return target, originals if return_orig_weights else {}
