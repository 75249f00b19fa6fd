"""What a comparison will do, checked before anything runs."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import HparamsError, RunError, did_you_mean
from causaledit.hosts.lookup import split_host
from causaledit.methods.hyperparams import model_label
from causaledit.models.identity import same_models
from causaledit.models.loading import resolve_device, resolve_dtype
from causaledit.mquake.datasets import locate_dataset
from causaledit.runs.arguments import OPTIONAL_FIELDS
from causaledit.runs.plan import Plan, make_plan, new_run_id, place_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from causaledit.runs.arguments import RunArguments


logger = logging.getLogger(__name__)

REFERENCE = "CausalEdit"  # what the others are tested against, where it is among them


FOLDER = "compare"  # beside the methods' folders


def parse_methods(text: str) -> tuple[str, ...]:
    """The methods of `--methods A,B,…`.

    Raises:
        RunError: There is none, or one is named twice.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise RunError(f"--methods must be names with commas between them, got {text!r}.")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise RunError(f"--methods names {twice[0]!r} twice.")
    return tuple(names)


@dataclass(frozen=True)
class ComparePlan:
    """A comparison that has been checked and can start.

    Attributes:
        methods: In the order of the table.
        run_id: Of the comparison and of all its runs.
        runs: One plan per method.
        arguments: What must be the same for the comparison to be resumed.
        folder: Where the table is kept.
        resumed: Whether it was there already.
    """

    methods: tuple[str, ...]
    run_id: str
    runs: Mapping[str, Plan]
    arguments: Mapping[str, Any]
    folder: Path
    resumed: bool

    @property
    def reference(self) -> str:
        """The method that the others are tested against: CausalEdit, or the first where that is not compared."""
        return REFERENCE if REFERENCE in self.methods else self.methods[0]


def parse_files(given: Sequence[str], methods: Sequence[str]) -> dict[str, str]:
    """The files of `--hparams METHOD=FILE`, by method.

    Args:
        given: One text for each time the flag is there. METHOD is spelled as in `--methods`, or without its host where
            only one of the methods has that name (`ROME` for `easyedit:ROME`).
        methods: The names of `--methods`.

    Raises:
        RunError: One is of another form, of no method of the comparison or of several, or the second of its method.
    """
    files: dict[str, str] = {}
    for text in given:
        name, equals, file = (part.strip() for part in text.partition("="))
        if not (name and equals and file):
            raise RunError(f"--hparams {text!r}: give METHOD=FILE, a method of --methods and its file.")
        if name not in methods:
            meant = [method for method in methods if split_host(method)[1] == name]
            if len(meant) > 1:
                raise RunError(f"--hparams {text!r}: {name!r} may be {' or '.join(meant)}; write which.")
            if not meant:
                raise RunError(f"--hparams {text!r}: {name!r} is not among --methods.{did_you_mean(name, methods)}")
            name = meant[0]
        if name in files:
            raise RunError(f"--hparams names {name} twice.")
        files[name] = file
    return files


def make_compare_plan(
    methods: Sequence[str],
    arguments: RunArguments,
    *,
    judge: str,
    resume: bool = False,
    hparams: Sequence[str] = (),
) -> ComparePlan:
    """Check everything that can be checked before a model is loaded.

    Args:
        methods: Names, as of `--editing_method`.
        arguments: What all runs share; `editing_method` is replaced by each of the names.
        judge: The judge's identity.
        resume: Go on with the comparison of `run_id`; without one, with the newest that has these arguments. Where
            there is none to go on with, a new one begins.
        hparams: `METHOD=FILE` for methods whose file is not the one named by `model_type`.

    Raises:
        RunError: An unknown method; the methods' models differ; the run id is taken (without `resume`), or was started
            with other arguments.
        DatasetError, HparamsError, ModelError, SaveError: As for a run.
    """
    methods = parse_methods(",".join(methods))
    files = parse_files(hparams, methods)
    ours = {**arguments.comparable(), "methods": list(methods), "judge": judge, "hparams": files}
    for name in ("editing_method", "hparams_path"):
        del ours[name]
    parent = place_of(arguments, locate_dataset(arguments.datatype), FOLDER)
    run_id = _run_id(parent, ours, arguments.run_id, resume)
    resumed = run_id is not None
    run_id = run_id or arguments.run_id or new_run_id()
    runs = {name: _run_plan(name, arguments, run_id, files.get(name)) for name in methods}
    _refuse_other_models(runs)
    if len({(plan.sha256, tuple(case.case_id for case in plan.cases)) for plan in runs.values()}) > 1:
        raise RunError(f"--datatype {arguments.datatype!r} changed while it was read: start again.")
    _check_templates(runs)
    folder = parent / next(iter(runs.values())).folder.name
    return ComparePlan(methods, run_id, runs, ours, folder, resumed)


def _check_templates(runs: Mapping[str, Plan]) -> None:
    """Refuse methods that would be trained and asked in different modes: thinking and not, say."""
    modes = {name: getattr(plan.hparams, "chat_template_kwargs", None) or {} for name, plan in runs.items()}
    first = next(iter(modes))
    for name, mode in modes.items():
        if mode != modes[first]:
            raise RunError(
                f"--methods: the hparams of {first} have `chat_template_kwargs` {modes[first] or 'unset'}, those of "
                f"{name} {mode or 'unset'}: give both the same, so that the methods are compared in one mode."
            )


def _refuse_other_models(runs: Mapping[str, Plan]) -> None:
    """One table is about one model: the same weights in the same type for every method.

    Raises:
        RunError: Two methods' hyper-parameters name different ones.
    """
    (first, plan), *others = runs.items()
    for name, other in others:
        mine, theirs = plan.hparams.model_name, other.hparams.model_name
        if not same_models([mine, theirs]):
            raise RunError(
                f"--methods: one table is about one model, but {first}'s file names {model_label(mine)!r} and {name}'s "
                f"{model_label(theirs)!r}: give --model with the one to load for all, or other files with "
                "--hparams METHOD=FILE."
            )
        mine, theirs = dtype_of(plan.hparams), dtype_of(other.hparams)
        if mine != theirs:
            raise RunError(
                f"--methods: one table is about one model, but {first} loads it as {mine} and {name} as {theirs}: set "
                "`dtype` (or `fp16`) and `quantization` alike in their files."
            )


def dtype_of(hparams: Any) -> str:
    """The type in which a method's hyper-parameters load their model; `auto` is the checkpoint's own on a GPU."""
    device = resolve_device(hparams.device)
    dtype = resolve_dtype(getattr(hparams, "dtype", "auto"), device, fp16=bool(getattr(hparams, "fp16", False)))
    name, held = str(dtype).removeprefix("torch."), getattr(hparams, "quantization", "none")
    return name if held == "none" else f"{name}, {held}"


def _run_plan(name: str, arguments: RunArguments, run_id: str, file: str | None) -> Plan:
    try:
        return make_plan(dataclasses.replace(arguments, editing_method=name, run_id=run_id, hparams_path=file))
    except (RunError, HparamsError) as error:
        reason = str(error).replace("--editing_method", "--methods")
        raise type(error)(reason if name in reason else f"{name}: {reason}") from None


def _run_id(parent: Path, ours: Mapping[str, Any], run_id: str | None, resume: bool) -> str | None:
    """The run id of the comparison to go on with, or None where a new one begins."""
    ours = {**dict.fromkeys(OPTIONAL_FIELDS), **ours}  # a comparison without a sequence does not name them
    kept = []
    for file in parent.glob("n*_seed*/meta/compare_args.json"):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            kept.append((file.stat().st_mtime, str(data["run_id"]), data))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s cannot be read: that comparison is not resumed", file)
    others = did_you_mean(run_id or "", [known for _, known, _ in kept])
    kept = [entry for entry in sorted(kept, key=lambda entry: -entry[0]) if run_id in (None, entry[1])]
    if not resume:
        if run_id is not None and kept:
            raise RunError(f"--run_id {run_id!r}: that comparison exists; --resume goes on with it.")
        return None
    for _, known, data in kept:
        if not _differing(data, ours, named=run_id is not None):
            return known
    if not kept:
        logger.info("there is no comparison to resume: a new one begins.%s", others)
        return None
    _, known, data = kept[0]
    differing = _differing(data, ours, named=run_id is not None)
    raise RunError(
        f"--resume: the comparison {known!r} was started with --{differing} {_shown(data.get(differing))}, and now it "
        f"is {_shown(ours[differing])}: give the same arguments, or leave out --resume and give another --run_id."
    )


def _differing(data: Mapping[str, Any], ours: Mapping[str, Any], *, named: bool) -> str:
    """The first argument that keeps one comparison from going on with another one, or empty.

    Args:
        data: What the other one was started with.
        ours: What this one is given.
        named: Whether it goes on by its `--run_id`: then with any judge, as answers are kept and judged again, and with
            further or fewer methods, each of which is a run of its own.
    """
    known: dict[str, Any] = {"model": None, "host": "auto", "hparams": {}, "protocol": "causal"}  # not written before
    known.update(data)
    ours = dict(ours)
    if named:
        both = set(known.get("methods") or ()) & set(ours["methods"])
        for files in (known, ours):
            files["hparams"] = {name: file for name, file in files["hparams"].items() if name in both}
        del ours["methods"], ours["judge"]
    return next((name for name, value in ours.items() if known.get(name) != value), "")


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "unset" if value is None else str(value)
