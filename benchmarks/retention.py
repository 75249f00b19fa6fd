"""Retention along a sequence of single edits, for several methods: one comparison, resumable.

    python benchmarks/retention.py --data ../shared/data/mquake_causal_dev.json --device cuda --threads 8

The same command goes on where it was stopped. Writes compare.json and compare.md, and prints the latter. `--ability
drift` needs no lm-eval, `--ability bundled` does.
"""

from __future__ import annotations

import argparse
import logging

import torch
from arguments import positive, run_benchmark

from causaledit.comparison.execution import execute_comparison
from causaledit.comparison.plan import make_compare_plan, parse_methods
from causaledit.judges.registry import get_judge
from causaledit.runs.arguments import RunArguments, parse_checkpoints
from causaledit.support.files import read_object


def main() -> None:
    """Run, resume or show the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data set: a name or a file")
    parser.add_argument("--methods", default="CausalEdit,LoRA,ROME,MEMIT,AlphaEdit")
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--model", help="model to load instead of the one that the hyper-parameters name")
    parser.add_argument("--checkpoints", default="1,5,10,20")
    parser.add_argument("--max_new_tokens", type=positive, default=128)
    parser.add_argument("--probes", default="hop,locality")
    parser.add_argument("--ability", default="drift", help="drift, bundled, …; empty for none")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--output", default="./output/retention")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("causaledit").setLevel(logging.INFO)
    methods, judge = parse_methods(options.methods), get_judge("rule")
    arguments = RunArguments(
        editing_method=methods[0],
        datatype=options.data,
        model_type=options.model_type,
        model=options.model,
        sequential=1,
        checkpoints=parse_checkpoints(options.checkpoints),
        probes=tuple(options.probes.split(",")),
        max_new_tokens=options.max_new_tokens,
        ability=options.ability or None,
        device=options.device,
        output_root=options.output,
        exp_tag="retention",
    )
    plan = make_compare_plan(methods, arguments, judge=judge.identity, resume=True)
    rows = execute_comparison(plan, judge)
    for row in rows:
        if row.problem:
            print(f"{row.method}: {row.problem}")
    print((plan.folder / "compare.md").read_text(encoding="utf-8"))
    device = next((row.device for row in rows if row.device), None)
    print(f"device {device}, versions {read_object(plan.folder / 'compare.json').get('versions')}")
    print(f"written to {plan.folder}")


if __name__ == "__main__":
    run_benchmark(main)
