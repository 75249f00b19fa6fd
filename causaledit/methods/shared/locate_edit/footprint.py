"""What locate-then-edit methods need in memory: statistics, values and updates, on a model without weights.

The statistics are large and the same for every edit of a model: a second moment of the keys, its factor and AlphaEdit's
projection are square in the width of the MLP. They are kept in host memory, and made on the device.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.footprint import Remedy, StageFootprint
from causaledit.methods.shared.locate_edit.contexts import OPENINGS
from causaledit.methods.shared.locate_edit.corpus import SAMPLE_BATCH, SAMPLE_TOKENS
from causaledit.methods.shared.locate_edit.frozen import FrozenRows
from causaledit.methods.shared.locate_edit.subjects import TokenRow
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.hooks import altered, hidden, narrowed, replayed, run_until
from causaledit.models.layout import find_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.footprint import Planner
    from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams
    from causaledit.models.footprint import PlannedModel
    from causaledit.support.lengths import Lengths

DOUBLE, SINGLE = 8, 4  # bytes of a float64 and of a float32


@dataclass(frozen=True)
class Statistics:
    """What a method makes of the keys' second moment, per layer.

    Attributes:
        made: Matrices of float64, as wide as the keys, that are on the device at a time while it is made.
        kept: Bytes of a number of what is kept besides the moment.
        used: Bytes of a number of what an update brings back to the device.
    """

    made: int
    kept: int
    used: int = 0


FACTOR = Statistics(made=3, kept=DOUBLE)  # the moment, its sum with its transpose, their mean
PROJECTION = Statistics(made=4, kept=SINGLE, used=SINGLE)  # the moment, its eigenvectors, their work space (2 n²)


def stages(planner: Planner, statistics: Statistics | None, *, at_projection: bool) -> list[StageFootprint]:
    """The stages of one edit, in their order.

    Args:
        statistics: What the method makes of the second moments; None where it takes none.
        at_projection: Whether the value is one of the MLP's projection (ROME), or of the whole layer.
    """
    hparams, lengths = planner.hparams, planner.lengths
    contexts = [length for length, count in hparams.context_template_length_params for _ in range(_drawn(count))]
    with planner.model() as plain:
        layout = find_layout(plain.model, hparams)
        weights = [layout.weight(plain.model, layer) for layer in hparams.layers]
        out, features = weights[0].shape
        originals = sum(weight.numel() * weight.element_size() for weight in weights)
        square = features * features
        found = []
        if contexts:
            together = max(map(contexts.count, contexts))
            peak = generation_peak(plain, rows=together, prompt=2, new=max(1, max(contexts) - 2), shared=False)
            host = planner.kept_on_host(originals)
            found.append(StageFootprint("contexts", peak, generated=sum(contexts), **host))
        kept = originals
        if statistics is not None:
            kept += len(weights) * square * (SINGLE + statistics.kept)
            collected = StageFootprint(
                "statistics", _collecting(plain, layout, planner, features), **planner.kept_on_host(originals)
            )
            made = StageFootprint(
                "statistics", _numbers(statistics.made * square * DOUBLE), **planner.kept_on_host(kept)
            )
            found.append(max(collected, made, key=lambda stage: stage.total(0)))
        rows = _rows(lengths, contexts)
        peak = _optimising(plain, layout, hparams.layers[-1], rows, (len(rows) - 1) * lengths.answer + 1, at_projection)
        trained = hparams.v_num_grad_steps * sum(len(row.ids) - row.at for row in rows)
        found.append(StageFootprint("values", peak, trained=trained, **planner.kept_on_host(kept)))
        changed = 3 * out * features * DOUBLE + (statistics.used * square if statistics is not None else 0)
        return [*found, StageFootprint("update", _numbers(changed), **planner.kept_on_host(kept))]


def remedies(hparams: LocateEditHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    for gigabytes in (2.0, 1.0, 0.1):
        if gigabytes < hparams.mom2_memory_gb and len(hparams.layers) > 1:
            yield Remedy({"mom2_memory_gb": gigabytes}, "more passes over the text", ("statistics",))
    for tokens in (1024, 512):
        if tokens < hparams.mom2_batch_tokens:
            yield Remedy({"mom2_batch_tokens": tokens}, "the same statistics, fewer tokens at a time", ("statistics",))


def _drawn(count: int) -> int:
    """Contexts that are sampled for a number that was asked for (`sample_contexts`)."""
    return min(max(count, 1), len(OPENINGS) * max(count // len(OPENINGS), 1))


def _rows(lengths: Lengths, contexts: list[int]) -> list[TokenRow]:
    """The prompt, bare and behind each context, with the answer, and the essence; half of a prompt is its subject."""
    subject = max(1, lengths.prompt // 2)
    prompts = [
        TokenRow([0] * (context + lengths.prompt + lengths.answer - 1), context + subject - 1)
        for context in (0, *contexts)
    ]
    return [*prompts, TokenRow([0] * (subject + 2), subject - 1)]


def _numbers(count: int) -> Peak:
    return Peak(count, {"logits": 0, "cache": 0, "activations": count})


def _collecting(plain: PlannedModel, layout: Any, planner: Planner, features: int) -> Peak:
    """Writing the text where none is given; then a pass over a batch of it, beside the sums of the layers."""
    hparams = planner.hparams
    width = torch.finfo(getattr(torch, hparams.mom2_dtype)).bits // 8
    together = max(1, min(len(hparams.layers), int(hparams.mom2_memory_gb * 2**30 // (features**2 * width))))
    length = min(hparams.mom2_document_tokens, hparams.mom2_batch_tokens)
    rows = max(1, hparams.mom2_batch_tokens // length)
    if hparams.mom2_max_tokens is not None:
        rows = min(rows, -(-hparams.mom2_max_tokens // length))
    written = Peak()
    if hparams.mom2_dataset is None:  # the text is the model's own
        new = min(SAMPLE_TOKENS, hparams.mom2_document_tokens)
        written = generation_peak(plain, rows=SAMPLE_BATCH, prompt=4, new=new, shared=False)
    with plain.tracked(training=False) as tracker, torch.no_grad():
        dtype = getattr(torch, hparams.mom2_dtype)
        sums = [torch.empty(features, features, dtype=dtype) for _ in range(together)]
        ids, mask = torch.zeros(rows, length, dtype=torch.long), torch.ones(rows, length, dtype=torch.long)
        module = layout.projection_module(plain.model, max(hparams.layers))
        received, _ = run_until(plain.model, module, input_ids=ids, attention_mask=mask, use_cache=False)
        keys = received.flatten(0, 1).clone().to(dtype)
        del keys, sums
    return larger(written, tracker.peak)


def _optimising(
    plain: PlannedModel, layout: Any, layer: int, rows: list[TokenRow], wanted: int, at_projection: bool
) -> Peak:
    """One evaluation of a value's loss, forward and backward, as `values` does it."""
    model = plain.model
    below = [layout.layer_module(model, number) for number in range(layer)]
    edited = layout.projection_module(model, layer) if at_projection else layout.layer_module(model, layer)
    with plain.tracked(training=False) as tracker:
        frozen = FrozenRows(model, rows)
        with torch.no_grad():
            lower = run_until(model, below[-1], **frozen.inputs())[1] if below else None
        delta = torch.zeros(model.get_output_embeddings().weight.shape[1], requires_grad=True)
        places = torch.zeros(wanted, dtype=torch.long)
        head = model.get_output_embeddings()
        with contextlib.ExitStack() as stack:
            for module in below:
                stack.enter_context(replayed(module, lower))
            stack.enter_context(altered(edited, lambda states: states + delta.to(states.dtype)))
            stack.enter_context(narrowed(head, lambda states: hidden(states).flatten(0, 1)[places][None]))
            logits = model(**frozen.inputs()).logits[0]
        logits.float().log_softmax(-1).gather(1, torch.zeros(wanted, 1, dtype=torch.long)).sum().backward()
    return tracker.peak
