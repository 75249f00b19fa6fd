"""Save an edited model or adapter beside its cards: all of it, or nothing."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from causaledit.errors import SaveError
from causaledit.models.adapters import name_base_model
from causaledit.models.model_card import model_card
from causaledit.models.origin import find_origin

CARD_NAME = "causaledit.json"


def template_kwargs_of(model: str | Path) -> dict[str, Any] | None:
    """The arguments of the chat template that a saved result was edited with, from its card; None where it has none."""
    try:
        card = json.loads((Path(model).expanduser() / CARD_NAME).read_text(encoding="utf-8"))
        return card["hparams"]["chat_template_kwargs"]
    except (OSError, ValueError, KeyError, TypeError):  # no card, or one of before: the template's own defaults
        return None


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
) -> Path:
    """Save model (or adapter), tokenizer and cards: all of it, or nothing.

    Everything goes into a hidden folder beside the target first; one rename puts it in place. What is saved
    loads with plain transformers (a model) or peft (an adapter). `causaledit.json` holds all that is known of the
    edit; `README.md` is the Hub's model card, for readers.

    Args:
        folder: A new or empty folder.
        model: What the method gave back: a model, or a PeftModel whose adapter alone is saved.
        tokenizer: Its tokenizer.
        hparams: The method's hyper-parameters.
        report: The method's report of this edit.
        metrics: What the host measured, one entry an edit.

    Raises:
        SaveError: The disk is full or cannot be written; nothing is left behind.
    """
    folder = folder.expanduser()
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        origin = find_origin(hparams.to_dict()["model_name"])
        name_base_model(model, origin.path or origin.name)
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        card = report.card(hparams, metrics)
        text = json.dumps(card, ensure_ascii=False, indent=1, default=str)
        (scratch / CARD_NAME).write_text(text + "\n", encoding="utf-8")
        adapter = getattr(model, "active_peft_config", None)
        # after peft, which fills a template of its own
        model_card(folder.name, card, origin, adapter).save(scratch / "README.md")
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()  # only an empty one: anything else is refused above
        scratch.replace(folder)
    except Exception as error:  # safetensors reports a full disk with an error class of its own
        reason = getattr(error, "strerror", None) or error
        raise SaveError(f"The result cannot be saved to {str(folder)!r}: {reason}.") from error
    finally:
        if scratch is not None and scratch.exists():
            shutil.rmtree(scratch, ignore_errors=True)
    return folder
