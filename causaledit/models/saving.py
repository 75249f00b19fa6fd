"""Save an edited model or adapter beside its cards: all of it, or nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from causaledit.errors import CausalEditError, SaveError
from causaledit.models.adapters import name_base_model
from causaledit.models.history import CARD_NAME, as_card, cards_of, read_card
from causaledit.models.loading import load_config
from causaledit.models.model_card import model_card
from causaledit.models.origin import Origin, find_origin
from causaledit.models.originals import ORIGINALS, carry_originals, keep_originals
from causaledit.models.sharded import is_sharded, own_tensors
from causaledit.support.files import check_writable, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from causaledit.models.history import Card


def template_kwargs_of(model: str | Path) -> dict[str, Any] | None:
    """The arguments of the chat template that a saved result was edited with, from its card; None where it has none."""
    hparams = read_object(Path(model).expanduser() / CARD_NAME).get("hparams")
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
    folder, base = folder.expanduser(), hparams.to_dict()["model_name"]
    earlier = cards_of(read_card(base))
    with saved_whole(folder) as scratch:
        origin = find_origin(base)
        name_base_model(model, origin.path or origin.name)
        # of several processes the first one saves, alone
        model.save_pretrained(scratch, **({"state_dict": own_tensors(model)} if is_sharded(model) else {}))
        tokenizer.save_pretrained(scratch)
        card = {**report.card(hparams, metrics), "origin": dataclasses.asdict(origin)}
        if originals:
            card[ORIGINALS] = keep_originals(scratch, len(earlier) + 1, originals, model, _dtype_of(base))
            carry_originals(Path(base).expanduser(), scratch, earlier)
        write_cards(scratch, [*earlier, card], name or folder.name, getattr(model, "active_peft_config", None))
    return folder


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
    folder = folder.expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise SaveError(f"{option} {str(folder)!r} is not empty: give a new folder, so that no model is overwritten.")


@contextlib.contextmanager
def saved_whole(folder: Path) -> Iterator[Path]:
    """A hidden folder beside a new one, to save into: it takes its place when the block ends well.

    Raises:
        SaveError: The disk is full or cannot be written; nothing is left behind.
    """
    folder = folder.expanduser()
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        yield scratch
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # only an empty one: anything else is refused before
        scratch.replace(folder)
    except Exception as error:  # safetensors reports a full disk with an error class of its own
        reason = getattr(error, "strerror", None) or error
        raise SaveError(f"The result cannot be saved to {str(folder)!r}: {reason}.") from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
