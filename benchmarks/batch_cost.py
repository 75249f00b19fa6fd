"""What a batch of edits costs against one edit, in one run.

    python benchmarks/batch_cost.py --data FILE --hparams YAML [--batch 4] [--json OUT]

Takes single-edit cases of the file: the first alone, then `--batch` of them together, and prints seconds of
both and their ratio. The model is restored in between.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from causaledit.facts.requests import requests_from_data
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.support.files import load_json, write_json
from causaledit.support.progress import SilentProgress


def seconds_of(model, tokenizer, requests, hparams) -> tuple[float, dict[str, float]]:
    """Apply requests together, restore, return seconds in all and per stage."""
    report, began = EditReport(), time.perf_counter()
    _, originals = apply_causal_edit_to_model(
        model, tokenizer, requests, hparams, return_orig_weights=True, progress=SilentProgress(), report=report
    )
    total = time.perf_counter() - began
    restore(model, originals)
    return total, report.tally.seconds


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--hparams", required=True)
    parser.add_argument("--model", help="instead of the hparams' model_name")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--json")
    args = parser.parse_args()
    hparams = CausalEditHyperParams.from_hparams(args.hparams)
    model, tokenizer = load_model(args.model or hparams.model_name, device=hparams.device, dtype=hparams.dtype)
    rewrites = [c["requested_rewrite"] for c in load_json(args.data, "--data")]
    requests, seen = [], set()
    for request in requests_from_data([r[0] for r in rewrites if len(r) == 1]):
        if request.subject not in seen:
            seen.add(request.subject)
            requests.append(request)
    # the single edit runs twice; its first run also warms the machine up and is not counted
    seconds_of(model, tokenizer, requests[:1], hparams)
    one, one_stages = seconds_of(model, tokenizer, requests[:1], hparams)
    many, many_stages = seconds_of(model, tokenizer, requests[: args.batch], hparams)
    result = {
        "one": one,
        "batch": many,
        "edits": args.batch,
        "ratio": many / one,
        "one_stages": one_stages,
        "batch_stages": many_stages,
    }
    print(f"one edit {one:.1f} s, {args.batch} edits {many:.1f} s, ratio {many / one:.2f}")
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    main()
