"""EasyEdit's hyper-parameters, loaded by EasyEdit's own loader and used like ours.

Its classes do more than read a file: WISE's `act_margin` becomes three settings, ULTRAEDIT's `class_name` another
name, SimIE's file brings that of its base method. So a file goes through the class's own `from_hparams`; what is
added here is the look-up by name, one clear error, and the few settings that our commands read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import re
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import yaml

from causaledit.errors import HparamsError, did_you_mean, one_line
from causaledit.hosts.easyedit.files import find_file, plain_name
from causaledit.methods.hyperparams import BaseHyperParams, model_label, read_hparams_file

# settings of ours that a file in EasyEdit's format may also have, though EasyEdit's classes know nothing of them
ADDED = ("dtype", "fp16", "seed")
# and one of those that read text for statistics (see `statistics`): how many tokens of it
_TEXT_BUDGET = "mom2_max_tokens"


def hparams_class(name: str) -> type[Any]:
    """EasyEdit's hyper-parameter class of a method, with our look-up and errors.

    Args:
        name: The `alg_name`.
    """
    theirs = _their_class(name)
    fields = {spec.name: spec for spec in dataclasses.fields(theirs)}
    defaults = {spec.name: spec.default for spec in dataclasses.fields(BaseHyperParams)}
    added = set(ADDED) - set(fields)
    if "mom2_n_samples" in fields:
        added.add(_TEXT_BUDGET)

    class HostedHyperParams(theirs):  # type: ignore[misc, valid-type]
        """EasyEdit's hyper-parameters, loaded by name or file like ours."""

        dtype, fp16, seed = (defaults[key] for key in ADDED)
        mom2_max_tokens: ClassVar[Any] = None

        @classmethod
        def from_hparams(cls, path: str | Path) -> Any:
            """Load a file in EasyEdit's format, or one by its name: bundled, or of the checkout.

            Raises:
                HparamsError: There is no such file, or EasyEdit refuses it.
            """
            file = find_file(path, name)
            data = read_hparams_file(file)
            try:
                if file.suffix != ".yaml" or set(data) & added:  # most of its classes read no other ending
                    return cls.from_dict(data)
                _check_name(name, data)
                return _through_their_loader(super().from_hparams, file, name, data, fields)
            except HparamsError as error:
                raise HparamsError(f"{file.name}: {error}") from None

        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Any:
            """Build from plain data, as if it stood in a file."""
            _check_name(name, data)
            own = {key: value for key, value in data.items() if key not in added}
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "hparams.yaml"
                file.write_text(yaml.safe_dump(own), encoding="utf-8")
                made = _through_their_loader(super().from_hparams, file, name, own, fields)
            for key in set(data) & added:
                setattr(made, key, data[key])
            return made

        def to_dict(self) -> dict[str, Any]:
            """Plain data; a `(model, tokenizer)` pair becomes its model's name."""
            values = {key: _plain(getattr(self, key)) for key in fields}
            values |= {key: getattr(self, key) for key in sorted(added) if key in vars(self)}
            return {**values, "model_name": model_label(self.model_name)}

    HostedHyperParams.__name__ = HostedHyperParams.__qualname__ = theirs.__name__
    return HostedHyperParams


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _their_class(name: str) -> type[Any]:
    """EasyEdit imports each method's dataclass beside its function in `alg_dict`: found by the folder they share."""
    table = importlib.import_module("easyeditor.util.alg_dict")
    base = importlib.import_module("easyeditor.util.hparams").HyperParams
    folder = getattr(table.ALG_DICT[name], "__module__", "").rsplit(".", 1)[0]
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


def _check_name(name: str, data: dict[str, Any]) -> None:
    """EasyEdit's own check is an `assert` that some of its classes can't fail; a folder's spelling serves too."""
    named = [data[key] for key in ("alg_name", "alg") if data.get(key) is not None]
    wrong = [given for given in named or [None] if plain_name(str(given)) != plain_name(name)]
    if wrong:
        raise HparamsError(f"`alg_name` is {wrong[0]!r}, but these hyper-parameters are for {name!r}.")


def _through_their_loader(load: Any, file: Path, name: str, data: dict[str, Any], fields: dict[str, Any]) -> Any:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # its checks print before they fail
            made = load(str(file))
    except Exception as error:  # assertions, missing keys, whatever its class runs into
        raise HparamsError(_explained(error, said.getvalue(), name, data, fields)) from None
    if getattr(made, "half", False) and "fp16" not in fields:  # ULTRAEDIT would turn the loaded model into float16
        made.fp16 = True
    return made


def _explained(error: Exception, said: str, name: str, data: dict[str, Any], fields: dict[str, Any]) -> str:
    """What EasyEdit's loader says, with the name that was meant, or all that a file in our format lacks."""
    text = one_line(error)
    unknown = re.search(r"unexpected keyword argument '(\w+)'", text)
    # a key that its loader does not know of itself may be one that it would have rewritten
    missing = [key for key, spec in fields.items() if _is_required(spec) and key not in data]
    if unknown:
        hint = did_you_mean(unknown[1], [key for key in fields if key not in data])
        return f"unknown key {unknown[1]!r} for EasyEdit's {name}.{hint}"
    if isinstance(error, KeyError):
        return f"EasyEdit's {name} also needs {error.args[0]!r}: {_where_to_look(name)}"
    if isinstance(error, TypeError) and missing:
        return f"EasyEdit's {name} also needs {', '.join(missing)}: {_where_to_look(name)}"
    return f"EasyEdit's {name} refuses it: {' '.join(said.split()) or text}"


def _where_to_look(name: str) -> str:
    return (
        f"give a file in EasyEdit's format (see hparams/{name}/ of the checkout), or --host embedded for causaledit's "
        "own method."
    )


def _is_required(spec: dataclasses.Field) -> bool:
    return spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING
