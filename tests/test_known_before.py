"""The script that measures `known_before`: what counts as knowing, and what `--write` changes."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import known_before


@pytest.mark.parametrize(
    ("response", "subject", "names", "known"),
    [
        ("The capital of Egypt is Cairo.", "Egypt", {"Cairo"}, True),
        ("It is CAIRO", "Egypt", {"Cairo"}, True),
        ("It is Cairobad.", "Egypt", {"Cairo"}, False),
        # the subject's name holds the old answer: naming the subject gives nothing
        ("The Walt Disney Company was founded by Roy.", "The Walt Disney Company", {"Walt Disney"}, False),
        ("The Walt Disney Company was founded by Walt Disney.", "The Walt Disney Company", {"Walt Disney"}, True),
        ("He is a boxer.", "Muhammad Ali", {"boxing", "boxer"}, True),
        ("", "Egypt", {"Cairo"}, False),
    ],
)
def test_what_counts_as_knowing(response, subject, names, known):
    assert known_before.names_old_answer(response, subject, names) is known


def test_aliases_come_from_every_hop_of_the_file_but_the_short_ones():
    hop = {"answer": "United States of America", "answer_alias": ["United States", "US"]}
    cases = [{"single_hops": [], "new_single_hops": [hop]}]
    assert known_before.names_by_answer(cases)["United States of America"] == {
        "United States of America",
        "United States",
    }


def test_write_changes_the_marks_and_nothing_else(tiny_model_folder, tmp_path, capsys):
    cases = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))[5:7]
    for case in cases:
        for edit in case["requested_rewrite"]:
            edit["known_before"] = True
    data, out = tmp_path / "cases.json", tmp_path / "responses.json"
    data.write_text(json.dumps(cases), encoding="utf-8")
    asked = ["--data", str(data), "--model", str(tiny_model_folder), "--batch-size", "3", "--json", str(out)]

    known_before.main(asked)
    assert json.loads(data.read_text(encoding="utf-8")) == cases  # without --write the file is left alone

    known_before.main([*asked, "--write"])
    records = json.loads(out.read_text(encoding="utf-8"))
    edits = [edit for case in cases for edit in case["requested_rewrite"]]
    assert [r["subject"] for r in records] == [e["subject"] for e in edits]
    assert not any(r["known_before"] for r in records)  # a random model names no company
    for edit in edits:
        edit["known_before"] = False
    assert json.loads(data.read_text(encoding="utf-8")) == cases
    assert f"known before: 0/{len(edits)} edits" in capsys.readouterr().out
