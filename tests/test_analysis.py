"""`causaledit analyze`: files of the published form, alone and paired."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from command_line import run
from conftest import REPOSITORY
from endpoint import Endpoint
from published import OLD, REFUTING, RIGHT, case, write
from test_judge_cli import llm

from causaledit.judges.recall import recall_note


def analysis(folder):
    return json.loads((folder / "analysis" / "pred_analysis.json").read_text())


def published_case(case_id, style):
    """Words a rule judge must understand, in a file without `q` in its conflict probes and without `article`."""
    told = {
        "new": "The capital of {country} is {new}.",
        "old": "The capital of {country} is {old}.",
        "refuting": "The capital of {country} is {new}. Wait, that is wrong: the capital is not {new}. "
        "The capital of {country} is {old}.",
    }[style].replace("{country}", "Norway")
    return case(case_id, hop_wise=told, multi_hop=told, conflict=told, as_text=True, narrative=False)


def test_a_published_file_goes_through_unchanged(tmp_path):
    cases = [published_case(1, "new"), published_case(2, "old"), published_case(3, "refuting")]
    file = write(tmp_path, cases)
    before = file.read_bytes()
    assert run("judge", "--input", file).returncode == 0
    done = run("analyze", "--input", file, "--llm-self-refute", "on", "--rewrite-why", "on")
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before
    figures = analysis(tmp_path)["metrics"]
    for source in ("hop_wise", "conflict", "conflict_described_first", "combined", "combined_described_first"):
        srr = figures["self_refutation"][source]["conditional"]
        assert (srr["hits"], srr["total"]) == (1, 2), source  # the old answer never asserts the new one
        assert srr["interval"][0] <= srr["rate"] <= srr["interval"][1]
        everything = figures["self_refutation"][source]["all_edits"]
        assert (everything["hits"], everything["total"]) == (1, 3)
    assert figures["asserting_edits"]["hits"] == 2
    assert figures["h_acc"]["rate"] == pytest.approx(1 / 3)
    assert figures["rationale"]["total"] == 0  # no narrative
    assert figures["rationale"]["rate"] is None
    text = (tmp_path / "analysis" / "pred_analysis.txt").read_text()
    assert text.strip() in done.stdout
    assert "50.0 % (1/2" in text
    assert recall_note("rule-v11") in text


def test_verdicts_come_with_evidence(tmp_path):
    file = write(tmp_path, [published_case(3, "refuting")])
    assert run("analyze", "--input", file).returncode == 0
    [found] = analysis(tmp_path)["cases"]
    [edit] = found["edits"]
    assert (edit["asserted"], edit["self_refutation"]["combined"]) == (True, True)
    assert len(edit["responses"]) == 3 + 8
    response = edit["responses"][0]
    assert (response["probe"], response["hop"], response["slot"]) == ("hop_wise", 0, 0)
    assert response["verdict"]["self_refutation"] is True
    assert "Bergen" in response["verdict"]["negation_evidence"]


def test_switches(tmp_path):
    file = write(tmp_path, [case(1, hop_wise=[[RIGHT, RIGHT, "[PASS +] a flood"]]), case(2)])
    with Endpoint() as endpoint:
        done = run("analyze", "--input", file, "--llm-self-refute", "off", "--rewrite-why", "off", *llm(endpoint))
        assert done.returncode == 0, done.stderr
        figures = analysis(tmp_path)["metrics"]
        srr = figures["self_refutation"]["combined"]["conditional"]
        assert (srr["rate"], srr["total"], srr["not_judged"]) == (None, 0, 2)
        assert (figures["rationale"]["rate"], figures["rationale"]["not_judged"]) == (None, 2)
        assert figures["h_acc"]["rate"] == 1
        assert "not judged (2)" in done.stdout
        assert "of self-refutations" not in done.stdout  # this judge was not measured
        asked = len(endpoint.requests)
        assert run("analyze", "--input", file, "--rewrite-why", "off", *llm(endpoint)).returncode == 0
        assert len(endpoint.requests) > asked  # answers come from the store, self-refutation is new
        figures = analysis(tmp_path)["metrics"]
        assert figures["self_refutation"]["combined"]["conditional"]["total"] == 2
        assert figures["rationale"]["rate"] is None
        asked = len(endpoint.requests)
        assert run("analyze", "--input", file, *llm(endpoint)).returncode == 0
        assert analysis(tmp_path)["metrics"]["rationale"]["PASS"] == 2
        assert run("analyze", "--input", file, *llm(endpoint)).returncode == 0
        assert len(endpoint.requests) == asked + 2  # two explanations, and nothing twice
    assert run("analyze", "--input", file, "--rewrite-why", "maybe").returncode == 2


def test_judge_and_analyze_share_verdicts(tmp_path):
    file = write(tmp_path, [case()])
    with Endpoint() as endpoint:
        assert run("judge", "--input", file, *llm(endpoint)).returncode == 0
        asked = len(endpoint.requests)
        arguments = ["--llm-self-refute", "off", "--rewrite-why", "off"]
        assert run("analyze", "--input", file, *arguments, *llm(endpoint)).returncode == 0
        assert len(endpoint.requests) == asked


def test_paired(tmp_path):
    other = write(tmp_path / "other", [case(n, hop_wise=REFUTING, multi_hop=OLD) for n in range(6)] + [case(7)])
    this = write(tmp_path / "this", [case(n) for n in range(6)])
    with Endpoint() as endpoint:
        assert run("analyze", "--input", other, *llm(endpoint)).returncode == 0
        done = run("analyze", "--input", this, "--paired", other, *llm(endpoint))
    assert done.returncode == 0, done.stderr
    paired = analysis(tmp_path / "this")["paired"]
    assert (paired["cases"], paired["only_this"], paired["only_other"]) == (6, 0, 1)
    right = paired["tables"]["any_right_accuracy"]
    assert (right["both"], right["only_this"], right["only_other"], right["neither"]) == (0, 6, 0, 0)
    assert (right["repaired"], right["harmed"]) == (6, 0)
    assert right["p"] == pytest.approx(2 / 2**6)
    refuted = paired["tables"]["self_refutation.combined"]
    assert (refuted["repaired"], refuted["harmed"], refuted["p"]) == (6, 0, pytest.approx(2 / 2**6))
    assert paired["differences"]["m_acc"]["mean"] == 1
    assert "repaired 6, harmed 0, p 0.031" in done.stdout
    assert analysis(tmp_path / "other")["paired"] is None  # the other run's analysis is left alone


def test_paired_with_nothing_in_common(tmp_path):
    this, other = write(tmp_path / "this", [case(1)]), write(tmp_path / "other", [case(2)])
    done = run("analyze", "--input", this, "--paired", other)
    assert done.returncode == 2
    assert "share no case_id" in done.stderr
    # numbers from 1 on are in every file of cases
    changed = case(1)
    for rewrite in changed["requested_rewrite"]:
        rewrite["target_new"] = {"str": "Tromsø"}
    write(tmp_path / "other", [changed])
    done = run("analyze", "--input", this, "--paired", other)
    assert done.returncode == 2
    assert "case_id 1 is another case" in done.stderr and "Tromsø" in done.stderr
    assert f"--paired ({str(tmp_path / 'other' / 'metrics.json')!r})" in done.stderr.replace("\n", "")
    done = run("analyze", "--input", this, "--paired", tmp_path / "none.json")
    assert done.returncode == 2
    assert "--paired" in done.stderr


def test_the_rule_judge_needs_neither_torch_nor_openai(tmp_path):
    file = write(tmp_path, [case()])
    code = (
        "import sys; from causaledit.cli.app import app\n"
        f"app(['analyze', '--input', {str(file)!r}], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
