"""Whether two names mean the same model: told from the files, before anything is loaded."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError
from causaledit.support.paths import exists, expanded

if TYPE_CHECKING:
    from collections.abc import Iterable

# what decides what a model says; the rest of a folder (readme, optimizer) may differ
_ENDINGS = (".safetensors", ".bin", ".gguf", ".pt")
_CONFIGURATIONS = ("config.json", "adapter_config.json")
_BLOCK = 1 << 20


def same_models(names: Iterable[Any]) -> bool:
    """Whether all of them are one model.

    Args:
        names: As in `load_model`: folders, hub names, GGUF files, embedded names, pairs.

    Returns:
        True for equal names, for names of one folder, and for folders whose weights and configuration are equal byte
        for byte. A hub name that is not in the cache is equal to itself only.
    """
    places = list(dict.fromkeys(_place(name) for name in names))
    if len(places) < 2:
        return True
    if not all(isinstance(place, Path) and exists(place) for place in places):
        return False
    files = [_files(place) for place in places if isinstance(place, Path)]
    first, *others = files
    if any(_sizes(other) != _sizes(first) for other in others):
        return False
    return all(_content(a) == _content(b) for other in others for (_, a), (_, b) in zip(first, other, strict=True))


def _place(name: Any) -> Any:
    """Where a model's files are: a real path; a hub name that is not there; or the pair's own identity."""
    if not isinstance(name, str | os.PathLike):
        return tuple(id(part) for part in name) if isinstance(name, tuple | list) else id(name)
    path = expanded(name)
    if exists(path):
        return path.resolve()
    from causaledit.models.embedded import EMBEDDED_MODELS, ensure_embedded_model

    if str(name) in EMBEDDED_MODELS:
        try:
            return ensure_embedded_model(str(name)).resolve()
        except ModelError:  # it is said when the model is loaded
            return str(name)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import HFValidationError

    try:
        cached = try_to_load_from_cache(str(name), "config.json")
    except HFValidationError:  # a path that does not exist
        return str(name)
    return Path(cached).parent.resolve() if isinstance(cached, str) else str(name)


def _files(place: Path) -> list[tuple[str, Path]]:
    if place.is_file():
        return [("", place)]
    found = [file for file in sorted(place.iterdir()) if file.suffix in _ENDINGS or file.name in _CONFIGURATIONS]
    return [(file.name, file.resolve()) for file in found]


def _sizes(files: list[tuple[str, Path]]) -> list[tuple[str, int]]:
    return [(name, path.stat().st_size) for name, path in files]


def _content(file: Path) -> str:
    state = file.stat()
    return _digest(file, state.st_size, state.st_mtime_ns)


@functools.cache
def _digest(file: Path, size: int, changed: int) -> str:
    """Of a file in the state of that size and time: weights are many, and several methods name them."""
    whole = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            whole.update(block)
    return whole.hexdigest()
