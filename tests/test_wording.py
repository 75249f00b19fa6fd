"""One wording of a rate, an interval, a p value and of what was not judged, wherever they are shown."""

from __future__ import annotations

import pytest
from published import OLD, REFUTING, UNJUDGED, MarkJudge, case

from causaledit.comparison.tables import tables
from causaledit.judges.recall import MEASURED, recall_note
from causaledit.metrics.paired import Difference, compare_runs
from causaledit.metrics.summary import evaluate_run
from causaledit.metrics.wording import answer_length, p_value, srr_notes, worded_difference, worded_rate
from causaledit.support.statistics import Interval, Mean, Rate


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (Rate(1, 8, 3), "12.5 % (1/8; 95 %: 2 to 47; 3 not judged)"),
        (Rate(0, 6), "0.0 % (0/6; 95 %: 0 to 39)"),
        (Rate(0, 0, 2), "not judged (2)"),
        (Rate(0, 0), "–"),
        (None, "–"),
        (Mean((0.5,), 0), "50.0 % (1 case)"),
        (Mean((1.0, 1.0), 1), "100.0 % (2 cases; 95 %: 34 to 100; 1 not judged)"),
        (Mean((0.5,), 0, 2), "50.0 % (1 case; 2 answers not judged)"),
        (Mean((0.5,), 0, 1), "50.0 % (1 case; 1 answer not judged)"),
    ],
)
def test_a_rate_reads_alike_as_measured_and_from_a_file(measured, text):
    assert str(worded_rate(measured)) == text
    if measured is not None:
        assert worded_rate(measured.to_dict()) == worded_rate(measured)


def test_the_parts_are_those_of_the_text():
    worded = worded_rate(Rate(1, 8, 3), ["40 words an answer"])
    assert worded.parts == ("12.5 %", "1/8", "2 to 47", "3 not judged", "40 words an answer")
    assert worded.detail == "1/8; 95 %: 2 to 47; 3 not judged; 40 words an answer"


def test_length_differences_and_p_values():
    assert [answer_length(words) for words in (1.2, 39.6)] == ["1 word an answer", "40 words an answer"]
    assert str(worded_difference(Difference(-0.125, 24, Interval(-0.3, 0.05)))) == (
        "−12.5 points (24 cases; 95 %: −30.0 to +5.0)"
    )
    assert str(worded_difference(Difference(None, 0, None))) == "–"
    assert [p_value(p) for p in (None, 1.0, 0.03125, 0.0004)] == ["–", "1.000", "0.031", "< 0.001"]


def test_beside_every_self_refutation_rate_stand_length_recall_and_what_was_not_probed():
    data = case(1, hop_wise=REFUTING, conflict=OLD)
    metrics = evaluate_run([data, case(2)], MarkJudge())
    del data["post"]["conflict_probe"]
    unprobed = evaluate_run([data], MarkJudge()).self_refutation["combined"]
    assert srr_notes(metrics.self_refutation["hop_wise"], metrics.judge) == ("12 words an answer",)
    assert srr_notes(unprobed, metrics.judge) == ("1 edit not probed",)
    assert srr_notes(unprobed.to_dict(), metrics.judge) == srr_notes(unprobed, metrics.judge)
    assert srr_notes(None, metrics.judge) == ()
    [measured] = MEASURED
    assert recall_note(measured) in srr_notes(unprobed, measured)


def test_a_comparison_words_what_its_file_holds_as_analyze_does():
    this = evaluate_run([case(n, multi_hop=[OLD, UNJUDGED, OLD]) for n in range(3)], MarkJudge())
    other = evaluate_run([case(n, hop_wise=REFUTING) for n in range(3)], MarkJudge())
    row = {
        "finished_cases": 3, "cases": 4, "failed_cases": {"9": "why"}, "status": "unfinished", "problem": None,
        "costs": {}, "device": None, "metrics": this.to_dict(), "paired": compare_runs(this, other).to_dict(),
    }  # fmt: skip
    metrics, paired, _ = tables({"methods": {"A": row}, "reference": "B"})

    def cell(table, column):
        return table.rows[0][table.columns.index(column)]

    assert cell(metrics, "Cases") == ("3 of 4", "1 failed", "unfinished")
    assert cell(metrics, "H-Acc") == worded_rate(this.h_acc).parts
    assert cell(metrics, "M-Acc, any") == ("not judged", "3")
    assert cell(metrics, "SRR") == ("0.0 %", "0/3", "0 to 56", "6 words an answer")
    assert cell(paired, "SRR") == ("+3 −0", "of 3", "p 0.250")
    assert cell(paired, "M-Acc, any") == ("–",)
