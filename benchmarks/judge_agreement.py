"""How well a judge agrees with labels, on a file of labelled responses.

    python benchmarks/judge_agreement.py --data FILE --judge rule|llm|hf [--json OUT]

FILE is a list of `{id, category, question, prompt, target_new, target_new_aliases, target_old, response, labels}`.
Prints a confusion table per label, agreement by category and what the judge and the labels differ on. Responses the
judge could not judge are counted apart, never as wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import run_benchmark
from rich.console import Console
from rich.table import Table

from causaledit.errors import CausalEditError
from causaledit.judges.base import Judge, JudgedResponse
from causaledit.judges.registry import JUDGES, get_judge
from causaledit.support.files import load_json, write_json

LABELS = (
    "self_refutation",
    "assertion_of_target_new",
    "explicit_negation_of_target_new",
    "final_answer_is_target_new",
    "answer_correct",
)


def judge_item(judge: Judge, item: dict[str, Any]) -> tuple[dict[str, bool | None], dict[str, str]]:
    """The judge's value of every label (None where it could not judge) and the evidence for it."""
    response = JudgedResponse(
        question=item["question"],
        prompt=item["prompt"],
        response=item["response"],
        target_new=item["target_new"],
        aliases=tuple(item.get("target_new_aliases", ())),
        target_old=item.get("target_old"),
        old_aliases=tuple(item.get("target_old_aliases", ())),
    )
    refutation, answer = judge.judge_refutation(response), judge.judge_answer(response)
    values = {label: getattr(refutation, label) for label in LABELS[:4]}
    values["answer_correct"] = None if answer.grade is None else answer.grade == "PASS"
    evidence = {
        "assertion": refutation.assertion_evidence,
        "negation": refutation.negation_evidence,
        "final": refutation.final_evidence,
    }
    return values, {k: v for k, v in evidence.items() if v}


def figures(pairs: list[tuple[bool, bool | None]]) -> dict[str, Any]:
    """Agreement, precision, recall and F1 of (label, judged) pairs; a figure without a denominator is None."""
    judged = [(want, got) for want, got in pairs if got is not None]
    tp = sum(want and got for want, got in judged)
    fp = sum(not want and got for want, got in judged)
    fn = sum(want and not got for want, got in judged)
    tn = len(judged) - tp - fp - fn

    def share(part: int, whole: int) -> float | None:
        return part / whole if whole else None

    return {
        "agreement": share(tp + tn, len(judged)),
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "f1": share(2 * tp, 2 * tp + fp + fn),
        "n": len(judged),
        "not_judged": len(pairs) - len(judged),
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def measure(judge: Judge, items: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge every item and compare with its labels."""
    pairs: dict[str, list[tuple[bool, bool | None]]] = defaultdict(list)
    categories: dict[str, dict[str, list[tuple[bool, bool | None]]]] = defaultdict(lambda: defaultdict(list))
    disagreements = []
    began = time.perf_counter()
    for item in items:
        values, evidence = judge_item(judge, item)
        for label in LABELS:
            pair = (bool(item["labels"][label]), values[label])
            pairs[label].append(pair)
            categories[item.get("category", "")][label].append(pair)
        differs = [label for label in LABELS if values[label] is not None and values[label] != item["labels"][label]]
        if differs:
            disagreements.append(
                {
                    "id": item["id"],
                    "category": item.get("category", ""),
                    "labels": {label: bool(item["labels"][label]) for label in differs},
                    "judged": {label: values[label] for label in differs},
                    "evidence": evidence,
                    "response": item["response"],
                }
            )
    return {
        **{label: figures(pairs[label]) for label in LABELS},
        "by_category": {
            name: {"n": len(next(iter(of.values()))), **{label: figures(of[label])["agreement"] for label in LABELS}}
            for name, of in sorted(categories.items())
        },
        "disagreements": disagreements,
        "judge": judge.identity,
        "seconds": time.perf_counter() - began,
    }


def show(result: dict[str, Any], console: Console) -> None:
    """Print the tables."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value:.1%}"

    table = Table(title=f"{result['judge']}: agreement with the labels")
    for column in ("label", "yes/yes", "no/yes", "yes/no", "no/no", "agreement", "precision", "recall", "F1", "n"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for label in LABELS:
        of = result[label]
        counts = (str(of["confusion"][k]) for k in ("tp", "fp", "fn", "tn"))
        rates = (percent(of[k]) for k in ("agreement", "precision", "recall"))
        f1 = "–" if of["f1"] is None else f"{of['f1']:.3f}"
        table.add_row(label, *counts, *rates, f1, str(of["n"]))
    console.print(table)
    missing = result["self_refutation"]["not_judged"]
    console.print(f"counts are label/judge; {missing} responses were not judged; {result['seconds']:.1f} s")

    table = Table(title="agreement by category")
    for column in ("category", "n", *LABELS):
        table.add_column(column, justify="left" if column == "category" else "right")
    for name, of in result["by_category"].items():
        table.add_row(name, str(of["n"]), *(percent(of[label]) for label in LABELS))
    console.print(table)
    for item in result["disagreements"]:
        wanted = ", ".join(f"{k} is {v}, judged {item['judged'][k]}" for k, v in item["labels"].items())
        console.print(f"{item['id']}: {wanted}", markup=False)


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="JSON list of labelled responses")
    parser.add_argument("--judge", choices=JUDGES, default="rule")
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--select", help="FIELD=VALUE: only the responses with it, such as split=holdout")
    parser.add_argument("--model", help="the model of llm or hf")
    parser.add_argument("--base-url", help="the address of llm's endpoint")
    args = parser.parse_args()
    console = Console(width=160)
    items = load_json(args.data, "--data")
    if args.select:
        field, _, value = args.select.partition("=")
        found = [item for item in items if str(item.get(field)) == value]
        if not found:
            values = ", ".join(sorted({str(item[field]) for item in items if field in item})) or "none"
            raise CausalEditError(
                f"--select {args.select} takes none of {len(items)} responses; {field} has: {values}."
            )
        items = found
    options = {"model": args.model, "base_url": args.base_url}
    judge = get_judge(args.judge, **{k: v for k, v in options.items() if v is not None})
    result = measure(judge, items)
    show(result, console)
    if args.json:
        write_json(args.json, {"data": Path(args.data).name, "select": args.select, **result})


if __name__ == "__main__":
    run_benchmark(main)
