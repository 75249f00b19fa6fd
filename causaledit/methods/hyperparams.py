"""What every method's hyper-parameters share: the host's fields, loading, aliases, checks.

A method writes a dataclass on `BaseHyperParams`, each field made by `setting`, with its help text and the
rule its value must keep. Loading, unknown keys, published key names and the checks then come from here.

    @dataclass
    class MyHyperParams(BaseHyperParams):
        ALG_NAME: ClassVar[str] = "MyMethod"
        alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
        steps: int = setting(25, "Optimiser steps.", integer_from=1)
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import os
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import yaml

from causaledit.errors import HparamsError, did_you_mean
from causaledit.methods.published_keys import Converted, Ignored, OnlyAt, PublishedKey, Refused
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded, hparams_dir, is_file

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)

_LARGEST = 2**32  # the largest seed


def setting(
    default: Any,
    help_text: str,
    *,
    choices: Sequence[str] | None = None,
    integer_from: int | None = None,
    at_least: float | None = None,
    more_than: float | None = None,
    fraction: bool = False,
) -> Any:
    """A dataclass field with its help text and one rule. If the annotation includes None, None is allowed too.

    Args:
        default: The default; lists and mappings are copied for each instance.
        help_text: What the setting does, in one sentence.
        choices: The texts it may be.
        integer_from: It is a whole number of at least this.
        at_least: It is a number of at least this.
        more_than: It is a number above this.
        fraction: It lies between 0 and 1.
    """
    rules = {
        "choices": choices,
        "integer_from": integer_from,
        "at_least": at_least,
        "more_than": more_than,
        "fraction": fraction or None,
    }
    metadata = {"help": help_text, **{name: value for name, value in rules.items() if value is not None}}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


class _Documentation:
    """A class's docstring with its settings, their defaults and what they do: what `help` shows of hyper-parameters."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __get__(self, instance: object, owner: Any) -> str:
        lines = [
            f"    {spec.name} (default {_default(spec)!r}): {spec.metadata['help']}"
            for spec in dataclasses.fields(owner)
            if "help" in spec.metadata
        ]
        return "\n".join([self._text.rstrip(), "", "Settings:", *lines])


def _default(spec: dataclasses.Field[Any]) -> Any:
    return spec.default if spec.default_factory is dataclasses.MISSING else spec.default_factory()


class HostHyperParams:
    """Stands where a host puts its own class of hyper-parameters beside, so that it knows ours as its own."""


@dataclass
class BaseHyperParams(HostHyperParams):
    """The fields an EasyEdit host reads, and how every method's hyper-parameters are loaded and checked.

    Attributes:
        ALG_NAME: The method's name in the registry, in files and in hosts.
        PUBLISHED_KEYS: Keys of published files that are not the name of a setting here, and what they mean.
    """

    ALG_NAME: ClassVar[str] = ""
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        "alg": "alg_name",
        "api_key": Ignored("keys of chat endpoints come from the environment and are never saved"),
    }

    model_name: Any = setting("", "Path, hub name, GGUF file or a `(model, tokenizer)` pair.")
    alg_name: str = setting("", "Name of the method in the host.")
    device: Any = setting("auto", "`auto`, `cpu`, `cuda`, `cuda:N` or the number N of a GPU.")
    dtype: str = setting(
        "auto",
        "Data type of the weights: auto, float32, bfloat16 or float16.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    fp16: bool = setting(False, "EasyEdit's switch for float16 weights.")
    model_parallel: bool = setting(False, "Spread the model over all GPUs (device_map='auto').")
    max_memory: dict[Any, Any] | None = setting(
        None, "With `model_parallel`: the most that each device may hold, such as {0: 20GiB, cpu: 60GiB}."
    )
    batch_size: int = setting(1, "How many edits `batch_edit` applies together.", integer_from=1)
    max_length: int = setting(40, "Length to which the host's token-accuracy probes are cut.", integer_from=1)
    use_chat_template: bool = setting(False, "Whether the host's probes use the chat template.")
    chat_template_kwargs: dict[str, Any] | None = setting(
        None, "Further arguments of the chat template wherever a prompt is rendered (`{enable_thinking: false}`)."
    )
    evaluation_type: str | None = setting(
        None,
        "How the host measures: None: by tokens; `generate-text` and `LLM-judge` as EasyEdit does.",
        choices=("generate-text", "LLM-judge"),
    )
    seed: int = setting(42, "The same seed gives the same edit (on the CPU).", integer_from=0)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__doc__ = _Documentation(cls.__doc__ or "")  # type: ignore[assignment]  # read as a text

    def __post_init__(self) -> None:
        template = self.chat_template_kwargs
        if template is not None and not (isinstance(template, dict) and all(isinstance(k, str) for k in template)):
            raise HparamsError(
                f"`chat_template_kwargs` must be a mapping like {{enable_thinking: false}}, got {template!r}."
            )
        accepted = accepted_types(type(self))
        for spec in dataclasses.fields(self):
            _check_rule(spec, getattr(self, spec.name), accepted[spec.name])
        self.check()

    def check(self) -> None:
        """Rules that hold between fields; a method overrides this.

        Raises:
            HparamsError: A combination makes no sense; the message names the fields and the fix.
        """

    # ---- loading ---------------------------------------------------------------------------------
    @classmethod
    def from_hparams(cls, path: str | Path) -> Self:
        """Load a YAML or JSON file, given with or without `.yaml`, or by the name of a bundled one.

        Args:
            path: A file, or a name under the method's folder in `hparams/` such as `smollm2-135m-instruct`.

        Raises:
            HparamsError: The file cannot be read, is not a mapping, belongs to another method, or has an
                unknown key or a bad value.
        """
        file = resolve_hparams_file(path, cls.ALG_NAME)
        data = read_hparams_file(file)
        try:
            return cls.from_dict(data)
        except HparamsError as error:
            raise HparamsError(f"{file.name}: {error}") from None

    @classmethod
    def from_json(cls, fpath: str | Path) -> Self:
        """As `from_hparams`, by the name that EasyEdit has for JSON files."""
        return cls.from_hparams(fpath)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from plain data; published keys are read as `PUBLISHED_KEYS` says, unknown ones refused."""
        named = [data[key] for key in ("alg_name", "alg") if key in data]
        if wrong := [name for name in named or [None] if name != cls.ALG_NAME]:
            raise HparamsError(
                f"`alg_name` is {wrong[0]!r}, but these hyper-parameters are for {cls.ALG_NAME!r}: give a file of "
                f"hparams/{cls.ALG_NAME}/."
            )
        known = {spec.name for spec in dataclasses.fields(cls)}
        accepted = accepted_types(cls)
        values: dict[str, Any] = {}
        given: dict[str, str] = {}
        for key, value in data.items():
            found = cls._read_key(str(key), value)
            if found is None or (key == "alg" and "alg_name" in data):
                continue
            name, value = found
            if name not in known:
                hint = did_you_mean(str(key), [*known, *cls.PUBLISHED_KEYS])
                raise HparamsError(f"unknown key {key!r}.{hint}")
            if name in values:
                raise HparamsError(f"{key!r} and {given[name]!r} are the same setting: keep one.")
            given[name] = str(key)
            values[name] = _coerce(name, value, accepted[name])
        return cls(**values)

    @classmethod
    def aliases(cls) -> dict[str, str]:
        """Published names → ours, of the settings that have both."""
        named = {key: getattr(entry, "setting", entry) for key, entry in cls.PUBLISHED_KEYS.items()}
        return {key: name for key, name in named.items() if isinstance(name, str)}

    @classmethod
    def _read_key(cls, key: str, value: Any) -> tuple[str, Any] | None:
        """Our name and value for a key of a file; None where the key has no effect."""
        entry = cls.PUBLISHED_KEYS.get(key, key)
        if isinstance(entry, str):
            return entry, value
        if isinstance(entry, Converted):
            return entry.setting, entry.convert(value)
        if isinstance(entry, Refused) or (isinstance(entry, OnlyAt) and not entry.accepts(value)):
            raise HparamsError(f"`{key}` is {value!r}: {entry.reason}.")
        if isinstance(entry, Ignored):
            logger.log(
                logging.WARNING if entry.warn else logging.DEBUG,
                "%s: `%s` has no effect here: %s", cls.ALG_NAME, key, entry.reason,
            )  # fmt: skip
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the model card; a `(model, tokenizer)` pair becomes its model's name."""
        data = {spec.name: getattr(self, spec.name) for spec in dataclasses.fields(self)}
        return {**data, "model_name": model_label(self.model_name)}

    def edited_weights(self, model: Any) -> list[str] | None:
        """Names of the parameters that an edit changes or puts an adapter on; None where the method does not say.

        Args:
            model: The network, with or without weights (on the meta device); left as it was.

        Raises:
            ModelError: A layer or module that these settings name is not there.
        """
        return None


@dataclass
class AdapterHyperParams(BaseHyperParams):
    """The fields of a method that trains a LoRA adapter, with the defaults of CausalEdit's paper."""

    lora_rank: int = setting(12, "Rank of the LoRA adapter.", integer_from=1)
    lora_alpha: float | None = setting(None, "LoRA alpha; None means 2 × rank.", more_than=0)
    lora_dropout: float = setting(0.05, "LoRA dropout.", fraction=True)
    lora_target_modules: list[str] = setting(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "Names of the projections that get an adapter, or ['all-linear'].",
    )
    lora_layers: list[int] | None = setting(None, "[first, end): the layers that get an adapter. None means all.")
    lora_init: str = setting(
        "random",
        "What the adapter's A starts from: `random` draws (the paper), or `contrast`: the input directions in which "
        "the first gradient of the edit's rows is strong and other text is weak: an edit is learnt in fewer steps.",
        choices=("random", "contrast"),
    )
    lora_init_ridge: float = setting(
        0.1,
        "Of `lora_init: contrast`: how little other text may be found in a direction before less makes no difference, "
        "as a share of its mean in all directions.",
        more_than=0,
    )
    orthogonal_edits: bool = setting(
        False, "In a sequence: keep the inputs that an edit's adapter reads orthogonal to those of earlier edits."
    )
    merge_adapter: bool = setting(True, "Merge the adapter into the weights; False returns a PeftModel.")
    quantization: str = setting(
        "none",
        "Load the base model's matrices in 8 or 4 bits (bitsandbytes) and train the adapter on them. With "
        "`merge_adapter` it is then merged into the weights as they were before, and what that changes is measured; "
        "else it is kept apart.",
        choices=("none", "8bit", "4bit"),
    )

    @property
    def first_layer(self) -> int:
        """The first layer that gets an adapter."""
        return self.lora_layers[0] if self.lora_layers else 0

    def check(self) -> None:
        """Targets and layers have the form that the adapter needs."""
        super().check()
        targets = self.lora_target_modules
        if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
            raise HparamsError(
                f"`lora_target_modules` must be a list of projection names or ['all-linear'], got {targets!r}."
            )
        layers = self.lora_layers
        if layers is not None and not (
            isinstance(layers, list)
            and len(layers) == 2
            and all(isinstance(n, int) and not isinstance(n, bool) for n in layers)
            and 0 <= layers[0] < layers[1]
        ):
            raise HparamsError(f"`lora_layers` must be [first, end) with 0 <= first < end, got {layers!r}.")

    def edited_weights(self, model: Any) -> list[str] | None:
        """Those that the adapter is put on."""
        from causaledit.models.adapters import adapted_weights

        return adapted_weights(model, self)


def model_label(model_name: Any) -> str:
    """What a card calls a model: its name or path as text; for a `(model, tokenizer)` pair, the name the model has."""
    if isinstance(model_name, str | os.PathLike):
        return os.fspath(model_name)
    return str(getattr(model_name[0].config, "_name_or_path", "")) or "in memory"


# ---- files -----------------------------------------------------------------------------------------
def resolve_hparams_file(path: str | Path, alg_name: str) -> Path:
    """Find a hyper-parameter file: as given, with `.yaml`, or among the method's bundled ones.

    Raises:
        HparamsError: There is none; the message offers the nearest bundled name.
    """
    given = expanded(path)
    bundled = hparams_dir(alg_name)
    if not given.name:
        raise HparamsError(f"`{path}` does not name an hparams file: give a file or the name of a bundled one.")
    for base in (given, bundled / given.name):
        for file in (base, base.with_name(base.name + ".yaml"), base.with_name(base.name + ".json")):
            if is_file(file):
                return file
        if given.parent != Path():  # a folder was named: do not silently fall back to a bundled file
            break
    names = sorted(p.stem for p in bundled.glob("*.yaml"))
    hint = did_you_mean(given.stem, names)
    raise HparamsError(f"There is no hparams file {str(given)!r}.{hint} Bundled: {', '.join(names) or 'none'}.")


def read_hparams_file(file: Path) -> dict[str, Any]:
    """The `key: value` lines of a YAML or JSON file.

    Raises:
        HparamsError: It cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        data = read_json_text(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise HparamsError(f"The hparams file {str(file)!r} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise HparamsError(f"The hparams file {str(file)!r} is not valid YAML or JSON ({first}).") from None
    if not isinstance(data, dict):
        raise HparamsError(f"The hparams file {str(file)!r} must hold `key: value` lines, got {type(data).__name__}.")
    return data


# ---- values ----------------------------------------------------------------------------------------
def accepted_types(kind: type[BaseHyperParams]) -> dict[str, frozenset[Any]]:
    """For each setting, the types its annotation names: those of a union, or the one."""
    return {spec.name: _union_members(_annotation(kind, spec.name)) for spec in dataclasses.fields(kind)}


def _annotation(kind: type, name: str) -> Any:
    """A field's annotation as a type. Others are not evaluated: they may name what is imported for checkers alone."""
    owner = next(base for base in kind.__mro__ if name in vars(base).get("__annotations__", {}))
    alone = types.SimpleNamespace(__annotations__={name: vars(owner)["__annotations__"][name]})
    return typing.get_type_hints(alone, vars(sys.modules[owner.__module__]))[name]


def _union_members(hint: Any) -> frozenset[Any]:
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    return frozenset(typing.get_args(hint)) if union else frozenset({hint})


def _coerce(name: str, value: Any, accepted: frozenset[Any]) -> Any:
    """YAML reads `3e-5` as text: turn such texts into numbers; keep whole numbers whole."""
    number = bool(accepted & {int, float}) and accepted <= {int, float, type(None)}
    if isinstance(value, str) and number:
        try:
            value = float(value)
        except ValueError:
            raise HparamsError(f"`{name}` must be a number, got {value!r}.") from None
    if isinstance(value, float) and number and float not in accepted and value.is_integer():
        value = int(value)
    return value


def _check_rule(spec: dataclasses.Field, value: Any, accepted: frozenset[Any]) -> None:
    rule = spec.metadata
    if value is None and type(None) in accepted:
        return
    if "choices" in rule and value not in rule["choices"]:
        raise HparamsError(f"`{spec.name}` must be one of {', '.join(rule['choices'])}, got {value!r}.")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if "integer_from" in rule and not (whole and rule["integer_from"] <= value < _LARGEST):
        raise HparamsError(f"`{spec.name}` must be a whole number of at least {rule['integer_from']}, got {value!r}.")
    number = (whole or isinstance(value, float)) and math.isfinite(value)
    for word, holds, wanted in (
        ("at_least", lambda bound: value >= bound, "be a number of at least {:g}"),
        ("more_than", lambda bound: value > bound, "be a number above {:g}"),
        ("fraction", lambda _: 0 <= value <= 1, "lie between 0 and 1"),
    ):
        if word in rule and not (number and holds(rule[word])):
            raise HparamsError(f"`{spec.name}` must {wanted.format(rule[word])}, got {value!r}.")
    _check_type(spec.name, value, accepted)


# a type that a setting's annotation names → what may stand for it, and its name in a message
_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((float, int), "a number"),
    str: ((str, os.PathLike), "a text"),
    dict: ((dict,), "a mapping like {key: value}"),
}


def _check_type(name: str, value: Any, accepted: frozenset[Any]) -> None:
    """Refuse a value of no type that the annotation names. Lists have rules of their own (`BaseHyperParams.check`)."""
    named = [typing.get_origin(hint) or hint for hint in accepted if hint is not type(None)]
    if not set(named) <= set(_TYPES):
        return
    kinds = tuple(kind for hint in named for kind in _TYPES[hint][0])
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in named):
        raise HparamsError(f"`{name}` must be {' or '.join(_TYPES[hint][1] for hint in named)}, got {value!r}.")


def are_layers(value: Any) -> bool:
    """Whether a setting lists different layers by their numbers, counted from 0; at least one."""
    whole = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
    return whole and bool(value) and len(set(value)) == len(value)
