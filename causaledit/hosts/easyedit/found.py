"""Where EasyEdit is, and whether it can be used."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from causaledit.errors import HostError, one_line
from causaledit.hosts.easyedit.requirements import ENTRY_MODULES, install_lines, missing_packages
from causaledit.support.paths import expanded
from causaledit.support.torchvision import make_torchvision_importable

HOME_VARIABLE = "EASYEDIT_HOME"


_MARK = "__causaledit__"


def is_available() -> bool:
    """Whether EasyEdit can be imported, also from the folder in `EASYEDIT_HOME`.

    Raises:
        HostError: `EASYEDIT_HOME` is set and holds no EasyEdit.
    """
    _add_home_to_path()
    return importlib.util.find_spec("easyeditor") is not None


def _add_home_to_path() -> None:
    home = os.environ.get(HOME_VARIABLE)
    if not home:
        return
    folder = expanded(home).resolve()
    if not (folder / "easyeditor" / "__init__.py").is_file():
        raise HostError(
            f"{HOME_VARIABLE} is {home!r}, but there is no easyeditor/ package in it: name the folder of an "
            "EasyEdit checkout, or unset it to use the embedded host."
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


class _Parts(NamedTuple):
    """The modules of EasyEdit that matter here."""

    easyeditor: Any
    algorithms: Any
    batches: Any
    editors: Any


def _import_parts() -> _Parts:
    """Import EasyEdit and see that it is new enough.

    Raises:
        HostError: There is no EasyEdit, it cannot be imported, or it is too old.
    """
    if not is_available():
        raise HostError(
            "EasyEdit (the package `easyeditor`) is not importable: set EASYEDIT_HOME to a checkout of it, or use "
            "causaledit's embedded host (causaledit.EmbeddedEditor)."
        )
    make_torchvision_importable()
    try:
        parts = _Parts(*(importlib.import_module(name) for name in ENTRY_MODULES))
        utilities = importlib.import_module("easyeditor.editors.utils")
        base_editor, batch_editor = parts.editors.BaseEditor, parts.batches.BatchEditor
        _ = parts.algorithms.ALG_DICT
    except Exception as error:  # whatever its own import runs into
        raise HostError(f"{_where()} cannot be imported here: {_reason(error)}") from error
    missing = [name for name in ("restore_after_edit", "_prepare_requests") if not hasattr(utilities, name)]
    if missing or not hasattr(base_editor, "edit_requests") or not hasattr(batch_editor, "is_batchable_method"):
        raise HostError(
            f"{_where()} is too old for this plugin (it lacks {', '.join(missing) or 'edit_requests'}): update the "
            "checkout to its main branch of 2026 or later."
        )
    return parts


def home_folder() -> Path | None:
    """The folder of the EasyEdit that would be imported (its `hparams/` lie there), or None.

    Raises:
        HostError: `EASYEDIT_HOME` is set and holds no EasyEdit.
    """
    if not is_available():
        return None
    spec = importlib.util.find_spec("easyeditor")
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _where() -> str:
    return f"The EasyEdit at {home_folder() or 'an unknown place'}"


def _reason(error: Exception) -> str:
    """Why its import failed: everything that is missing, with the commands that bring it, or its own error."""
    import torch

    home = home_folder()
    missing = [needed.name for needed in missing_packages(home)] if home else []
    if not missing:
        return f"{one_line(error)}. `causaledit doctor` looks closer."
    gpu = torch.version.cuda is not None or torch.version.hip is not None
    return f"it needs {', '.join(missing)}. Install them: {'; '.join(install_lines(missing, gpu=gpu))}"
