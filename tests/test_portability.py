"""The portability protocol: what is asked, the paper's match, and what a run, a comparison and a report make of it."""

from __future__ import annotations

import json

import pytest
from conftest import FAST, REPOSITORY, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.cli.bars import averages_text
from causaledit.cli.run import show_run
from causaledit.comparison.tables import tables
from causaledit.errors import RunError
from causaledit.judges.base import JudgedResponse
from causaledit.judges.registry import get_judge
from causaledit.judges.rule import RuleJudge
from causaledit.metrics.paired import compare_runs
from causaledit.metrics.summary import evaluate_run
from causaledit.mquake.cases import read_case
from causaledit.probes.portability import (
    PORTABILITY_VERSION,
    UNSEEN_FORMS,
    Kind,
    PortabilityQuestion,
    paper_match,
    portability_questions,
    tagged_answer,
    without_tags,
)
from causaledit.probes.sets import build_probes
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan
from causaledit.support.console import plain_console
from causaledit.support.files import load_json

FICTBIO = load_json(REPOSITORY / "data" / "fictbio-mini.json", "data")
MINI = load_json(REPOSITORY / "data" / "causaledit-mini.json", "data")
FRANCE, BOTH = read_case(FICTBIO[0]), read_case(FICTBIO[24])


def questions_of(case, metric, form, *, reasoned=False):
    return [q for q in portability_questions(case) if q.kind == Kind(metric, form, reasoned)]


# ---- what is asked ---------------------------------------------------------------------------------
def test_every_question_is_asked_twice():
    asked = portability_questions(FRANCE)
    direct, reasoned = ([q for q in asked if q.kind.reasoned is how] for how in (False, True))
    assert [q.question for q in direct] == [q.question for q in reasoned]
    assert all("step by step" in q.prompt for q in reasoned)
    assert not any("step by step" in q.prompt for q in direct)
    assert all("<answer>" in q.prompt for q in asked)
    counts = {form: len(questions_of(FRANCE, *form)) for form in {(q.kind.metric, q.kind.form) for q in asked}}
    assert counts == {
        ("edit_success", "original"): 1, ("edit_success", "rephrased"): 3, ("locality", "original"): 3,
        ("portability", "original"): 3, ("portability", "unseen"): 3,
    }  # fmt: skip


def test_the_three_multi_hop_questions_are_the_files_own():
    asked = questions_of(FRANCE, "portability", "original")
    assert [(q.question, q.parts[0][0]) for q in asked] == [
        (entry["question"], entry["answer"]) for entry in FICTBIO[0]["portability"]
    ]
    plain = questions_of(read_case(MINI[0]), "portability", "original")
    assert [q.question for q in plain] == MINI[0]["questions"]
    assert plain[0].rivals[0] == MINI[0]["answer"]


def test_multi_fact_cases_ask_for_all_parts():
    asked = questions_of(BOTH, "portability", "multi_fact")
    assert len(asked) == 3
    assert all(q.parts == (("Ajaccio",), ("Lecce",)) for q in asked)
    assert not questions_of(BOTH, "portability", "unseen")
    assert len(questions_of(BOTH, "edit_success", "original")) == 2


def test_unseen_forms_are_drawn_from_the_question_and_all_occur():
    found = {}
    for data in (*MINI, *FICTBIO):
        case = read_case(data)
        for asked, again in zip(
            questions_of(case, "portability", "unseen"),
            questions_of(read_case(data), "portability", "unseen"),
            strict=True,
        ):
            assert asked == again
            found.setdefault(asked.shape, []).append((case, asked))
    assert found.keys() == set(UNSEEN_FORMS)
    truths = [asked.parts[0][0] for _, asked in found["true_false"]]
    assert {"True", "False"} == set(truths)
    places = set()
    for _, asked in found["choice4"]:
        options = asked.question.partition("Choose one of the four: ")[2]
        assert [options.count(f"({letter})") for letter in "ABCD"] == [1] * 4
        right = [letter for letter in "ABCD" if f"({letter}) {asked.parts[0][0]}" in options]
        assert len(right) == 1
        places.add(right[0])
    assert places == set("ABCD")


# ---- the paper's match -----------------------------------------------------------------------------
def shaped(shape):
    return next(
        q for d in (*MINI, *FICTBIO) for q in questions_of(read_case(d), "portability", "unseen") if q.shape == shape
    )


MATCHES = [
    ("<answer>Ajaccio</answer>", True),
    ("<answer>It is AJACCIO, on Corsica.</answer>", True),
    ("<answer>ajac</answer>", True),  # the reverse: what is said stands in the right answer
    ("Ajaccio", False),
    ("<answer>Ajaccio", False),
    ("<answer></answer>", False),
    ("<answer>Amiens</answer>", False),
    ("<answer>Ajaccio</answer> or rather <answer>Amiens</answer>", False),
]


@pytest.mark.parametrize(("response", "hit"), MATCHES)
def test_the_papers_match(response, hit):
    [asked, *_] = questions_of(FRANCE, "portability", "original")
    assert paper_match(response, asked) is hit


def test_the_papers_match_of_forms():
    [multi, *_] = questions_of(BOTH, "portability", "multi_fact")
    assert paper_match("<answer>Ajaccio and Lecce</answer>", multi)
    assert not paper_match("<answer>Ajaccio and Rome</answer>", multi)
    assert not paper_match("<answer>a</answer>", multi)
    choice = shaped("choice4")
    options = choice.question.partition("Choose one of the four: ")[2]
    right = next(letter for letter in "ABCD" if f"({letter}) {choice.parts[0][0]}" in options)
    for letter in "ABCD":
        assert paper_match(f"<answer>({letter})</answer>", choice) is (letter == right)
    assert paper_match(f"<answer>{choice.parts[0][0]}</answer>", choice)
    verdict = shaped("true_false")
    right, wrong = verdict.parts[0][0], verdict.rivals[0]
    assert paper_match(f"<answer>{right.lower()}.</answer>", verdict)
    assert not paper_match(f"<answer>{wrong}</answer>", verdict)


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (("PlayStation", "Xbox", "PlayStation 4", "Wii"), "PlayStation", "A"),
        (("PlayStation 4", "Xbox", "PlayStation", "PlayStation 5"), "PlayStation", "C"),
        (("Wii", "Xbox", "Xbox One", "Xbox 360"), "Xbox", "B"),
        (("Xbox One", "Wii", "Switch", "Xbox"), "Xbox", "D"),
        (("Xbox One", "Wii", "Xbox (2001)", "Xbox"), "Xbox", "D"),
    ],
)
def test_a_letter_stands_for_the_option_that_is_the_answer_to_its_end(options, answer, letter):
    listed = " ".join(f"({x}) {text}" for x, text in zip("ABCD", options, strict=True))
    text = f"Is it (A) {answer} (B) no? Choose one of the four: {listed}"
    kind = Kind("portability", "unseen", reasoned=False)
    asked = PortabilityQuestion(kind, "choice4", text, text, ((answer,),))
    assert {x for x in "ABCD" if paper_match(f"<answer>{x}</answer>", asked)} == {letter}


def test_tags():
    assert tagged_answer("first <answer> x </answer> then <answer>y</answer>.") == "y"
    assert tagged_answer("</answer><answer>") is None
    assert without_tags("So <answer>x</answer>") == "So \nAnswer: x"


# ---- the rule judge on the same answers ------------------------------------------------------------
def judged(asked, response, part=0):
    names = asked.parts[part]
    item = JudgedResponse(
        asked.question, asked.prompt, without_tags(response), names[0], names[1:],
        asked.rivals[0] if asked.rivals else None, asked.rivals[1:],
    )  # fmt: skip
    return RuleJudge().judge_answer(item).grade == "PASS"


def test_the_rule_judge_reads_the_forms():
    [asked, *_] = questions_of(FRANCE, "portability", "original")
    assert judged(asked, "<answer>Ajaccio</answer>")
    assert judged(asked, "The president is Solène Marchetti. She was born in Ajaccio. <answer>Ajaccio</answer>")
    assert not judged(asked, "She was born in Ajaccio, no, in Amiens. <answer>Amiens</answer>")
    assert judged(asked, "She was born in Ajaccio.")  # tags or not
    verdict = shaped("true_false")
    assert judged(verdict, f"<answer>{verdict.parts[0][0]}</answer>")
    assert not judged(verdict, f"<answer>{verdict.rivals[0]}</answer>")
    choice = shaped("choice4")
    assert judged(choice, f"<answer>{choice.parts[0][0]}</answer>")
    assert not judged(choice, f"<answer>{choice.rivals[0]}</answer>")
    [multi, *_] = questions_of(BOTH, "portability", "multi_fact")
    assert judged(multi, "<answer>Ajaccio and Lecce</answer>", 0)
    assert judged(multi, "<answer>Ajaccio and Lecce</answer>", 1)
    assert not judged(multi, "<answer>Ajaccio and Rome</answer>", 1)


# ---- runs ------------------------------------------------------------------------------------------
@pytest.fixture
def arguments(tmp_path, tiny_model_folder):
    (tmp_path / "two.json").write_text(json.dumps([FICTBIO[0], FICTBIO[24]]))
    lines = {"alg_name": "FT", **FAST["FT"], "steps": 1, "model_name": str(tiny_model_folder)}
    (tmp_path / "ft.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))

    def make(**changes):
        values = {
            "editing_method": "FT", "datatype": str(tmp_path / "two.json"), "model_type": "tiny",
            "hparams_path": str(tmp_path / "ft.yaml"), "output_root": str(tmp_path / "out"), "run_id": "r",
            "device": "cpu", "max_new_tokens": 2, "protocol": "portability",
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


def test_a_run_of_the_protocol(arguments):
    folder = execute(make_plan(arguments()), model=make_llama(), tokenizer=make_tokenizer()).folder
    items = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    probes = [p for item in items for p in item["post"]["portability_probe"]]
    assert len(probes) == sum(len(portability_questions(case)) for case in (FRANCE, BOTH))
    assert not any(item["post"]["hop_wise_pred"] for item in items)
    assert {p["shape"] for p in probes if "shape" in p} <= set(UNSEEN_FORMS)
    results = json.loads((folder / "res.json").read_text(encoding="utf-8"))
    arguments_file = json.loads((folder / "meta" / "run_args.json").read_text(encoding="utf-8"))
    assert results["portability_version"] == arguments_file["portability_version"] == PORTABILITY_VERSION
    assert "portability multi_fact 0/3" in averages_text(results)
    assert (results["portability_answers"], results["portability_tagged"]) == (len(probes), 0)
    results = results["portability"]
    assert results["portability/multi_fact/direct"] == {"hits": 0, "total": 3}
    assert results["edit_success/original/direct"]["total"] == 3
    assert results.keys() == {p["kind"] for p in probes}


def test_scores_by_judge_and_by_the_papers_match(arguments):
    folder = execute(make_plan(arguments()), model=make_llama(), tokenizer=make_tokenizer()).folder
    items = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for probe in (p for item in items for p in item["post"]["portability_probe"]):
        metric, form, how = probe["kind"].split("/")
        if how == "direct":  # right, and in tags
            probe["pred"], probe["hit"] = f"<answer>{probe['ref'][0]}</answer>", form != "multi_fact"
        elif metric == "portability" and form == "original":  # right, and without tags
            probe["pred"], probe["hit"] = f"The answer is {probe['ref'][0]}.", False
    metrics = evaluate_run(items, get_judge("rule"))
    found = {score.kind.key: (score.judged, score.matched) for score in metrics.portability}
    right, matched = found["portability/original/direct"]
    assert (right.hits, right.total, matched.hits) == (3, 3, 3)
    right, matched = found["portability/original/reasoned"]
    assert (right.hits, matched.hits) == (3, 0)
    right, matched = found["portability/multi_fact/direct"]  # one part of two
    assert (right.hits, right.total, matched.hits) == (0, 3, 0)
    row = {
        "metrics": metrics.to_dict(), "paired": None, "costs": {}, "device": None, "finished_cases": 2, "cases": 2,
        "failed_cases": {}, "status": "finished",
    }  # fmt: skip
    data = {"methods": {"FT": row}, "reference": "FT", "arguments": {"protocol": "portability"}}
    table = tables(data)[0]
    assert table.title == "Portability"
    cell = dict(zip(table.columns, table.rows[0], strict=True))["Portability, with reasoning"]
    assert cell[0] == "100.0 %"
    assert cell[-1] == "paper's match 0.0 %"


def answered(folder, wrong=()):
    """A run's answers as if the right ones had been given in tags, but for some kinds."""
    items = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for probe in (p for item in items for p in item["post"]["portability_probe"]):
        right = " and ".join(names[0] for names in probe.get("parts", [probe["ref"]]))
        probe["pred"] = f"<answer>{'Oz' if probe['kind'] in wrong else right}</answer>"
    return items


def test_runs_are_paired_by_question_and_kind(arguments):
    folder = execute(make_plan(arguments()), model=make_llama(), tokenizer=make_tokenizer()).folder
    harmed = ("edit_success/rephrased/direct", "portability/multi_fact/reasoned")
    items, others = answered(folder, harmed), answered(folder, ("locality/original/direct",))
    for item in items:
        item["post"]["portability_probe"].reverse()  # what is paired is the question, not its place
    judge = get_judge("rule")
    this, other = evaluate_run(items, judge), evaluate_run(others, judge)
    assert all(score.judged.rate == (score.kind.key not in harmed) for score in this.portability)
    found = compare_runs(this, other)
    asked = {score.kind.key: score.judged.total for score in this.portability}
    assert {key: table.n for key, table in found.tables.items() if "/" in key} == asked
    assert [found.tables[key].harmed for key in harmed] == [asked[key] for key in harmed]
    assert found.tables["locality/original/direct"].repaired == asked["locality/original/direct"]
    row = {
        "metrics": this.to_dict(), "paired": found.to_dict(), "costs": {}, "device": None, "finished_cases": 2,
        "cases": 2, "failed_cases": {}, "status": "finished",
    }  # fmt: skip
    methods = {"FT": {**row, "metrics": other.to_dict(), "paired": None}, "LoRA": row}
    for protocol, heading in (("portability", "Edit success, answer alone"), ("causal", "H-Acc")):
        table = tables({"methods": methods, "reference": "FT", "arguments": {"protocol": protocol}})[-2]
        assert table.title == "Against FT, on the cases that both have"
        assert table.columns[1] == heading
        cell = dict(zip(table.columns, table.rows[0], strict=True))["Portability, multi-fact, with reasoning"]
        assert cell[:2] == ("+0 −3", "of 3")


def test_the_commands_that_judge_a_run_show_the_protocol(arguments, capsys):
    plan = make_plan(arguments())
    summary = execute(plan, model=make_llama(), tokenizer=make_tokenizer())
    show_run(summary, plan, plain_console())
    shown = capsys.readouterr().out
    assert "(by the paper's match, not judged)" in shown
    asked = sum(len(portability_questions(case)) for case in (FRANCE, BOTH))
    assert f"{asked} of {asked} answers to the portability questions without <answer> tags" in shown
    file = summary.folder / "metrics.json"
    file.write_text(json.dumps(answered(summary.folder, ("edit_success/original/direct",))), encoding="utf-8")
    wrong, right = "Edit success, answer alone", "Edit success, with reasoning"
    for command in ("judge", "analyze"):
        shown = CliRunner().invoke(app, [command, "--input", str(file)], catch_exceptions=False).output
        lines = {line.strip()[:43].strip(): line for line in shown.splitlines() if "paper's match" in line}
        assert "0.0 % (0/3" in lines[wrong] and "100.0 % (3/3" in lines[right]
        assert ("H-Acc" in shown) is (command == "analyze")
    kept = json.loads(file.with_name("metrics_judged.summary.json").read_text(encoding="utf-8"))
    assert kept["portability"]["edit_success/original/direct"]["judged"]["hits"] == 0


def test_a_run_can_be_resumed_and_the_protocol_is_part_of_it(arguments):
    execute(make_plan(arguments()), model=make_llama(), tokenizer=make_tokenizer())
    assert make_plan(arguments()).resumed
    with pytest.raises(RunError, match=r"--probes portability, and now it is hop"):
        make_plan(arguments(protocol="causal"))


def test_refusals():
    given = {"editing_method": "FT", "datatype": "x", "model_type": "y"}
    with pytest.raises(RunError, match="--protocol must be one of causal, portability, gao, got 'portable'"):
        RunArguments(**given, protocol="portable")
    with pytest.raises(RunError, match="--probes hop with --protocol portability"):
        RunArguments(**given, protocol="portability", probes=("hop",))


def test_the_protocol_can_stand_beside_the_other_probes():
    kinds = [probe.kind for probe in build_probes(FRANCE, ("hop", "portability"))]
    assert kinds.count("hop") == 6
    assert kinds.count("portability") == len(portability_questions(FRANCE))
