"""What each part of CausalEdit's stage 2 gives by itself, from one and the same stage-1 adapter.

    python benchmarks/stage_2_parts.py --data FILE --hparams YAML --json OUT

Every case is edited four times: stage 1 alone; then stage 2 with its preservation terms alone, with distillation alone,
and with both. Stage 1 draws from the same seed each time, so that its adapter is the same (its losses are compared, and
a difference ends the run). Each finished case is written at once, and the same --json resumes. Printed are the scores
of `edit_efficacy.py`, and the paired changes against stage 1, with McNemar's exact test over multi-hop cases and
why-answers together, and over all probes.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import add_cases, add_settings, run_benchmark, selected
from edit_efficacy import overridden, run_case
from rich.console import Console
from rich.progress import track
from rich.table import Table
from verdicts import rationale

from causaledit.metrics.wording import worded_rate
from causaledit.models.loading import load_model
from causaledit.probes.efficacy import SCORES, pooled
from causaledit.support.files import load_json, write_json
from causaledit.support.statistics import mcnemar_exact

PARTS = {
    "stage 1": {"stages": [1]},
    "preservation alone": {"distill_weight": 0.0},
    "distillation alone": {"preserve_stages": [1], "distill_preserve_share": 0.0, "distill_trust_kl": None},
    "both": {},
}


def outcomes(case: dict, result: dict) -> dict[tuple, bool]:
    """Which probes of a case were passed; multi-hop counts once, and "why" by its rationale too."""
    found: dict[tuple, bool] = {}
    answers = result["post"]
    hops = [answer["hit"] for answer in answers if answer["family"] == "multi_hop"]
    if hops:
        found["multi_hop", case["case_id"]] = any(hops)
    for answer in answers:
        if answer["family"] != "multi_hop":
            found[answer["family"], case["case_id"], answer["prompt"]] = answer["hit"]
        if answer["kind"] == "why" and (verdict := rationale(case, [answer]))["total"]:
            found["rationale", case["case_id"], answer["prompt"]] = bool(verdict["hits"])
    return found


def change(cases: list[dict], done: list[dict], part: str, families: tuple[str, ...] | None) -> str:
    """The paired change of a part against stage 1: probes won, lost, and the exact p."""
    won = lost = 0
    for result in done:
        case = next(c for c in cases if c["case_id"] == result["case_id"])
        before, after = (outcomes(case, result["parts"][name]) for name in ("stage 1", part))
        keys = [key for key in before if key in after and (families is None or key[0] in families)]
        won += sum(after[key] and not before[key] for key in keys)
        lost += sum(before[key] and not after[key] for key in keys)
    return f"+{won} −{lost}, p = {mcnemar_exact(won, lost):.3g}"


def report(console: Console, cases: list[dict], done: list[dict]) -> None:
    """Print the table."""
    table = Table(title=f"{len(done)} cases")
    for name in ("", *PARTS):
        table.add_column(name, justify="right")
    scores = {name: pooled([result["parts"][name]["rates"] for result in done]) for name in PARTS}
    for score in SCORES:
        table.add_row(score, *(str(worded_rate(scores[name][score])) for name in PARTS))
    whys = []
    for name in PARTS:
        found = [
            rationale(next(c for c in cases if c["case_id"] == result["case_id"]), result["parts"][name]["post"])
            for result in done
        ]
        whys.append(f"{sum(f['hits'] for f in found)}/{sum(f['total'] for f in found)}")
    table.add_row("rationale", *whys)
    words = (scores[name]["reasoning"]["words_per_response"] for name in PARTS)
    table.add_row("words of a reasoning answer", *(f"{n:.0f}" for n in words))
    others = [name for name in PARTS if name != "stage 1"]
    causal = [change(cases, done, name, ("multi_hop", "rationale")) for name in others]
    table.add_row("multi-hop and rationale, against stage 1", "", *causal)
    table.add_row("all probes, against stage 1", "", *(change(cases, done, name, None) for name in others))
    console.print(table)


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_cases(parser)
    add_settings(parser)
    parser.add_argument("--hparams", default="smollm2-135m-instruct", help="YAML file or bundled name")
    parser.add_argument("--json", required=True, help="where the result goes; an unfinished one is resumed")
    parser.add_argument("--device", help="instead of the hparams' device")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    variants = {name: overridden(args.hparams, args.set, changes) for name, changes in PARTS.items()}
    whole = variants["both"]
    cases = selected(load_json(args.data, "--data"), args)
    model, tokenizer = load_model(whole.model_name, device=args.device or whole.device, dtype=whole.dtype)
    out, done = Path(args.json), []
    if out.is_file():
        previous = json.loads(out.read_text(encoding="utf-8"))
        done = previous["per_case"] if previous["hparams"] == whole.to_dict() else []
    finished = {result["case_id"] for result in done}
    todo = [case for case in cases if case["case_id"] not in finished]
    for case in track(todo, description="cases", console=Console(stderr=True)):
        parts = {name: run_case(model, tokenizer, case, hparams, between=False) for name, hparams in variants.items()}
        if len({tuple(part["losses"]["bootstrap"]) for part in parts.values()}) > 1:
            sys.exit(f"case {case['case_id']}: stage 1 was not the same in every run")
        kept = ("post", "rates", "losses", "seconds", "tokens")
        parts = {name: {key: part[key] for key in kept} for name, part in parts.items()}
        done.append({"case_id": case["case_id"], "parts": parts})
        command = " ".join(["python", "benchmarks/stage_2_parts.py", *sys.argv[1:]])
        write_json(out, {"command": command, "hparams": whole.to_dict(), "per_case": done})
    report(Console(), cases, done)


if __name__ == "__main__":
    run_benchmark(main)
