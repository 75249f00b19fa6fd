"""Options that several commands share, defined once: by the fields of the dataclass they fill.

    @takes(arguments=RunArguments, judging=JudgeOptions)
    def compare(methods: …, arguments: RunArguments, judging: JudgeOptions) -> None: ...

A field with a `help` in its metadata becomes an option of its own name and default; the command gets the filled-in
dataclass.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from causaledit.errors import OptionError
from causaledit.judges.registry import JUDGES
from causaledit.support.options import option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from causaledit.judges.base import Judge

_LLM = ("judge", ("llm",))


def finite(value: float | None) -> float | None:
    """Refuse `inf` and `nan` for an option that takes a number: they pass a lower bound, or every one."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value!r} is not a finite number.")
    return value


InputOption = Annotated[Path, typer.Option("--input", help="A run's metrics.json.")]


@dataclass(frozen=True)
class JudgeOptions:
    """Which judge gives the verdicts, and how it is reached."""

    judge: str = option("rule", "rule (offline), llm (a chat endpoint) or hf (a local chat model).", choices=JUDGES)
    judge_model: str = option("", "Model of the llm or hf judge.", flag="--judge-model", of=("judge", ("llm", "hf")))
    base_url: str = option(
        "", "OpenAI-compatible endpoint of the llm judge; OpenAI's own by default.", flag="--base-url", of=_LLM
    )
    api_key_env: str = option(
        "OPENAI_API_KEY", "Environment variable that holds the endpoint's key.", flag="--api-key-env", of=_LLM
    )
    workers: int = option(4, "Number of requests to the endpoint at the same time.", min=1, max=256, of=_LLM)
    timeout: float = option(60.0, "Maximum wait for one reply of the endpoint, in seconds.", min=0.1, of=_LLM)
    device: str = option("auto", "Device of the hf judge: auto, cpu, cuda or cuda:N.", of=("judge", ("hf",)))
    retry_errors: bool = option(False, "Judge again the responses whose verdict is an error.", flag="--retry-errors")

    def check(self) -> None:
        """Refuse a judge that could not be set up; a local model is not loaded yet.

        Raises:
            JudgeError: It is unknown, or lacks its key or model.
        """
        from causaledit.judges.hf import check_named

        if self.judge == "hf":
            check_named(self.judge_model)
        else:
            self.load()

    def load(self) -> Judge:
        """Set the judge up.

        Raises:
            JudgeError: It is unknown, or lacks its key or model.
        """
        from causaledit.judges.registry import get_judge

        return get_judge(
            self.judge,
            model=self.judge_model or None,
            base_url=self.base_url or None,
            api_key_env=self.api_key_env,
            timeout=self.timeout,
            device=self.device,
        )


@dataclass(frozen=True)
class Group:
    """The options of one dataclass, as one command has them.

    Attributes:
        kind: The dataclass.
        without: Fields that are not options here; they keep their defaults, or get those of `fixed`.
        renamed: Field → flag, where the usual one is taken by another group.
        fixed: Values of fields that have no default and are not options here.
        helps: Field → help text, where the command has its own.
        shared: Fields that the command also uses for something else, so that they are never without effect.
    """

    kind: type
    without: tuple[str, ...] = ()
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)
    shared: tuple[str, ...] = ()

    def parameters(self) -> dict[str, tuple[str, inspect.Parameter]]:
        """The command's parameters by name, each with the field it fills."""
        hints = get_type_hints(self.kind)
        found = {}
        for field in dataclasses.fields(self.kind):
            if field.name in {*self.without, *self.fixed} or "help" not in field.metadata:
                continue
            rules = field.metadata
            flag = self._flag(field)
            name = flag.partition("/")[0].removeprefix("--").replace("-", "_")
            limits = {rule: rules[rule] for rule in ("min", "max", "envvar") if rule in rules}
            if hints[field.name] in (float, float | None):
                limits["callback"] = finite
            described = typer.Option(flag, help=self.helps.get(field.name, rules["help"]), **limits)
            default: Any = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
            kind = hints[field.name]
            if "to_text" in rules:  # a list on the command line is one text with commas
                default = rules["to_text"](default)
                kind = str if default is not None else str | None
            found[name] = (
                field.name,
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, described]
                ),
            )
        return found

    def filled(self, given: Mapping[str, Any]) -> Any:
        """The dataclass, from the command's arguments by parameter name.

        Raises:
            OptionError: An option was given that belongs to a value that another one does not have.
            CausalEditError: A value is refused by the dataclass.
        """
        readers = {f.name: f.metadata["from_text"] for f in dataclasses.fields(self.kind) if "from_text" in f.metadata}
        values = {
            field: readers[field](given[name]) if field in readers else given[name]
            for name, (field, _) in self.parameters().items()
        }
        made = self.kind(**values, **self.fixed)
        self._refuse_strays(made, values)
        return made

    def _flag(self, field: dataclasses.Field[Any]) -> str:
        return self.renamed.get(field.name) or field.metadata.get("flag") or f"--{field.name}"

    def _refuse_strays(self, made: Any, given: Iterable[str]) -> None:
        """Refuse what was given and would be ignored; the defaults of others say nothing."""
        fields = {field.name: field for field in dataclasses.fields(self.kind)}
        for name in given:
            if "of" not in fields[name].metadata or name in self.shared or getattr(made, name) == fields[name].default:
                continue
            owner, wanted = fields[name].metadata["of"]
            flag, owner_flag, value = self._flag(fields[name]), self._flag(fields[owner]), getattr(made, owner)
            if not wanted and value == fields[owner].default:
                raise OptionError(f"{flag} has no effect without {owner_flag}: give that too, or leave {flag} out.")
            known = fields[owner].metadata.get("choices", ())
            if wanted and value in known and value not in wanted:  # an unknown value is refused as such
                raise OptionError(
                    f"{flag} has no effect with {owner_flag} {value}: give {owner_flag} {' or '.join(wanted)}, or "
                    f"leave {flag} out."
                )


def takes(**groups: Group | type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take the options of dataclasses.

    Args:
        groups: Parameter of the command → dataclass, or a `Group` of it. The options stand where the parameter stands.
    """
    ready = {name: value if isinstance(value, Group) else Group(value) for name, value in groups.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        parameters: dict[str, inspect.Parameter] = {}
        for name, parameter in own.parameters.items():
            if name in ready:
                for key, (_, made) in ready[name].parameters().items():
                    if key in parameters or key in own.parameters:
                        raise TypeError(f"{command.__name__}: the option {key!r} is defined twice: rename one")
                    parameters[key] = made
            else:
                parameters[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])

        @functools.wraps(command)
        def run(**given: Any) -> None:
            filled = {name: group.filled(given) for name, group in ready.items()}
            rest = {name: given[name] for name in own.parameters if name not in ready}
            command(**rest, **filled)

        del run.__wrapped__  # else inspect would look through to the command
        run.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
        return run

    return decorate
