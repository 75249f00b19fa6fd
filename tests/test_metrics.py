"""H-Acc, M-Acc, SRR, rationale and locality by hand-worked cases."""

from __future__ import annotations

import json

import pytest
from published import OLD, REFUTING, RIGHT, UNJUDGED, MarkJudge, case, locality, write

from causaledit.errors import CausalEditError, MetricsError
from causaledit.judges.judging import judge_responses
from causaledit.judges.store import VerdictTable
from causaledit.metrics.paired import compare_runs
from causaledit.metrics.predictions import cases_of, read_metrics, units_of
from causaledit.metrics.scores import SOURCES
from causaledit.metrics.summary import evaluate_run, summarise


def run(*cases, tasks=("answer", "refutation", "rationale")):
    return evaluate_run(list(cases), MarkJudge(), tasks=tasks)


def counts(rate):
    return rate.hits, rate.total, rate.not_judged


# ---- reading -----------------------------------------------------------------------------------------------------
def test_items_of_a_case():
    [read] = cases_of([case(7, edits=2)])
    assert (read.case_id, read.hops, len(read.edits)) == (7, 2, 2)
    tasks = [i.task for i in read.items]
    assert tasks.count("answer") == 2 * 3 + 3
    assert tasks.count("refutation") == 2 * 3 + 2 * 8
    assert tasks.count("rationale") == 2  # one why-prompt per hop
    edit = read.edits[1]
    assert (edit.target_new, edit.target_old, edit.aliases) == ("Alexandria", "Cairo", ("Alexandria City",))
    assert edit.narrative == "A flood ruined Cairo. So parliament moved to Alexandria."
    assert edit.hops == (1,)
    conflict = read.of("refutation", "conflict", edit=1)
    assert [i.described_first for i in conflict] == [True] * 4 + [False] * 4
    assert conflict[0].path == (0, "post", "conflict_probe", 8)
    assert conflict[0].response.question == "What is the capital of Egypt?"
    hop = read.of("answer", "hop_wise")[0].response
    assert (hop.target_new, hop.aliases, hop.target_old) == ("Bergen", ("Bergen City",), "Oslo")


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("narrative", [True, False])
def test_published_variants_read_alike(as_text, narrative):
    figures = run(case(as_text=as_text, narrative=narrative))
    assert figures.h_acc.rate == 1
    assert counts(figures.self_refutation["combined"].conditional) == (0, 1, 0)
    assert counts(figures.rationale.aligned) == ((1, 1, 0) if narrative else (0, 0, 0))


def test_a_hop_belongs_by_question_without_its_answer():
    data = case()
    for prediction in data["post"]["hop_wise_pred"][0]:
        prediction["ref"] = ["Oslo"]  # the hop asks for the edit's fact, its reference is another answer
    [read] = cases_of([data])
    assert read.edits[0].hops == (0,)
    assert read.edits[0].aliases == ()  # another answer's name is no alias
    data["requested_rewrite"][0]["question"] = "Something else?"
    data["requested_rewrite"][0]["prompt"] = "{} is"
    assert cases_of([data])[0].edits[0].hops == ()


def test_a_hop_belongs_by_answer_after_folding():
    data = case()
    data["requested_rewrite"][0] |= {"question": "Other words?", "target_new": "  BERGEN "}
    assert cases_of([data])[0].edits[0].hops == (0,)


def test_a_hop_that_asks_something_else_is_not_the_edits_whatever_its_answer():
    data = case(edits=2)
    data["post"]["hop_wise_pred"][1][0]["ref"] = ["Alexandria", "Bergen"]  # as "Mexico City" is also called Mexico
    [read] = cases_of([data])
    assert [(edit.hops, edit.aliases) for edit in read.edits] == [
        ((0,), ("Bergen City",)),
        ((1,), ("Bergen", "Alexandria City")),
    ]
    shared = case(edits=2, hop_wise=[[REFUTING] * 3, [RIGHT] * 3])
    for rewrite in shared["requested_rewrite"]:
        rewrite["target_new"] = "Bergen"
    for prediction in shared["post"]["hop_wise_pred"][1]:
        prediction["ref"] = ["Bergen"]
    assert [edit.hops for edit in cases_of([shared])[0].edits] == [(0,), (1,)]
    assert counts(run(shared).self_refutation["hop_wise"].conditional) == (1, 2, 0)
    shared["requested_rewrite"][1] |= {"question": "Other words?", "prompt": "{}:"}
    assert [edit.hops for edit in cases_of([shared])[0].edits] == [(0,), (1,)]  # what is left has its answer


def test_locality_is_paired_by_question():
    first, second = (
        locality("Who wrote Emma?", "Austen", "Austen", "[PASS] Austen"),
        locality("Sea?", "Red", "Red", "[FAIL] x"),
    )
    runs = []
    for probes in ([first, second], [second, first, first | {"edit": 1}]):
        data = case(edits=2)
        data["post"]["locality_probe"] = probes
        runs.append(run(data))
    for name in ("locality", "locality_unchanged"):
        table = compare_runs(*runs).tables[name]
        assert (table.n, table.only_this, table.only_other) == (2, 0, 0)


def test_conflict_probes_that_cannot_be_attributed_are_left_out(caplog):
    data = case(edits=2)
    del data["post"]["conflict_probe"][3]
    [read] = cases_of([data])
    assert read.of("refutation", "conflict") == []
    assert "cannot be attributed" in caplog.text
    figures = run(data)
    assert figures.self_refutation["conflict"].not_probed == 2
    assert counts(figures.self_refutation["combined"].conditional) == (0, 0, 0)
    assert counts(figures.self_refutation["hop_wise"].conditional) == (0, 2, 0)


@pytest.mark.parametrize(
    "damage",
    [
        {"hop_wise_pred": None},
        {"hop_wise_pred": [None, [None, "a text", {}]]},
        {"hop_wise_pred": [[{"q": None, "prompt": None, "ref": None, "pred": None}] * 3]},
        {"accuracy_pred": [{"pred": "[PASS]"}, {"ref": [], "pred": "[PASS]"}, {"ref": [""], "pred": "[PASS]"}]},
        {"conflict_probe": [None] * 8},
        {"locality_probe": [None, {}, {"q": "?", "ref": "x", "pred": "[PASS]", "pred_before": None, "edit": None}]},
        {"conflict_probe": "nothing", "accuracy_pred": 3, "locality_probe": {}},
    ],
)
def test_reading_is_tolerant_and_counting_strict(damage):
    data = case()
    data["post"] |= damage
    figures = run(data)
    json.dumps(figures.to_dict())
    for rate in (figures.any_right_accuracy, figures.locality.still_right, figures.rationale.aligned):
        assert rate.hits <= rate.total
    if "accuracy_pred" in damage:  # without a reference nothing is right or wrong
        assert figures.m_acc.rate is None
        assert figures.m_acc.not_judged == (1 if isinstance(damage["accuracy_pred"], list) else 0)


def test_rewrites_with_missing_keys():
    data = case()
    data["requested_rewrite"] = [{"subject": "Norway"}]
    figures = run(data)
    assert figures.edits == 1
    # without a new answer nothing about the edit can be judged
    assert figures.self_refutation["conflict"].all_edits.not_judged == 1
    assert figures.h_acc.rate == 1
    data["requested_rewrite"] = None
    assert run(data).edits == 0


def test_bad_files_are_one_clear_error(tmp_path):
    whole = write(tmp_path, [case()])
    cut = tmp_path / "cut.json"
    cut.write_text(whole.read_text()[:-300])
    with pytest.raises(CausalEditError, match=r"cut\.json.*JSON"):
        read_metrics(cut)
    for number, content in enumerate(("{}", "[]", "[1]", '[{"case_id": 1}]', '"text"')):
        file = tmp_path / f"{number}.json"
        file.write_text(content)
        with pytest.raises(MetricsError, match=f"{number}.json"):
            read_metrics(file)


def test_half_an_emoji_is_no_obstacle(tmp_path):
    data = case(hop_wise="[PASS] Bergen \ud83c")
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps([data]))
    [read] = cases_of(read_metrics(file))
    assert all(r.key("answer", "x") for _, r in units_of([read], ["answer"]))


def test_a_forced_opening_belongs_to_the_response():
    data = case(hop_wise="[-] No, it is {old}.")
    for prediction in data["post"]["hop_wise_pred"][0]:
        prediction["forced_prefix"] = "The capital is Bergen."
    [read] = cases_of([data])
    assert {i.response.response for i in read.of("refutation", "hop_wise")} == {
        "The capital is Bergen. [-] No, it is Oslo."
    }
    whole = case(hop_wise="The capital is Bergen. [-] No.")
    whole["post"]["hop_wise_pred"][0][0]["forced_prefix"] = "The capital is Bergen."
    assert cases_of([whole])[0].of("answer", "hop_wise")[0].response.response == "The capital is Bergen. [-] No."


# ---- accuracies --------------------------------------------------------------------------------------------------
def test_h_acc_is_a_mean_of_means():
    half = case(1, 2, hop_wise=[[RIGHT, RIGHT, OLD], [OLD, OLD, OLD]])  # (2/3 + 0) / 2
    whole = case(2, 1)
    figures = run(half, whole)
    assert figures.h_acc.values == (pytest.approx(1 / 3), 1)
    assert figures.h_acc.rate == pytest.approx(2 / 3)
    assert {hops: part.h_acc.rate for hops, part in figures.by_hops.items()} == {1: 1, 2: pytest.approx(1 / 3)}


def test_m_acc_mean_and_any():
    figures = run(case(1, multi_hop=[RIGHT, OLD, OLD]), case(2, multi_hop=OLD), case(3, multi_hop=RIGHT))
    assert figures.m_acc.rate == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert counts(figures.any_right_accuracy) == (2, 3, 0)


def test_not_judged_is_neither_right_nor_wrong():
    figures = run(
        case(1, hop_wise=[[RIGHT, UNJUDGED, OLD]], multi_hop=[UNJUDGED, OLD, OLD]),
        case(2, hop_wise=[[UNJUDGED, None, UNJUDGED]], multi_hop=[UNJUDGED, RIGHT, None]),
    )
    assert figures.h_acc.values == (0.5,)
    assert (figures.h_acc.not_judged, figures.h_acc.predictions_not_judged) == (1, 4)
    assert figures.m_acc.values == (0, 1)
    assert figures.m_acc.predictions_not_judged == 3
    assert counts(figures.any_right_accuracy) == (1, 1, 1)  # one of case 1's might have been right


def test_an_empty_table_judges_nothing():
    figures = evaluate_run([case(edits=2)], VerdictTable("nobody"))
    assert figures.h_acc.rate is None
    assert figures.h_acc.not_judged == 1
    for source in SOURCES:
        assert counts(figures.self_refutation[source].conditional) == (0, 0, 2)
    assert counts(figures.asserting_edits) == (0, 0, 2)
    assert counts(figures.rationale.aligned) == (0, 0, 2)


def test_failed_cases_are_counted_apart():
    failed = {"case_id": 2, "requested_rewrite": case()["requested_rewrite"], "error": "out of memory"}
    figures = run(case(1), failed)
    assert (figures.cases, figures.failed_cases, figures.edits, figures.h_acc.n) == (2, 1, 1, 1)


# ---- self-refutation ---------------------------------------------------------------------------------------------
def srr(figures, which="conditional"):
    return {source: counts(getattr(figures.self_refutation[source], which)) for source in SOURCES}


def test_srr_by_source():
    first, last = [REFUTING] + [RIGHT] * 7, [RIGHT] * 7 + [REFUTING]
    figures = run(
        case(1, hop_wise=[[RIGHT, RIGHT, REFUTING]]),
        case(2, conflict=first),
        case(3, conflict=last),
        case(4),
    )
    assert srr(figures) == {
        "hop_wise": (1, 4, 0),
        "conflict": (2, 4, 0),
        "conflict_described_first": (1, 4, 0),
        "combined": (3, 4, 0),
        "combined_described_first": (2, 4, 0),
    }


def test_srr_counts_only_edits_that_assert_the_answer():
    never = case(1, hop_wise=OLD, conflict=REFUTING)  # refutes itself, but its hop-wise answers never assert
    figures = run(never, case(2))
    assert counts(figures.asserting_edits) == (1, 2, 0)
    assert srr(figures)["combined"] == (0, 1, 0)
    assert srr(figures, "all_edits")["combined"] == (1, 2, 0)


def test_srr_is_per_edit():
    figures = run(case(edits=2, hop_wise=[[REFUTING] * 3, [RIGHT] * 3]))
    assert srr(figures)["combined"] == (1, 2, 0)


def test_coming_back_to_the_answer_is_no_refutation():
    figures = run(case(hop_wise="[+-=] {new}. No. Yes, {new}."))
    assert srr(figures)["hop_wise"] == (0, 1, 0)


def test_srr_with_verdicts_missing():
    unknown = case(1, hop_wise=[[RIGHT, UNJUDGED, RIGHT]])  # asserts, but one response might refute itself
    known = case(2, hop_wise=[[REFUTING, UNJUDGED, RIGHT]])  # one that does is enough
    maybe = case(3, hop_wise=[[OLD, UNJUDGED, OLD]])  # does it assert at all?
    figures = run(unknown, known, maybe)
    assert srr(figures)["hop_wise"] == (1, 1, 2)
    assert counts(figures.asserting_edits) == (2, 2, 1)


def test_edits_that_were_not_probed_are_not_counted():
    data = case()
    data["post"]["conflict_probe"] = []
    figures = run(data)
    assert srr(figures)["combined"] == (0, 0, 0)
    assert figures.self_refutation["combined"].not_probed == 1
    assert srr(figures)["hop_wise"] == (0, 1, 0)


def test_an_empty_place_was_not_asked():
    data = case(edits=2)
    data["post"]["causal_enhanced_hop_wise_pred"] = [case()["post"]["hop_wise_pred"][0], [None] * 3]
    data["post"]["causal_enhanced_conflict_probe"] = [*case()["post"]["conflict_probe"], *[None] * 8]
    opened = run(data).open_book_self_refutation["combined"]
    assert counts(opened.conditional) == (0, 1, 0)
    assert opened.not_probed == 1


def test_open_book_twins_are_their_own_figure():
    data = case(hop_wise=REFUTING)
    data["post"]["causal_enhanced_hop_wise_pred"] = case()["post"]["hop_wise_pred"]
    data["post"]["causal_enhanced_conflict_probe"] = case()["post"]["conflict_probe"]
    figures = run(data)
    assert srr(figures)["combined"] == (1, 1, 0)
    assert counts(figures.open_book_self_refutation["combined"].conditional) == (0, 1, 0)
    assert run(case()).open_book_self_refutation is None


# ---- rationale and locality --------------------------------------------------------------------------------------
def test_rationale_counts_why_prompts_of_edits_with_a_narrative():
    def why(text):
        return [[RIGHT, RIGHT, text]]

    figures = run(
        case(1, hop_wise=why("[PASS] a flood")),
        case(2, hop_wise=why("[UNSURE] hm")),
        case(3, hop_wise=why("[FAIL] a war")),
        case(4, hop_wise=why(UNJUDGED)),
        case(5, hop_wise=why("[FAIL]"), narrative=False),
    )
    data = figures.rationale.to_dict()
    assert (data["PASS"], data["FAIL"], data["UNSURE"], data["not_judged"]) == (1, 1, 1, 1)
    assert data["rate"] == pytest.approx(1 / 3)


def test_answers_are_judged_beside_their_rivals():
    data = case()
    post = data["post"]
    old, new = (data["requested_rewrite"][-1][key]["str"] for key in ("target_true", "target_new"))
    post["accuracy_pred"][0]["rivals"] = ["Stockholm", "Stockholms stad"]
    post["accuracy_pred"][1]["rivals"] = [new]  # the answer itself is no rival of its own
    post["locality_probe"] = [locality("a", "Lyon", "x", "y"), locality("b", new, "x", "y")]
    (read,) = cases_of([data])
    rivals = [(i.response.target_old, i.response.old_aliases) for i in read.of("answer", "multi_hop")]
    # noted by the run; else the old answer of the edit that made the last hop
    assert rivals == [("Stockholm", ("Stockholms stad",)), (old, ()), (old, ())]
    first, before_it, own, own_before = read.of("answer", "locality")
    first_new = data["requested_rewrite"][0]["target_new"]["str"]
    assert {i.response.target_old for i in (first, before_it)} == {first_new}
    assert {i.response.target_old for i in (own, own_before)} == ({None} if first_new == new else {first_new})


def test_locality():
    data = case()
    data["post"]["locality_probe"] = [
        locality("a", "x", "[PASS] x", "[PASS] it is x"),  # other words, still right: unchanged
        locality("b", "x", "[PASS] x", "[FAIL] y"),
        locality("c", "x", "[FAIL] y", "[FAIL] y"),  # wrong as before
        locality("d", "x", "[FAIL] y", "[FAIL] z"),
        locality("e", "x", "[FAIL] y", "[PASS] x"),
        locality("f", "x", "[PASS] x", "[?]"),
        locality("g", "x", None, "[PASS] x"),
    ]
    figures = run(data)
    assert counts(figures.locality.unchanged) == (2, 5, 2)
    assert counts(figures.locality.still_right) == (1, 2, 2)


def test_a_locality_pair_that_the_judge_failed_on_is_left_out_whatever_its_texts():
    data = case()
    data["post"]["locality_probe"] = [
        locality("a", "x", "[?] x", "[?] x"),  # counted, it would make 100 % of errors
        locality("b", "x", "[?] y", "[PASS] x"),
        locality("c", "x", "[PASS] x", "[?] z"),
    ]
    figures = run(data)
    assert counts(figures.locality.unchanged) == (0, 0, 3)
    assert figures.locality.unchanged.rate is None


@pytest.mark.parametrize("reference", [None, "", []])
def test_locality_without_a_reference_is_decided_by_the_texts(reference):
    data = case()
    data["post"]["locality_probe"] = [
        locality("a", reference, "The  Nile.", "the Nile."),
        locality("b", reference, "the Nile", "the Amazon"),
        locality("c", reference, "the Nile", None),
    ]
    figures = run(data)
    assert counts(figures.locality.unchanged) == (1, 2, 1)
    assert counts(figures.locality.still_right) == (0, 0, 3)


# ---- pairs -------------------------------------------------------------------------------------------------------
def test_pairs():
    other = run(case(1, multi_hop=OLD, hop_wise=REFUTING), case(2, multi_hop=OLD), case(3, multi_hop=RIGHT), case(9))
    this = run(case(3, multi_hop=OLD), case(2, multi_hop=OLD), case(1, multi_hop=RIGHT), case(8))
    comparison = compare_runs(this, other)
    assert (comparison.cases, comparison.only_this, comparison.only_other) == (3, 1, 1)
    table = comparison.tables["any_right_accuracy"]
    assert (table.both, table.only_this, table.only_other, table.neither) == (0, 1, 1, 1)
    assert (table.repaired, table.harmed, table.p) == (1, 1, 1)
    answers = comparison.tables["multi_hop_answers"]
    assert (answers.repaired, answers.harmed, answers.n) == (3, 3, 9)
    refuted = comparison.tables["self_refutation.combined"]
    assert (refuted.only_other, refuted.neither, refuted.repaired, refuted.harmed) == (1, 2, 1, 0)
    assert comparison.differences["m_acc"].mean == 0
    assert comparison.differences["h_acc"].mean == pytest.approx(1 / 3)
    json.dumps(comparison.to_dict())


def test_pairs_that_cannot_be():
    with pytest.raises(MetricsError, match="share no case_id"):
        compare_runs(run(case(1)), run(case(2)))
    with pytest.raises(MetricsError, match="more than once"):
        compare_runs(run(case(1), case(1)), run(case(1)))
    with pytest.raises(MetricsError, match="one judge"):
        compare_runs(run(case(1)), evaluate_run([case(1)], VerdictTable("another")))


def test_the_same_response_is_judged_once():
    judge = MarkJudge()
    cases = cases_of([case(1), case(2)])
    table = judge_responses(judge, units_of(cases, ["answer"]))
    assert judge.asked == len(table) == 3 + 3  # the second case repeats the first
    assert summarise(cases, table).h_acc.n == 2


# ---- what was trained on -----------------------------------------------------------------------------------------
def test_predictions_to_trained_prompts_are_left_out_of_unseen():
    data = case(multi_hop=[OLD, RIGHT, RIGHT], hop_wise=[[RIGHT, OLD, OLD]])
    data["post"]["hop_wise_pred"][0][0]["trained"] = True
    data["post"]["accuracy_pred"][1]["trained"] = True
    metrics = run(data, case(2))
    assert metrics.trained_predictions == 2
    assert metrics.h_acc.values == (pytest.approx(1 / 3), 1) and metrics.unseen.h_acc.values == (0, 1)
    assert metrics.m_acc.values == (pytest.approx(2 / 3), 1) and metrics.unseen.m_acc.values == (0.5, 1)
    assert metrics.unseen.unseen is None
    assert metrics.to_dict()["unseen"]["h_acc"]["rate"] == 0.5
    assert run(case(2)).unseen is None and run(case(2)).to_dict()["unseen"] is None


# ---- rivals ------------------------------------------------------------------------------------------------------
def test_answers_are_judged_beside_what_they_must_not_fall_for():
    data = case()
    data["post"]["locality_probe"] = [locality("Where is Paris?", "France", "France", "France")]
    for prediction in data["post"]["accuracy_pred"]:
        prediction["rivals"] = ["Oslo", "Christiania"]
    [read] = cases_of([data])
    multi_hop = read.of("answer", "multi_hop")[0].response
    assert (multi_hop.target_old, multi_hop.old_aliases) == ("Oslo", ("Christiania",))
    for item in read.of("answer", "locality"):
        assert (item.response.target_old, item.response.old_aliases) == ("Bergen", ("Bergen City",))
    data["post"]["locality_probe"] = [locality("Where is it?", "Bergen", "Bergen", "Bergen")]
    assert cases_of([data])[0].of("answer", "locality")[0].response.target_old is None  # the edit's own answer
