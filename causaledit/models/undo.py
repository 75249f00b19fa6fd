"""Take the last edits of a saved model back, bit for bit: from the originals that were kept, or by leaving an adapter.

plan_undo(folder, first) → Undo → undo.save(target)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from causaledit.errors import ModelError
from causaledit.models.embedded import embedded_name
from causaledit.models.history import CARD_NAME, cards_of, read_card
from causaledit.models.loading import DTYPES, load_config, load_model
from causaledit.models.originals import ORIGINALS, carry_originals, kept_file
from causaledit.models.saving import name_of, saved_whole, write_cards
from causaledit.models.weights import restore, revision_of
from causaledit.support.files import read_object
from causaledit.support.paths import expanded, is_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.models.history import Card


@dataclass(frozen=True)
class Undo:
    """What takes edits back.

    Attributes:
        place: The model to begin with: a folder, or what an adapter names as its base model.
        cards: Of the edits that stay, oldest first.
        undone: Of those that go, oldest first.
        files: The originals to put back, in the order of the edits; none where only an adapter is left.
        revision: Of the weights that the originals belong to.
    """

    place: str
    cards: list[Card]
    undone: list[Card]
    files: list[Path]
    revision: str | None

    def save(self, folder: Path) -> Path:
        """Put the originals back and save the model as it was before.

        Args:
            folder: A new or empty folder.

        Raises:
            ModelError: The weights are not those that the last edit left.
            SaveError: The folder cannot be written; nothing is left behind.
        """
        model, tokenizer = load_model(self.place, device="cpu", dtype=_own_dtype(self.place))
        network: Any = model
        if self.files:
            if revision_of(network) != self.revision:
                raise ModelError(
                    f"The weights in {self.place!r} are not those that its last edit left (trained or converted "
                    "since?): putting the originals back would not give the model before the edit. Take the folder as "
                    "it was saved."
                )
            for file in reversed(self.files):
                _put_back(network, file)
            _cast_back(network, self.undone[0].get(ORIGINALS, {}).get("base_dtype"))
        with saved_whole(folder) as scratch:
            network.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            if self.cards:
                carry_originals(Path(self.place), scratch, self.cards)
                write_cards(scratch, self.cards, name_of(folder))
        return folder


def plan_undo(model: str, first: int | None = None) -> Undo:
    """Find what takes the last edits of a model back; nothing is loaded.

    Args:
        model: A saved model's or adapter's folder.
        first: The first of the edits to take back, counted from 1; the last one by default.

    Raises:
        ModelError: It is no folder of an edited model, has no edit of that number, or lacks what undoes one of them.
    """
    place = expanded(model)
    if not is_folder(place):
        raise ModelError(f"The model folder {model!r} does not exist: give the folder that an edit was saved to.")
    cards = cards_of(read_card(place))
    if not cards:
        raise ModelError(
            f"The model {model!r} has no edits to take back: there is no {CARD_NAME} in it. Give the folder that an "
            "edit was saved to."
        )
    first = len(cards) if first is None else first
    if not 1 <= first <= len(cards):
        counted = "one edit" if len(cards) == 1 else f"{len(cards)} edits"
        raise ModelError(
            f"--edit {first}: {model!r} has {counted}: give 1 to {len(cards)} (`causaledit history` lists them)."
        )
    stay, undone = cards[: first - 1], cards[first - 1 :]
    if (adapter := place / "adapter_config.json").is_file():
        base = _base_of(adapter)
        place = Path(base)
        if len(cards) > 1:
            _check_base(base, cards)
        if len(undone) == 1:
            return Undo(base, stay, undone, [], None)
        cards = cards[:-1]
    files = _originals(place, cards, first)
    note = cards[first - 2 + len(files)][ORIGINALS]
    return Undo(str(place), stay, undone, files, note.get("revision"))


def _base_of(config: Path) -> str:
    """The base model of an adapter, as `load_model` finds it."""
    base = str(read_object(config).get("base_model_name_or_path") or "")
    if not base:
        raise ModelError(
            f"The adapter {str(config.parent)!r} names no base model: set `base_model_name_or_path` in its "
            "adapter_config.json."
        )
    return base if Path(base).exists() else embedded_name(Path(base)) or base


def _check_base(base: str, cards: Sequence[Card]) -> None:
    """The adapter's base must still be the model that the edits before the adapter left."""
    if cards_of(read_card(base, fetch=True)) != list(cards[:-1]):
        raise ModelError(
            f"The adapter's base model {base!r} is no longer the one with {len(cards) - 1} edit(s) that the "
            "adapter was made on: put that folder back, or name it in the adapter's adapter_config.json."
        )


def _originals(place: Path, cards: Sequence[Card], first: int) -> list[Path]:
    """The files of the originals of the edits from `first` on; the last edit without them is the one to name."""
    files: list[Path] = []
    for number, card in reversed(list(enumerate(cards[first - 1 :], start=first))):
        file = kept_file(place, card)
        if file is None:
            base = (card.get("origin") or {}).get("path")
            instead = f" The model before it is still in {base!r}." if base and Path(base).is_dir() else ""
            raise ModelError(
                f"--edit {first}: the originals of edit {number} were not kept in {str(place)!r}, so that it cannot be "
                f"taken back.{instead} Edit with --keep-originals next time."
            )
        files.insert(0, file)
    return files


def _own_dtype(model: str) -> str:
    """The type of the model's own files."""
    try:
        name = str(load_config(model).dtype).removeprefix("torch.")
    except ModelError:  # a GGUF file
        return "auto"
    return name if name in DTYPES else "auto"


def _put_back(model: Any, file: Path) -> None:
    try:
        restore(model, load_file(file))
    except (AttributeError, RuntimeError, OSError) as error:
        raise ModelError(f"The originals in {str(file)!r} do not fit the model: {error}") from None


@torch.no_grad()
def _cast_back(model: Any, dtype: str | None) -> None:
    """Give parameters the type of the base model's files, where that loses nothing.

    On a CPU a bfloat16 model is edited in float32. Every value then came from bfloat16, and goes back there.
    """
    if dtype not in DTYPES:
        return
    wanted = getattr(torch, dtype)
    if all(torch.equal(value.to(wanted).to(value.dtype), value) for value in model.parameters()):
        model.to(wanted)
