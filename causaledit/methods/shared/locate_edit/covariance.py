"""Second moments of keys: streamed over text, within a budget, resumable, kept on disk.

C = E[k kᵀ] stands for everything the edited layer has learnt to answer (ROME eq. 2, MEMIT eq. 15).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causaledit.errors import EditFailedError, HparamsError
from causaledit.methods.shared.locate_edit.corpus import Corpus, open_corpus, own_samples
from causaledit.methods.shared.locate_edit.stored import Moment, check_moment, easyedit_files, read_moment, write_moment
from causaledit.models.batches import pad_right, positions_for
from causaledit.models.hooks import run_until, watched
from causaledit.models.layout import by_token, not_behind_keys
from causaledit.models.weights import revision_of
from causaledit.support.files import write_arrays
from causaledit.support.paths import cache_dir, expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams
    from causaledit.models.layout import Layout
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)

SAVE_EVERY = 60.0  # seconds between checkpoints of a running collection
FEW = 2  # with fewer tokens per key feature than this, the moment is unreliable


def moments_for(
    model: Any,
    tokenizer: Any,
    layout: Layout,
    layers: Sequence[int],
    hparams: LocateEditHyperParams,
    progress: ProgressSink,
) -> dict[int, Moment]:
    """The second moment of the keys of each layer: from a given file, from the cache, or collected now.

    Raises:
        ModelError: A file belongs to another model.
        HparamsError: The text cannot be read.
    """
    found: dict[int, Moment] = {}
    sizes = {layer: layout.weight(model, layer).shape[1] for layer in layers}
    for layer in layers:
        file = _given_file(model, layout, layer, hparams)
        if file is not None:
            found[layer] = read_moment(file, sizes[layer], layer, revision_of(model, not_behind_keys(layout, layer)))
    rest = [layer for layer in layers if layer not in found]
    if not rest:
        return found
    looked_for = _looked_for(model, layout, rest, hparams)
    if looked_for:
        logger.warning(looked_for)
    folder = cache_dir() / "statistics" if hparams.stats_cache else None
    if hparams.mom2_dataset is None:
        corpus = own_samples(model, tokenizer, hparams, revision_of(model), folder)
    else:
        try:
            corpus = open_corpus(hparams.mom2_dataset)
        except HparamsError as error:
            raise HparamsError(f"{error} {looked_for}".rstrip()) from None
    revisions = {layer: revision_of(model, not_behind_keys(layout, layer)) for layer in rest}
    keys = {layer: cache_key(revisions[layer], layout.projection.format(layer), corpus, hparams) for layer in rest}
    if folder is not None:
        for layer in rest:
            file = folder / f"{keys[layer]}.npz"
            if file.is_file():
                found[layer] = read_moment(file, sizes[layer], layer, revisions[layer])
    missing = [layer for layer in rest if layer not in found]
    if missing:
        logger.info("collecting the keys' second moments of layers %s from %s", missing, corpus.name)
    for group in _groups(missing, sizes, hparams):
        together = hashlib.sha256("".join(keys[n] for n in group).encode()).hexdigest()[:32]
        partial = folder / f"{together}.partial.npz" if folder else None
        collected = collect(model, tokenizer, layout, group, corpus, hparams, progress, partial)
        for layer, moment in collected.items():
            found[layer] = check_moment(moment, sizes[layer], layer)
            if folder is not None:
                write_moment(folder / f"{keys[layer]}.npz", moment, revisions[layer])
        if partial is not None:
            partial.unlink(missing_ok=True)
    return found


def cache_key(revision: str, layer_name: str, corpus: Corpus, hparams: LocateEditHyperParams) -> str:
    """What identifies a cached moment: model revision, layer, corpus, samples, lengths, type."""
    parts = (
        revision, layer_name, corpus.digest, hparams.mom2_n_samples, hparams.mom2_max_tokens,
        hparams.mom2_document_tokens, hparams.mom2_dtype,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _given_file(model: Any, layout: Layout, layer: int, hparams: LocateEditHyperParams) -> Path | None:
    if hparams.mom2_file is not None:
        return expanded(hparams.mom2_file.replace("{}", str(layer)))
    return next((file for file in _kept_files(model, layout, layer, hparams) if file.is_file()), None)


def _kept_files(model: Any, layout: Layout, layer: int, hparams: LocateEditHyperParams) -> list[Path]:
    if hparams.stats_dir is None or hparams.mom2_dataset is None:
        return []
    return easyedit_files(
        expanded(hparams.stats_dir), model, layout.projection.format(layer), hparams.mom2_dataset,
        hparams.mom2_dtype, hparams.mom2_n_samples,
    )  # fmt: skip


def _looked_for(model: Any, layout: Layout, layers: Sequence[int], hparams: LocateEditHyperParams) -> str:
    """Why `stats_dir` gave nothing for some layers; empty where it is not set."""
    if hparams.stats_dir is None or hparams.mom2_file is not None:
        return ""
    nothing = f"`stats_dir` ({hparams.stats_dir!r}) gave no statistics for layer(s) {', '.join(map(str, layers))}:"
    if hparams.mom2_dataset is None:
        return f"{nothing} files there are named by `mom2_dataset`, which is not set (EasyEdit's is 'wikipedia')."
    files = _kept_files(model, layout, layers[0], hparams)
    if not files:
        return f"{nothing} files there are named by the model, which has no name of its own (`name_or_path`)."
    return f"{nothing} there is no {' and no '.join(repr(str(file)) for file in files)}."


def _groups(layers: list[int], sizes: dict[int, int], hparams: LocateEditHyperParams) -> Iterator[list[int]]:
    """Layers collected in one pass, as many as fit in the memory budget."""
    width = torch.finfo(getattr(torch, hparams.mom2_dtype)).bits // 8
    group: list[int] = []
    used = 0.0
    for layer in layers:
        needed = sizes[layer] ** 2 * width / 2**30
        if group and used + needed > hparams.mom2_memory_gb:
            yield group
            group, used = [], 0.0
        group.append(layer)
        used += needed
    if group:
        yield group


@torch.no_grad()
def collect(
    model: Any,
    tokenizer: Any,
    layout: Layout,
    layers: Sequence[int],
    corpus: Corpus,
    hparams: LocateEditHyperParams,
    progress: ProgressSink,
    partial: Path | None = None,
    save_every: float = SAVE_EVERY,
) -> dict[int, Moment]:
    """Sum k kᵀ over the corpus, one forward pass at a time, up to the highest layer only.

    Args:
        partial: Where an interrupted collection is kept; if the file exists, that collection is continued.
        save_every: Seconds between two saves of it.

    Raises:
        HparamsError: There is no text.
    """
    dtype = getattr(torch, hparams.mom2_dtype)
    sums = {
        layer: torch.zeros((n := layout.weight(model, layer).shape[1]), n, dtype=dtype, device=model.device)
        for layer in layers
    }
    state = _resume(partial, sums)
    count, pieces_done = state
    last_saved = time.monotonic()
    highest = layout.projection_module(model, max(layers))
    progress.start("key statistics", None)
    for batch, pieces in _batches(_pieces(tokenizer, corpus, hparams), hparams, skip=pieces_done, counted=count):
        ids, mask = pad_right(batch, model.device)
        with contextlib.ExitStack() as stack:
            for layer in layers:
                module = layout.projection_module(model, layer)
                stack.enter_context(watched(module, _adder(sums[layer], mask)))
            run_until(model, highest, input_ids=ids, attention_mask=mask, use_cache=False, **positions_for(model, mask))
        count += int(mask.sum())
        pieces_done += pieces
        progress.advance(tokens=int(mask.sum()))
        if partial is not None and time.monotonic() - last_saved > save_every:
            arrays: dict[str, Any] = {f"layer.{layer}": value.cpu().numpy() for layer, value in sums.items()}
            write_arrays(partial, {**arrays, "count": count, "pieces": pieces_done})
            last_saved = time.monotonic()
    progress.finish()
    if not count:
        raise HparamsError(f"`mom2_dataset`: there is no text in {corpus.name}.")
    features = max(len(value) for value in sums.values())
    if count < FEW * features:
        logger.warning(
            "the second moment of %d key features comes from only %d tokens: give more text (`mom2_n_samples`, "
            "`mom2_max_tokens`)", features, count,
        )  # fmt: skip
    return {layer: Moment((value / count).cpu(), count, corpus.name) for layer, value in sums.items()}


def _adder(total: torch.Tensor, mask: torch.Tensor) -> Any:
    def add(received: torch.Tensor, _: Any) -> None:
        keys = by_token(received, *mask.shape)[mask.to(received.device).bool()].to(total)
        total.addmm_(keys.T, keys)

    return add


def _resume(partial: Path | None, sums: dict[int, torch.Tensor]) -> tuple[int, int]:
    if partial is None or not partial.is_file():
        return 0, 0
    try:
        with np.load(partial, allow_pickle=False) as data:
            for layer, value in sums.items():
                value.copy_(torch.from_numpy(data[f"layer.{layer}"]))
            return int(data["count"]), int(data["pieces"])
    except Exception as error:  # a file cut short by a full disk: start over
        logger.warning("the interrupted statistics in %s are unusable (%s): starting over", partial, error)
        for value in sums.values():
            value.zero_()
        return 0, 0


def _pieces(tokenizer: Any, corpus: Corpus, hparams: LocateEditHyperParams) -> Iterator[list[int]]:
    """Token ids of the documents, long ones cut into pieces."""
    length = hparams.mom2_document_tokens
    for number, text in enumerate(corpus.documents()):
        if number >= hparams.mom2_n_samples:
            return
        ids = list(tokenizer(text)["input_ids"])
        yield from (ids[i : i + length] for i in range(0, len(ids), length))


def _batches(
    pieces: Iterator[list[int]], hparams: LocateEditHyperParams, *, skip: int, counted: int
) -> Iterator[tuple[list[list[int]], int]]:
    """Batches of pieces within the token budgets, and how many pieces each took from the stream."""
    batch: list[list[int]] = []
    taken, budget = 0, hparams.mom2_max_tokens
    for number, piece in enumerate(pieces):
        if number < skip:
            continue
        if budget is not None:
            piece = piece[: budget - counted]
        taken += 1
        if not piece:
            break
        widest = max(len(piece), *(len(row) for row in batch)) if batch else len(piece)
        if batch and widest * (len(batch) + 1) > hparams.mom2_batch_tokens:
            yield batch, taken - 1
            batch, taken = [], 1
        batch.append(piece)
        counted += len(piece)
    if batch:
        yield batch, taken


class KeySpace:
    """Solves C x = k for one layer, its factor computed once."""

    def __init__(self, moment: Moment, layer: int, ridge: float = 0.0, device: Any = "cpu") -> None:
        """Factor the moment.

        Args:
            ridge: Added to the diagonal, as a share of its mean.
            device: Where the factor is computed; it is kept in host memory, which is larger.

        Raises:
            EditFailedError: The moment is singular.
        """
        self.moment = moment
        matrix = moment.matrix.to(device, torch.double)
        matrix = (matrix + matrix.T) / 2
        if ridge:
            matrix.diagonal().add_(ridge * matrix.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(matrix)
        diagonal = factor.diagonal()
        smallest = float((diagonal.min() / diagonal.max()) ** 2)
        flat = bool(failed) or smallest < len(matrix) * torch.finfo(torch.double).eps
        if flat or (moment.count < len(matrix) and not ridge):
            raise EditFailedError(
                f"The second moment of layer {layer}'s keys ({len(matrix)}×{len(matrix)}, {moment.count} tokens of "
                f"{moment.source}) is singular: give more text (`mom2_dataset`, `mom2_n_samples`, `mom2_max_tokens`), "
                "sum it up in float64 (`mom2_dtype`), or set `mom2_ridge`, for example to 1e-4. The model is as it was."
            )
        self._factor = factor.cpu()

    def solve(self, keys: torch.Tensor) -> torch.Tensor:
        """C⁻¹ K for `(features, n)` keys, in float64."""
        return torch.cholesky_solve(keys.to(self._factor), self._factor)
