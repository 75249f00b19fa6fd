"""What all probes of one case cost, against plain batched generation of as many tokens.

    python benchmarks/probe_cost.py [--data FILE] [--model NAME] [--max_new_tokens 64] [--json OUT]

Takes the first case of two hops and one edit, and its default probes as after an edit (which weights answer does
not matter for the time). Two comparisons, each the better of `--repeats`:

`ratio`: no row ends early on either side, so both make exactly rows × max_new_tokens tokens. Plain generation is
one `model.generate` over as many rows of a short prompt.
`ratio_as_run`: the probes end where the model ends them, as in a run; plain generation makes as many tokens as they
did, in as many rows.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from arguments import positive, run_benchmark

from causaledit.models.loading import load_model
from causaledit.mquake.cases import parse_cases, read_cases
from causaledit.probes.asking import Prober, plain_rate
from causaledit.probes.sets import PROBE_SET_VERSION, build_probes
from causaledit.support.files import write_json
from causaledit.support.paths import data_dir


def probing(model, tokenizer, prompts: list[str], max_new_tokens: int) -> tuple[float, int]:
    """Seconds and tokens of asking all prompts."""
    prober = Prober(tokenizer, max_new_tokens=max_new_tokens)
    began = time.perf_counter()
    prober.ask(model, prompts)
    return time.perf_counter() - began, prober.count.generated


@contextlib.contextmanager
def never_ending(model, tokenizer):
    """For the block no token ends a turn; gives a tokenizer that knows of no such token."""
    endless, ends = copy.deepcopy(tokenizer), model.generation_config.eos_token_id
    endless.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    endless.eos_token = None
    model.generation_config.eos_token_id = [len(tokenizer) + 10**6]
    try:
        yield endless
    finally:
        model.generation_config.eos_token_id = ends


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(data_dir() / "causaledit-mini.json"), help="MQuAKE-format JSON")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max_new_tokens", type=positive, default=64)
    parser.add_argument("--repeats", type=positive, default=2)
    parser.add_argument("--json")
    args = parser.parse_args()

    case = next(c for c in parse_cases(read_cases(args.data)) if len(c.hops) == 2 and len(c.edits) == 1)
    prompts = [probe.prompt for probe in build_probes(case)]
    rows = len(set(prompts))
    model, tokenizer = load_model(args.model, device=args.device)
    probing(model, tokenizer, prompts[:2], 2)  # warms the machine up

    as_run, plain_as_run, forced, plain = [], [], [], []
    made = rows * args.max_new_tokens
    for _ in range(args.repeats):
        seconds, tokens = probing(model, tokenizer, prompts, args.max_new_tokens)
        as_run.append(seconds)
        per_row = max(1, round(tokens / rows))
        plain_as_run.append(tokens / plain_rate(model, tokenizer, rows=rows, new_tokens=per_row))
        with never_ending(model, tokenizer) as endless:
            forced.append(probing(model, endless, prompts, args.max_new_tokens)[0])
        plain.append(made / plain_rate(model, tokenizer, rows=rows, new_tokens=args.max_new_tokens))
    result = {
        "case_id": case.case_id,
        "probes": rows,
        "max_new_tokens": args.max_new_tokens,
        "tokens": made,
        "seconds": min(forced),
        "plain_seconds": min(plain),
        "ratio": min(forced) / min(plain),
        "tokens_as_run": tokens,
        "seconds_as_run": min(as_run),
        "plain_seconds_as_run": min(plain_as_run),
        "ratio_as_run": min(as_run) / min(plain_as_run),
        "probe_set_version": PROBE_SET_VERSION,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
    }
    print(
        f"{rows} probes, {made} tokens: {min(forced):.1f} s, plain generation {min(plain):.1f} s, "
        f"ratio {result['ratio']:.2f}"
    )
    print(
        f"as in a run, {tokens} tokens: {min(as_run):.1f} s, plain generation {min(plain_as_run):.1f} s, "
        f"ratio {result['ratio_as_run']:.2f}"
    )
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    run_benchmark(main)
