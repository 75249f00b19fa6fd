"""Edit SmolLM2 several times without undoing, and draw how many of the edits are still held.

    python examples/lifelong.py [METHOD] [EDITS]

Takes a few minutes on a CPU with LoRA. The same command goes on where it was stopped. Needs matplotlib
(`pip install 'causaledit[report]'`).
"""

import sys

from matplotlib.figure import Figure

from causaledit.judges.registry import get_judge
from causaledit.metrics.predictions import read_metrics
from causaledit.metrics.summary import evaluate_run
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan


def main(method: str = "LoRA", edits: int = 8) -> None:
    """Run the sequence and write lifelong.png."""
    checkpoints = tuple(sorted({1, edits // 4 or 1, edits // 2 or 1, edits}))
    arguments = RunArguments(
        editing_method=method,
        datatype="causaledit-mini",
        model_type="smollm2-135m-instruct",
        sequential=1,
        checkpoints=checkpoints,
        probes=("hop", "locality"),
        max_new_tokens=64,
        exp_tag="lifelong",
        run_id=f"{method}-{edits}",
    )
    folder = execute(make_plan(arguments)).folder
    retention = evaluate_run(read_metrics(folder / "metrics.json"), get_judge("rule")).retention
    assert retention is not None
    figure = Figure(figsize=(6, 3.6))
    axis = figure.subplots()
    curves = {"all edits so far held": lambda c: c.held, "locality unchanged": lambda c: c.unchanged}
    for label, rate_of in curves.items():
        found = [(c.edits, rate_of(c)) for c in retention.checkpoints if rate_of(c).interval]
        shares = [100 * rate.rate for _, rate in found]
        below = [100 * (rate.rate - rate.interval.low) for _, rate in found]
        above = [100 * (rate.interval.high - rate.rate) for _, rate in found]
        axis.errorbar([n for n, _ in found], shares, yerr=[below, above], marker="o", capsize=3, label=label)
    axis.set(
        xlabel="edits made", ylabel="%", ylim=(-2, 102), title=f"{method}: {edits} edits one by one", xticks=checkpoints
    )
    axis.legend(frameon=False)
    figure.savefig("lifelong.png", dpi=150, bbox_inches="tight")
    for found in retention.checkpoints:
        print(f"after {found.edits} edits: {found.held.hits} of {found.held.total} held")
    print(f"drawn to lifelong.png; the run is in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
