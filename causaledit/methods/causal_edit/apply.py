"""CausalEdit as a host calls it: request → narrative → bootstrap → internalise → merged model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.methods.call import editing, ready_edits
from causaledit.methods.causal_edit.checks import check_before_compute
from causaledit.methods.causal_edit.stages import train_adapter
from causaledit.methods.method import MethodReport
from causaledit.models.adapters import deliver_adapter
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.bootstrap import TraceReport
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.causal_edit.stages import TrainedEdit
    from causaledit.support.progress import ProgressSink


@dataclass
class EditReport(MethodReport):
    """As every method's report, with the edits' old answers and narratives filled in.

    Attributes:
        narrative_source: Per edit: request, file, model, template or none.
        teacher: The resolved teacher (`base`, `bootstrapped`, or `none` without stage 2).
        teacher_accuracy: Share of right answers of the open-book base model, where `auto` measured it.
        traces: Per edit, what sampling gave.
    """

    narrative_source: list[str] = field(default_factory=list)
    teacher: str = "none"
    teacher_accuracy: float | None = None
    traces: list[TraceReport] = field(default_factory=list)

    def record(self, trained: TrainedEdit) -> None:
        """Write down how an adapter came about."""
        self.requests = trained.requests
        self.narrative_source = trained.narrative_source
        self.teacher, self.teacher_accuracy = trained.teacher
        self.traces = trained.traces
        self.losses.update(trained.losses)
        self.trained_prompts = trained.trained_prompts

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """As every method's card, with narrative sources, teacher and traces."""
        return {
            **super().card(hparams, metrics),
            "narrative_source": self.narrative_source,
            "teacher": self.teacher,
            "teacher_accuracy": self.teacher_accuracy,
            "traces": [vars(trace) for trace in self.traces],
        }


def apply_causal_edit_to_model(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    requests: list[Mapping[str, Any] | EditRequest],
    hparams: CausalEditHyperParams,
    copy: bool = False,
    return_orig_weights: bool = False,
    keep_original_weight: bool = False,
    *,
    progress: ProgressSink | None = None,
    report: EditReport | None = None,
    after_bootstrap: Callable[[PeftModel], None] | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Apply edits together (arXiv 2605.28303, both stages).

    Args:
        model: The network to edit. Changed in place unless `copy`.
        tok: Its tokenizer; left as it is.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s; left as they are.
        hparams: The configuration.
        copy: Edit a copy and leave `model` alone.
        return_orig_weights: Return the original tensors of the weights that changed, by name.
        keep_original_weight: Part of the host's call; weights are only kept where asked for.
        progress: Where progress goes; by default rich bars in a terminal.
        report: Filled in with what was done.
        after_bootstrap: Called with the adapted model between the stages, to look at what stage 1 gave.
        **kwargs: Further arguments of a host's call (`train_ds`, …), not used here.

    Returns:
        The edited model (a `PeftModel` with `merge_adapter: false`), and the original tensors by parameter
        name, empty where nothing in the base weights changed or none were asked for.

    Raises:
        RequestError, ModelError: Bad input, before any compute.
        EditFailedError: Training diverged. After any exception `model` is as it was, bit for bit.
    """
    report = report if report is not None else EditReport()
    edits = ready_edits(model, requests)
    tokenizer = prepare_tokenizer(tok, hparams.chat_template_kwargs)
    check_before_compute(model, tokenizer, edits, hparams)
    with editing(model, copy=copy, seed=hparams.seed, progress=progress) as (target, sink):
        trained = train_adapter(
            target, tokenizer, edits, hparams,
            progress=sink, tally=report.tally, after_bootstrap=after_bootstrap,
        )  # fmt: skip
        report.record(trained)
    with report.tally.timed("merge"):
        edited, originals = deliver_adapter(trained.peft_model, target, merge=hparams.merge_adapter)
    return edited, originals if return_orig_weights else {}
