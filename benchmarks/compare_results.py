"""Two outputs of `edit_efficacy.py`, probe by probe: what one gained over the other, and whether that is chance.

    python benchmarks/compare_results.py A.json B.json [--data FILE] [--json OUT]
    python benchmarks/compare_results.py A.json:stage_1 A.json

Printed per score: both rates with the mean length of an answer, and B against A on the probes that both have: +n (B
alone passes), −m (A alone does), the number of pairs, McNemar's exact p. `:pre`, `:stage_1` and `:post` (the default)
choose the answers before the edit, after stage 1, and after. Self-refutation is over edits that assert the new answer;
there, and where an answer about something else gives the edit's answer or cause, + is one that does so in A alone.
Outputs from before there were `rationales` in them need `--data`, the file with the cases' narratives.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from arguments import run_benchmark
from rich.console import Console
from rich.table import Table
from verdicts import INTRUSIONS, rationale_outcomes

from causaledit.facts.text import normalise, word_count
from causaledit.metrics.wording import answer_length, p_value, worded_rate
from causaledit.support.files import load_json, write_json
from causaledit.support.statistics import PairedTable, Rate, mean

COLUMNS = ("pre", "stage_1", "post")
BAD = ("self-refutation", INTRUSIONS["new"], INTRUSIONS["cause"])  # the fewer the better
Outcomes = dict[tuple, bool | None]


def read_side(text: str) -> tuple[list[dict], str, Any]:
    """The cases of an output and the column that `FILE[:COLUMN]` names, and the version of its probes."""
    file, _, column = text.rpartition(":")
    if column not in COLUMNS or not file:
        file, column = text, "post"
    data = load_json(file, "an output of edit_efficacy.py")
    if not isinstance(data, dict) or not isinstance(data.get("per_case"), list):
        raise SystemExit(f"{file}: this is no output of edit_efficacy.py.")
    cases = data["per_case"]
    if not any(case.get(column) for case in cases):
        raise SystemExit(f"{file}: it has no answers {column!r}.")
    return cases, column, (data.get("summary") or {}).get("probe_version")


def outcomes(case: dict, column: str, source: dict | None = None) -> dict[str, tuple[Outcomes, list[int]]]:
    """By score: which of a case's probes were passed (multi-hop: its case, once), and the answers' numbers of words.

    Args:
        case: Of an output.
        column: One of `COLUMNS`.
        source: The case of the data file, for the rationales of an older output.
    """
    found: dict[str, tuple[Outcomes, list[int]]] = {}
    case_id = case["case_id"]

    def add(score: str, key: Any, passed: bool | None, *lengths: int) -> None:
        table, words = found.setdefault(score, ({}, []))
        # a case's questions of several hops count once
        table[case_id, key] = bool(table.get((case_id, key))) or passed if score == "multi_hop" else passed
        words.extend(lengths)

    answers, before = case[column], {answer["prompt"]: answer for answer in case["pre"]}
    for answer in answers:
        n, was = word_count(answer["response"]), before[answer["prompt"]]
        if answer["family"] == "locality":
            same = normalise(was["response"]) == normalise(answer["response"]) or (was["hit"] and answer["hit"])
            add("unchanged", answer["prompt"], same, n)
            if not was["hit"]:
                continue
        add(answer["family"], None if answer["family"] == "multi_hop" else answer["prompt"], answer["hit"], n)
    rationales = (case.get("rationales") or {}).get(column)
    if rationales is None and source is not None:
        rationales = rationale_outcomes(source, answers)
    lengths = {answer["prompt"]: word_count(answer["response"]) for answer in answers}
    for prompt, agrees in (rationales or {}).items():
        add("rationale", prompt, agrees, lengths[prompt])
    for edit in (case.get("refutations") or {}).get(column) or ():
        if edit["asserts"]:
            add("self-refutation", edit["edit"], edit["refutes"], *edit["words"])
    elsewhere = case.get("intrusions") or {}
    for was, now in zip(elsewhere.get("pre") or (), elsewhere.get(column) or (), strict=False):
        for name, title in INTRUSIONS.items():
            if name != "right" or was["right"]:
                add(title, now["prompt"], now[name], now["words"])
    return found


def compare(sides_read: list[tuple[list[dict], str]], data: list[dict]) -> dict[str, dict]:
    """By score: the rates of two sides, each with its mean words of an answer, and the second against the first."""
    sources = {case["case_id"]: case for case in data}
    sides: list[dict[str, tuple[Outcomes, list[int]]]] = []
    for cases, column in sides_read:
        side: dict[str, tuple[Outcomes, list[int]]] = {}
        for case in cases:
            for score, (table, words) in outcomes(case, column, sources.get(case["case_id"])).items():
                all_of_it, all_words = side.setdefault(score, ({}, []))
                all_of_it.update(table)
                all_words.extend(words)
        sides.append(side)
    a, b = sides
    return {
        score: {
            **{
                name: {**Rate.of(side[score][0].values()).to_dict(), "words_per_response": mean(side[score][1])}
                for name, side in (("first", a), ("second", b))
            },
            "paired": PairedTable.of(
                ((b[score][0][key], a[score][0][key]) for key in b[score][0] if key in a[score][0]),
                yes_is_good=score not in BAD,
            ).to_dict(),
        }
        for score in a
        if score in b
    }


def side_text(found: dict) -> str:
    """A rate with the length of its answers."""
    words = found["words_per_response"]
    return str(worded_rate(found, () if words is None else (answer_length(words),)))


def paired_text(table: dict) -> str:
    """What was gained and lost."""
    return f"+{table['repaired']} −{table['harmed']} (of {table['n']}; p {p_value(table['p'])})"


def main() -> None:
    """Parse, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="A.json[:COLUMN]")
    parser.add_argument("second", metavar="B.json[:COLUMN]", help="it is compared with the first")
    parser.add_argument("--data", help="MQuAKE-format JSON with narratives, for outputs without rationales")
    parser.add_argument("--json", help="where the comparison goes")
    args = parser.parse_args()
    sides = [read_side(text) for text in (args.first, args.second)]
    if sides[0][2] != sides[1][2]:
        parser.error(f"the outputs were made with versions {sides[0][2]} and {sides[1][2]} of the probes")
    pairs = [(cases, column) for cases, column, _ in sides]
    found = compare(pairs, load_json(args.data, "--data") if args.data else [])
    table = Table(title=f"{args.second} against {args.first}")
    for name in ("", "first", "second", "second against first"):
        table.add_column(name, justify="left" if not name else "right")
    for score, row in found.items():
        table.add_row(score, side_text(row["first"]), side_text(row["second"]), paired_text(row["paired"]))
    Console().print(table)
    if args.json:
        write_json(args.json, found)


if __name__ == "__main__":
    run_benchmark(main)
