"""EasyEdit's own methods in the form of ours, for the commands: same look-up, same calls, same return values.

`get_method("ROME")` gives one of these where EasyEdit is importable. Its hyper-parameters are EasyEdit's own
dataclass, filled from a file in EasyEdit's format, or from one of ours as far as the names agree.
"""

from __future__ import annotations

import contextlib
import copy as copying
import dataclasses
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import HparamsError, did_you_mean
from causaledit.hosts.easyedit.found import _MARK, _import_parts
from causaledit.methods.hyperparams import BaseHyperParams, model_label, read_hparams_file, resolve_hparams_file
from causaledit.methods.method import Method
from causaledit.methods.registry import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.methods.call import Call
    from causaledit.models.edited import Edited


@dataclasses.dataclass(frozen=True)
class EasyEditMethod(Method):
    """A method that EasyEdit brings."""

    hparams: str = ""
    edit: str = ""
    batched: bool = False

    def load_hparams(self) -> type[Any]:
        """EasyEdit's hyper-parameter class of this method, with our loading."""
        return _hparams_class(self.name)

    def load_edit(self) -> Callable[..., Edited]:
        """EasyEdit's apply function, called as the `edit` of ours."""
        return _edit_function(self.name)


# ---- hyper-parameters ------------------------------------------------------------------------------
def _hparams_class(name: str) -> type:
    theirs = _their_class(name)
    fields = {spec.name: spec for spec in dataclasses.fields(theirs)}
    host_fields = {spec.name: spec.default for spec in dataclasses.fields(BaseHyperParams)}

    class HostedHyperParams(theirs):  # type: ignore[misc, valid-type]
        """EasyEdit's hyper-parameters, loaded by name or file like ours."""

        # what our loader and commands read and EasyEdit may not have
        dtype, fp16, seed = host_fields["dtype"], host_fields["fp16"], host_fields["seed"]

        @classmethod
        def from_hparams(cls, path: str | Path) -> Any:
            """Load a file in EasyEdit's format or ours, or a bundled name (ours first, then EasyEdit's)."""
            file = _find_file(path, name)
            try:
                return cls.from_dict(read_hparams_file(file))
            except HparamsError as error:
                raise HparamsError(f"{file.name}: {error}") from None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Any:
            """Build from plain data."""
            values = {**_defaults(fields), **_in_their_names(name, data, set(fields))}
            extra = {key: values.pop(key) for key in list(values) if key not in fields and key in host_fields}
            if unknown := [key for key in values if key not in fields]:
                raise HparamsError(
                    f"unknown key {unknown[0]!r} for EasyEdit's {name}.{did_you_mean(unknown[0], fields)}"
                )
            needed = [key for key, spec in fields.items() if _is_required(spec) and key not in values]
            if needed:
                raise HparamsError(
                    f"EasyEdit's {name} also needs {', '.join(needed)}: give a file in EasyEdit's format (see "
                    f"hparams/{name}/ of the checkout), or unset EASYEDIT_HOME to run causaledit's own methods."
                )
            made = cls(**values)
            for key, value in extra.items():
                setattr(made, key, value)
            return made

        def to_dict(self) -> dict[str, Any]:
            """Plain data; a `(model, tokenizer)` pair becomes its model's name."""
            return {**{key: getattr(self, key) for key in fields}, "model_name": model_label(self.model_name)}

    HostedHyperParams.__name__ = HostedHyperParams.__qualname__ = theirs.__name__
    return HostedHyperParams


def _their_class(name: str) -> type:
    """EasyEdit imports each method's dataclass beside its function in `alg_dict`: found by the folder they share."""
    table = importlib.import_module("easyeditor.util.alg_dict")
    base = importlib.import_module("easyeditor.util.hparams").HyperParams
    function = table.ALG_DICT[name]
    folder = getattr(function, "__module__", "").rsplit(".", 1)[0]
    found = [
        value
        for value in vars(table).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__.startswith(folder + ".")
        and "Multimodal" not in value.__name__
    ]
    if not found:
        raise HparamsError(f"EasyEdit's {name} has no hyper-parameter class that could be found beside its function.")
    return found[0]


def _find_file(path: str | Path, name: str) -> Path:
    """A file as given, a bundled file of ours, or one of the checkout's own."""
    try:
        return resolve_hparams_file(path, name)
    except HparamsError as error:
        home = os.environ.get("EASYEDIT_HOME")
        given = Path(path)
        if home and given.parent == Path():
            file = Path(home).expanduser() / "hparams" / name / f"{given.name.removesuffix('.yaml')}.yaml"
            if file.is_file():
                return file
            names = ", ".join(sorted(p.stem for p in file.parent.glob("*.yaml")))
            raise HparamsError(f"{error} In EasyEdit's checkout: {names or 'none'}.") from None
        raise


def _in_their_names(name: str, data: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """A file's values under EasyEdit's names: as they are, or translated back from ours where ours differ."""
    alg = data.get("alg_name", data.get("alg"))
    if alg != name:
        raise HparamsError(f"`alg_name` is {alg!r}, but these hyper-parameters are for {name!r}.")
    ours = METHODS.get(name)
    back = {mine: published for published, mine in ours.load_hparams().aliases().items()} if ours else {}
    known = {spec.name for spec in dataclasses.fields(ours.load_hparams())} if ours else set()
    values = {}
    for key, value in data.items():
        translated = key if key in fields else back.get(key, key)
        if translated in fields or key not in known or key in {s.name for s in dataclasses.fields(BaseHyperParams)}:
            values[translated] = _number(value)
    return values


def _number(value: Any) -> Any:
    """YAML reads `5e-4` as text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _defaults(fields: dict[str, Any]) -> dict[str, Any]:
    """What our files may leave out because ours have defaults."""
    common = {"device": "auto", "model_parallel": False}
    return {key: value for key, value in common.items() if key in fields}


def _is_required(spec: dataclasses.Field) -> bool:
    return spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING


# ---- edit ------------------------------------------------------------------------------------------
def _edit_function(name: str) -> Callable[..., Edited]:
    from causaledit.models.edited import read_edited
    from causaledit.models.loading import resolve_device

    function = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT[name]

    def edit(model: Any, tokenizer: Any, edits: Any, hparams: Any, call: Call) -> Edited:
        """EasyEdit's method on our requests: the inputs left alone, the model restored after a fault."""
        hparams = copying.copy(hparams)
        device = resolve_device(hparams.device)
        hparams.device = device.index or 0 if device.type == "cuda" else device.type
        tokenizer = copying.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.requires_grad_(True)  # EasyEdit's methods freeze what they want frozen
        with call.report.tally.timed("edit"):
            snapshot = call.rewriting(model, [name for name, _ in model.named_parameters()])
            edited, originals = function(
                model,
                tokenizer,
                [_their_request(edit) for edit in edits],
                hparams,
                copy=False,
                return_orig_weights=True,
                keep_original_weight=False,
                train_ds=call.extra.get("train_ds"),
            )
            if edited is model and not callable(originals):  # exact, also where EasyEdit copied after a change
                originals = {
                    key: value
                    for key, value in snapshot.items()
                    if not value.equal(model.get_parameter(key).detach().to("cpu"))
                }
        return read_edited(model, edited, originals)

    return edit


def _their_request(edit: Any) -> dict[str, Any]:
    """A request as EasyEdit's methods read it: the prompt with its subject in place."""
    return {
        "prompt": edit.cloze,
        "subject": edit.subject,
        "target_new": edit.target_new,
        "ground_truth": edit.ground_truth,
        "rephrase_prompt": edit.rephrase[0].question if edit.rephrase else edit.cloze,
        "portability": {},
        "locality": {},
    }


def own_methods() -> dict[str, Method]:
    """EasyEdit's own methods by name, in the form of ours (see `hosts.easyedit_methods`).

    Raises:
        HostError: There is no usable EasyEdit.
    """

    parts = _import_parts()
    return {
        name: EasyEditMethod(name=name, batched=bool(parts.batches.BatchEditor.is_batchable_method(name)))
        for name, function in parts.algorithms.ALG_DICT.items()
        if not hasattr(function, _MARK)
    }
