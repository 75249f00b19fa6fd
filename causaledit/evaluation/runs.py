"""Evaluation runs: edit a case, probe it, undo it exactly, write it, next case.

Data flow: arguments → **plan** (data, cases, groups, prompts; everything that can be refused is refused here) →
**execute** (per group: apply → probe → write → undo) → metrics.json, res.json.

    output_root/{datatype}/{model_type}/{editing_method}/tag-{exp_tag}/n{cases}_seed{seed}_{run_id}/
        metrics.json  res.json  requests.json  meta/run_args.json  meta/run_info.json  cases/

These names, and the keys in metrics.json, are the published tool's. `cases/` holds one file per finished case:
it is what a run resumes from, after any stop.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import inspect
import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import filelock
import torch

from causaledit.card import versions
from causaledit.errors import (
    CausalEditError,
    EditFailedError,
    HostError,
    HparamsError,
    RequestError,
    RunError,
    SaveError,
    did_you_mean,
)
from causaledit.evaluation.answers import alias_match
from causaledit.evaluation.datasets import LocatedDataset, locate_dataset
from causaledit.evaluation.mquake import (
    SHUFFLE_SEED,
    Case,
    Group,
    check_cases,
    group_by_case,
    group_in_batches,
    parse_cases,
    read_cases,
    refuse,
    select_cases,
)
from causaledit.evaluation.probe_sets import DEFAULT_KINDS, PROBE_SET_VERSION, CaseProbe, Kind, build_probes
from causaledit.evaluation.probing import MAX_NEW_TOKENS, TOKEN_BUDGET, Prober, plain_rate
from causaledit.files import check_writable, read_object, write_json
from causaledit.methods.common import seeded
from causaledit.methods.hyperparams import read_hparams_file
from causaledit.methods.registry import get_method
from causaledit.models.generation import is_out_of_memory
from causaledit.models.loading import load_from_hparams, resolve_device
from causaledit.models.tally import peak_rss_mb, reset_peak_rss
from causaledit.models.weights import fingerprint, forget_adapter, undo_edit, weights_changed
from causaledit.progress import ProgressSink, SilentProgress
from causaledit.resources import hparams_dir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from causaledit.methods.registry import Method

logger = logging.getLogger(__name__)

PRE_EDITED = "PreEdited"  # the unedited model, as the published tool calls it
ASSEMBLE_EVERY = 60.0  # seconds between two metrics.json of a run under way
_NAME = re.compile(r"[\w.-]+")
# published keys, in published order; ours is the last
POST_KEYS = (
    "hop_wise", "hop_wise_pred", "accuracy", "accuracy_pred", "conflict_probe", "old_knowledge_probe",
    "causal_enhanced_hop_wise_pred", "causal_enhanced_conflict_probe", "locality_probe",
)  # fmt: skip


# ---- arguments -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RunArguments:
    """What a run is asked to do; the names are the command's flags.

    Attributes:
        editing_method: A registered method, or `PreEdited`.
        datatype: A data set's name, or the path of an MQuAKE file.
        model_type: Name of the hparams file in `hparams/{editing_method}/`; for `PreEdited` also a model.
        hparams_path: An hparams file instead.
        max_cases: At most so many cases.
        hop: Only cases of so many hops.
        shuffle_seed: Seed of the selection.
        exp_tag: Part of the folder's name.
        batch_edit: Group unique edits into batches of so many.
        skip_cases: Leave out so many of the first chosen cases.
        output_root: Where runs are kept.
        run_id: Name of the run; the same name resumes it. None makes a new one.
        device: Instead of the hparams' device.
        probes: Which probe sets are asked.
        max_new_tokens: Longest answer to a probe.
        token_budget: Most tokens in one batch of probes.
    """

    editing_method: str
    datatype: str
    model_type: str
    hparams_path: str | None = None
    max_cases: int = 200
    hop: int | None = None
    shuffle_seed: int = SHUFFLE_SEED
    exp_tag: str = "default"
    batch_edit: int | None = None
    skip_cases: int = 0
    output_root: str = "./output/experiments"
    run_id: str | None = None
    device: str | None = None
    probes: tuple[Kind, ...] = DEFAULT_KINDS
    max_new_tokens: int = MAX_NEW_TOKENS
    token_budget: int = TOKEN_BUDGET

    def __post_init__(self) -> None:
        least = {"max_cases": 1, "hop": 1, "batch_edit": 1, "skip_cases": 0, "max_new_tokens": 1, "token_budget": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise RunError(f"--{name} must be at least {bound}, got {value}.")
        for name in ("exp_tag", "run_id"):
            value = getattr(self, name)
            if value is not None and not (_NAME.fullmatch(value) and value.strip(".")):
                raise RunError(f"--{name} becomes part of a folder's name: use letters, digits, . _ -, not {value!r}.")

    def comparable(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        data = dataclasses.asdict(self)
        for name in ("output_root", "run_id"):
            del data[name]
        return json.loads(json.dumps(data))


@dataclass(frozen=True)
class ModelSettings:
    """Which model `PreEdited` loads, and how: the keys of a method's hparams that say so."""

    model_name: str
    device: Any = "auto"
    dtype: str = "auto"
    fp16: bool = False
    model_parallel: bool = False
    chat_template_kwargs: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


# ---- the plan --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Plan:
    """A run that has been checked and can start.

    Attributes:
        arguments: As given, with the run id filled in.
        method: The method, or None for `PreEdited`.
        hparams: Its hyper-parameters, or the model's settings.
        dataset: The file.
        sha256: Of the file.
        groups: Edits that are applied together, with the cases then probed.
        left_out: Chosen cases that are in no batch (`--batch_edit`).
        folder: Where the run is kept.
        resumed: Whether it was there already.
    """

    arguments: RunArguments
    method: Method | None
    hparams: Any
    dataset: LocatedDataset
    sha256: str
    groups: tuple[Group, ...]
    left_out: tuple[int | str, ...]
    folder: Path
    resumed: bool

    @property
    def cases(self) -> list[Case]:
        """All cases in the order of the run."""
        return [case for group in self.groups for case in group.cases]


def make_plan(arguments: RunArguments) -> Plan:
    """Check everything that can be checked before a model is loaded.

    Raises:
        RunError: Unknown method, or a run of that id was started with other arguments.
        DatasetError, HparamsError, ModelError, SaveError: The data, hparams, device or folder is unusable.
    """
    method, hparams = _find_method(arguments)
    if arguments.device is not None:
        hparams = _with_device(hparams, arguments.device)
    resolve_device(hparams.device)
    dataset = locate_dataset(arguments.datatype)
    data = read_cases(dataset.path)
    chosen = select_cases(
        data, hop=arguments.hop, max_cases=arguments.max_cases, seed=arguments.shuffle_seed,
        skip_cases=arguments.skip_cases,
    )  # fmt: skip
    _refuse_bad_cases(data, set(chosen), dataset)
    cases = parse_cases([data[index] for index in chosen])
    size = arguments.batch_edit
    groups = group_by_case(cases) if size is None else group_in_batches(cases, size)
    _check_kinds(arguments, method, groups)
    inside = {case.case_id for group in groups for case in group.cases}
    left_out = tuple(case.case_id for case in cases if case.case_id not in inside)
    if left_out:
        logger.warning("--batch_edit: %d of %d cases have no batch of their own", len(left_out), len(cases))
    check_writable(Path(arguments.output_root), "--output_root")
    sha256 = hashlib.sha256(dataset.path.read_bytes()).hexdigest()
    plan = Plan(arguments, method, hparams, dataset, sha256, tuple(groups), left_out, Path(), False)
    return _with_folder(plan)


def _find_method(arguments: RunArguments) -> tuple[Method | None, Any]:
    name, model_type = arguments.editing_method, arguments.model_type
    if not model_type.strip():
        raise RunError("--model_type is empty: give the name of a file in hparams/{editing_method}/.")
    if name == PRE_EDITED:
        return None, _model_settings(model_type, arguments.hparams_path)
    try:
        method = get_method(name)
    except HostError as error:
        hint = did_you_mean(name, [PRE_EDITED])
        raise RunError(f"--editing_method: {error} Or {PRE_EDITED!r}, the unedited model.{hint}") from None
    own = Path("hparams") / name / f"{model_type}.yaml"  # as the published tool looks it up
    path = arguments.hparams_path or (own if own.is_file() else model_type)
    return method, method.load_hparams().from_hparams(str(path))


def _model_settings(model_type: str, hparams_path: str | None) -> ModelSettings:
    """The model of any method's hparams file of that name, or the name itself as a model."""
    if hparams_path is not None:
        file = Path(hparams_path).expanduser()
        file = file if file.is_file() else file.with_name(f"{file.name}.yaml")
        if not file.is_file():
            raise HparamsError(f"--hparams_path: the file {hparams_path!r} does not exist.")
        files = [file]
    else:
        roots = (Path("hparams"), hparams_dir("CausalEdit").parent)
        files = [file for root in roots for file in sorted(root.glob(f"*/{model_type}.yaml"))] if (
            _NAME.fullmatch(model_type)
        ) else []  # fmt: skip
    for file in files:
        data = read_hparams_file(file)
        if data.get("model_name"):
            known = {spec.name for spec in dataclasses.fields(ModelSettings)}
            return ModelSettings(**{key: value for key, value in data.items() if key in known})
        if hparams_path is not None:
            raise HparamsError(f"--hparams_path: {file.name} names no `model_name`.")
    return ModelSettings(model_type)


def _with_device(hparams: Any, device: str) -> Any:
    if isinstance(hparams, ModelSettings):
        return dataclasses.replace(hparams, device=device)
    hparams.device = device
    return hparams


def _refuse_bad_cases(data: Sequence[Any], chosen: set[int], dataset: LocatedDataset) -> None:
    """Problems of chosen cases and repeated ids end the run here; other cases' are only mentioned."""
    problems = check_cases(list(data))
    fatal = [p for p in problems if p.index is None or p.index in chosen or p.field == "case_id"]
    refuse(fatal, f"--datatype {dataset.name!r}")
    if problems:
        logger.warning("%s: %d problem(s) in cases that are not chosen", dataset.name, len(problems))


def _check_kinds(arguments: RunArguments, method: Method | None, groups: Sequence[Group]) -> None:
    narratives = any(e.request.narrative for g in groups for e in g.edits)
    if "open_book" in arguments.probes and not narratives:
        raise RunError("--probes open_book needs narratives (`article`), and no chosen case has one.")
    if "forced" in arguments.probes and not narratives:
        raise RunError(f"--datatype {arguments.datatype!r}: the pilot study needs narratives (`article`); none here.")
    together = max(len(group.edits) for group in groups)
    if method is not None and not method.batched and together > 1:
        raise RunError(
            f"--editing_method {method.name} edits one fact at a time, but {together} edits are to be applied "
            "together: take another method."
        )


# ---- the folder ------------------------------------------------------------------------------------
_FOLDER = re.compile(r"n\d+_seed-?\d+_(.+)")


def _label(value: str) -> str:
    """A model or data set as part of a path: its last component, without what a file system dislikes."""
    return re.sub(r"[^\w.-]+", "_", Path(value).name) or "model"


def place_of(arguments: RunArguments, dataset: LocatedDataset, name: str) -> Path:
    """Where runs of a method of that name lie."""
    parent = Path(arguments.output_root).expanduser() / _label(dataset.name) / _label(arguments.model_type)
    return parent / name / f"tag-{arguments.exp_tag}"


def new_run_id() -> str:
    """A name for a run: the time, and what sets two runs of one second apart."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _with_folder(plan: Plan) -> Plan:
    parent = place_of(plan.arguments, plan.dataset, plan.arguments.editing_method)
    run_id = plan.arguments.run_id or new_run_id()
    arguments = dataclasses.replace(plan.arguments, run_id=run_id)
    folder = parent / f"n{len(plan.cases)}_seed{arguments.shuffle_seed}_{run_id}"
    plan = dataclasses.replace(plan, arguments=arguments, folder=folder)
    existing = [f for f in sorted(parent.glob("n*_seed*")) if (m := _FOLDER.fullmatch(f.name)) and m[1] == run_id]
    for other in existing:
        if (other / "meta" / "run_args.json").is_file():
            _refuse_other_arguments(plan, json.loads((other / "meta" / "run_args.json").read_text(encoding="utf-8")))
            plan = dataclasses.replace(plan, resumed=True)
    return plan


def _run_args(plan: Plan) -> dict[str, Any]:
    """What is written to meta/run_args.json: the flags, and what they stood for."""
    return {
        **plan.arguments.comparable(),
        "output_root": plan.arguments.output_root,
        "run_id": plan.arguments.run_id,
        "dataset_sha256": plan.sha256,
        "probe_set_version": PROBE_SET_VERSION,
        "hparams": json.loads(json.dumps(_plain(plan.hparams), default=str)),
    }


def _plain(hparams: Any) -> dict[str, Any]:
    return hparams.to_dict() if hasattr(hparams, "to_dict") else dict(vars(hparams))


def _refuse_other_arguments(plan: Plan, started_with: Mapping[str, Any]) -> None:
    now = _run_args(plan)
    for name in now:
        before = started_with.get(name)
        if name in ("output_root", "run_id") or before == now[name]:
            continue
        if name in plan.arguments.comparable():
            what = f"--{name} {_shown(before)}, and now it is {_shown(now[name])}"
        elif name == "hparams":
            changed = [key for key in now[name] if (before or {}).get(key) != now[name][key]]
            what = f"other hyper-parameters ({', '.join(changed[:5]) or 'a key less'})"
        else:
            what = f"another {name.replace('_', ' ')} ({_shown(before)}, now {_shown(now[name])})"
        raise RunError(
            f"--run_id {plan.arguments.run_id!r} was started with {what}: give the same arguments to resume it, or "
            "another --run_id."
        )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "unset" if value is None else repr(value)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path, cases: Sequence[Case]) -> None:
        self.path = path
        self.positions = {case.case_id: position for position, case in enumerate(cases)}
        self.finished: dict[int, dict[str, Any]] = {}
        self._figures: dict[int, dict[str, float | None]] = {}
        for position, case in enumerate(cases):
            record = self._read(position)
            if record is not None and record["item"].get("case_id") == case.case_id:
                self._take(position, record)
        self._assembled = time.monotonic()

    def _file(self, position: int) -> Path:
        return self.path / "cases" / f"{position:06d}.json"

    def _read(self, position: int) -> dict[str, Any] | None:
        try:
            record = json.loads(self._file(position).read_text(encoding="utf-8"))
            return record if isinstance(record["item"], dict) and isinstance(record["cost"], dict) else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):  # a disk that lost power: the case is run again
            logger.warning("%s cannot be read: the case is run again", self._file(position))
            return None

    def _take(self, position: int, record: dict[str, Any]) -> None:
        self.finished[position] = record
        self._figures[position] = case_averages(record["item"])

    def is_finished(self, case: Case) -> bool:
        """Whether a case is done; one that failed is tried again by a later call."""
        record = self.finished.get(self.positions[case.case_id])
        return record is not None and "error" not in record["item"]

    def write(self, case: Case, item: dict[str, Any], cost: dict[str, Any]) -> None:
        """Put a finished case on disk, whole or not at all."""
        position = self.positions[case.case_id]
        record = {"item": item, "cost": cost}
        write_json(self._file(position), record)
        self._take(position, record)
        if time.monotonic() - self._assembled > ASSEMBLE_EVERY:
            self.assemble()

    @property
    def items(self) -> list[dict[str, Any]]:
        """Finished cases in the order of the run."""
        return [self.finished[position]["item"] for position in sorted(self.finished)]

    @property
    def costs(self) -> list[dict[str, Any]]:
        """What they cost, in the same order."""
        return [self.finished[position]["cost"] for position in sorted(self.finished)]

    def averages(self) -> dict[str, Any]:
        """The content of res.json so far."""
        return averages(self.items, [self._figures[position] for position in sorted(self.finished)])

    def assemble(self) -> None:
        """Write metrics.json and res.json from the finished cases."""
        write_json(self.path / "metrics.json", self.items)
        write_json(self.path / "res.json", self.averages())
        self._assembled = time.monotonic()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock goes with the process, however it ends.

    Raises:
        RunError: Another process holds it.
        SaveError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise RunError(
            f"Another process is working on {str(folder)!r}: wait for it, or give another --run_id."
        ) from None
    except OSError as error:
        raise SaveError(f"{str(folder)!r} cannot be written: {error.strerror or error}.") from None
    try:
        yield
    finally:
        lock.release()


# ---- metrics of a case -----------------------------------------------------------------------------
def assemble_post(
    case: Case, probes: Sequence[CaseProbe], predictions: Sequence[str], before: Mapping[str, str]
) -> dict[str, Any]:
    """The `post` of metrics.json from the answers to a case's probes.

    Args:
        case: The case.
        probes: What was asked.
        predictions: The answers, in the same order.
        before: Answers of the unedited model to the locality prompts.
    """
    post: dict[str, Any] = {key: [] for key in POST_KEYS}
    asked = {(probe.kind, probe.open_book) for probe in probes}
    if ("hop", False) in asked:
        post["hop_wise_pred"] = _empty_hops(case, probes, open_book=False)
        if not any(probe.prefix for probe in probes):  # an answer that was forced is no hit
            post["hop_wise"] = [[False] * len(hop) for hop in post["hop_wise_pred"]]
    if ("hop", True) in asked:
        post["causal_enhanced_hop_wise_pred"] = _empty_hops(case, probes, open_book=True)
    if ("conflict", True) in asked:  # eight places per edit; an edit without a narrative leaves its own empty
        post["causal_enhanced_conflict_probe"] = [None] * (8 * len(case.edits))
    for probe, text in zip(probes, predictions, strict=True):
        entry: dict[str, Any] = {"q": probe.q, "prompt": probe.prompt, "ref": list(probe.ref), "pred": text}
        if probe.edit is not None:
            entry["edit"] = probe.edit
        if probe.rival:
            entry["rival"] = list(probe.rival)
        if probe.prefix:
            entry["forced_prefix"] = probe.prefix
        if probe.kind == "hop" and probe.open_book:
            post["causal_enhanced_hop_wise_pred"][probe.hop][probe.slot] = entry
        elif probe.kind == "hop":
            post["hop_wise_pred"][probe.hop][probe.slot] = entry
            if post["hop_wise"]:
                post["hop_wise"][probe.hop][probe.slot] = alias_match(text, probe.ref)
        elif probe.kind == "multi_hop":
            post["accuracy_pred"].append(entry)
            post["accuracy"].append(alias_match(text, probe.ref))
        elif probe.kind == "conflict" and probe.open_book:
            post["causal_enhanced_conflict_probe"][8 * probe.edit + probe.slot] = entry
        elif probe.kind == "conflict":
            post["conflict_probe"].append(entry)
        elif probe.kind == "old_knowledge":
            post["old_knowledge_probe"].append(entry)
        elif probe.kind == "locality":
            post["locality_probe"].append({**entry, "pred_before": before[probe.prompt]})
    return post


def _empty_hops(case: Case, probes: Sequence[CaseProbe], *, open_book: bool) -> list[list[Any]]:
    """Three places per hop of the new chain; none for a hop that is not asked about."""
    asked = {probe.hop for probe in probes if probe.kind == "hop" and probe.open_book == open_book}
    return [[None] * 3 if hop in asked else [] for hop in range(len(case.hops))]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def case_averages(item: Mapping[str, Any]) -> dict[str, float | None]:
    """Quick figures of one case by alias match; None where nothing was asked."""
    post = item.get("post") or {}
    hops = [sum(hop) / len(hop) for hop in post.get("hop_wise", ()) if hop]
    accuracy = [float(hit) for hit in post.get("accuracy", ())]
    local = [p for p in post.get("locality_probe", ()) if alias_match(p["pred_before"], p["ref"])]
    old = [alias_match(p["pred"], p["ref"]) for p in post.get("old_knowledge_probe", ())]
    return {
        "hop_wise": _mean(hops),
        "accuracy": _mean(accuracy),
        "any_right_accuracy": float(any(accuracy)) if accuracy else None,
        "old_knowledge": _mean([float(hit) for hit in old]),
        "locality": _mean([float(alias_match(p["pred"], p["ref"])) for p in local]),
    }


def averages(
    items: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, float | None]] | None = None
) -> dict[str, Any]:
    """The content of res.json: means over cases by alias match, with how many cases each is over.

    Locality is the share of answers that were right before the edit and still are. These are the quick figures of
    a run; the verdicts of a judge are what counts (`causaledit analyze`).

    Args:
        items: The cases of metrics.json.
        figures: Their `case_averages`, where they are known.
    """
    figures = [case_averages(item) for item in items] if figures is None else figures
    done = [item for item in items if "error" not in item]
    per_case = [known for item, known in zip(items, figures, strict=True) if "error" not in item]
    result: dict[str, Any] = {
        "cases": len(done),
        "failed": len(items) - len(done),
        "edits": sum(len(item["requested_rewrite"]) for item in done),
        "hits_by": "alias match",
        "probe_set_version": PROBE_SET_VERSION,
    }
    for name in ("hop_wise", "accuracy", "any_right_accuracy", "old_knowledge", "locality"):
        values = [known[name] for known in per_case if known[name] is not None]
        result[name] = _mean(values)
        result[f"{name}_cases"] = len(values)
    result["time"] = _mean([item["time"] for item in done])
    return result


# ---- progress --------------------------------------------------------------------------------------
class RunSink(Protocol):
    """Receives a run's progress. `stages` is what the method reports to while it edits."""

    stages: ProgressSink

    def begin(self, plan: Plan, done: int) -> None:
        """The model is loaded; so many cases were finished before."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """A case is on disk; `running` are the averages so far."""


class SilentRun:
    """Shows nothing."""

    stages: ProgressSink = SilentProgress()

    def begin(self, plan: Plan, done: int) -> None:
        """See `RunSink.begin`."""

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """See `RunSink.case_done`."""


# ---- execution -------------------------------------------------------------------------------------
@dataclass
class RunSummary:
    """How a run ended.

    Attributes:
        folder: Where it is kept.
        results: The content of res.json.
        failed: Cases that could not be edited, with the reason.
        costs: As in run_info.json.
    """

    folder: Path
    results: dict[str, Any]
    failed: dict[int | str, str] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)


def execute(plan: Plan, sink: RunSink | None = None, *, model: Any = None, tokenizer: Any = None) -> RunSummary:
    """Run a plan to its end, going on where an earlier call stopped.

    Args:
        plan: From `make_plan`.
        sink: Where progress goes.
        model: A loaded model with its `tokenizer`, instead of loading the hparams' one; restored bit for bit.
        tokenizer: See `model`.

    Raises:
        CausalEditError: The run cannot go on; finished cases are on disk. A case that cannot be edited does not
            end the run: it is in the summary, and in metrics.json with `error` instead of `post`.
    """
    folder = RunFolder(plan.folder, plan.cases)
    with locked(plan.folder):
        info = _RunInfo(plan)
        write_json(plan.folder / "meta" / "run_args.json", _run_args(plan))
        requests = [edit.to_request(case.case_id) for case in plan.cases for edit in case.edits]
        write_json(plan.folder / "requests.json", requests)
        folder.assemble()
        status, reason = "failed", None
        try:
            todo = [case for case in plan.cases if not folder.is_finished(case)]
            if todo:
                if model is None:
                    model, tokenizer = load_from_hparams(plan.hparams)
                _Execution(plan, folder, sink or SilentRun(), info, model, tokenizer).run()
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            folder.assemble()
            failed = {i["case_id"]: i["error"] for i in folder.items if "error" in i}
            info.write(status, folder, reason)
        return RunSummary(plan.folder, folder.averages(), failed, info.costs(folder))


class _RunInfo:
    """meta/run_info.json: versions, device, status, costs."""

    def __init__(self, plan: Plan) -> None:
        self.path = plan.folder / "meta" / "run_info.json"
        self.plan = plan
        self.before = read_object(self.path)
        self.started = self.before.get("started") or _now()
        self.device = self.before.get("device")
        self.plain_tokens_per_second = self.before.get("costs", {}).get("plain_tokens_per_second")
        self.ran = False
        self.resettable = reset_peak_rss()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def measured(self, model: Any, tokenizer: Any) -> None:
        """Note the device, and once per run the speed of plain generation on it."""
        self.ran = True
        device = torch.device(model.device)
        self.device = {
            "type": str(device),
            "name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }
        if self.plain_tokens_per_second is None:
            self.plain_tokens_per_second = plain_rate(model, tokenizer)

    def costs(self, folder: RunFolder) -> dict[str, Any]:
        """Sums over finished cases; a batch's edit counts once. Weights changed: the mean of what each edit left."""
        gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        per_group = {cost["group"]: cost for cost in folder.costs if "edit_seconds" in cost}
        timed = list(per_group.values())
        seconds, edits = sum(cost["edit_seconds"] for cost in timed), sum(cost["edits"] for cost in timed)
        rate = self.plain_tokens_per_second
        per_edit = seconds / edits if edits else None
        changed = [cost["weights_changed"] for cost in timed if cost.get("weights_changed") is not None]
        total = next((cost["weights_total"] for cost in timed if "weights_total" in cost), None)
        before = self.before.get("costs", {})
        return {
            "seconds_per_edit": per_edit,
            "median_seconds_per_edit": median(c["edit_seconds"] / c["edits"] for c in timed) if timed else None,
            "plain_tokens_per_second": rate,
            "cost_tokens_per_edit": per_edit * rate if rate and per_edit is not None else None,
            "probe_seconds": sum(cost.get("probe_seconds", 0.0) for cost in folder.costs),
            "probe_tokens": sum(cost.get("probe_tokens", 0) for cost in folder.costs),
            "weights_changed": _mean(changed),
            "weights_changed_share": _mean(changed) / total if changed and total else None,
            "peak_rss_mb": max(peak_rss_mb() if self.ran else 0.0, before.get("peak_rss_mb") or 0.0),
            "peak_rss_of": ("run" if self.resettable else "process") if self.ran else before.get("peak_rss_of"),
            "peak_gpu_mb": max(gpu if self.ran else 0.0, before.get("peak_gpu_mb") or 0.0) if gpu is not None else None,
        }

    def write(self, status: str, folder: RunFolder, error: str | None = None) -> None:
        """Write the file."""
        write_json(
            self.path,
            {
                "status": status,
                "error": error,
                "started": self.started,
                "written": _now(),
                "cases": len(self.plan.cases),
                "finished_cases": len([item for item in folder.items if "error" not in item]),
                "failed_cases": [item["case_id"] for item in folder.items if "error" in item],
                "left_out_cases": list(self.plan.left_out),
                "batches": len(self.plan.groups) if self.plan.arguments.batch_edit else None,
                "dataset": {"name": self.plan.dataset.name, "sha256": self.plan.sha256},
                "versions": versions(),
                "device": self.device,
                "costs": self.costs(folder),
            },
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


class _Execution:
    """One process's part of a run: the loaded model, and the loop over groups."""

    def __init__(
        self, plan: Plan, folder: RunFolder, sink: RunSink, info: _RunInfo, model: Any, tokenizer: Any
    ) -> None:
        self.plan, self.folder, self.sink, self.info = plan, folder, sink, info
        self.model, self.tokenizer = model, tokenizer
        arguments = plan.arguments
        self.prober = Prober(
            tokenizer,
            max_new_tokens=arguments.max_new_tokens,
            token_budget=arguments.token_budget,
            template_kwargs=getattr(plan.hparams, "chat_template_kwargs", None),
        )
        self.apply = plan.method.load_apply() if plan.method else None
        self.weights_total = sum(parameter.numel() for parameter in model.parameters())

    def run(self) -> None:
        """All groups that are not finished."""
        kinds = self.plan.arguments.probes
        todo = [case for case in self.plan.cases if not self.folder.is_finished(case)]
        prompts = [probe.prompt + probe.prefix for case in todo for probe in build_probes(case, kinds)]
        self.prober.check_window(self.model, prompts)
        self.info.measured(self.model, self.tokenizer)
        self.info.write("running", self.folder)
        self.sink.begin(self.plan, len(self.plan.cases) - len(todo))
        untouched = fingerprint(self.model)
        for number, group in enumerate(self.plan.groups):
            cases = [case for case in group.cases if not self.folder.is_finished(case)]
            if not cases:
                continue
            with seeded(self.plan.arguments.shuffle_seed):  # whatever ran before: a resumed run edits alike
                self._group(number, group, cases)
            if self.apply is not None and fingerprint(self.model) != untouched:
                raise EditFailedError(
                    f"{self.plan.arguments.editing_method} did not restore the model's weights after case "
                    f"{cases[-1].case_id}: the run stops, as later cases would be wrong. Finished cases are kept."
                )

    def _group(self, number: int, group: Group, cases: Sequence[Case]) -> None:
        probes = {case.case_id: build_probes(case, self.plan.arguments.probes) for case in cases}
        before: dict[int | str, dict[str, str]] = {case.case_id: {} for case in cases}
        if self.apply is None:
            for case in cases:
                self._case(number, case, self.model, probes[case.case_id], None, {"group": number})
            return
        for case in cases:
            prompts = [probe.prompt for probe in probes[case.case_id] if probe.kind == "locality"]
            before[case.case_id] = dict(zip(prompts, self.prober.ask(self.model, prompts), strict=True))
        requests = [edit.to_request(_owner(group, edit)) for edit in group.edits]
        began = time.perf_counter()
        try:
            edited, weights_copy = self.apply(
                self.model, self.tokenizer, requests, self.plan.hparams,
                copy=False, return_orig_weights=True, keep_original_weight=False, **self._progress(),
            )  # fmt: skip
        except (EditFailedError, RequestError, RuntimeError, MemoryError) as error:
            if not isinstance(error, CausalEditError) and not is_out_of_memory(error):
                raise
            self._failed(number, cases, error)
            return
        seconds = time.perf_counter() - began
        cost: dict[str, Any] = {"group": number, "edit_seconds": seconds, "edits": len(group.edits)}
        try:
            changed = weights_changed(self.model, edited, weights_copy)
            cost |= {"weights_changed": changed, "weights_total": self.weights_total}
            for case in cases:
                self._case(
                    number, case, edited, probes[case.case_id], before[case.case_id], cost,
                    compact=not callable(weights_copy),
                )  # fmt: skip
        finally:
            self._undo(edited, weights_copy)

    def _progress(self) -> dict[str, Any]:
        """Our progress sink, for methods that take one."""
        parameters = inspect.signature(self.apply).parameters.values()
        takes = any(p.name == "progress" or p.kind is p.VAR_KEYWORD for p in parameters)
        return {"progress": self.sink.stages} if takes else {}

    def _case(
        self, number: int, case: Case, model: Any, probes: Sequence[CaseProbe], before: Mapping[str, str] | None,
        cost: Mapping[str, Any], *, compact: bool = True,
    ) -> None:  # fmt: skip
        asked, spent = self.prober.count.generated, self.prober.seconds
        predictions = self.prober.ask(
            model, [probe.prompt for probe in probes], prefixes=[probe.prefix for probe in probes], compact=compact
        )
        if before is None:  # the model is the unedited one: its answers are those before
            before = {probe.prompt: text for probe, text in zip(probes, predictions, strict=True)}
        share = cost.get("edit_seconds", 0.0) / max(cost.get("edits", 0), 1) * len(case.edits)
        item: dict[str, Any] = {
            "case_id": case.case_id,
            "requested_rewrite": [dict(edit.data) for edit in case.edits],
            "time": share,
        }
        if self.plan.arguments.batch_edit is not None:
            item["batch"] = number
        item["post"] = assemble_post(case, probes, predictions, before)
        probing = {
            "probe_seconds": self.prober.seconds - spent,
            "probe_tokens": self.prober.count.generated - asked,
        }
        self.folder.write(case, item, {**cost, **probing})
        self._report(case, item)

    def _failed(self, number: int, cases: Sequence[Case], error: BaseException) -> None:
        """Note the error in each of the cases; `post` is left out, so that nothing counts them as wrong."""
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        for case in cases:
            item: dict[str, Any] = {
                "case_id": case.case_id,
                "requested_rewrite": [dict(edit.data) for edit in case.edits],
                "time": 0.0,
                "error": f"{type(error).__name__}: {reason}",
            }
            logger.warning("case %s failed: %s", case.case_id, reason)
            self.folder.write(case, item, {"group": number})
            self._report(case, item)

    def _report(self, case: Case, item: Mapping[str, Any]) -> None:
        self.sink.case_done(case.case_id, self.folder.averages())
        figures = {name: value for name, value in case_averages(item).items() if value is not None}
        logger.debug("case %s: %s, %.0f s", case.case_id, figures, item["time"])

    def _undo(self, edited: Any, weights_copy: Any) -> None:
        if not weights_copy and hasattr(edited, "peft_config"):
            edited.unload()  # nobody keeps the adapter: the plain model is taken out of it, not copied
            forget_adapter(self.model)
        else:
            undo_edit(self.model, edited, weights_copy)


def _owner(group: Group, edit: Any) -> int | str:
    """The first of the group's cases that an edit belongs to; -1 for one whose case is in no batch."""
    return next((case.case_id for case in group.cases if any(e.key == edit.key for e in case.edits)), -1)


__all__ = [
    "PRE_EDITED", "Plan", "RunArguments", "RunSink", "RunSummary", "SilentRun", "averages", "execute", "locked",
    "make_plan", "new_run_id", "place_of",
]  # fmt: skip
