"""How well, how local and how costly an edit is, on the cases of an MQuAKE-format file.

    python benchmarks/edit_efficacy.py --data FILE [--method CausalEdit] --hparams YAML --json OUT

Edits of a case are applied together; closed-book greedy answers are taken before and after; the weights
are restored after each case. Where both stages run, the probes are asked between them too (its time is not
counted): what stage 1 alone gave, which is also what `--stages 1` gives. Each finished case is written at
once, and the same --json resumes. `cost_tokens` is the seconds of an edit times the plain model's generation
rate (batch 32) measured before and after it, so that machines compare, and busy ones with idle ones. `rationale`
counts the answers to "why" that give the narrative's cause, by the rule judge and, with
`--rationale-judge hf:MODEL|llm:MODEL@URL`, by that one beside it, whose verdicts are kept in OUT_rationale.jsonl.
`self-refutation` is over the conflict probes of `causaledit run`: edits with an answer that asserts the new answer,
denies it and does not come back to it, of those that some answer asserts; it is asked of edited models alone, and its
time is not counted. `why of others` asks the locality questions for the reason too: how many are still right, and how
many give the edit's answer or its cause, which are not theirs.
`compare_results.py` pairs two outputs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from arguments import add_cases, add_settings, run_benchmark, selected, stage_numbers
from rich.console import Console
from rich.progress import track
from rich.table import Table
from verdicts import (
    CONFLICT_TOKENS,
    INTRUSIONS,
    conflict_probes,
    intrusion_rates,
    intrusions,
    judge_named,
    judged_rationales,
    neighbours,
    rationale_outcomes,
    rationales,
    refutations,
    self_refutations,
)

from causaledit.errors import CausalEditError
from causaledit.facts.requests import requests_from_data
from causaledit.methods.registry import METHODS
from causaledit.metrics.wording import answer_length, worded_rate
from causaledit.models.adapters import merged_for_inference
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.mquake.cases import with_held_out
from causaledit.probes.asking import Prober, plain_rate
from causaledit.probes.efficacy import MAX_NEW_TOKENS, PROBE_VERSION, SCORES, ask, case_probes, pooled, rates
from causaledit.probes.trained import TrainedPrompts
from causaledit.support.costs import peak_rss_mb
from causaledit.support.files import load_json, write_json
from causaledit.support.progress import SilentProgress

ROWS = {"locality": "locality, still right", "unchanged": "locality, unchanged"}
# measured before and after each case: other work on the machine slows it down as it does the edit
RATE = "plain_tokens_per_second"
# what every method's card has; the method's own fields stand beside the results
EVERY_CARD = ("method", "created", "requests", "losses", "hparams", "versions", "metrics", "seconds", "tokens")


def overridden(
    hparams: str, settings: list[tuple[str, Any]], changes: dict | None = None, *, method: str = "CausalEdit"
) -> Any:
    """A bundled or given file's hyper-parameters with `--set`'s pairs and further changes."""
    kind = METHODS[method].load_hparams()
    return kind.from_dict({**kind.from_hparams(hparams).to_dict(), **dict(settings), **(changes or {})})


def run_case(model, tokenizer, case, hparams, *, between: bool = True, conflict: bool = False) -> dict:
    """Edit, probe, restore one case.

    Args:
        between: Ask the probes between the stages too.
        conflict: Ask the conflict probes of each edited model as well.
    """
    requests = [with_held_out(request, case) for request in requests_from_data(case["requested_rewrite"])]
    probes = case_probes(case, requests)
    asked = functools.partial(ask, tokenizer=tokenizer, probes=probes, template_kwargs=hparams.chat_template_kwargs)
    pre = asked(model)
    method = METHODS[hparams.alg_name]
    report = method.load_report()()
    asked_between: list = []
    spent = 0.0
    disputed: dict[str, list[dict]] = {}
    elsewhere: dict[str, list[dict]] = {}
    prober, why_prober = (
        Prober(tokenizer, max_new_tokens=length, template_kwargs=hparams.chat_template_kwargs)
        for length in (CONFLICT_TOKENS, MAX_NEW_TOKENS["reasoning"])
    )

    def ask_elsewhere(edited_model, column: str) -> None:
        prompts = [neighbour.prompt for neighbour in neighbours(case)]
        if prompts:
            elsewhere[column] = intrusions(case, why_prober.ask(edited_model, prompts))

    def dispute(edited_model, column: str) -> None:
        if conflict:
            prompts = [probe.prompt for probe in conflict_probes(case)]
            disputed[column] = refutations(case, prober.ask(edited_model, prompts))

    ask_elsewhere(model, "pre")

    def look(peft_model) -> None:
        nonlocal asked_between, spent
        started = time.perf_counter()
        peft_model.eval()
        with merged_for_inference(peft_model):
            asked_between = asked(peft_model.get_base_model())
            dispute(peft_model.get_base_model(), "stage_1")
            ask_elsewhere(peft_model.get_base_model(), "stage_1")
        spent = time.perf_counter() - started

    began = time.perf_counter()
    edited, originals = method.load_apply()(
        model,
        tokenizer,
        requests,
        hparams,
        return_orig_weights=True,
        progress=SilentProgress(),
        report=report,
        **({"after_stage_1": look} if between and 2 in getattr(hparams, "stages", ()) else {}),
    )
    seconds = time.perf_counter() - began - spent
    trained = TrainedPrompts(report.trained_prompts)
    post = asked(edited, trained=trained)
    dispute(edited, "post")
    ask_elsewhere(edited, "post")
    asked_between = [dataclasses.replace(a, trained=a.probe.prompt in trained) for a in asked_between]
    restore(model, originals)
    answers = {"pre": pre, "stage_1": asked_between, "post": post}
    written = {column: [a.to_dict() for a in found] for column, found in answers.items()}
    return {
        "case_id": case["case_id"],
        "edits": len(requests),
        "seconds": seconds,
        "stage_seconds": report.tally.seconds,
        "tokens": vars(report.tally.tokens),
        "card": {name: value for name, value in report.card(hparams, []).items() if name not in EVERY_CARD},
        "losses": report.losses,
        "rates": rates(pre, post),
        "rates_before": rates(pre, pre),
        "rates_stage_1": rates(pre, asked_between) if asked_between else None,
        "rationales": {column: rationale_outcomes(case, found) for column, found in written.items()},
        "refutations": disputed,
        "intrusions": elsewhere,
        **written,
    }


def summarise(cases: list[dict], hparams, args, data: list[dict]) -> dict:
    """What the benchmark prints."""
    edits = sum(c["edits"] for c in cases)
    seconds = sum(c["seconds"] for c in cases)
    tokens = sum(c["seconds"] * c[RATE] for c in cases)
    single = [c for c in cases if c["edits"] == 1]
    return {
        **pooled([c["rates"] for c in cases]),
        "before": pooled([c["rates_before"] for c in cases]),
        "stage_1": pooled([c["rates_stage_1"] for c in cases]) if cases[0]["rates_stage_1"] else None,
        "rationale": rationales(data, cases),
        "self_refutation": self_refutations(cases),
        "why_of_others": intrusion_rates(cases),
        "seconds_per_edit": seconds / edits,
        "seconds_per_single_edit": statistics.median(c["seconds"] for c in single) if single else None,
        RATE: tokens / seconds,
        "cost_tokens": tokens / edits,
        "cost_tokens_single_edit": statistics.median(c["seconds"] * c[RATE] for c in single) if single else None,
        "peak_rss_mb": peak_rss_mb(),
        "cases": len(cases),
        "edits": edits,
        "probe_version": PROBE_VERSION,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", "benchmarks/edit_efficacy.py", *args]),
        "hparams": hparams.to_dict(),
    }


def words(score: dict) -> str:
    """How long the answers are: who answers in a word reasons little."""
    return answer_length(score["words_per_response"]) if score["responses"] else ""


def show(summary: dict) -> None:
    """Print the table: rates with counts, intervals and lengths of answers, before the edit, after stage 1, after."""
    table = Table(title=f"{summary['cases']} cases, {summary['edits']} edits")
    columns = {"before": summary["before"], "stage 1": summary["stage_1"], "after": summary}
    columns = {name: found for name, found in columns.items() if found}
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name in SCORES:
        scores = [found[name] for found in columns.values()]
        table.add_row(ROWS.get(name, name), *(str(worded_rate(score, [words(score)])) for score in scores))
        if any(score["unseen"] and score["unseen"]["total"] != score["total"] for score in scores):
            table.add_row("  not trained on", *(str(worded_rate(score["unseen"])) for score in scores))
    further = {"rationale, by rule": summary["rationale"]}
    if judged := summary.get("rationale_judged"):
        further[f"rationale, by {judged['judge']}"] = judged
    further["self-refutation (conflict)"] = summary.get("self_refutation") or {}
    further.update({title: (summary.get("why_of_others") or {}).get(name, {}) for name, title in INTRUSIONS.items()})
    for title, by_column in further.items():
        found = [by_column.get(name.replace(" ", "_")) for name in columns]
        if any(found):
            table.add_row(title, *(str(worded_rate(score, [words(score)])) if score else "" for score in found))
    console = Console()
    console.print(table)
    for key in ("seconds_per_edit", "seconds_per_single_edit", "plain_tokens_per_second", "cost_tokens",
                "cost_tokens_single_edit", "peak_rss_mb"):  # fmt: skip
        if summary[key] is not None:
            console.print(f"{key}: {summary[key]:.1f}")


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_cases(parser)
    add_settings(parser)
    parser.add_argument("--method", default="CausalEdit", choices=list(METHODS), help="alg_name of the method")
    parser.add_argument("--hparams", required=True, help="YAML file or bundled name")
    parser.add_argument("--json", required=True, help="where the result goes; an unfinished one is resumed")
    parser.add_argument("--model", help="instead of the hparams' model_name")
    parser.add_argument("--device", help="instead of the hparams' device")
    parser.add_argument("--stages", type=stage_numbers, help="1, 2 or 1,2 instead of the hparams' stages")
    parser.add_argument("--rationale-judge", metavar="hf:MODEL|llm:MODEL@URL", help="a second judge of the why-answers")
    parser.add_argument("--no-conflict", dest="conflict", action="store_false", help="do not ask the conflict probes")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    judge = judge_named(args.rationale_judge) if args.rationale_judge else None
    hparams = overridden(args.hparams, args.set, {"stages": args.stages} if args.stages else None, method=args.method)
    cases = selected(load_json(args.data, "--data"), args)
    model, tokenizer = load_model(
        args.model or hparams.model_name, device=args.device or hparams.device, dtype=hparams.dtype
    )

    out = Path(args.json)
    done: list[dict] = []
    if out.is_file():
        previous = json.loads(out.read_text(encoding="utf-8"))
        summary = previous["summary"]
        if summary["hparams"] == hparams.to_dict() and summary["probe_version"] == PROBE_VERSION:
            done = [c for c in previous["per_case"] if RATE in c]  # an older output has one rate for all
    finished = {c["case_id"] for c in done}
    plain_rate(model, tokenizer)  # warms the machine up
    before = plain_rate(model, tokenizer)
    for case in track(
        [c for c in cases if c["case_id"] not in finished], description="cases", console=Console(stderr=True)
    ):
        found = run_case(model, tokenizer, case, hparams, conflict=args.conflict)
        after = plain_rate(model, tokenizer)
        done.append({**found, RATE: (before + after) / 2})
        before = after
        summary = summarise(done, hparams, sys.argv[1:], cases)
        write_json(out, {"summary": summary, "per_case": done})
        line = {f: f"{summary[f]['hits']}/{summary[f]['total']}" for f in SCORES}
        if why := summary["rationale"]["after"]:
            line["rationale"] = f"{why['hits']}/{why['total']}"
        print(f"case {case['case_id']}: {done[-1]['seconds']:.0f} s, so far {line}", flush=True)

    if judge is not None:
        try:
            found = judged_rationales(judge(), cases, done, out.with_name(f"{out.stem}_rationale.jsonl"))
        except CausalEditError as error:
            sys.exit(f"{error} Verdicts so far are kept: the same command goes on from them.")
        summary["rationale_judged"] = found
        write_json(out, {"summary": summary, "per_case": done})
    show(summary)


if __name__ == "__main__":
    run_benchmark(main)
