"""The files of a model folder, looked at before anything is loaded from them.

What a `git clone` without Git LFS, a download that broke off or a full disk leaves behind fails deep inside a reader,
which names neither the file nor the cause.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from causaledit.errors import ModelError
from causaledit.support.paths import is_file

if TYPE_CHECKING:
    from pathlib import Path

_POINTER = b"version https://git-lfs"  # how a pointer of Git LFS begins
_NAMES = ("config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "adapter_config.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")


def is_adapter_alone(folder: Path) -> bool:
    """Whether a folder holds an adapter, and not the model that it changes."""
    return is_file(folder / "adapter_config.json") and not is_file(folder / "config.json")


def check_folder(folder: Path) -> None:
    """Refuse a folder of which a file that would be read is a pointer, empty, cut off or missing.

    Raises:
        ModelError: It names the file, what it is, and what to do.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            check_file(folder / name)
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            check_file(folder / name)
        elif index.is_file():
            check_file(index)
            for shard in _shards(index):
                if not (folder / shard).is_file():
                    raise ModelError(
                        f"The file {str(folder / shard)!r} is missing, and {index.name} names it: download it."
                    )
                check_file(folder / shard)
        else:
            continue
        return  # the first of them is what is read


def check_file(file: Path) -> None:
    """Refuse a pointer of Git LFS, an empty file, and a safetensors file that ends before its last tensor."""
    with file.open("rb") as stream:
        head = stream.read(len(_POINTER))
    if head == _POINTER:
        raise ModelError(
            f"The file {str(file)!r} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder, "
            "or download it."
        )
    size = file.stat().st_size
    if not size:
        raise ModelError(f"The file {str(file)!r} is empty: download it again.")
    if file.suffix == ".safetensors" and size != (whole := _safetensors_size(file)):
        wanted = f"has {size} bytes of {whole}" if whole and whole > size else "is damaged or no safetensors file"
        raise ModelError(f"The file {str(file)!r} {wanted}: download it again.")


def _safetensors_size(file: Path) -> int | None:
    """The size that a safetensors file's own header gives it (8 bytes, the header, the tensors); None without one."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > 100_000_000:  # the format's own limit
            return None
        header = stream.read(length)
    if len(header) < length:
        return 8 + length
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return 8 + length + max(ends, default=0)


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"The file {str(index)!r} is not a readable index of weights: download it again.") from None
