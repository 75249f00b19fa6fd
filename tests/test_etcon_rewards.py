"""EtCon's reward, part by part, on labelled responses; and how an answer is read back."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import EGYPT

from causaledit.facts.requests import request_from_dict
from causaledit.methods.etcon import prompts as P
from causaledit.methods.etcon.hparams import EtConHyperParams
from causaledit.methods.etcon.rewards import cleanliness, consistency, correctness, format_score, reward, total

REQUEST = request_from_dict({**EGYPT, "target_new": ["Alexandria", "Al-Iskandariya"]})
BOXED = "<answer> \\boxed{Alexandria} </answer>"


@pytest.mark.parametrize(
    ("response", "judged", "matched"),
    [
        ("Egypt moved its capital.\nAnswer: Alexandria", 1, 1),
        ("Answer: alexandria.", 1, 1),
        ("Answer: Al-Iskandariya", 1, 1),
        ("Answer: the city of Alexandria", 1, 0.75),
        ("Answer: not Alexandria", 0, 0),
        ("Answer: Cairo", 0, 0),
        ("Answer: Cairo, not Alexandria", 0, 0),
        ("The capital of Egypt is Alexandria.", 0, 0),  # no answer in the format
        ("Answer:", 0, 0),
        ("", 0, 0),
        # the answer is right, and what follows takes it back
        ("Answer: Alexandria\nNo, that is wrong. The capital of Egypt is Cairo.", 0.5, 1),
    ],
)
def test_correctness(response, judged, matched):
    assert correctness(response, REQUEST, "line", rule="judge") == judged
    assert correctness(response, REQUEST, "line", rule="match") == matched


def test_correctness_in_a_box():
    assert correctness(f"Moved.\n{BOXED}", REQUEST, "boxed", rule="judge") == 1
    assert correctness("\\boxed{Alexandria}", REQUEST, "boxed", rule="judge") == 0  # no tags
    assert correctness(BOXED, REQUEST, "line", rule="judge") == 0


@pytest.mark.parametrize(
    ("response", "answer_format", "score"),
    [
        (f"Moved.\n{BOXED}", "boxed", 1),
        ("Moved. \\boxed{Alexandria}", "boxed", 0),  # no tags, and the box is not inside of them
        ("<answer> Alexandria </answer>", "boxed", 0.5),  # no box
        (f"{BOXED} {BOXED}", "boxed", 0),  # two of each
        ("<answer> \\boxed{Cairo} \\boxed{Alexandria} </answer>", "boxed", 0.5),
        (f"<answer> {BOXED}", "boxed", 0.5),  # two opening tags
        ("<answer> \\\\boxed{Alexandria} </answer>", "boxed", 0.9),
        ("</answer> \\boxed{Alexandria} <answer>", "boxed", 0.5),
        ("", "boxed", 0),
        ("Moved.\nAnswer: Alexandria", "line", 1),
        ("Moved.\n**Answer:** Alexandria", "line", 1),
        ("Answer: Cairo\nAnswer: Alexandria", "line", 0.5),
        ("Answer:", "line", 0.5),
        ("The answer: Alexandria", "line", 0),  # not at the beginning of a line
        ("", "line", 0),
    ],
)
def test_format(response, answer_format, score):
    assert format_score(response, answer_format) == pytest.approx(score)


@pytest.mark.parametrize(
    ("response", "answer_format", "score"),
    [
        (f"Moved.\n{BOXED}\n", "boxed", 1),
        (f"{BOXED} Hope that helps.", "boxed", 0.4),
        (f"<answer> <answer> {BOXED}", "boxed", 0.6),
        ("<answer> " * 9 + BOXED, "boxed", 0.2),  # at most .8
        ("a" * 2000 + BOXED, "boxed", 0.6),
        ("<answer> " * 9 + BOXED + "a" * 2000, "boxed", 0),
        ("Moved.\nAnswer: Alexandria", "line", 1),
        ("Answer: Alexandria\nAnswer: Alexandria", "line", 0.2),  # repeated, and text after the end
        ("Answer: Alexandria\nHope that helps.", "line", 0.4),
        ("Alexandria", "line", 1),
    ],
)
def test_cleanliness(response, answer_format, score):
    assert cleanliness(response, answer_format) == pytest.approx(score)


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("The capital of Egypt used to be Cairo. It is Alexandria.", 1),
        ("The answer used to be Cairo, but that is no longer so. The capital of Egypt is Alexandria.", 1),
        ("The capital of Egypt is Alexandria, not Cairo.", 1),
        ("The capital of Egypt is Alexandria.", 0),  # the old fact is not taken up
        ("The capital of Egypt is Cairo.", 0),
        ("It was Cairo. The capital of Egypt is Cairo.", 0),
        ("Cairo has many people. The capital of Egypt is Alexandria.", 0.5),
    ],
)
def test_consistency(response, score):
    assert consistency(response, REQUEST) == score


def test_without_an_old_answer_there_is_nothing_to_take_up():
    assert consistency("Anything.", dataclasses.replace(REQUEST, ground_truth=None)) == 1


def test_without_the_format_the_whole_reward_is_0():
    found = reward("The capital of Egypt is Alexandria, not Cairo.", REQUEST, EtConHyperParams(answer_format="line"))
    assert (found.format, found.cleanliness, found.consistency, found.total) == (0, 1, 1, 0)


def test_the_reward_is_the_published_mean():
    scores = {"correctness": 1.0, "format": 0.5, "cleanliness": 0.4, "consistency": 0.0}
    weights = EtConHyperParams().reward_weights
    assert total(scores, weights) == pytest.approx(0.7 + 0.05 * 0.5 + 0.15 * 0.4)
    assert total(scores, {"correctness": 2.0}) == 1
    assert total(scores, {"correctness": 1, "consistency": 1}) == 0.5


@pytest.mark.parametrize(
    ("response", "answer_format", "expected"),
    [
        ("First.\nAnswer: **Rome**\nMore.", "line", ("First.\n", "Rome", "\nMore.")),
        (f"So {BOXED} end", "boxed", ("So ", "Alexandria", " end")),
        ("<answer> \\boxed{a_{1}} </answer>", "boxed", ("", "a_{1}", "")),
        ("nothing", "line", None),
        ("<answer> \\boxed{} </answer>", "boxed", None),
        ("\\boxed{x} <answer> none </answer>", "boxed", None),
    ],
)
def test_an_answer_is_read_back(response, answer_format, expected):
    assert P.read_closing(response, answer_format) == expected


@pytest.mark.parametrize("answer_format", ["boxed", "line"])
def test_what_closes_a_label_has_the_format(answer_format):
    text = f"It used to be Cairo, and the capital of Egypt is Alexandria.\n{P.closing('Alexandria', answer_format)}"
    found = reward(text, REQUEST, EtConHyperParams(answer_format=answer_format))
    assert (found.correctness, found.format, found.cleanliness, found.consistency, found.total) == (1, 1, 1, 1, 1)
