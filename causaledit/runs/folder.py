"""A run's folder: its files, its lock, its costs."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import filelock
import torch

from causaledit.errors import RunError, SaveError
from causaledit.probes.asking import plain_rate
from causaledit.runs.losses import write_losses
from causaledit.runs.post import averages, case_averages
from causaledit.support.costs import peak_rss_mb, reset_peak_rss, versions
from causaledit.support.files import read_object, write_json
from causaledit.support.statistics import mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from causaledit.mquake.cases import Case
    from causaledit.runs.plan import Plan
    from causaledit.runs.sequence_folder import SequenceFolder

logger = logging.getLogger(__name__)

ASSEMBLE_EVERY = 60.0  # seconds between updates of metrics.json during a run


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path, cases: Sequence[Case]) -> None:
        self.path, self.cases = path, cases
        self.positions = {case.case_id: position for position, case in enumerate(cases)}
        self.finished: dict[int, dict[str, Any]] = {}
        self._averages: dict[int, dict[str, float | None]] = {}
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
        except (OSError, ValueError, KeyError, TypeError):  # the machine lost power: the case is run again
            logger.warning("%s cannot be read: the case is run again", self._file(position))
            return None

    def _take(self, position: int, record: dict[str, Any]) -> None:
        self.finished[position] = record
        self._averages[position] = case_averages(record["item"])

    def unfinished(self) -> list[Case]:
        """The cases that are left to do; one that failed is tried again by a later call."""
        done = {item["case_id"] for item in self.items if "error" not in item}
        return [case for case in self.cases if case.case_id not in done]

    @property
    def complete(self) -> bool:
        """Whether every case is there, edited or failed."""
        return len(self.items) == len(self.cases)

    @property
    def finished_cases(self) -> int:
        """How many cases are done, without those that failed."""
        return len(self.items) - len(self.failed)

    @property
    def failed(self) -> dict[int | str, str]:
        """Cases that could not be edited, with the reason."""
        return {item["case_id"]: item["error"] for item in self.items if "error" in item}

    def write(self, case: Case, item: dict[str, Any], cost: dict[str, Any]) -> None:
        """Put a finished case on disk, whole or not at all; `losses` in its cost go into a file of their own."""
        position = self.positions[case.case_id]
        cost = dict(cost)
        write_losses(self.path, cost["group"], cost.get("edits", 1), cost.pop("losses", {}))
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
        return averages(self.items, [self._averages[position] for position in sorted(self.finished)])

    def info(self) -> dict[str, Any]:
        """What run_info.json says beyond what is said of every run."""
        return {}

    def assemble(self) -> None:
        """Write metrics.json and res.json from the finished cases."""
        write_json(self.path / "metrics.json", self.items)
        write_json(self.path / "res.json", self.averages())
        self._assembled = time.monotonic()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the lock ends with the process, however it ends.

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


class RunInfo:
    """meta/run_info.json: versions, device, status, costs."""

    def __init__(self, plan: Plan) -> None:
        self.path = plan.folder / "meta" / "run_info.json"
        self.plan = plan
        self.before = read_object(self.path)
        self.started = self.before.get("started") or _now()
        self.device = self.before.get("device")
        self.plain_tokens_per_second = self.before.get("costs", {}).get("plain_tokens_per_second")
        self.ran = False
        self.peak_rss_of: str | None = None
        self.workers_rss_mb = self.workers_gpu_mb = 0.0

    def measure_memory(self) -> None:
        """Count the process's peak memory from now on: the model and what the run does with it."""
        self.peak_rss_of = "run" if reset_peaks() else "process"

    def measure_machine(self, model: Any, tokenizer: Any) -> None:
        """Note the device, and once per run the speed of plain generation on it."""
        rate = self.plain_tokens_per_second
        self.take_machine(device_of_run(model), plain_rate(model, tokenizer) if rate is None else rate)

    def take_machine(self, device: dict[str, Any], plain_tokens_per_second: float | None) -> None:
        """Note what was measured, here or on a worker."""
        self.ran = True
        self.device = device
        if self.plain_tokens_per_second is None:
            self.plain_tokens_per_second = plain_tokens_per_second

    def take_peaks(self, peak_rss_mb: float, peak_gpu_mb: float) -> None:
        """Note a worker's peak memory; the run's is that of the process that needed most."""
        self.workers_rss_mb = max(self.workers_rss_mb, peak_rss_mb)
        self.workers_gpu_mb = max(self.workers_gpu_mb, peak_gpu_mb)

    def costs(self, folder: RunFolder | SequenceFolder) -> dict[str, Any]:
        """Sums over finished cases; a batch's edit counts once. Weights changed: the mean of what each edit left."""
        gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        if self.workers_gpu_mb:
            gpu = max(self.workers_gpu_mb, gpu or 0.0)
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
            "weights_changed": mean(changed),
            "weights_changed_share": sum(changed) / len(changed) / total if changed and total else None,
            "peak_rss_mb": max(
                peak_rss_mb() if self.ran else 0.0, self.workers_rss_mb, before.get("peak_rss_mb") or 0.0
            ),
            "peak_rss_of": self.peak_rss_of if self.ran else before.get("peak_rss_of"),
            "peak_gpu_mb": None if gpu is None else max(gpu if self.ran else 0.0, before.get("peak_gpu_mb") or 0.0),
        }

    def write(self, status: str, folder: RunFolder | SequenceFolder, error: str | None = None) -> None:
        """Write the file."""
        write_json(
            self.path,
            {
                "status": status,
                "error": error,
                "started": self.started,
                "written": _now(),
                "cases": len(self.plan.cases),
                "finished_cases": folder.finished_cases,
                "failed_cases": list(folder.failed),
                "left_out_cases": list(self.plan.left_out),
                "batches": len(self.plan.groups) if self.plan.arguments.batch_edit else None,
                "dataset": {"name": self.plan.dataset.name, "sha256": self.plan.sha256},
                "versions": versions(),
                "device": self.device,
                "costs": self.costs(folder),
                **folder.info(),
            },
        )


def reset_peaks() -> bool:
    """Let the peaks of this process's memory, and of its GPU's, count from now on.

    Returns:
        As `reset_peak_rss`.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return reset_peak_rss()


def device_of_run(model: Any) -> dict[str, Any]:
    """Where a model runs, as run_info.json says it."""
    device = torch.device(model.device)
    return {
        "type": str(device),
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "dtype": str(model.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
