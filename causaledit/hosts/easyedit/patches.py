"""Put our methods into an importable EasyEdit, without touching its files.

Whose method runs is decided by whose hyper-parameters an editor gets. EasyEdit's own methods stay its own:
`ALG_DICT` is only added to, where EasyEdit lacks a name (CausalEdit, ICE). An editor made with one of our
hyper-parameter classes runs our method, also under a name EasyEdit has (FT, LoRA, IKE, ROME, …).

What a host needs to know: EasyEdit restores a non-sequential edit by parameter name from the returned
`weights_copy`, and for some names it does something else (ICE: drops the edited model and restores nothing;
LoRA: unloads an adapter; IKE: wants a training set). Our methods therefore travel through an editor as
`causaledit:<name>`, which none of its lists holds, and undo their edits themselves, whatever kind of edit it is.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import logging
import os
from typing import TYPE_CHECKING, Any

from causaledit.errors import one_line
from causaledit.hosts.easyedit.found import _MARK, _import_parts, home_folder
from causaledit.hosts.easyedit.keywords import carry_columns, taking_requests
from causaledit.methods.hyperparams import BaseHyperParams
from causaledit.methods.method import EditSequence, Method
from causaledit.methods.registry import METHODS, method_of

if TYPE_CHECKING:
    from causaledit.models.edited import Edited

logger = logging.getLogger(__name__)

_JUDGE_KEY = "OPENAI_API_KEY"
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
    already = any(hasattr(function, _MARK) for function in algorithms.values())
    own = [name for name in METHODS if name in algorithms and not hasattr(algorithms[name], _MARK)]
    _make_them_its_own()
    for method in METHODS.values():
        if method.name in own:
            continue
        try:
            hparams_class = method.load_hparams()
        except Exception as error:  # a package that somebody else wrote must not keep the others out
            logger.warning("the method %s is left out: %s", method.name, one_line(error))
            continue
        algorithms[method.name] = _added(method)
        if not hasattr(parts.easyeditor, hparams_class.__name__):  # what EasyEdit has under a name stays its own
            setattr(parts.easyeditor, hparams_class.__name__, hparams_class)
    _allow_batches(parts.batches.BatchEditor, algorithms)
    _run_our_methods(base_editor, algorithms)
    _restore_ours(parts.editors)
    _read_contexts(parts.editors)
    carry_columns(parts.editors)
    if not already:
        added = [name for name, function in algorithms.items() if hasattr(function, _MARK)]
        logger.info(
            "the EasyEdit in %s now also has %s; its own %s are kept",
            home_folder(), ", ".join(added), ", ".join(own) or "methods",
        )  # fmt: skip
    return base_editor


def _make_them_its_own() -> None:
    """Our hyper-parameters become EasyEdit's: `isinstance(hparams, easyeditor.HyperParams)` holds for them."""
    theirs = importlib.import_module("easyeditor.util.hparams").HyperParams
    if not issubclass(BaseHyperParams, theirs):
        BaseHyperParams.__bases__ = (*BaseHyperParams.__bases__, theirs)


class _OwnMethod:
    """A method of ours as one editor's `apply_algo`, with what that editor's edits have in common.

    Attributes:
        sequential: Whether the editor's running call keeps its edits.
    """

    def __init__(self, method: Method, editor: Any) -> None:
        self.method, self.editor = method, editor
        self.sequential = False
        self._sequence = EditSequence()
        self._last: Edited | None = None

    def __call__(
        self, model: Any, tok: Any, requests: Any, hparams: Any,
        copy: bool = False, return_orig_weights: bool = False, keep_original_weight: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        from causaledit.facts.requests import requests_from_data
        from causaledit.methods.call import edit_in_place

        if self._last is not None:  # goes on from the merged weights of the edit before, as in the embedded host
            kept = self._last.keep()
            model = kept if model is self._last.model else model
            self._last = None
        sequence = self._sequence if self.sequential else None
        edited = edit_in_place(self.method, model, tok, requests, hparams, copy=copy, sequence=sequence, **kwargs)
        self._last = edited
        if self.sequential:
            self._sequence.keep(requests_from_data(requests, needs_subject=self.method.needs_subject))
        if self.sequential and not self.method.changes_weights:
            self.editor.model = edited.model  # EasyEdit goes on with `editor.model`, which such an edit left as it was
        return edited.model, edited.weights_copy(asked=return_orig_weights)

    def undo(self) -> None:
        """The editor goes on with the unedited model; the edited one is the user's."""
        if self._last is not None:
            self.editor.model = self._last.undo(handed_over=True)
            self._last = None


def _added(method: Method) -> Any:
    """What stands in EasyEdit's table under a name that it lacks, for whoever calls it from there."""
    called = method.load_apply()

    @functools.wraps(called)
    def apply(*args: Any, **kwargs: Any) -> Any:
        return called(*args, **kwargs)

    apply.__module__ = __name__
    setattr(apply, _MARK, True)
    return apply


def _restore_ours(editors: Any) -> None:
    """EasyEdit undoes a non-sequential edit by copying tensors back: an edit of ours undoes itself, of any kind."""
    original = editors.restore_after_edit
    if hasattr(original, _MARK):
        return

    def restore_after_edit(editor: Any, edited_model: Any, weights_copy: Any) -> Any:
        if not isinstance(getattr(editor, "apply_algo", None), _OwnMethod):
            return original(editor, edited_model, weights_copy)
        editor.apply_algo.undo()
        return edited_model

    setattr(restore_after_edit, _MARK, True)
    editors.restore_after_edit = restore_after_edit


def _allow_batches(batch_editor: Any, algorithms: dict[str, Any]) -> None:
    """`is_batchable_method` is a fixed list of names: let it also know ours."""
    known = batch_editor.is_batchable_method
    if hasattr(known, _MARK):
        return
    batched = [method.name for method in METHODS.values() if method.batched]
    ours = {_OURS + name for name in batched} | {name for name in batched if hasattr(algorithms.get(name), _MARK)}

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
        name: Any = getattr(hparams, "alg_name", None)
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
        if getattr(hparams, "evaluation_type", None) == "LLM-judge":  # EasyEdit's judge reads it here
            hparams.api_key = _key_of_judge(hparams)
        given, hparams.model_name = hparams.model_name, (model, copy.deepcopy(tok))
        original(self, hparams)
        hparams.model_name = given
        self.apply_algo = _OwnMethod(method, self)
        self.alg_name = _OURS + method.name
        self.tok.padding_side = "left"
        if self.tok.pad_token_id is None:
            self.tok.pad_token = self.tok.eos_token
        # EasyEdit's evaluators look for "t5" in this name, folders included, and for nothing else
        self.model_name = "causal-lm"

    setattr(__init__, _MARK, True)
    base_editor.__init__ = __init__
    for name in ("edit_requests", "batch_edit", "generate_edit", "normal_edit"):
        setattr(base_editor, name, _telling_sequence(getattr(base_editor, name)))
    for name in ("edit", "batch_edit", "generate_edit"):
        setattr(base_editor, name, taking_requests(name, getattr(base_editor, name), _OwnMethod))


def _key_of_judge(hparams: Any) -> str | None:
    """The key that EasyEdit's judge takes: the one a script set on the hyper-parameters, or the environment's."""
    key = getattr(hparams, "api_key", None) or os.environ.get(_JUDGE_KEY)
    if not key:
        logger.warning(
            "no LLM is asked for `evaluation_type: LLM-judge`: there is no `api_key` and no environment variable %s, "
            "and answers count where they match exactly, as EasyEdit has it", _JUDGE_KEY,
        )  # fmt: skip
    return key


def _telling_sequence(call: Any) -> Any:
    """An editor's call that tells a method of ours, while it runs, whether the editor keeps its edits."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def told(self: Any, *args: Any, **kwargs: Any) -> Any:
        method = getattr(self, "apply_algo", None)
        if not isinstance(method, _OwnMethod):
            return call(self, *args, **kwargs)
        method.sequential = bool(signature.bind(self, *args, **kwargs).arguments.get("sequential_edit", False))
        try:
            result = call(self, *args, **kwargs)
            if call.__name__ == "normal_edit":  # it copies tensors back whatever the flag says
                method.undo()
            return result
        except BaseException:  # Ctrl-C while EasyEdit measures: the model is not left edited
            if not method.sequential:
                method.undo()
            raise
        finally:
            method.sequential = False

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
