"""Save an edited model or adapter beside its cards: all of it, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import CausalEditError, SaveError
from causaledit.models.adapters import name_base_model
from causaledit.models.history import CARD_NAME, as_card, card_file, cards_of, read_card
from causaledit.models.loading import load_config
from causaledit.models.model_card import model_card
from causaledit.models.origin import Origin, find_origin
from causaledit.models.originals import ORIGINALS, carry_originals, keep_originals
from causaledit.models.sharded import is_sharded, own_tensors
from causaledit.support.files import check_writable, read_object
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from causaledit.models.history import Card


_SHOWN = 40  # characters of a folder's name in that of its scratch folder: at most 160 of the 255 bytes there are


def template_kwargs_of(model: str | Path) -> dict[str, Any] | None:
    """The arguments of the chat template that a saved result was edited with, from its card; None where it has none.

    Args:
        model: A folder, or a model's name on the Hub.
    """
    file = card_file(model, fetch=True)
    hparams = read_object(file).get("hparams") if file is not None else None
    return hparams.get("chat_template_kwargs") if isinstance(hparams, dict) else None


class HasCard(Protocol):
    """A method's report, which can be shown as a card."""

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """What was done, as plain data."""
        ...


def save_result(
    folder: Path,
    model: Any,
    tokenizer: Any,
    hparams: Any,
    report: HasCard,
    metrics: list[dict[str, Any]],
    *,
    originals: Mapping[str, torch.Tensor] | None = None,
    name: str | None = None,
) -> Path:
    """Save model (or adapter), tokenizer and cards: all of it, or nothing.

    Everything goes into a hidden folder beside the target first; one rename puts it in place. What is saved
    loads with plain transformers (a model) or peft (an adapter). `causaledit.json` holds all that is known of the
    edit, and of those made on the model before; `README.md` is the Hub's model card, for readers.

    Args:
        folder: A new or empty folder.
        model: What the method gave back: a model, or a PeftModel whose adapter alone is saved.
        tokenizer: Its tokenizer.
        hparams: The method's hyper-parameters.
        report: The method's report of this edit.
        metrics: What the host measured, one entry an edit.
        originals: The tensors that the edit changed, as they were, by name (`Edited.weights_copy`): kept in the folder,
            for `undo`. Those that the base model's folder holds of earlier edits are then kept too.
        name: Under which the model card's examples load it; the folder's by default.

    Raises:
        SaveError: The disk is full or cannot be written; nothing is left behind.
    """
    folder, base = expanded(folder), hparams.to_dict()["model_name"]
    earlier = cards_of(read_card(base))
    with saved_whole(folder) as scratch:
        origin = find_origin(base)
        # a GGUF file by its whole path: the adapter is not loaded from this working folder alone
        name_base_model(model, origin.path or str(expanded(origin.name).absolute()))
        # of several processes the first one saves, alone
        model.save_pretrained(scratch, **({"state_dict": own_tensors(model)} if is_sharded(model) else {}))
        tokenizer.save_pretrained(scratch)
        card = {**report.card(hparams, metrics), "origin": dataclasses.asdict(origin)}
        if originals:
            card[ORIGINALS] = keep_originals(scratch, len(earlier) + 1, originals, model, _dtype_of(base))
            carry_originals(expanded(base), scratch, earlier)
        write_cards(scratch, [*earlier, card], name or name_of(folder), getattr(model, "active_peft_config", None))
    return folder


def name_of(folder: Path) -> str:
    """A folder's own name, also where it was given as `.` or `..`."""
    return Path(os.path.normpath(expanded(folder).absolute())).name  # `resolve` would give the name behind a link


def write_cards(folder: Path, cards: list[Card], name: str, adapter: Any = None) -> None:
    """Write a model's card and README.

    Args:
        folder: The model's; what peft wrote there is replaced.
        cards: Of all edits, oldest first.
        name: Under which the examples load it.
        adapter: As in `model_card`.
    """
    card = as_card(cards)
    text = json.dumps(card, ensure_ascii=False, indent=1, default=str)
    (folder / CARD_NAME).write_text(text + "\n", encoding="utf-8")
    model_card(name, card, _origin_in(card), adapter).save(folder / "README.md")


def _origin_in(card: Card) -> Origin:
    """The base model that a card names; found again for a card of before, which does not."""
    noted = card.get("origin")
    return Origin(**noted) if isinstance(noted, dict) else find_origin(card["hparams"]["model_name"])


def _dtype_of(base: str) -> str | None:
    """The type of a model's own files, which may be loaded in another (float32 on a CPU)."""
    try:
        dtype = load_config(base).dtype
    except CausalEditError:  # a model in memory, a GGUF file
        return None
    return None if dtype is None else str(dtype).removeprefix("torch.")


def check_new_folder(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written, or that holds something, before any compute.

    Raises:
        SaveError: The message names the option and the folder.
    """
    check_writable(folder, option)
    folder = expanded(folder)
    if folder.exists() and any(folder.iterdir()):
        raise SaveError(f"{option} {str(folder)!r} is not empty: give a new folder, so that no model is overwritten.")


@contextlib.contextmanager
def saved_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder to save into, whose contents become those of another one when the block ends well.

    It lies beside a new folder, and within an empty one, which stays where it is: it may be a mount, a link or the
    working folder, and nothing may be allowed beside it.

    Args:
        folder: A new or empty folder.

    Raises:
        SaveError: The disk is full or cannot be written: nothing is left behind. Or somebody else has put something in
            the folder's place: what was saved stays, and the message says where.
    """
    folder = expanded(folder)
    scratch: Path | None = None
    whole = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        within = folder.is_dir()
        # a part of the name: with more behind it, a long one would be too long for a file system
        scratch = Path(
            tempfile.mkdtemp(dir=folder if within else folder.parent, prefix=f".{name_of(folder)[:_SHOWN]}-")
        )
        yield scratch
        whole = True
        if within:
            _move_up(scratch)
        else:
            scratch.chmod(0o755)
            scratch.replace(folder)
    except Exception as error:  # safetensors reports a full disk with an error class of its own
        reason = getattr(error, "strerror", None) or error
        if whole and scratch is not None:
            kept, scratch = scratch, None
            raise SaveError(
                f"The result cannot be put in place of {str(folder)!r}: {reason}. It is whole in {str(kept)!r}: move "
                "that folder to where you want it."
            ) from error
        raise SaveError(f"The result cannot be saved to {str(folder)!r}: {reason}.") from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _move_up(scratch: Path) -> None:
    """Move all that a folder holds into the one that it lies in, and remove it; after an exception it holds it still.

    Raises:
        OSError: The other folder is no longer empty.
    """
    folder = scratch.parent
    if [entry for entry in folder.iterdir() if entry != scratch]:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    moved: list[str] = []
    try:
        for entry in sorted(scratch.iterdir()):
            moved.append(entry.name)
            entry.replace(folder / entry.name)
    except BaseException:
        for name in moved:
            with contextlib.suppress(OSError):
                (folder / name).replace(scratch / name)
        raise
    scratch.rmdir()
