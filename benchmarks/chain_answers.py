"""Whether the rule judge reads an answer that is told hop by hop, on the chains of an MQuAKE-format file.

    python benchmarks/chain_answers.py --data FILE [--json OUT]

Of each case's multi-hop questions, the hops' own sentences ("The author of Misery is Z. Z is a citizen of X.") in
several forms as the answer: those after the edit must pass, those before it must not. Cases whose answer stays are left
out. Prints how many do, and the questions that are read wrongly.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import run_benchmark
from rich.console import Console
from rich.table import Table

from causaledit.judges.base import JudgedResponse
from causaledit.judges.registry import get_judge
from causaledit.mquake.cases import parse_cases, read_cases
from causaledit.support.files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.mquake.cases import Case


def numbered(label: str) -> Callable[[list[str]], str]:
    """The sentences as a list, each behind its number."""
    return lambda hops: "\n".join(f"{label.format(i)} {hop}" for i, hop in enumerate(hops, start=1))


FORMS: dict[str, Callable[[list[str]], str]] = {
    "sentences": " ".join,
    "steps": numbered("Step {}:"),
    "a numbered list": numbered("{}."),
    "one sentence": lambda hops: "First, " + ", then ".join(hop.rstrip(".") for hop in hops) + ".",
}


def measure(cases: Sequence[Case]) -> dict[str, Any]:
    """By form, how many answers of the new chain and of the old one pass, and what is read wrongly."""
    judge = get_judge("rule")
    counts = {form: {"new": 0, "old": 0, "n": 0} for form in FORMS}
    wrong = []
    for case in cases:
        if case.new_answer == case.answer:
            continue
        chains = {
            which: [f"{hop.cloze.strip()} {hop.answer}." for hop in hops]
            for which, hops in (("new", case.hops), ("old", case.old_hops))
        }
        for form, tell in FORMS.items():
            texts = {which: tell(hops) for which, hops in chains.items()}
            for question in case.questions:
                asked = JudgedResponse(
                    question, question, "", case.new_answer, case.new_answer_alias, case.answer, case.answer_alias
                )
                counts[form]["n"] += 1
                for which, text in texts.items():
                    passes = judge.judge_answer(dataclasses.replace(asked, response=text)).grade == "PASS"
                    counts[form][which] += passes
                    if passes != (which == "new"):
                        wrong.append({"form": form, "chain": which, "question": question, "response": text})
    return {"judge": judge.identity, "forms": counts, "wrong": wrong}


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cases in MQuAKE's format, with their hops")
    parser.add_argument("--json", help="where the figures go")
    args = parser.parse_args()
    console = Console(width=160)
    result = measure(parse_cases(read_cases(args.data, "--data")))
    for item in result["wrong"]:
        console.print(
            f"{item['chain']} chain, {item['form']}: {item['question']}\n    {item['response']}", markup=False
        )
    table = Table(title=f"chains told hop by hop, {result['judge']}")
    for column in ("form", "new chain passes", "old chain passes", "answers"):
        table.add_column(column, justify="left" if column == "form" else "right")
    for form, of in result["forms"].items():
        table.add_row(form, str(of["new"]), str(of["old"]), str(of["n"]))
    console.print(table)
    if args.json:
        write_json(args.json, {"data": Path(args.data).name, **result})


if __name__ == "__main__":
    run_benchmark(main)
