"""One call of a locate-then-edit method: model, tokenizer, layout, and what the edits share."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import EditFailedError, ModelError
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.locate_edit.contexts import Contexts, sample_contexts
from causaledit.methods.shared.locate_edit.covariance import KeySpace, moments_for
from causaledit.methods.shared.locate_edit.keys import mean_keys, states_at
from causaledit.methods.shared.locate_edit.stored import Moment, read_projections
from causaledit.methods.shared.locate_edit.subjects import locate, refuse_unclear_subjects
from causaledit.methods.shared.locate_edit.values import Value, optimise_values
from causaledit.models.layout import Layout, find_layout
from causaledit.support.curves import aligned
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)


@dataclass
class LocateEditReport(MethodReport):
    """The report of every method, plus where the edit was written.

    Attributes:
        contexts: The contexts the model sampled.
        statistics: Per layer, the source of its keys' second moment.
        update_norms: Per layer, the Frobenius norms of the changes written to it.
        losses: `value`: the mean over the edits whose values are optimised side by side, step by step.
    """

    contexts: list[str] = field(default_factory=list)
    statistics: dict[int, str] = field(default_factory=dict)
    update_norms: dict[int, list[float]] = field(default_factory=dict)


@dataclass
class LocateMemory:
    """What the edits of a sequence share, all computed from the model as it was before the sequence.

    Attributes:
        contexts: The sampled contexts.
        moments: Per layer, the keys' second moment.
        spaces: Per layer, its factor.
        projections: Per layer, AlphaEdit's null-space projection.
        earlier_keys: Per layer, AlphaEdit's keys of the edits before, `(features, n)`.
    """

    contexts: Contexts | None = None
    moments: dict[int, Moment] = field(default_factory=dict)
    spaces: dict[int, KeySpace] = field(default_factory=dict)
    projections: dict[int, torch.Tensor] = field(default_factory=dict)
    earlier_keys: dict[int, torch.Tensor] = field(default_factory=dict)

    def constants(self) -> dict[str, Any]:
        """See `StoredMemory`: spaces follow from the moments."""
        moments = {layer: (moment.matrix, moment.count, moment.source) for layer, moment in self.moments.items()}
        return {"contexts": self.contexts, "moments": moments, "projections": self.projections}

    def state(self) -> dict[str, Any]:
        """See `StoredMemory`."""
        return {"earlier_keys": dict(self.earlier_keys)}

    def load(self, constants: dict[str, Any], state: dict[str, Any]) -> None:
        """See `StoredMemory`."""
        self.contexts = constants["contexts"]
        self.moments = {layer: Moment(*moment) for layer, moment in constants["moments"].items()}
        self.projections, self.earlier_keys = dict(constants["projections"]), dict(state["earlier_keys"])


def check_locate_edit(
    model: Any, tokenizer: Any, edits: Sequence[EditRequest], hparams: LocateEditHyperParams, call: Call
) -> Layout:
    """Everything that can be refused before the model is run.

    Raises:
        RequestError: A subject is ambiguous or has no token.
        ModelError: The model has no such layers, or an unsuitable structure.
    """
    refuse_unclear_subjects(call.requests)
    layout = find_layout(model, hparams)
    if any(value.is_meta for value in model.parameters()):
        raise ModelError("Some of the model's weights are not loaded (offloaded or meta): load the whole model.")
    for edit in edits:
        locate(tokenizer, "{}", edit, hparams.fact_token)
    return layout


class LocateEditor:
    """Keys, values and statistics of one call.

    Independent calls share nothing. Calls with the same `EditSequence` share a `LocateMemory`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        layout: Layout,
        hparams: LocateEditHyperParams,
        *,
        progress: ProgressSink,
        report: LocateEditReport,
        sequence: EditSequence | None = None,
    ) -> None:
        self.model, self.tokenizer, self.layout, self.hparams = model, tokenizer, layout, hparams
        self.progress, self.report = progress, report
        self.memory = LocateMemory() if sequence is None else sequence.memory(hparams.alg_name, LocateMemory)

    # ---- what the edits share ------------------------------------------------------------------
    @property
    def contexts(self) -> Contexts:
        """The bare prompt and the sampled contexts."""
        if self.memory.contexts is None:
            with self.report.tally.timed("contexts"):
                self.memory.contexts = sample_contexts(
                    self.model, self.tokenizer, self.hparams.context_template_length_params, self.hparams.seed
                )
        self.report.contexts = [template for group in self.memory.contexts[1:] for template in group]
        return self.memory.contexts

    def moments(self) -> dict[int, Moment]:
        """The keys' second moment of every edited layer."""
        missing = [layer for layer in self.hparams.layers if layer not in self.memory.moments]
        if missing:
            with self.report.tally.timed("statistics"):
                self.memory.moments.update(
                    moments_for(self.model, self.tokenizer, self.layout, missing, self.hparams, self.progress)
                )
        for layer, moment in self.memory.moments.items():
            self.report.statistics[layer] = f"{moment.count} tokens of {moment.source}"
        return self.memory.moments

    def prepare_spaces(self) -> None:
        """Factor C of every layer, so that a singular one is refused before any optimisation."""
        if not self.hparams.mom2_adjustment:
            return
        for layer, moment in self.moments().items():
            if layer not in self.memory.spaces:
                with self.report.tally.timed("statistics"):
                    device = self.layout.weight(self.model, layer).device
                    self.memory.spaces[layer] = KeySpace(moment, layer, self.hparams.mom2_ridge, device)

    def solve(self, layer: int, keys: torch.Tensor) -> torch.Tensor:
        """C⁻¹ K in float64; K itself without `mom2_adjustment`."""
        if not self.hparams.mom2_adjustment:
            return keys.double()
        return self.memory.spaces[layer].solve(keys).to(keys.device)

    # ---- keys and values -----------------------------------------------------------------------
    def keys(self, edits: Sequence[EditRequest], layer: int, *, by_group: bool) -> torch.Tensor:
        """k* of each edit as a column: `(features, edits)`."""
        contexts = self.contexts
        with self.report.tally.timed("keys"):
            return mean_keys(
                self.model, self.tokenizer, self.layout.projection_module(self.model, layer), edits, contexts,
                fact_token=self.hparams.fact_token, by_group=by_group,
            ).T  # fmt: skip

    def bare(self, edits: Sequence[EditRequest], module: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """A module's input and output at the look-up token of the prompts without context, `(edits, features)` each."""
        rows = [locate(self.tokenizer, "{}", edit, self.hparams.fact_token) for edit in edits]
        with self.report.tally.timed("keys"):
            return states_at(self.model, module, rows)

    def values(self, edits: Sequence[EditRequest], layer: int, *, at_projection: bool) -> list[Value]:
        """v* (ROME) or z (MEMIT, AlphaEdit) of each edit."""
        contexts = self.contexts
        with self.report.tally.timed("values"):
            values = optimise_values(
                self.model, self.tokenizer, self.layout, edits, contexts, self.hparams,
                layer=layer, at_projection=at_projection, progress=self.progress,
            )  # fmt: skip
        steps = aligned([value.losses for value in values])
        self.report.losses.setdefault("value", []).extend(sum(step) / len(step) for step in steps)
        return values

    # ---- the weights ---------------------------------------------------------------------------
    def write(self, layer: int, change: torch.Tensor) -> None:
        """Add an `(out, in)` change to a layer's projection.

        Raises:
            EditFailedError: It is not finite.
        """
        norm = float(change.norm())
        if not torch.isfinite(change).all():
            raise EditFailedError(
                f"The change of layer {layer} is not finite: load the model in float32, or set `mom2_ridge`. The model "
                "is as it was."
            )
        self.layout.add(self.model, layer, change)
        self.report.update_norms.setdefault(layer, []).append(norm)
        logger.info("layer %d: change of norm %.3g written", layer, norm)

    def spread(self, edits: Sequence[EditRequest], update: Any) -> dict[int, torch.Tensor]:
        """Write values into several layers, each taking its share of what is still missing (MEMIT section 4.3.1).

        z is optimised at the last layer; layer by layer, from the lowest on, the remaining gap between z and the
        current output there is divided by the number of layers to go (MEMIT eq. 20).

        Args:
            update: `(layer, keys (features, edits), residuals (hidden, edits)) -> (hidden, features)` change.

        Returns:
            The keys written, per layer.
        """
        layers = self.hparams.layers
        top = self.layout.layer_module(self.model, layers[-1])
        wanted = torch.stack([v.target for v in self.values(edits, layers[-1], at_projection=False)])
        written: dict[int, torch.Tensor] = {}
        self.progress.start("layers", len(layers))
        for done, layer in enumerate(layers):
            keys = self.keys(edits, layer, by_group=True)
            _, now = self.bare(edits, top)
            missing = (wanted - now.to(wanted)).T / (len(layers) - done)
            with self.report.tally.timed("update"):
                self.write(layer, update(layer, keys, missing.to(keys.device)))
            written[layer] = keys
            self.progress.advance()
        self.progress.finish()
        return written

    def projections_from_file(self, path: str) -> dict[int, torch.Tensor]:
        """AlphaEdit's projection file, one matrix per layer in the order of `layers`."""
        layers = self.hparams.layers
        features = self.layout.weight(self.model, layers[0]).shape[1]
        return dict(zip(layers, read_projections(expanded(path), features, layers), strict=True))


def locate_edit(
    model: Any, tokenizer: Any, edits: Sequence[EditRequest], hparams: LocateEditHyperParams, call: Call
) -> tuple[LocateEditor, dict[str, torch.Tensor]]:
    """Check a method's input, and make its editor.

    Args:
        model, tokenizer, edits, hparams, call: As the method's `edit` got them.

    Returns:
        The editor, and the original tensors of the layers it will change, by parameter name.

    Raises:
        RequestError, ModelError: As in `check_locate_edit`.
    """
    layout = check_locate_edit(model, tokenizer, edits, hparams, call)
    call.report.trained_prompts = list(dict.fromkeys(edit.cloze for edit in edits))  # what values are optimised on
    originals = call.rewriting(model, [layout.weight_name(layer) for layer in hparams.layers])
    editor = LocateEditor(
        model, tokenizer, layout, hparams, progress=call.progress, report=call.report, sequence=call.sequence
    )
    return editor, originals
