"""What a batch of edits costs against one edit, in one run.

    python benchmarks/batch_cost.py --data FILE --hparams YAML [--method M] [--batch 4] [--alone 1] [--json OUT]

Takes single-edit cases of the file: the first `--alone` of them one by one, then `--batch` of them together, and prints
the seconds of both, of one alone the mean, in all and by stage, and their ratio; `processor` seconds are those that
other work on the machine does not lengthen. The model is restored in between.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

from causaledit.facts.requests import requests_from_data
from causaledit.methods.registry import METHODS
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.support.files import load_json, write_json
from causaledit.support.progress import SilentProgress


def seconds_of(method, model, tokenizer, requests, hparams) -> dict[str, float]:
    """Apply requests together, restore, return the seconds of every stage, `all` of them, and the `processor`'s."""
    report, began, busy = method.load_report()(), time.perf_counter(), time.process_time()
    _, originals = method.load_apply()(
        model, tokenizer, requests, hparams, return_orig_weights=True, progress=SilentProgress(), report=report
    )
    total, busy = time.perf_counter() - began, time.process_time() - busy
    restore(model, originals)
    return {"all": total, "processor": busy, **report.tally.seconds}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--method", default="CausalEdit", choices=[name for name, m in METHODS.items() if m.batched])
    parser.add_argument("--hparams", required=True)
    parser.add_argument("--model", help="instead of the hparams' model_name")
    parser.add_argument("--batch", type=positive, default=4)
    parser.add_argument(
        "--alone", type=positive, default=1, help="how many edits are made one by one; their mean counts"
    )
    parser.add_argument("--json")
    args = parser.parse_args()
    method = METHODS[args.method]
    hparams = method.load_hparams().from_hparams(args.hparams)
    rewrites = [c["requested_rewrite"] for c in load_json(args.data, "--data")]
    requests, seen = [], set()
    for request in requests_from_data([r[0] for r in rewrites if len(r) == 1]):
        if request.subject not in seen:
            seen.add(request.subject)
            requests.append(request)
    model, tokenizer = load_model(args.model or hparams.model_name, device=hparams.device, dtype=hparams.dtype)
    # the first edit runs twice; its first run also warms the machine up and is not counted
    seconds_of(method, model, tokenizer, requests[:1], hparams)
    alone = [seconds_of(method, model, tokenizer, [request], hparams) for request in requests[: args.alone]]
    one = {stage: sum(found[stage] for found in alone) / len(alone) for stage in alone[0]}
    many = seconds_of(method, model, tokenizer, requests[: args.batch], hparams)
    for stage, seconds in one.items():
        ratio = f", ratio {many[stage] / seconds:.2f}" if seconds > 0.005 else ""
        print(f"{stage}: one edit {seconds:.2f} s, {args.batch} edits {many[stage]:.2f} s{ratio}")
    if args.json:
        ratio = many["all"] / one["all"]
        write_json(args.json, {"one": one, "batch": many, "edits": args.batch, "alone": args.alone, "ratio": ratio})


if __name__ == "__main__":
    run_benchmark(main)
