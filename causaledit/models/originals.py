"""The tensors that an edit changed, as they were before: kept beside a saved model, so that the edit can be undone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from causaledit.errors import SaveError
from causaledit.models.weights import revision_of
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from causaledit.models.history import Card

ORIGINALS = "originals"  # the folder, and the card's key


def size_of(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def check_room(folder: Path, originals: int, model: int) -> None:
    """Refuse a disk that cannot hold the result, before an edit that could then not be saved.

    Args:
        folder: Where the model will be saved.
        originals: Bytes of the originals; 0 where none are kept.
        model: Bytes of the model.

    Raises:
        SaveError: There is not enough room.
    """
    existing = expanded(folder).absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free >= originals + model:
        return
    if not originals:
        raise SaveError(
            f"--save needs {gib(model)} for the model, and {str(existing)!r} has {gib(free)} free: give a folder on "
            "another disk, or make room."
        )
    raise SaveError(
        f"--keep-originals needs {gib(originals)} beside a model of {gib(model)}, and {str(existing)!r} has "
        f"{gib(free)} free: leave the option out, or give --save on another disk."
    )


def keep_originals(
    folder: Path, number: int, originals: Mapping[str, torch.Tensor], model: Any, base_dtype: str | None
) -> dict[str, Any]:
    """Write an edit's originals into a model's folder.

    Args:
        folder: The model's.
        number: Of the edit.
        originals: By parameter name.
        model: The edited model, which the note identifies.
        base_dtype: The type of the base model's own files, where known.

    Returns:
        The note for the card: file, number of tensors and bytes, and by what `undo` knows the model again.
    """
    file = Path(ORIGINALS) / f"edit-{number}.safetensors"
    (folder / ORIGINALS).mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in originals.items()}, folder / file, {"format": "pt"})
    return {
        "file": file.as_posix(),
        "tensors": len(originals),
        "bytes": size_of(originals),
        "base_dtype": base_dtype,
        "revision": revision_of(model),
    }


def kept_file(folder: Path, card: Card) -> Path | None:
    """The file of an edit's originals in a model's folder; None where they were not kept."""
    note = card.get(ORIGINALS)
    name = note.get("file") if isinstance(note, dict) else None
    file = folder / str(name)
    return file if name and Path(name).parent == Path(ORIGINALS) and file.is_file() else None


def carry_originals(source: Path, target: Path, cards: Sequence[Card]) -> None:
    """Copy what is kept of earlier edits from the model they were made on to the one made from it."""
    for card in cards:
        if (file := kept_file(source, card)) is not None:
            (target / ORIGINALS).mkdir(exist_ok=True)
            shutil.copy2(file, target / ORIGINALS / file.name)


def gib(count: int) -> str:
    """Bytes as text."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 / 100 else f"{count / 2**20:.2f} MiB"
