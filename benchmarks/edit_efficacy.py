"""How well, how local and how costly an edit is, on the cases of an MQuAKE-format file.

    python benchmarks/edit_efficacy.py --data FILE [--method CausalEdit] --hparams YAML --json OUT

Edits of a case are applied together; closed-book greedy answers are taken before and after; the weights
are restored after each case. Where both stages run, the probes are asked between them too (its time is not
counted): what stage 1 alone gave, which is also what `--stages 1` gives. Each finished case is written at
once, and the same --json resumes. `cost_tokens` is the seconds of an edit times the plain model's generation
rate (batch 32) measured in the same run, so that machines compare. `rationale` counts the answers to "why" that give
the narrative's cause, by the rule judge.
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

import torch
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from causaledit.facts.requests import requests_from_data
from causaledit.facts.text import word_count
from causaledit.judges.base import JudgedResponse
from causaledit.judges.rule import RuleJudge
from causaledit.methods.registry import METHODS
from causaledit.metrics.wording import answer_length, worded_rate
from causaledit.models.adapters import merged_for_inference
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.mquake.cases import with_held_out
from causaledit.probes.asking import plain_rate
from causaledit.probes.efficacy import PROBE_VERSION, SCORES, ask, case_probes, edit_probes, pooled, rates
from causaledit.probes.trained import TrainedPrompts
from causaledit.support.costs import peak_rss_mb
from causaledit.support.files import load_json, write_json
from causaledit.support.progress import SilentProgress
from causaledit.support.statistics import Rate

# what every method's card has; the method's own fields stand beside the results
EVERY_CARD = ("method", "created", "requests", "losses", "hparams", "versions", "metrics", "seconds", "tokens")


def overridden(hparams: str, settings: list[str], changes: dict | None = None, *, method: str = "CausalEdit") -> Any:
    """A bundled or given file's hyper-parameters with `KEY=VALUE` settings and further changes."""
    kind = METHODS[method].load_hparams()
    data = kind.from_hparams(hparams).to_dict()
    pairs = dict(item.split("=", 1) for item in settings)
    data.update({name: yaml.safe_load(value) for name, value in pairs.items()})
    return kind.from_dict({**data, **(changes or {})})


def selected(cases: list[dict], select: str | None, limit: int | None) -> list[dict]:
    """The cases of a Python slice such as `0::3`, at most so many."""
    if select:
        cases = cases[slice(*(int(part) if part else None for part in select.split(":")))]
    return cases[:limit]


def run_case(model, tokenizer, case, hparams, *, between: bool = True) -> dict:
    """Edit, probe, restore one case.

    Args:
        between: Ask the probes between the stages too.
    """
    requests = [with_held_out(request, case) for request in requests_from_data(case["requested_rewrite"])]
    probes = case_probes(case, requests)
    asked = functools.partial(ask, tokenizer=tokenizer, probes=probes, template_kwargs=hparams.chat_template_kwargs)
    pre = asked(model)
    method = METHODS[hparams.alg_name]
    report = method.load_report()()
    asked_between: list = []
    spent = 0.0

    def look(peft_model) -> None:
        nonlocal asked_between, spent
        started = time.perf_counter()
        peft_model.eval()
        with merged_for_inference(peft_model):
            asked_between = asked(peft_model.get_base_model())
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
    asked_between = [dataclasses.replace(a, trained=a.probe.prompt in trained) for a in asked_between]
    restore(model, originals)
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
        "pre": [a.to_dict() for a in pre],
        "stage_1": [a.to_dict() for a in asked_between],
        "post": [a.to_dict() for a in post],
    }


def rationale(case: dict, answers: list[dict]) -> dict:
    """How many of the answers to "why" give the cause that the narrative of their edit tells.

    Args:
        case: As in the data file, with narratives.
        answers: The answers to the case's probes, as they are written (`pre`, `stage_1`, `post`).

    Returns:
        A rate as plain data, with `responses` and `words_per_response`. An answer whose edit has no narrative is not
        judged; one that gives no explanation, or too thin a one, is no hit.
    """
    narratives = {
        probe.prompt: request
        for request in requests_from_data(case["requested_rewrite"])
        for probe in edit_probes(request)
        if probe.kind == "why"
    }
    found: list[bool | None] = []
    words = 0
    for answer in answers:
        request = narratives.get(answer["prompt"]) if answer["kind"] == "why" else None
        if request is None:
            continue
        new, *aliases = answer["answers"]
        old, *old_aliases = answer["rivals"] or [None]
        verdict = RuleJudge().judge_rationale(
            JudgedResponse(
                question=request.question_form, prompt=answer["prompt"], response=answer["response"],
                target_new=new, aliases=tuple(aliases), target_old=old, old_aliases=tuple(old_aliases),
                narrative=request.narrative,
            )
        )  # fmt: skip
        found.append(None if verdict.error else verdict.grade == "PASS")
        words += word_count(answer["response"])
    mean = words / len(found) if found else None
    return {**Rate.of(found).to_dict(), "responses": len(found), "words_per_response": mean}


def rationales(cases: list[dict], done: list[dict]) -> dict:
    """The `rationale` of all finished cases together, before, after stage 1 (None without it) and after."""
    by_id = {case["case_id"]: case for case in cases}

    def pool(column: str) -> dict | None:
        found = [rationale(by_id[c["case_id"]], c[column]) for c in done]
        n = sum(f["responses"] for f in found)
        words = sum(f["responses"] * (f["words_per_response"] or 0) for f in found)
        rate = Rate(*(sum(f[key] for f in found) for key in ("hits", "total", "not_judged")))
        return {**rate.to_dict(), "responses": n, "words_per_response": words / n if n else None} if n else None

    return {"before": pool("pre"), "stage_1": pool("stage_1"), "after": pool("post")}


def summarise(cases: list[dict], rate: float, hparams, args, data: list[dict]) -> dict:
    """What the benchmark prints."""
    seconds = sum(c["seconds"] for c in cases) / sum(c["edits"] for c in cases)
    single = [c["seconds"] for c in cases if c["edits"] == 1]
    return {
        **pooled([c["rates"] for c in cases]),
        "before": pooled([c["rates_before"] for c in cases]),
        "stage_1": pooled([c["rates_stage_1"] for c in cases]) if cases[0]["rates_stage_1"] else None,
        "rationale": rationales(data, cases),
        "seconds_per_edit": seconds,
        "seconds_per_single_edit": statistics.median(single) if single else None,
        "plain_tokens_per_second": rate,
        "cost_tokens": seconds * rate,
        "cost_tokens_single_edit": statistics.median(single) * rate if single else None,
        "peak_rss_mb": peak_rss_mb(),
        "cases": len(cases),
        "edits": sum(c["edits"] for c in cases),
        "probe_version": PROBE_VERSION,
        "threads": torch.get_num_threads(),
        "command": " ".join(["python", "benchmarks/edit_efficacy.py", *args]),
        "hparams": hparams.to_dict(),
    }


def words(score: dict) -> str:
    """How long the answers are: who answers in a word reasons little."""
    return answer_length(score["words_per_response"]) if score["responses"] else ""


def main() -> None:
    """Parse, run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MQuAKE-format JSON with narratives")
    parser.add_argument("--method", default="CausalEdit", choices=list(METHODS), help="alg_name of the method")
    parser.add_argument("--hparams", required=True, help="YAML file or bundled name")
    parser.add_argument("--json", required=True, help="where the result goes; an unfinished one is resumed")
    parser.add_argument("--model", help="instead of the hparams' model_name")
    parser.add_argument("--device", help="instead of the hparams' device")
    parser.add_argument("--stages", help="1, 2 or 1,2 instead of the hparams' stages")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one hyper-parameter")
    parser.add_argument("--limit", type=int, help="only the first N cases")
    parser.add_argument("--select", help="a Python slice of the cases, such as 0::3")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    stages = {"stages": [int(stage) for stage in args.stages.split(",")]} if args.stages else None
    hparams = overridden(args.hparams, args.set, stages, method=args.method)
    model, tokenizer = load_model(
        args.model or hparams.model_name, device=args.device or hparams.device, dtype=hparams.dtype
    )
    cases = load_json(args.data, "--data")
    cases = selected(cases, args.select, args.limit)

    out = Path(args.json)
    done: list[dict] = []
    if out.is_file():
        previous = json.loads(out.read_text(encoding="utf-8"))
        summary = previous["summary"]
        if summary["hparams"] == hparams.to_dict() and summary["probe_version"] == PROBE_VERSION:
            done = previous["per_case"]
    finished = {c["case_id"] for c in done}
    rate = max(plain_rate(model, tokenizer, new_tokens=48) for _ in range(2))
    for case in track(
        [c for c in cases if c["case_id"] not in finished], description="cases", console=Console(stderr=True)
    ):
        done.append(run_case(model, tokenizer, case, hparams))
        summary = summarise(done, rate, hparams, sys.argv[1:], cases)
        write_json(out, {"summary": summary, "per_case": done})
        line = {f: f"{summary[f]['hits']}/{summary[f]['total']}" for f in SCORES}
        if why := summary["rationale"]["after"]:
            line["rationale"] = f"{why['hits']}/{why['total']}"
        print(f"case {case['case_id']}: {done[-1]['seconds']:.0f} s, so far {line}", flush=True)

    table = Table(title=f"{len(done)} cases, {summary['edits']} edits")
    columns = {"before": summary["before"], "stage 1": summary["stage_1"], "after": summary}
    columns = {name: found for name, found in columns.items() if found}
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for name in SCORES:
        scores = [found[name] for found in columns.values()]
        table.add_row(name, *(str(worded_rate(score, [words(score)])) for score in scores))
        if any(score["unseen"] and score["unseen"]["total"] != score["total"] for score in scores):
            table.add_row("  not trained on", *(str(worded_rate(score["unseen"])) for score in scores))
    found = [summary["rationale"][name.replace(" ", "_")] for name in columns]
    table.add_row("rationale", *(str(worded_rate(score, [words(score)])) if score else "" for score in found))
    console = Console()
    console.print(table)
    for key in ("seconds_per_edit", "seconds_per_single_edit", "plain_tokens_per_second", "cost_tokens",
                "cost_tokens_single_edit", "peak_rss_mb"):  # fmt: skip
        if summary[key] is not None:
            console.print(f"{key}: {summary[key]:.1f}")


if __name__ == "__main__":
    main()
