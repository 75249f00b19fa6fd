"""Second moments of keys for EasyEdit's MEMIT, AlphaEdit and their kin, where its Wikipedia is not wanted.

EasyEdit reads them from a file under `stats_dir`, or downloads Wikipedia. A file in its format whose `mom2_dataset`
names none of its data sets, but a text, a folder or nothing (the model's own samples), gets them from our collection
instead: they are put where EasyEdit keeps what it has read, for the time of the edit.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.shared.locate_edit.corpus import KNOWN_DATASETS
from causaledit.methods.shared.locate_edit.covariance import moments_for
from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams
from causaledit.models.layout import find_layout
from causaledit.support.paths import cache_dir
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from causaledit.methods.call import Call
    from causaledit.methods.shared.locate_edit.stored import Moment

# these read second moments only with `mom2_adjustment`; the others always do
_OPTIONAL = ("ROME", "R-ROME")
_PATHS = ("rewrite_module_tmp", "layer_module_tmp", "ln_f_module", "lm_head_module")
_FIGURES = ("mom2_n_samples", "mom2_max_tokens", "mom2_dtype", "seed")
# what AlphaEdit and SPHERE leave in the current folder, whatever `P_loc` says
_WRITTEN = "null_space_project.pt"


@contextlib.contextmanager
def own_statistics(name: str, model: Any, tokenizer: Any, hparams: Any, call: Call) -> Iterator[None]:
    """Run an edit of EasyEdit with second moments of ours, where its file asks for them.

    Args:
        name: The `alg_name`.
        model, tokenizer: The unedited model.
        hparams: EasyEdit's; its `P_loc` may be set to a file in our cache.
        call: What it is part of.

    Raises:
        HparamsError: `mom2_dataset` names no text that can be read.
        ModelError: The model has no such layers.
    """
    if not _wanted(name, hparams):
        yield
        return
    kept: dict[int, Moment] = {} if call.sequence is None else call.sequence.memory(f"easyedit:{name}:moments", dict)
    if not kept:  # the edits of a sequence go by the model as it was before them
        with call.report.tally.timed("statistics"), seeded(hparams.seed):
            kept.update(_moments(model, tokenizer, hparams, call))
    with _put_in(name, model, hparams, kept), _projections(hparams, kept):
        yield


def _moments(model: Any, tokenizer: Any, hparams: Any, call: Call) -> dict[int, Moment]:
    given: dict[str, Any] = {key: getattr(hparams, key) for key in _FIGURES}
    given |= {key: getattr(hparams, key, None) for key in _PATHS}
    settings = LocateEditHyperParams(layers=list(hparams.layers), mom2_dataset=hparams.mom2_dataset or None, **given)
    layout = find_layout(model, settings)
    return moments_for(model, tokenizer, layout, settings.layers, settings, call.progress)


def _wanted(name: str, hparams: Any) -> bool:
    if not hasattr(hparams, "mom2_dataset") or hparams.mom2_dataset in KNOWN_DATASETS:
        return False
    return name not in _OPTIONAL or bool(hparams.mom2_adjustment)


@contextlib.contextmanager
def _put_in(name: str, model: Any, hparams: Any, moments: Mapping[int, Moment]) -> Iterator[None]:
    """Fill what EasyEdit's modules keep of statistics, by model and layer; afterwards it is as before."""
    label = str(getattr(model.config, "_name_or_path", "")).replace("/", "_")
    variable = "inv_mom2_cache" if name in _OPTIONAL else "COV_CACHE"
    filled = {}
    for layer, moment in moments.items():
        matrix = torch.inverse(moment.matrix.double()) if name in _OPTIONAL else moment.matrix
        filled[label, hparams.rewrite_module_tmp.format(layer)] = matrix.float().to(model.device)
    caches = [vars(module).get(variable) for key, module in sys.modules.items() if key.startswith("easyeditor.models.")]
    before = [(cache, dict(cache)) for cache in caches if isinstance(cache, dict)]
    try:
        for cache, _ in before:
            cache.update(filled)
        yield
    finally:
        for cache, earlier in before:
            cache.clear()
            cache.update(earlier)


@contextlib.contextmanager
def _projections(hparams: Any, moments: Mapping[int, Moment]) -> Iterator[None]:
    """Keep the null-space projections that EasyEdit computes of these moments, in our cache instead of anywhere.

    A `P_loc` that exists is used as it is.
    """
    if not hasattr(hparams, "P_loc") or Path(hparams.P_loc).is_file():
        yield
        return
    content = hashlib.sha256(repr((sorted(moments), hparams.nullspace_threshold)).encode())
    for layer in sorted(moments):
        content.update(moments[layer].matrix.contiguous().numpy().tobytes())
    file = cache_dir() / "statistics" / f"easyedit-null-space-{content.hexdigest()[:32]}.pt"
    hparams.P_loc = str(file)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield
        written = Path(folder) / _WRITTEN
        if written.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".part")
            partial.write_bytes(written.read_bytes())
            partial.replace(file)
