"""Put CausalEdit into an importable EasyEdit, without touching its files.

What a host needs to know: EasyEdit restores a non-sequential edit by parameter name from the returned
`weights_copy`, which is exact for a method that merges its adapter and hands back the originals. With
`merge_adapter: false` there is nothing to copy back, so the adapter is taken off by the wrapper here.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import os
import sys
import weakref
from pathlib import Path
from typing import Any

from causaledit.errors import HostError
from causaledit.methods.registry import METHODS, Method

logger = logging.getLogger(__name__)

HOME_VARIABLE = "EASYEDIT_HOME"
_MARK = "__causaledit__"
_ADAPTER = "_causaledit_adapter"  # on a model: the PeftModel around it, weakly


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
    folder = Path(home).expanduser().resolve()
    if not (folder / "easyeditor" / "__init__.py").is_file():
        raise HostError(
            f"{HOME_VARIABLE} is {home!r}, but there is no easyeditor/ package in it: name the folder of an "
            "EasyEdit checkout, or unset it to use the embedded host."
        )
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def register() -> type:
    """Register CausalEdit in EasyEdit: `ALG_DICT`, batch editing, hyper-parameters. Twice is harmless.

    Returns:
        EasyEdit's `BaseEditor`.

    Raises:
        HostError: There is no EasyEdit, it cannot be imported, or it is too old.
    """
    if not is_available():
        raise HostError(
            "EasyEdit (the package `easyeditor`) is not importable: set EASYEDIT_HOME to a checkout of it, or use "
            "causaledit's embedded host (causaledit.EmbeddedEditor)."
        )
    try:
        easyeditor = importlib.import_module("easyeditor")
        algorithms = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT
        batch_editor = importlib.import_module("easyeditor.editors.batch_editor").BatchEditor
        editors = importlib.import_module("easyeditor.editors.editor")
        base_editor = editors.BaseEditor
        utilities = importlib.import_module("easyeditor.editors.utils")
    except Exception as error:  # whatever its own import runs into
        raise HostError(f"{_where()} cannot be imported here: {error}. Its own requirements may be missing.") from error
    missing = [name for name in ("restore_after_edit", "_prepare_requests") if not hasattr(utilities, name)]
    if missing or not hasattr(base_editor, "edit_requests") or not hasattr(batch_editor, "is_batchable_method"):
        raise HostError(
            f"{_where()} is too old for this plugin (it lacks {', '.join(missing) or 'edit_requests'}): update the "
            "checkout to its main branch of 2026 or later."
        )
    for method in METHODS.values():
        if method.name in algorithms and not hasattr(algorithms[method.name], _MARK):
            logger.info("EasyEdit brings its own %s, which is kept", method.name)
            continue
        algorithms[method.name] = _host_function(method)
        setattr(easyeditor, method.load_hparams().__name__, method.load_hparams())
    _allow_batches(batch_editor)
    _name_models_in_memory(base_editor)
    _take_adapters_off(editors)
    return base_editor


def _where() -> str:
    spec = importlib.util.find_spec("easyeditor")
    return f"The EasyEdit at {Path(spec.origin).parent.parent if spec and spec.origin else 'an unknown place'}"


def _host_function(method: Method) -> Any:
    def apply(model: Any, tok: Any, requests: Any, hparams: Any, *args: Any, **kwargs: Any) -> Any:
        # a sequential edit goes on from the merged weights of the one before, as in the embedded host
        previous = vars(model).pop(_ADAPTER, None)
        if previous is not None and (adapter := previous()) is not None:
            adapter.merge_and_unload()
        edited, originals = method.load_apply()(model, tok, requests, hparams, *args, **kwargs)
        if hasattr(edited, "peft_config"):
            setattr(edited.get_base_model(), _ADAPTER, weakref.ref(edited))
        return edited, originals

    apply.__name__ = f"apply_{method.name}_to_model"
    setattr(apply, _MARK, True)
    return apply


def _take_adapters_off(editors: Any) -> None:
    """With `merge_adapter: false` EasyEdit has nothing to copy back: let it go on with a plain model."""
    from causaledit.models.weights import without_adapter

    original = editors.restore_after_edit
    if hasattr(original, _MARK):
        return

    def restore_after_edit(editor: Any, edited_model: Any, weights_copy: Any) -> Any:
        result = original(editor, edited_model, weights_copy)
        if getattr(editor, "alg_name", None) in METHODS and hasattr(edited_model, "peft_config"):
            editor.model = without_adapter(edited_model)
            vars(editor.model).pop(_ADAPTER, None)
        return result

    setattr(restore_after_edit, _MARK, True)
    editors.restore_after_edit = restore_after_edit


def _allow_batches(batch_editor: Any) -> None:
    """`is_batchable_method` is a fixed list of names: let it also know ours."""
    known = batch_editor.is_batchable_method
    if hasattr(known, _MARK):
        return
    batched = {method.name for method in METHODS.values() if method.batched}

    def is_batchable_method(alg_name: str) -> bool:
        return alg_name in batched or known(alg_name)

    setattr(is_batchable_method, _MARK, True)
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)


def _name_models_in_memory(base_editor: Any) -> None:
    """EasyEdit takes a `(model, tok)` pair as `model_name`, then fails on its missing `.lower()`.

    The pair is loaded through our loader for our own methods, so that any model and device work, and the
    editor's `model_name` becomes the model's name; other methods see EasyEdit as it was.
    """
    original = base_editor.__init__
    if hasattr(original, _MARK):
        return

    def __init__(self: Any, hparams: Any) -> None:
        if getattr(hparams, "alg_name", None) not in METHODS:
            original(self, hparams)
            return
        from causaledit.models.loading import load_from_hparams, resolve_device

        # the host reads and keeps these; the caller's stay as they are
        hparams = copy.copy(hparams)
        model, tok = load_from_hparams(hparams)
        device = resolve_device(hparams.device)
        hparams.device = device.index if device.type == "cuda" and device.index is not None else device.type
        given, hparams.model_name = hparams.model_name, (model, copy.deepcopy(tok))
        original(self, hparams)
        hparams.model_name = given
        self.tok.padding_side = "left"
        if self.tok.pad_token_id is None:
            self.tok.pad_token = self.tok.eos_token
        # EasyEdit's evaluators look for "t5" in this name, folders included, and for nothing else
        self.model_name = "causal-lm"

    setattr(__init__, _MARK, True)
    base_editor.__init__ = __init__
