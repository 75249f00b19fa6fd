"""Which old answers of a data file a model knows before any edit: what `known_before` of the bundled cases records.

    python benchmarks/known_before.py --data FILE [--model smollm2-135m-instruct] [--write] [--json OUT]

Each edit's question and filled cloze are asked as single user messages, greedily, at most 32 new tokens. The edit
counts as known when either response names the old answer or one of its aliases as whole words, mentions of the
subject's own name left out ("The Walt Disney Company" does not name Walt Disney). `--write` stores the verdicts in
the file; `--json` keeps the responses.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

from causaledit.facts.answers import long_names, mentions, normalise
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.support.files import load_json, write_json

MAX_NEW_TOKENS = 32


def names_by_answer(cases: list[dict]) -> dict[str, set[str]]:
    """Each answer's names: itself and the aliases that any hop of the file gives it.

    An old answer need not stand in its own case's old chain (a second edit's subject may be reached by the first
    edit alone). Aliases of up to three letters are left out: "US" is also a pronoun.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for hop in (*case["single_hops"], *case["new_single_hops"]):
            names[hop["answer"]] |= {hop["answer"], *long_names(hop["answer_alias"])}
    return names


def names_old_answer(response: str, subject: str, names: set[str]) -> bool:
    """Whether a response names the old answer elsewhere than in the subject's name."""
    return mentions(re.sub(re.escape(normalise(subject)), " ", normalise(response)), names)


def measure(model, tokenizer, cases: list[dict], batch_size: int) -> list[dict]:
    """Ask both forms of every edit; one record per edit, in file order."""
    tokenizer = prepare_tokenizer(tokenizer)
    names = names_by_answer(cases)
    edits = [(case["case_id"], edit) for case in cases for edit in case["requested_rewrite"]]
    asked = [form for _, edit in edits for form in (edit["question"], edit["prompt"].format(edit["subject"]))]
    prompts = [render(tokenizer, user(text)) for text in asked]
    responses = generate_texts(model, tokenizer, prompts, max_new_tokens=MAX_NEW_TOKENS, batch_size=batch_size)
    records = []
    for i, (case_id, edit) in enumerate(edits):
        old = edit["target_true"]["str"]
        hits = [names_old_answer(r, edit["subject"], names[old] | {old}) for r in responses[2 * i : 2 * i + 2]]
        records.append(
            {
                "case_id": case_id,
                "subject": edit["subject"],
                "relation_id": edit["relation_id"],
                "old": old,
                "question": responses[2 * i],
                "cloze": responses[2 * i + 1],
                "hits": hits,
                "known_before": any(hits),
            }
        )
    return records


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a model folder or name")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=positive, default=16)
    parser.add_argument("--write", action="store_true", help="store known_before in --data")
    parser.add_argument("--json", help="where to keep the responses")
    args = parser.parse_args(argv)
    cases = load_json(args.data, "--data")
    model, tokenizer = load_model(args.model, device=args.device)
    records = measure(model, tokenizer, cases, args.batch_size)
    for record in records:
        if not record["known_before"]:
            print(f"unknown: case {record['case_id']} {record['subject']} {record['relation_id']} {record['old']}")
    known, asked = sum(r["known_before"] for r in records), len(records)
    by_form = [sum(r["hits"][form] for r in records) for form in (0, 1)]
    print(f"known before: {known}/{asked} edits; by the question {by_form[0]}, by the cloze {by_form[1]}")
    if args.json:
        write_json(args.json, records)
    if args.write:
        edits = [edit for case in cases for edit in case["requested_rewrite"]]
        changed = 0
        for edit, record in zip(edits, records, strict=True):
            changed += edit.get("known_before") is not record["known_before"]
            edit["known_before"] = record["known_before"]
        write_json(args.data, cases)
        print(f"written to {args.data}: {changed} changed")


if __name__ == "__main__":
    run_benchmark(main)
