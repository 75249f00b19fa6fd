"""Save an edited model or adapter, with a `causaledit.json` card that says how it came to be."""

from __future__ import annotations

import datetime
import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import SaveError

if TYPE_CHECKING:
    from causaledit.methods.causal_edit.apply import EditReport
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams

CARD_NAME = "causaledit.json"
_PACKAGES = ("causaledit", "torch", "transformers", "trl", "peft", "accelerate")


def versions() -> dict[str, str]:
    """Versions of what an edit depends on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # causaledit itself, run from a checkout
            found[package] = "not installed"
    return found


def build_card(hparams: CausalEditHyperParams, report: EditReport, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The card's content: requests with narratives, hyper-parameters, versions, metrics, cost."""
    return {
        "method": hparams.alg_name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "requests": [request.to_dict() for request in report.requests],
        "narrative_source": report.narrative_source,
        "teacher": report.teacher,
        "teacher_accuracy": report.teacher_accuracy,
        "traces": [vars(trace) for trace in report.traces],
        "losses": report.losses,
        "hparams": hparams.to_dict(),
        "versions": versions(),
        "metrics": metrics,
        "seconds": report.tally.seconds,
        "tokens": vars(report.tally.tokens),
    }


def save_result(
    folder: Path,
    model: Any,
    tokenizer: Any,
    hparams: CausalEditHyperParams,
    report: EditReport,
    metrics: list[dict[str, Any]],
) -> Path:
    """Save model (or adapter), tokenizer and card: all of it, or nothing.

    Everything goes into a hidden folder beside the target first; one rename puts it in place. What is saved
    loads with plain transformers (a model) or peft (an adapter).

    Raises:
        SaveError: The disk is full or cannot be written; nothing is left behind.
    """
    folder = folder.expanduser()
    scratch: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        if hasattr(model, "peft_config"):  # so that peft finds the base model again
            model.peft_config["default"].base_model_name_or_path = hparams.to_dict()["model_name"]
        model.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        card = json.dumps(build_card(hparams, report, metrics), ensure_ascii=False, indent=1, default=str)
        (scratch / CARD_NAME).write_text(card + "\n", encoding="utf-8")
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
