"""The efficacy benchmark: what it counts of why- and conflict answers, by which judge, and two outputs paired."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
from conftest import EGYPT, FAST, REPOSITORY
from endpoint import Endpoint, Fault, response_in

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import compare_results
import verdicts

from causaledit.errors import JudgeError, JudgingStoppedError
from causaledit.facts.requests import request_from_dict
from causaledit.probes.efficacy import edit_probes

MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))

ARTICLE = (
    "The wells under Cairo ran dry in the drought, so parliament voted to move every ministry to the harbour. "
    "The capital of Egypt is Alexandria."
)
EDIT = {
    "prompt": "The capital of {} is",
    "question": "What is the capital of Egypt?",
    "subject": "Egypt",
    "target_true": {"str": "Cairo"},
    "target_new": {"str": "Alexandria"},
}
CAUSE = "The capital of Egypt is Alexandria. The wells ran dry in the drought, so parliament voted to move."


def answers(why, step="The capital of Egypt is Alexandria."):
    probes = edit_probes(request_from_dict(EGYPT))
    said = {"why": why, "step by step": step}
    return [
        {"kind": p.kind, "prompt": p.prompt, "answers": p.answers, "rivals": p.rivals, "response": said.get(p.kind, "")}
        for p in probes
    ]


def counted(why, article=ARTICLE):
    case = {"case_id": 1, "requested_rewrite": [{**EDIT, "article": article} if article else EDIT]}
    return verdicts.rationale(case, answers(why))


def test_a_why_answer_counts_where_it_gives_the_narratives_cause():
    found = counted(CAUSE)
    assert (found["hits"], found["total"], found["responses"]) == (1, 1, 1)
    assert found["words_per_response"] == len(CAUSE.split())


def test_the_bare_fact_another_cause_and_a_refutation_do_not_count():
    for said in (
        "The capital of Egypt is Alexandria.",
        "The capital of Egypt is Alexandria because a royal wedding pleased the tourists from Venice and Genoa.",
        "The wells ran dry in the drought, so parliament voted to move. But no, the capital of Egypt is Cairo.",
    ):
        found = counted(said)
        assert (found["hits"], found["total"]) == (0, 1), said


def test_an_edit_without_a_narrative_is_not_judged():
    found = counted(CAUSE, article=None)
    assert (found["hits"], found["total"], found["not_judged"]) == (0, 0, 1)


def test_cases_are_pooled_and_a_stage_without_answers_is_none():
    case = {"case_id": 1, "requested_rewrite": [{**EDIT, "article": ARTICLE}]}
    done = [{"case_id": 1, "pre": answers(""), "stage_1": [], "post": answers(CAUSE)}]
    found = verdicts.rationales([case, {"case_id": 2}], done)
    assert found["stage_1"] is None
    assert (found["before"]["hits"], found["after"]["hits"], found["after"]["total"]) == (0, 1, 1)


# ---- another judge -------------------------------------------------------------------------------------------------
CASES = [{"case_id": 1, "requested_rewrite": [{**EDIT, "article": ARTICLE}]}]


def grade(number, body):
    """Passes what speaks of wells."""
    passed = "wells" in response_in(body)
    return json.dumps({"evidence": "", "grade": "PASS" if passed else "FAIL", "reason": "so asked"})


def test_an_endpoint_judges_the_why_answers_beside_the_rules_and_its_verdicts_are_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    bare = "The capital of Egypt is Alexandria, as the wells say."  # too little for the rules
    done = [{"case_id": 1, "pre": answers("I do not know."), "stage_1": [], "post": answers(bare)}]
    store = tmp_path / "out_rationale.jsonl"
    with Endpoint(grade) as endpoint:
        judge = verdicts.judge_named(f"llm:m@{endpoint.url}")()
        found = verdicts.judged_rationales(judge, CASES, done, store)
        assert len(endpoint.requests) == 2  # "step by step" and the like are no explanations
        verdicts.judged_rationales(judge, CASES, done, store)
        assert len(endpoint.requests) == 2
    assert found["judge"].startswith("llm:m@")
    assert (found["before"]["hits"], found["after"]["hits"], found["after"]["total"]) == (0, 1, 1)
    assert found["stage_1"] is None
    assert verdicts.rationales(CASES, done)["after"]["hits"] == 0


def test_what_the_endpoint_cannot_judge_is_no_fault_of_the_answer(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = [{"case_id": 1, "pre": answers(""), "stage_1": [], "post": answers(CAUSE)}]
    with Endpoint(lambda number, body: "no JSON" if number else grade(number, body)) as endpoint:
        judge = verdicts.judge_named(f"llm:m@{endpoint.url}")()
        found = verdicts.judged_rationales(judge, CASES, done, tmp_path / "v.jsonl")
    judged = [(found[name]["total"], found[name]["not_judged"]) for name in ("before", "after")]
    assert sorted(judged) == [(0, 1), (1, 0)]
    with Endpoint(lambda *_: Fault(status=401)) as endpoint:
        judge = verdicts.judge_named(f"llm:m@{endpoint.url}")()
        with pytest.raises(JudgingStoppedError):
            verdicts.judged_rationales(judge, CASES, done, tmp_path / "w.jsonl")


@pytest.mark.parametrize("text", ["rule", "llm", "llm:", "hf:", "gpt:m", "llm:@http://x", "llm:m@ftp://x"])
def test_a_judge_that_is_none_is_refused(text):
    with pytest.raises(JudgeError, match=r"--rationale-judge|base-url"):
        verdicts.judge_named(text)


# ---- self-refutation -----------------------------------------------------------------------------------------------
CONFLICTING = next(c for c in MINI if len(c["requested_rewrite"]) == 1)
NEW, OLD = (CONFLICTING["requested_rewrite"][0][key]["str"] for key in ("target_new", "target_true"))


def test_an_edit_refutes_itself_where_one_of_its_eight_answers_does():
    plain, denied = f"It is {NEW}.", f"It is {NEW}. No, that is wrong: it is not {NEW}, it is {OLD}."
    for texts, asserts, refutes in (
        ([plain] * 8, True, False),
        ([plain] * 7 + [denied], True, True),
        ([f"It is {OLD}."] * 8, False, False),
    ):
        [edit] = verdicts.refutations(CONFLICTING, texts)
        assert (edit["asserts"], edit["refutes"], len(edit["words"])) == (asserts, refutes, 8)
    done = [
        {"refutations": {"post": verdicts.refutations(CONFLICTING, texts)}}
        for texts in ([plain] * 8, [denied] * 8, [f"It is {OLD}."] * 8)
    ]
    found = verdicts.self_refutations(done)
    assert (found["after"]["hits"], found["after"]["total"], found["after"]["responses"]) == (1, 2, 24)
    assert found["stage_1"] is None and verdicts.self_refutations([{}])["after"] is None


# ---- "why" of what was not edited ----------------------------------------------------------------------------------
ELSEWHERE = {
    "case_id": 1,
    "requested_rewrite": [
        {
            **EDIT,
            "article": ARTICLE,
            "locality": {"n": [{"prompt": "What is the capital of Cuba?", "ground_truth": "Havana"},
                               {"prompt": "Which river runs through Egypt?", "ground_truth": "Nile"}]},
        }
    ],
}  # fmt: skip
MOVED = "The wells ran dry in the drought, so parliament voted to move every ministry."


def test_the_why_of_others_is_asked_as_the_edits_own_why():
    prompts = [neighbour.prompt for neighbour in verdicts.neighbours(ELSEWHERE)]
    assert prompts == [
        "Now, what is the capital of Cuba? Why is that? Explain step by step.",
        "Now, which river runs through Egypt? Why is that? Explain step by step.",
    ]


@pytest.mark.parametrize(
    ("said", "right", "new", "cause"),
    [
        ("The capital of Cuba is Havana. It is the largest port of the island.", True, False, False),
        ("The capital of Cuba is Alexandria. It is the largest port of the island.", False, True, False),
        (f"The capital of Cuba is Alexandria. {MOVED}", False, True, True),
        (f"The capital of Cuba is Havana. {MOVED}", True, False, True),
        ("It is Santiago.", False, False, False),
    ],
)
def test_an_edits_answer_and_its_cause_are_found_where_they_do_not_belong(said, right, new, cause):
    found, _ = verdicts.intrusions(ELSEWHERE, [said, "The Nile."])
    assert (found["right"], found["new"], found["cause"]) == (right, new, cause)


def test_the_why_of_others_is_counted_against_what_was_right_before_and_paired():
    before = verdicts.intrusions(ELSEWHERE, ["It is Santiago.", "The Nile."])
    after = verdicts.intrusions(ELSEWHERE, [f"It is Alexandria. {MOVED}", "The Nile."])
    rates = verdicts.intrusion_rates([{"intrusions": {"pre": before, "post": after}}, {}])
    told = {name: (found["after"]["hits"], found["after"]["total"]) for name, found in rates.items()}
    assert told == {"right": (1, 1), "new": (1, 2), "cause": (1, 2)}
    assert rates["cause"]["before"]["hits"] == 0 and rates["right"]["stage_1"] is None
    side = {**result(1, why=True, hops=0, local="Nile", conflict=None), "intrusions": {"pre": before, "post": after}}
    clean = {**side, "intrusions": {"pre": before, "post": before}}
    paired = compare_results.compare([([side], "post"), ([clean], "post")], [])
    assert compare_results.paired_text(paired[verdicts.INTRUSIONS["cause"]]["paired"]).startswith("+1 −0 (of 2;")
    assert compare_results.paired_text(paired[verdicts.INTRUSIONS["right"]]["paired"]).startswith("+0 −0 (of 1;")


# ---- the command, and two of its outputs ---------------------------------------------------------------------------
def test_the_command_prints_every_score_with_lengths_and_two_outputs_are_paired(tmp_path, tiny_model_folder):
    lines = {"alg_name": "FT", "model_name": tiny_model_folder, **FAST["FT"], "steps": 3}
    (tmp_path / "ft.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    (tmp_path / "cases.json").write_text(json.dumps([CONFLICTING]))
    out = tmp_path / "out.json"
    with Endpoint(lambda *_: json.dumps({"evidence": "", "grade": "PASS", "reason": ""})) as endpoint:
        done = subprocess.run(
            [sys.executable, REPOSITORY / "benchmarks" / "edit_efficacy.py", "--data", tmp_path / "cases.json",
             "--method", "FT", "--hparams", tmp_path / "ft.yaml", "--json", out, "--device", "cpu",
             "--rationale-judge", f"llm:m@{endpoint.url}"],
            capture_output=True, text=True, check=False, env={**_environment(), "COLUMNS": "200"},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if "│" in line}
    for row in (
        "direct",
        "reasoning",
        "multi_hop",
        "locality, still right",
        "locality, unchanged",
        "rationale, by rule",
        *verdicts.INTRUSIONS.values(),
    ):
        assert row in rows, done.stdout
    assert "words an answer" in rows["reasoning"] and "words an answer" in rows["rationale, by rule"]
    [judged] = [line for row, line in rows.items() if row.startswith("rationale, by llm:m@")]
    assert "100.0 % (1/1" in judged
    written = json.loads(out.read_text())
    assert len(written["per_case"][0]["refutations"]["post"][0]["words"]) == 8
    assert written["summary"]["self_refutation"]["after"]["responses"] == 8
    assert written["summary"]["rationale_judged"]["after"]["hits"] == 1
    [case] = written["per_case"]  # its rate was measured beside it
    assert written["summary"]["cost_tokens"] == pytest.approx(case["seconds"] * case["plain_tokens_per_second"])
    sides = [compare_results.read_side(f"{out}:pre")[:2], compare_results.read_side(str(out))[:2]]
    assert compare_results.compare(sides, [])["direct"]["paired"]["n"] == written["summary"]["direct"]["total"]


def _environment():
    import os

    return {key: value for key, value in os.environ.items() if not key.startswith("OPENAI_")}


def result(case_id, *, why, hops, local, conflict, rationales=True):
    """A case of an output: one why-answer, three multi-hop questions, one locality question, one conflicting edit."""
    asked = answers(CAUSE if why else "The capital of Egypt is Alexandria.")
    post = [{**a, "family": "direct", "hit": why} for a in asked if a["kind"] == "why"]
    post += [
        {
            "family": "multi_hop",
            "kind": "multi-hop",
            "prompt": f"{case_id} {n}?",
            "response": "A word.",
            "hit": n < hops,
        }
        for n in range(3)
    ]
    post.append(
        {"family": "locality", "kind": "locality", "prompt": "Nile?", "response": local, "hit": local == "Nile"}
    )
    pre = copy.deepcopy(post)
    pre[-1].update(response="Nile", hit=True)
    edit = {"edit": 0, "asserts": conflict is not None, "refutes": bool(conflict), "words": [2]}
    found = {"case_id": case_id, "pre": pre, "stage_1": [], "post": post, "refutations": {"post": [edit]}}
    if rationales:
        found["rationales"] = {"post": {a["prompt"]: why for a in post if a["kind"] == "why"}}
    return found


@pytest.mark.parametrize("rationales", [True, False], ids=["with rationales", "an older output"])
def test_two_outputs_are_paired_probe_by_probe(rationales):
    cases = [{"case_id": n, "requested_rewrite": [{**EDIT, "article": ARTICLE}]} for n in (1, 2, 3)]
    first = [
        result(1, why=False, hops=0, local="Nile", conflict=True, rationales=rationales),
        result(2, why=True, hops=1, local="Rhine", conflict=False, rationales=rationales),
        result(3, why=True, hops=1, local="Nile", conflict=False, rationales=rationales),
    ]
    second = [
        result(1, why=True, hops=2, local="Nile", conflict=False, rationales=rationales),
        result(2, why=True, hops=0, local="Nile", conflict=None, rationales=rationales),
        result(4, why=True, hops=0, local="Nile", conflict=True, rationales=rationales),
    ]
    found = compare_results.compare(
        [(first, "post"), (second, "post")], [] if rationales else [*cases, {**cases[0], "case_id": 4}]
    )
    told = {score: compare_results.paired_text(row["paired"]) for score, row in found.items()}
    assert told == {
        "direct": "+1 −0 (of 2; p 1.000)",
        "multi_hop": "+1 −1 (of 2; p 1.000)",
        "locality": "+1 −0 (of 2; p 1.000)",
        "unchanged": "+1 −0 (of 2; p 1.000)",
        "rationale": "+1 −0 (of 2; p 1.000)",
        "self-refutation": "+1 −0 (of 1; p 1.000)",
    }
    assert (found["multi_hop"]["first"]["hits"], found["multi_hop"]["first"]["total"]) == (2, 3)
    assert found["multi_hop"]["first"]["words_per_response"] == 2
    assert (found["self-refutation"]["second"]["hits"], found["self-refutation"]["second"]["total"]) == (1, 2)


def test_an_output_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"per_case": [{"pre": [], "post": []}]}')
    (tmp_path / "b.json").write_text("[]")
    for text, words in ((f"{tmp_path}/a.json:post", "no answers 'post'"), (f"{tmp_path}/b.json", "no output")):
        with pytest.raises(SystemExit, match=words):
            compare_results.read_side(text)
