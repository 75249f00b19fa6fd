"""LoRA as a host calls it: an adapter trained on target tokens, then merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.methods.call import editing, ready_edits
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.finetune.descent import ConstrainedAdam, descend
from causaledit.methods.shared.finetune.rows import check_window, target_batches, target_rows
from causaledit.models.adapters import add_adapter, deliver_adapter, forget_adapter, lora_config
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.lora.hparams import LoRAHyperParams
    from causaledit.support.progress import ProgressSink


def apply_lora_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: LoRAHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: MethodReport | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Minimise −log p(new answer | prompt) over a low-rank update ΔW = (α/r)·B·A (LoRA, arXiv 2106.09685, eq. 3).

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
        The edited model (a PeftModel with `merge_adapter: false`) and the originals (empty unless asked for).

    Raises:
        RequestError, ModelError: Unusable input, before any compute.
        EditFailedError: The loss is not finite; the model is restored.
    """
    report = report if report is not None else MethodReport()
    edits = ready_edits(model, requests, needs_subject=False)
    lora_config(model, hparams)  # refuses targets and layers the model does not have
    tokenizer = prepare_tokenizer(tok)
    rows = [row for edit in edits for row in target_rows(tokenizer, edit, hparams.prompt_forms)]
    check_window(model, rows)
    report.requests = edits
    with editing(model, copy=copy, seed=hparams.seed, progress=progress) as (target, sink):
        peft_model = None
        try:
            with report.tally.timed("train"):
                peft_model = add_adapter(target, hparams)
                peft_model.train()  # dropout
                report.losses["train"] = descend(
                    ConstrainedAdam(
                        [p for p in peft_model.parameters() if p.requires_grad],
                        learning_rate=hparams.learning_rate,
                        weight_decay=hparams.weight_decay,
                        norm_constraint=None,
                    ),
                    lambda _: target_batches(peft_model, rows, hparams.micro_batch_size, report.tally.tokens),
                    stage="training",
                    steps=hparams.steps,
                    stop_loss=hparams.stop_loss,
                    progress=sink,
                    count=report.tally.tokens,
                )
        except BaseException:  # Ctrl-C too: the base weights were never written, the adapter comes off
            if peft_model is not None:
                peft_model.unload()
            forget_adapter(target)
            raise
    with report.tally.timed("merge"):
        edited, originals = deliver_adapter(peft_model, target, merge=hparams.merge_adapter)
    return edited, originals if return_orig_weights else {}
