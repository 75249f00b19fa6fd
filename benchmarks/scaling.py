"""Cases per minute with one and two workers, and what more workers would give.

    python benchmarks/scaling.py --data FILE [--methods ROME,PreEdited] [--cases 12] [--json OUT]

Every method is run on Ray with each number of workers, one thread each. Printed: cases per minute while all workers
edit (from when the last one has loaded the model), the share of that time in which this process, the driver, was busy,
and seconds to load. A schedule is then simulated from the single worker's seconds per case: the next case goes to the
worker that is free first. Its prediction is checked against the measured runs, and continued to larger clusters, where
it says what costs most: loading the model, workers that wait for the last cases, or the judge.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import SilentRun, execute
from causaledit.runs.plan import make_plan
from causaledit.runs.ray_pool import RayPool
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Clock(SilentRun):
    """Notes when workers were ready and cases done, and how long this process was busy."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.loaded: list[float] = []
        self.cases: list[float] = []
        self.busy_from = time.process_time()

    def workers(self, ready: int, wanted: int) -> None:
        """A worker has loaded the model."""
        self.loaded.append(time.perf_counter() - self.began)
        if ready == wanted:
            self.busy_from = time.process_time()

    def case_done(self, case_id: int | str, running: Mapping[str, Any]) -> None:
        """A case is written."""
        self.cases.append(time.perf_counter() - self.began)


def measure(args: argparse.Namespace, method: str, workers: int, folder: str) -> dict[str, Any]:
    """One run: seconds per case in the order in which they came, and rates."""
    plan = make_plan(
        RunArguments(
            editing_method=method, datatype=args.data, model_type=args.model_type, max_cases=args.cases, device="cpu",
            output_root=folder, run_id=f"{method}-{workers}", max_new_tokens=args.max_new_tokens,
        )
    )  # fmt: skip
    with RayPool(WorkerOptions(workers=workers)) as pool:
        clock = Clock()
        summary = execute(plan, clock, pool=pool)
        busy = time.process_time() - clock.busy_from
    if summary.failed:
        raise SystemExit(f"{method}: cases failed: {summary.failed}")
    start, end = clock.loaded[-1], clock.cases[-1]
    before = sum(at <= start for at in clock.cases)
    return {
        "method": method,
        "workers": workers,
        "load_seconds": clock.loaded[0],
        "edit_seconds": end - start,
        "cases_per_minute": 60 * (len(clock.cases) - before) / (end - start),
        "driver_share": busy / (end - start),
        "case_seconds": [b - a for a, b in itertools.pairwise([clock.loaded[0], *clock.cases])] if workers == 1 else [],
    }


def schedule(seconds: Sequence[float], workers: int, *, slower: float = 1.0) -> dict[str, float]:
    """Cases in a queue, each taken by the worker that is free first.

    Returns:
        `makespan`, and `waiting`: the share of all workers' time in which they have nothing left to do.
    """
    free = [0.0] * workers
    for cost in seconds:
        heapq.heapreplace(free, free[0] + cost * slower)
    end = max(free)
    return {"makespan": end, "waiting": sum(end - at for at in free) / (end * workers)}


def predict(args: argparse.Namespace, one: dict[str, Any], workers: int) -> dict[str, Any]:
    """A run of `--simulated-cases` cases that cost what the measured ones did, in turn."""
    costs = [cost for cost, _ in zip(itertools.cycle(one["case_seconds"]), range(args.simulated_cases), strict=False)]
    found = schedule(costs, workers)
    edit, load = found["makespan"], one["load_seconds"]
    judge = args.simulated_cases * args.judge_seconds
    waiting = found["waiting"] * edit
    parts = {"loading the model": load, "waiting for the last cases": waiting, "the judge": judge}
    return {
        "method": one["method"],
        "workers": workers,
        "cases": args.simulated_cases,
        "minutes": (load + edit + judge) / 60,
        "efficiency": sum(costs) / workers / (load + edit + judge),
        "seconds_beside_editing": parts,
        "bottleneck": max(parts, key=lambda name: parts[name]),
    }


def main() -> None:
    """Parse, measure, simulate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--methods", default="ROME,PreEdited")
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--cases", type=positive, default=12)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--max_new_tokens", type=positive, default=32)
    parser.add_argument("--simulate", default="8,64")
    parser.add_argument("--simulated-cases", type=positive, default=400)
    parser.add_argument("--judge-seconds", type=float, default=0.0, help="of judging a case, after the run")
    parser.add_argument("--json")
    args = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {"measured": [], "simulated": []}
    with tempfile.TemporaryDirectory() as folder:
        for method in args.methods.split(","):
            runs = [measure(args, method, int(n), folder) for n in args.workers.split(",")]
            one = runs[0]
            for run in runs:
                run["speedup"] = run["cases_per_minute"] / one["cases_per_minute"]
                run["simulated_seconds"] = schedule(one["case_seconds"], run["workers"])["makespan"]
                print(json.dumps({k: v for k, v in run.items() if k != "case_seconds"}), flush=True)
            results["measured"] += runs
            for n in map(int, args.simulate.split(",")):
                results["simulated"].append(predict(args, one, n))
                print(json.dumps(results["simulated"][-1]), flush=True)
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    run_benchmark(main)
