"""Put our methods into an importable EasyEdit, without touching its files.

Whose method runs is decided by whose hyper-parameters an editor gets. EasyEdit's own methods stay its own:
`ALG_DICT` is only added to, where EasyEdit lacks a name (CausalEdit, ICE). An editor made with one of our
hyper-parameter classes runs our method, also under a name EasyEdit has (FT, LoRA, IKE, ROME, …).

What a host needs to know: EasyEdit restores a non-sequential edit by parameter name from the returned
`weights_copy`, which is exact for a method that merges its adapter and hands back the originals; but for
some names it does something else (ICE: drops the edited model and restores nothing; LoRA: unloads an
adapter; IKE: wants a training set). Our methods therefore travel through an editor as `causaledit:<name>`,
which none of its lists holds. With `merge_adapter: false` there is nothing to copy back, so the adapter is
taken off by the wrapper here.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import weakref
from typing import Any

from causaledit.hosts.easyedit.found import _MARK, _import_parts
from causaledit.methods.method import EditSequence, Method
from causaledit.methods.registry import METHODS, method_of

logger = logging.getLogger(__name__)

_ADAPTER = "_causaledit_adapter"  # on a model: the PeftModel around it, weakly
_SEQUENTIAL = "_causaledit_sequential"  # on an editor: whether the running call keeps its edits
_SEQUENCE = "_causaledit_sequence"  # on an editor: what the edits it keeps share
_OURS = "causaledit:"  # before the name under which an editor runs a method of ours


def register() -> type:
    """Register our methods in EasyEdit: `ALG_DICT`, batch editing, hyper-parameters. Twice is harmless.

    Returns:
        EasyEdit's `BaseEditor`.

    Raises:
        HostError: There is no EasyEdit, it cannot be imported, or it is too old.
    """
    parts = _import_parts()
    base_editor, algorithms = parts.editors.BaseEditor, parts.algorithms.ALG_DICT
    for method in METHODS.values():
        if method.name in algorithms and not hasattr(algorithms[method.name], _MARK):
            logger.info("EasyEdit brings its own %s, which is kept", method.name)
            continue
        algorithms[method.name] = _host_function(method)
        setattr(parts.easyeditor, method.load_hparams().__name__, method.load_hparams())
    _allow_batches(parts.batches.BatchEditor)
    _run_our_methods(base_editor, algorithms)
    _take_adapters_off(parts.editors)
    _read_contexts(parts.editors)
    return base_editor


def _host_function(method: Method, editor: Any = None) -> Any:
    def apply(model: Any, tok: Any, requests: Any, hparams: Any, *args: Any, **kwargs: Any) -> Any:
        # a sequential edit goes on from the merged weights of the one before, as in the embedded host
        previous = vars(model).pop(_ADAPTER, None)
        if previous is not None and (adapter := previous()) is not None:
            adapter.merge_and_unload()
        if getattr(editor, _SEQUENTIAL, False):
            kwargs["sequence"] = vars(editor).setdefault(_SEQUENCE, EditSequence())
        edited, originals = method.load_apply()(model, tok, requests, hparams, *args, **kwargs)
        if hasattr(edited, "peft_config"):
            setattr(edited.get_base_model(), _ADAPTER, weakref.ref(edited))
        if not method.changes_weights and getattr(editor, _SEQUENTIAL, False):
            editor.model = edited  # EasyEdit goes on with `editor.model`, which an edit in context left as it was
        return edited, originals

    apply.__name__ = f"apply_{method.name}_to_model"
    setattr(apply, _MARK, True)
    return apply


def _take_adapters_off(editors: Any) -> None:
    """With `merge_adapter: false` EasyEdit has nothing to copy back: let it go on with a plain model."""
    from causaledit.models.adapters import without_adapter

    original = editors.restore_after_edit
    if hasattr(original, _MARK):
        return

    def restore_after_edit(editor: Any, edited_model: Any, weights_copy: Any) -> Any:
        result = original(editor, edited_model, weights_copy)
        if str(getattr(editor, "alg_name", "")).startswith(_OURS) and hasattr(edited_model, "peft_config"):
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
    ours = {_OURS + method.name for method in METHODS.values() if method.batched} | {"CausalEdit", "ICE"}

    def is_batchable_method(alg_name: str) -> bool:
        return alg_name in ours or known(alg_name)

    setattr(is_batchable_method, _MARK, True)
    batch_editor.is_batchable_method = staticmethod(is_batchable_method)


def _run_our_methods(base_editor: Any, algorithms: dict[str, Any]) -> None:
    """Editors made with our hyper-parameters run our method, whatever EasyEdit has under that name.

    EasyEdit takes a `(model, tok)` pair as `model_name`, then fails on its missing `.lower()`: the pair is loaded
    through our loader, so that any model and device work, and the editor's `model_name` becomes a plain name.
    Editors with other hyper-parameters see EasyEdit as it was.
    """
    original = base_editor.__init__
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def __init__(self: Any, hparams: Any) -> None:
        method = method_of(hparams)
        name = getattr(hparams, "alg_name", None)
        if method is None and hasattr(algorithms.get(name), _MARK):  # other hyper-parameters of a name we added
            method = METHODS[name]
        if method is None:
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
        self.apply_algo = _host_function(method, self)
        self.alg_name = _OURS + method.name
        self.tok.padding_side = "left"
        if self.tok.pad_token_id is None:
            self.tok.pad_token = self.tok.eos_token
        # EasyEdit's evaluators look for "t5" in this name, folders included, and for nothing else
        self.model_name = "causal-lm"

    setattr(__init__, _MARK, True)
    base_editor.__init__ = __init__
    for name in ("edit_requests", "batch_edit"):
        setattr(base_editor, name, _telling_sequence(getattr(base_editor, name)))


def _telling_sequence(call: Any) -> Any:
    """An editor's call that notes on the editor, while it runs, whether it keeps its edits."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        setattr(self, _SEQUENTIAL, bool(signature.bind(self, *args, **kwargs).arguments.get("sequential_edit", False)))
        try:
            return call(self, *args, **kwargs)
        finally:
            delattr(self, _SEQUENTIAL)

    return told


def _read_contexts(editors: Any) -> None:
    """EasyEdit's metrics ask a model by its weights alone: put a model's in-context facts before their prompts."""
    original = editors.compute_edit_quality
    if hasattr(original, _MARK):
        return
    from causaledit.models.chat import in_context_prefix, with_context

    @functools.wraps(original)
    def compute_edit_quality(
        model: Any, model_name: Any, hparams: Any, tok: Any, record: Any, *args: Any, **kwargs: Any
    ):
        if in_context_prefix(model):
            record = _map_prompts(record, lambda prompt: with_context(model, prompt))
        return original(model, model_name, hparams, tok, record, *args, **kwargs)

    setattr(compute_edit_quality, _MARK, True)
    editors.compute_edit_quality = compute_edit_quality


def _map_prompts(record: Any, change: Any) -> dict[str, Any]:
    """A copy of a request with each text the host asks changed; answers stay."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        return [changed(item) for item in value] if isinstance(value, list | tuple) else value

    mapped = {key: changed(value) if key in ("prompt", "rephrase_prompt") else value for key, value in record.items()}
    for group in ("locality", "portability"):
        mapped[group] = {
            key: {**probe, "prompt": changed(probe["prompt"])} for key, probe in (record.get(group) or {}).items()
        }
    return mapped
