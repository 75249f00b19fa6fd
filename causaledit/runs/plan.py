"""What a run will do: planned, checked and, if need be, refused before anything is computed."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.ability.tasks import AbilityTasks, check_tasks, parse_tasks
from causaledit.errors import HostError, HparamsError, RunError, did_you_mean
from causaledit.hosts.lookup import choose_method
from causaledit.methods.hyperparams import read_hparams_file
from causaledit.models.loading import resolve_device
from causaledit.mquake.cases import Case, parse_cases, read_cases
from causaledit.mquake.datasets import LocatedDataset, locate_dataset
from causaledit.mquake.selection import (
    Group,
    group_by_case,
    group_in_batches,
    refuse_bad_cases,
    select_cases,
)
from causaledit.probes.portability import PORTABILITY_VERSION
from causaledit.probes.sets import PROBE_SET_VERSION
from causaledit.runs.arguments import NAME, OPTIONAL_FIELDS, PRE_EDITED, RunArguments
from causaledit.runs.probing import check_vllm
from causaledit.runs.sequence import SequencePlan, plan_sequence
from causaledit.support.files import check_writable, read_object, write_json
from causaledit.support.paths import expanded, hparams_dir, is_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causaledit.methods.method import Method

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSettings:
    """Which model `PreEdited` loads, and how: the relevant keys of a method's hparams."""

    model_name: str
    device: Any = "auto"
    dtype: str = "auto"
    fp16: bool = False
    model_parallel: bool = False
    max_memory: dict[Any, Any] | None = None
    quantization: str = "none"
    chat_template_kwargs: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


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
        run_args: What meta/run_args.json says: the flags, and what they stood for.
        sequence: The steps and checkpoints of a run that keeps its edits; `groups` are then its steps.
        ability: What is measured of the model before and after edits.
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
    run_args: Mapping[str, Any]
    sequence: SequencePlan | None = None
    ability: AbilityTasks | None = None

    @property
    def in_turn(self) -> bool:
        """Whether there are edits that the method makes one after another, as it can't make them together."""
        return self.method is not None and not self.method.batched and any(len(g.edits) > 1 for g in self.groups)

    @property
    def cases(self) -> list[Case]:
        """All cases in the order of the run."""
        return [case for group in self.groups for case in group.cases]


def make_plan(arguments: RunArguments) -> Plan:
    """Check everything that can be checked before a model is loaded.

    Raises:
        RunError: Unknown method, or a run of that id was started with other arguments.
        DatasetError, HparamsError, ModelError, SaveError: The data, hparams, device or folder is unusable.
        AbilityError, MissingExtraError: An ability task is unknown, or cannot be asked here.
    """
    method, hparams = _find_method(arguments)
    if arguments.device is not None:
        hparams = _with(hparams, "device", arguments.device)
    if arguments.model is not None:
        hparams = _with(hparams, "model_name", arguments.model)
    resolve_device(hparams.device)
    check_vllm(arguments, hparams)
    dataset = locate_dataset(arguments.datatype)
    data = read_cases(dataset.path)
    chosen = select_cases(
        data, hop=arguments.hop, max_cases=arguments.max_cases, seed=arguments.shuffle_seed,
        skip_cases=arguments.skip_cases,
    )  # fmt: skip
    refuse_bad_cases(data, set(chosen), dataset)
    cases = parse_cases([data[index] for index in chosen])
    size = arguments.batch_edit
    sequence = plan_sequence(cases, arguments) if arguments.in_sequence else None
    if sequence is not None:
        groups = sequence.groups
    else:
        groups = group_by_case(cases) if size is None else group_in_batches(cases, size)
    _check_kinds(arguments, method, groups)
    inside = {case.case_id for group in groups for case in group.cases}
    left_out = tuple(case.case_id for case in cases if case.case_id not in inside and sequence is None)
    if left_out:
        logger.warning("--batch_edit: %d of %d cases have no batch of their own", len(left_out), len(cases))
    ability = None
    if arguments.ability is not None:
        ability = parse_tasks(arguments.ability, limit=arguments.ability_limit)
        check_tasks(ability)
    check_writable(Path(arguments.output_root), "--output_root")
    sha256 = hashlib.sha256(dataset.path.read_bytes()).hexdigest()
    arguments = dataclasses.replace(arguments, run_id=arguments.run_id or new_run_id())
    run_args = _run_args(arguments, method, hparams, sha256)
    folder, resumed = _find_folder(arguments, dataset, len(inside), run_args)
    return Plan(
        arguments=arguments,
        method=method,
        hparams=hparams,
        dataset=dataset,
        sha256=sha256,
        groups=tuple(groups),
        left_out=left_out,
        folder=folder,
        resumed=resumed,
        run_args=run_args,
        sequence=sequence,
        ability=ability,
    )


def _find_method(arguments: RunArguments) -> tuple[Method | None, Any]:
    name, model_type = arguments.editing_method, arguments.model_type
    if not model_type.strip():
        raise RunError("--model_type is empty: give the name of a file in hparams/{editing_method}/.")
    if name == PRE_EDITED:
        return None, _model_settings(model_type, arguments.hparams_path)
    try:
        return choose_method(name, model_type=model_type, path=arguments.hparams_path, host=arguments.host)
    except HostError as error:
        hint = did_you_mean(name, [PRE_EDITED])
        raise RunError(f"--editing_method: {error} Or {PRE_EDITED!r}, the unedited model.{hint}") from None


def _model_settings(model_type: str, hparams_path: str | None) -> ModelSettings:
    """The model of any method's hparams file of that name, or the name itself as a model."""
    if hparams_path is not None:
        file = expanded(hparams_path)
        file = file if is_file(file) else file.with_name(f"{file.name}.yaml")
        if not is_file(file):
            raise HparamsError(f"--hparams_path: the file {hparams_path!r} does not exist.")
        files = [file]
    else:
        roots = (Path("hparams"), hparams_dir("CausalEdit").parent)
        files = [file for root in roots for file in sorted(root.glob(f"*/{model_type}.yaml"))] if (
            NAME.fullmatch(model_type)
        ) else []  # fmt: skip
    for file in files:
        data = read_hparams_file(file)
        if data.get("model_name"):
            known = {spec.name for spec in dataclasses.fields(ModelSettings)}
            return ModelSettings(**{key: value for key, value in data.items() if key in known})
        if hparams_path is not None:
            raise HparamsError(f"--hparams_path: {file.name} has no `model_name`.")
    return ModelSettings(model_type)


def _with(hparams: Any, name: str, value: str) -> Any:
    """The hyper-parameters with a setting that the command line gives."""
    if isinstance(hparams, ModelSettings):
        changes: dict[str, Any] = {name: value}
        return dataclasses.replace(hparams, **changes)
    setattr(hparams, name, value)
    return hparams


def _check_kinds(arguments: RunArguments, method: Method | None, groups: Sequence[Group]) -> None:
    narratives = any(e.request.narrative for g in groups for e in g.edits)
    if "open_book" in arguments.probes and not narratives:
        raise RunError("--probes open_book needs narratives (`article`), and no chosen case has one.")
    if "forced" in arguments.probes and not narratives:
        raise RunError(f"--datatype {arguments.datatype!r}: the pilot study needs narratives (`article`); none here.")
    if method is not None and not method.batched and (arguments.batch_edit or 1) > 1:
        raise RunError(
            f"--batch_edit {arguments.batch_edit}: {method.name} edits one fact at a time; leave the flag out, and the "
            "edits of a case are made one after another."
        )


_FOLDER = re.compile(r"n\d+_seed-?\d+_(.+)")


def _label(value: str) -> str:
    """A model or data set as part of a path: its last component, without what a file system dislikes."""
    return re.sub(r"[^\w.-]+", "_", Path(value).name) or "model"


def place_of(arguments: RunArguments, dataset: LocatedDataset, name: str) -> Path:
    """Where runs of a method of that name lie."""
    parent = expanded(arguments.output_root) / _label(dataset.name) / _label(arguments.model_type)
    return parent / _folder_of(name) / f"tag-{arguments.exp_tag}"


def _folder_of(name: str) -> str:
    """A method's folder: its name; for `easyedit:ROME` and the like, what every file system takes."""
    return name.replace(":", ".")


def new_run_id() -> str:
    """A name for a run: the time, and a suffix that tells two runs of the same second apart."""
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _find_folder(
    arguments: RunArguments, dataset: LocatedDataset, cases: int, run_args: Mapping[str, Any]
) -> tuple[Path, bool]:
    """Where the run is kept, and whether it was begun before.

    Raises:
        RunError: A run of that id was started with other arguments.
    """
    parent = place_of(arguments, dataset, arguments.editing_method)
    resumed = False
    for other in sorted(parent.glob("n*_seed*")):
        named = _FOLDER.fullmatch(other.name)
        started = other / "meta" / "run_args.json"
        if named and named[1] == arguments.run_id and started.is_file():
            _refuse_other_arguments(arguments, run_args, _started_with(started))
            resumed = True
    return parent / f"n{cases}_seed{arguments.shuffle_seed}_{arguments.run_id}", resumed


def record_arguments(plan: Plan) -> None:
    """Write meta/run_args.json, once more compared with what is there: another run may have begun since the plan.

    Raises:
        RunError: The folder holds a run with other arguments.
        SaveError: The folder cannot be written.
    """
    file = plan.folder / "meta" / "run_args.json"
    if file.is_file():
        _refuse_other_arguments(plan.arguments, plan.run_args, _started_with(file))
    write_json(file, dict(plan.run_args))


def _started_with(file: Path) -> dict[str, Any]:
    """What a run was started with.

    Raises:
        RunError: Nobody can tell any more.
    """
    if not (known := read_object(file)):
        raise RunError(
            f"{str(file)!r} cannot be read, so that nobody can tell whether this is the same run: give another "
            "--run_id, or delete the file if you know that the arguments are the same."
        )
    return known


def _run_args(arguments: RunArguments, method: Method | None, hparams: Any, sha256: str) -> dict[str, Any]:
    return {
        **arguments.comparable(),
        "output_root": arguments.output_root,
        "run_id": arguments.run_id,
        "dataset_sha256": sha256,
        "probe_set_version": PROBE_SET_VERSION,
        **({"portability_version": PORTABILITY_VERSION} if "portability" in arguments.probes else {}),
        "method_of": method.host if method else None,
        "hparams": json.loads(json.dumps(_plain(hparams), default=str)),
    }


def _plain(hparams: Any) -> dict[str, Any]:
    return hparams.to_dict() if hasattr(hparams, "to_dict") else dict(vars(hparams))


def _refuse_other_arguments(arguments: RunArguments, now: Mapping[str, Any], started_with: Mapping[str, Any]) -> None:
    flags = {*arguments.comparable(), *OPTIONAL_FIELDS}
    # what earlier versions did not write
    added = {"model": None, "host": "auto", "protocol": "causal", "method_of": now["method_of"]}
    now = {**now, **{name: None for name in OPTIONAL_FIELDS if name in started_with and name not in now}}
    for name in now:
        before = started_with.get(name, added.get(name))
        if name in ("output_root", "run_id") or before == now[name]:
            continue
        if name in flags:
            what = f"--{name} {_shown(before)}, and now it is {_shown(now[name])}"
        elif name == "hparams":
            changed = [key for key in now[name] if (before or {}).get(key) != now[name][key]]
            what = f"other hyper-parameters ({', '.join(changed[:5]) or 'one key fewer'})"
        else:
            what = f"another {name.replace('_', ' ')} ({_shown(before)}, now {_shown(now[name])})"
        raise RunError(
            f"--run_id {arguments.run_id!r} was started with {what}: give the same arguments to resume it, or "
            "another --run_id."
        )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "unset" if value is None else repr(value)
