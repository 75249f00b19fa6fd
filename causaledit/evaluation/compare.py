"""Methods side by side: the same cases, probes and judge for all, each method a resumable run of its own.

Data flow: arguments → **plan** (one run's plan per method; everything that can be refused is refused here) →
per method: run → judge → **row** → compare.json and compare.md, written anew after each method.

    output_root/{datatype}/{model_type}/compare/tag-{exp_tag}/n{cases}_seed{seed}_{run_id}/
        compare.json  compare.md  meta/compare_args.json

The runs themselves lie where `causaledit run` puts them, under the same run id. One model serves all of them, as
every edit is undone exactly; that this is so is checked after each method.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch

from causaledit.card import versions
from causaledit.errors import CausalEditError, HparamsError, JudgingStoppedError, MetricsError, RunError
from causaledit.evaluation.compare_tables import markdown
from causaledit.evaluation.datasets import locate_dataset
from causaledit.evaluation.metrics import TASKS, compare_runs, evaluate_run
from causaledit.evaluation.predictions import read_cases, read_metrics, units_of
from causaledit.evaluation.probe_sets import PROBE_SET_VERSION
from causaledit.evaluation.runs import (
    Plan,
    RunArguments,
    RunFolder,
    RunSink,
    SilentRun,
    execute,
    locked,
    make_plan,
    new_run_id,
    place_of,
)
from causaledit.evaluation.statistics import PairedTable
from causaledit.files import read_object, write_json, write_text
from causaledit.judges.store import VerdictStore, judge_responses, store_of
from causaledit.models.loading import load_from_hparams, resolve_device, resolve_dtype
from causaledit.models.weights import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from causaledit.evaluation.metrics import CaseScores, RunMetrics
    from causaledit.judges.base import Judge
    from causaledit.models.loading import LoadedModel

logger = logging.getLogger(__name__)

REFERENCE = "CausalEdit"  # what the others are tested against, where it is among them
FOLDER = "compare"  # beside the methods' folders
Status = Literal["not started", "unfinished", "finished", "failed"]


# ---- arguments -------------------------------------------------------------------------------------
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


def make_compare_plan(
    methods: Sequence[str], arguments: RunArguments, *, judge: str, resume: bool = False
) -> ComparePlan:
    """Check everything that can be checked before a model is loaded.

    Args:
        methods: Names, as of `--editing_method`.
        arguments: What all runs share; `editing_method` is replaced by each of the names.
        judge: The judge's identity.
        resume: Go on with the comparison of `run_id`; without one, with the newest that has these arguments. Where
            there is none to go on with, a new one begins.

    Raises:
        RunError: An unknown method; the run id is taken (without `resume`), or was started with other arguments.
        DatasetError, HparamsError, ModelError, SaveError: As for a run.
    """
    methods = parse_methods(",".join(methods))
    ours = {**arguments.comparable(), "methods": list(methods), "judge": judge}
    for name in ("editing_method", "hparams_path"):
        del ours[name]
    parent = place_of(arguments, locate_dataset(arguments.datatype), FOLDER)
    run_id = _run_id(parent, ours, arguments.run_id, resume)
    resumed = run_id is not None
    run_id = run_id or arguments.run_id or new_run_id()
    runs = {name: _run_plan(name, arguments, run_id) for name in methods}
    if len({(plan.sha256, tuple(case.case_id for case in plan.cases)) for plan in runs.values()}) > 1:
        raise RunError(f"--datatype {arguments.datatype!r} changed while it was read: start again.")
    folder = parent / next(iter(runs.values())).folder.name
    return ComparePlan(methods, run_id, runs, ours, folder, resumed)


def _run_plan(name: str, arguments: RunArguments, run_id: str) -> Plan:
    try:
        return make_plan(dataclasses.replace(arguments, editing_method=name, run_id=run_id))
    except (RunError, HparamsError) as error:
        told = str(error).replace("--editing_method", "--methods")
        raise type(error)(told if name in told else f"{name}: {told}") from None


def _run_id(parent: Path, ours: Mapping[str, Any], run_id: str | None, resume: bool) -> str | None:
    """The run id of the comparison to go on with, or None where a new one begins."""
    kept = []
    for file in parent.glob("n*_seed*/meta/compare_args.json"):
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            kept.append((file.stat().st_mtime, str(data["run_id"]), data))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("%s cannot be read: that comparison is not resumed", file)
    kept = [entry for entry in sorted(kept, key=lambda entry: -entry[0]) if run_id in (None, entry[1])]
    if not resume:
        if run_id is not None and kept:
            raise RunError(f"--run_id {run_id!r}: that comparison exists; --resume goes on with it.")
        return None
    for _, known, data in kept:
        if all(data.get(name) == value for name, value in ours.items()):
            return known
    if not kept:
        logger.info("there is no comparison to resume: a new one begins")
        return None
    _, known, data = kept[0]
    differing = next(name for name, value in ours.items() if data.get(name) != value)
    raise RunError(
        f"--resume: the comparison {known!r} was started with --{differing} {_shown(data.get(differing))}, and now it "
        f"is {_shown(ours[differing])}: give the same arguments, or leave out --resume and give another --run_id."
    )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "unset" if value is None else str(value)


# ---- rows ------------------------------------------------------------------------------------------
@dataclass
class MethodRow:
    """What is known of one method.

    Attributes:
        method: Its name.
        folder: Its run's folder.
        status: How far the run got.
        cases: How many it has.
        finished_cases: How many are done, without those that failed.
        error: Why the run failed.
        failed_cases: Cases that could not be edited, with the reason.
        judging_error: Why there are no figures though there are predictions.
        metrics: `RunMetrics.to_dict()`.
        paired: Against the reference (`paired_with`); None for the reference itself.
        costs: As in run_info.json.
        device: As in run_info.json.
    """

    method: str
    folder: str
    status: Status
    cases: int
    finished_cases: int = 0
    error: str | None = None
    failed_cases: dict[str, str] = field(default_factory=dict)
    judging_error: str | None = None
    metrics: dict[str, Any] | None = None
    paired: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] | None = None

    @property
    def problem(self) -> str | None:
        """What went wrong, in a few words."""
        if self.error:
            return self.error
        if self.failed_cases:
            case, reason = next(iter(self.failed_cases.items()))
            return f"{len(self.failed_cases)} of {self.cases} cases failed, the first is {case}: {reason}"
        return f"not judged: {self.judging_error}" if self.judging_error else None


def paired_with(this: RunMetrics, reference: RunMetrics) -> dict[str, Any]:
    """`compare_runs`, and beside its tables those of rationales and of unchanged locality answers.

    `repaired` counts what is bad in `reference` and good in `this`, `harmed` the reverse.

    Raises:
        MetricsError: They share no case.
    """
    found = compare_runs(this, reference).to_dict()
    mine, theirs = ({str(s.case.case_id): s for s in run.scores if s.case.error is None} for run in (this, reference))
    pairs = [(mine[case], theirs[case]) for case in mine if case in theirs]

    def matched(answers: Any) -> PairedTable:
        both = ((answers(a), answers(b)) for a, b in pairs)
        return PairedTable.of((a[key], b[key]) for a, b in both for key in a if key in b)

    found["tables"]["rationale"] = matched(_rationales).to_dict()
    found["tables"]["locality_unchanged"] = matched(lambda s: {k: v[0] for k, v in s.locality.items()}).to_dict()
    return found


def _rationales(scores: CaseScores) -> dict[Any, bool | None]:
    """Whether an explanation agrees with the narrative, by edit and place."""
    edits = {outcome.edit.index: outcome.edit.identity for outcome in scores.edits}
    items = scores.case.of("rationale", "hop_wise")
    return {
        (edits[item.edit], item.hop, item.slot): None if grade is None else grade == "PASS"  # type: ignore[index]
        for item, grade in zip(items, scores.rationales, strict=True)
    }


# ---- progress --------------------------------------------------------------------------------------
class CompareSink(RunSink, Protocol):
    """Receives a comparison's progress, and that of each of its runs."""

    def begin_methods(self, plan: ComparePlan) -> None:
        """The comparison begins."""

    def begin_method(self, row: MethodRow) -> None:
        """A method's turn."""

    def method_done(self, row: MethodRow) -> None:
        """It is over, well or not, and the table is on disk."""


class SilentCompare(SilentRun):
    """Shows nothing."""

    def begin_methods(self, plan: ComparePlan) -> None:
        """See `CompareSink.begin_methods`."""

    def begin_method(self, row: MethodRow) -> None:
        """See `CompareSink.begin_method`."""

    def method_done(self, row: MethodRow) -> None:
        """See `CompareSink.method_done`."""


# ---- execution -------------------------------------------------------------------------------------
def execute_comparison(
    plan: ComparePlan,
    judge: Judge,
    sink: CompareSink | None = None,
    *,
    workers: int = 1,
    retry_errors: bool = False,
) -> list[MethodRow]:
    """Run, judge and tabulate every method, going on where an earlier call stopped.

    A method that fails does not end the comparison, nor does a judge that gives up: both are in the method's row,
    and a later call tries them again.

    Args:
        plan: From `make_compare_plan`.
        judge: The judge that the plan was made for.
        sink: Where progress goes.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again what is kept as an error.

    Returns:
        One row per method, in the order of the plan.

    Raises:
        RunError: Another process works on the comparison.
        SaveError: The table cannot be written.
    """
    with locked(plan.folder):
        write_json(plan.folder / "meta" / "compare_args.json", {**plan.arguments, "run_id": plan.run_id})
        return _Comparison(plan, judge, sink or SilentCompare(), workers, retry_errors).run()


class _Comparison:
    """One process's part of a comparison."""

    def __init__(self, plan: ComparePlan, judge: Judge, sink: CompareSink, workers: int, retry_errors: bool) -> None:
        self.plan, self.judge, self.sink = plan, judge, sink
        self.workers, self.retry_errors = workers, retry_errors
        self.model = _SharedModel()
        self.reference: RunMetrics | None = None
        self.rows = {
            name: MethodRow(name, str(run.folder), "not started", len(run.cases)) for name, run in plan.runs.items()
        }

    def run(self) -> list[MethodRow]:
        """All methods, the reference first: the others are tested against it."""
        self.sink.begin_methods(self.plan)
        order = sorted(self.plan.methods, key=lambda name: name != self.plan.reference)
        try:
            for name in order:  # what an earlier call left is in the table from the start
                if self.plan.runs[name].resumed:
                    self._describe(name)
            for name in order:
                self._method(name)
        finally:
            self._write()
        return list(self.rows.values())

    def _method(self, name: str) -> None:
        run, row = self.plan.runs[name], self.rows[name]
        self.sink.begin_method(row)
        error = None
        try:
            folder = RunFolder(run.folder, run.cases)
            if all(folder.is_finished(case) for case in run.cases):
                execute(run, self.sink)
            else:
                loaded = self.model.get(run.hparams)
                execute(run, self.sink, model=loaded.model, tokenizer=loaded.tokenizer)
        except KeyboardInterrupt:
            row.status = "unfinished"
            raise
        except Exception as failure:
            error = _told(failure)
            logger.debug("%s failed", name, exc_info=True)
            logger.warning("%s failed, the others go on: %s", name, error)
        changed = self.model.check()
        row.error = error or (f"{name} left the model otherwise than it was: {changed}" if changed else None)
        self._describe(name, retry_errors=self.retry_errors)
        if row.error:
            row.status = "failed"
        self._write()
        self.sink.method_done(row)

    def _describe(self, name: str, *, retry_errors: bool = False) -> None:
        """Fill in the method's row from what is on disk."""
        run, row = self.plan.runs[name], self.rows[name]
        info = read_object(run.folder / "meta" / "run_info.json")
        row.costs, row.device = info.get("costs") or {}, info.get("device")
        folder = RunFolder(run.folder, run.cases)
        row.finished_cases = sum(folder.is_finished(case) for case in run.cases)
        row.failed_cases = {str(item["case_id"]): str(item["error"]) for item in folder.items if "error" in item}
        done = row.finished_cases + len(row.failed_cases) == row.cases
        row.status = "finished" if done else "unfinished"
        row.metrics = row.paired = row.judging_error = None
        if not folder.items:
            return
        folder.assemble()  # a run that was killed has cases that are not in metrics.json yet
        try:
            figures = self._figures(run, retry_errors)
        except Exception as error:  # the predictions are on disk, and the other methods have theirs to give
            row.judging_error = _told(error)
            logger.debug("%s: judging failed", name, exc_info=True)
            logger.warning("%s is not judged: %s", name, row.judging_error)
            return
        row.metrics = figures.to_dict()
        if name == self.plan.reference:
            self.reference = figures
        elif self.reference is not None:
            try:
                row.paired = paired_with(figures, self.reference)
            except MetricsError as error:  # one of the two has no case yet
                logger.info("%s and %s are not paired: %s", name, self.plan.reference, error)

    def _figures(self, run: Plan, retry_errors: bool) -> RunMetrics:
        file = run.folder / "metrics.json"
        cases = read_cases(read_metrics(file, run.arguments.editing_method))
        stages = self.sink.stages
        try:
            with VerdictStore(store_of(file, self.judge.name)) as store:
                table = judge_responses(
                    self.judge,
                    units_of(cases, TASKS),
                    store=store,
                    workers=self.workers,
                    retry_errors=retry_errors,
                    on_start=lambda missing: stages.start(f"judging ({self.judge.name})", missing),
                    on_verdict=stages.advance,
                )
        finally:
            stages.finish()
        errors = table.errors()
        if errors and sum(errors.values()) == len(table):
            raise JudgingStoppedError(f"none of {len(table)} responses could be judged: {next(iter(errors))[:200]}")
        return evaluate_run(cases, table)

    def _write(self) -> None:
        rows = list(self.rows.values())
        data = {
            "reference": self.plan.reference,
            "run_id": self.plan.run_id,
            "arguments": dict(self.plan.arguments),
            "dataset_sha256": next(iter(self.plan.runs.values())).sha256,
            "cases": [case.case_id for case in next(iter(self.plan.runs.values())).cases],
            "probe_set_version": PROBE_SET_VERSION,
            "versions": versions(),
            "methods": {row.method: {**dataclasses.asdict(row), "problem": row.problem} for row in rows},
        }
        write_json(self.plan.folder / "compare.json", data)
        write_text(self.plan.folder / "compare.md", markdown(data))


class _SharedModel:
    """The model of the methods' runs: loaded when it is needed, and again only for another model or after harm."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._key: tuple[Any, ...] | None = None
        self._state: Any = None

    def get(self, hparams: Any) -> LoadedModel:
        """The model that these hyper-parameters name."""
        device = resolve_device(hparams.device)
        dtype = resolve_dtype(getattr(hparams, "dtype", "auto"), device, fp16=getattr(hparams, "fp16", False))
        key = (hparams.model_name, str(device), str(dtype), bool(hparams.model_parallel))
        if self._loaded is None or key != self._key:
            self._drop()
            logger.info("loading %s", hparams.model_name)
            self._loaded, self._key = load_from_hparams(hparams), key
            self._state = _state(self._loaded.model)
        return self._loaded

    def check(self) -> str | None:
        """What is not as it was when the model was loaded; the model is then given up."""
        if self._loaded is None:
            return None
        try:
            now = _state(self._loaded.model)
        except RuntimeError as error:  # a device that has gone wrong
            self._drop()
            return _told(error)
        changed = [name for name, value in now.items() if value != self._state[name]]
        if changed:
            self._drop()
        else:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return ", ".join(changed) or None

    def _drop(self) -> None:
        self._loaded = self._key = self._state = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _state(model: Any) -> dict[str, Any]:
    """What every method has to leave as it was."""
    return {
        "weights": fingerprint(model),
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    }


def _told(error: Exception) -> str:
    """An error in one line."""
    reason = (str(error).strip().splitlines() or [""])[0]
    return reason if isinstance(error, CausalEditError) else f"{type(error).__name__}: {reason}"


__all__ = [
    "ComparePlan", "CompareSink", "MethodRow", "SilentCompare", "execute_comparison", "make_compare_plan",
    "paired_with", "parse_methods",
]  # fmt: skip
