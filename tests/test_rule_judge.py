"""The rule judge: its definitions by example, its agreement with labels, and what must not break it.

`tests/data/judge_cases.json` and `judge_cases_2.json` are written for this project. The rules were written with their
`dev` splits in view, and later with `holdout-1` and `holdout-2`. Nobody has read `holdout-3` or `holdout-4` beside the
rules: they may be counted, and no rule is mended for them. First looks are in docs/judging.md.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BESIDE, MQUAKE_300, REPOSITORY, beside

from causaledit.judges.base import JudgedResponse
from causaledit.judges.recall import MEASURED, recall_note
from causaledit.judges.registry import get_judge
from causaledit.mquake.cases import parse_cases, read_cases
from causaledit.reading.question import question_for
from causaledit.reading.text import LONGEST_SENTENCE, sentences

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import chain_answers
from judge_agreement import LABELS, figures, measure

CASES = json.loads((Path(__file__).parent / "data" / "judge_cases.json").read_text(encoding="utf-8"))
MORE_CASES = json.loads((Path(__file__).parent / "data" / "judge_cases_2.json").read_text(encoding="utf-8"))
OWN_CHAINS = REPOSITORY / "data" / "causaledit-mini.json"
JUDGE = get_judge("rule")

CAPITAL = JudgedResponse(
    question="What is the capital of Norway?",
    prompt="What is the capital of Norway?",
    response="",
    target_new="Bergen",
    aliases=("Bjørgvin",),
    target_old="Oslo",
    old_aliases=("Christiania",),
)
OPTIONS = dataclasses.replace(CAPITAL, prompt=f"{CAPITAL.question}\n(A) Oslo\n(B) Bergen\nReply with the letter only.")


def read(response: str, item: JudgedResponse = CAPITAL) -> str:
    """A: asserts, N: negates, F: ends on the new answer, R: refutes itself."""
    verdict = JUDGE.judge_refutation(dataclasses.replace(item, response=response))
    flags = {
        "A": verdict.assertion_of_target_new,
        "N": verdict.explicit_negation_of_target_new,
        "F": verdict.final_answer_is_target_new,
        "R": verdict.self_refutation,
    }
    return "".join(letter for letter, value in flags.items() if value)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # assertion
        ("Bergen.", "AF"),
        ("The capital of Norway is Bergen.", "AF"),
        ("Norway is governed from bjorgvin.", "AF"),
        ("BERGEN is the capital.", "AF"),
        ("Final answer: Bergen", "AF"),
        # a supposition asserts nothing that could be taken back
        ("Given the premise the capital would be Bergen, but in reality it is Oslo.", ""),
        ("Under that assumption the capital would be Bergen. In reality it is Oslo.", ""),
        ("In a fictional world it would be Bergen; in the real one, it is Oslo.", ""),
        ("Given the move, the capital would be Bergen, and not Oslo.", "AF"),
        ("In Norway, if I recall, the capital is Bergen.", "AF"),
        # negation of anything else
        ("Bergen is the capital. It isn't a large city, and it was never the largest.", "AF"),
        ("Bergen is not only the capital but also a port.", "AF"),
        ("There's no doubt that the capital is Bergen.", "AF"),
        ("The capital is Bergen, not Oslo.", "AF"),
        ("It's not Oslo. It's Bergen.", "AF"),
        ("The capital is no longer Oslo, it is Bergen.", "AF"),
        ("The capital of Norway is not Oslo. That is incorrect. It is Bergen.", "AF"),
        ("It is wrong to say that Bergen is not the capital of Norway.", "AF"),
        # history
        ("Oslo used to be the capital; today it is Bergen.", "AF"),
        ("The government moved from Oslo to Bergen.", "AF"),
        ("The capital is Bergen. Oslo was the capital until 2020.", "AF"),
        ("Bergen used to be the capital. Today it is Oslo.", ""),
        ("The government moved from Bergen to Oslo.", ""),
        # not said by the response
        ("Many people believe that Bergen is the capital. It is Oslo.", ""),
        ('Some websites say "Bergen is the capital of Norway". That is a common misconception. Oslo is.', ""),
        ("Is it Bergen? No, it is Oslo.", ""),
        ("If Bergen were the capital, parliament would sit there. It is Oslo.", ""),
        ("It could be Bergen or Oslo, I can't say which.", ""),
        ("Oslo, which is some hours by train from Bergen.", ""),
        # rational rejection: turned down, never asserted
        ("Bergen is not the capital of Norway. The capital is Oslo.", ""),
        # taken back
        ("Bergen is the capital. That is wrong.", "ANR"),
        ("Bergen is the capital. Scratch that. Oslo is.", "ANR"),
        ("Bergen is the capital. No, wait, it is Oslo.", "ANR"),
        ("Bergen is the capital. Correction: it's Oslo.", "ANR"),
        ("Bergen is the capital. It is not the capital, though: that is Oslo.", "ANR"),
        ("The capital is Bergen. But Bergen has never been the capital. It is Oslo.", "ANR"),
        ("Bergen capital of is Norway. Bergen it not capital, Oslo is the", "ANR"),
        # and given again
        ("Bergen is the capital. No, that's wrong, it is Oslo. No, I was right at first.", "ANF"),
        ("Bergen. It isn't Bergen, it is Oslo. Sorry, Oslo is wrong, it is Bergen after all.", "ANF"),
        # given up without being denied
        ("Bergen is the capital of Norway. Oslo is the capital of Norway.", "A"),
    ],
)
def test_definitions(response, expected):
    assert read(response) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("(B)", "AF"),
        ("b)", "AF"),
        ("Answer: B", "AF"),
        ("The correct option is A.", ""),
        ("A", ""),
        ("(B) Bergen", "AF"),
        ("(B). Wait, B is incorrect. (A).", "ANR"),
        ("Its capital is Bergen.\nAnswer: (A)", "A"),
        ("Options: (A) Oslo (B) Bergen\nOptions: (A) Oslo (B) Bergen", ""),
        ("(A) Oslo\n(B) Bergen\n(A) Oslo\n(B) Bergen", ""),
        ("Option (A) is wrong. It is (B).", "AF"),
    ],
)
def test_option_letters_are_those_of_the_prompt(response, expected):
    assert read(response, OPTIONS) == expected


def test_letters_mean_nothing_without_options():
    assert read("B") == ""


@pytest.mark.parametrize(
    ("new", "old", "response", "expected"),
    [
        ("Korea", "South Korea", "It is in South Korea.", ""),
        ("South Korea", "Korea", "It is in South Korea.", "AF"),
        ("Vietnam", "Laos", "It is in South Vietnam.", ""),
        ("US", "Canada", "It is in Canada. Let us hope so.", ""),
        ("US", "Canada", "It is in the US.", "AF"),
        ("IT", "FR", "it is not known.", ""),
    ],
)
def test_nested_and_short_names(new, old, response, expected):
    item = JudgedResponse("In which country is the port?", "In which country is the port?", "", new, target_old=old)
    assert read(response, item) == expected


def test_surnames_stand_for_persons_only():
    who = JudgedResponse("Who wrote Hamlet?", "Who wrote Hamlet?", "", "Christopher Marlowe", target_old="Ben Jonson")
    assert read("Marlowe wrote it. No: Jonson wrote it.", who) == "ANR"
    where = JudgedResponse("Where is the port?", "Where is the port?", "", "New York", target_old="Boston")
    assert read("It is in York.", where) == ""


def test_a_cloze_is_continued():
    cloze = dataclasses.replace(CAPITAL, prompt="The capital of Norway is")
    assert read(" Bergen, on the west coast.", cloze) == "AF"
    assert read(" not Bergen but Oslo.", cloze) == ""


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("La capital de Noruega es Bergen.", "AF"),
        ("La capitale de la Norvège n'est pas Bergen.", ""),
        ("Die Hauptstadt ist Bergen. Das ist falsch, die Hauptstadt ist Oslo.", "ANR"),
        ("挪威的首都是Bergen。", "AF"),
        ("挪威的首都不是Bergen。", ""),
    ],
)
def test_other_languages(response, expected):
    assert read(response) == expected


@pytest.mark.parametrize("response", ["", "   \n ", "...", "?!", "\x00", "（）", "🙂" * 50])
def test_responses_that_say_nothing(response):
    item = dataclasses.replace(CAPITAL, response=response, narrative="Parliament burnt down, so ministers fled west.")
    verdict = JUDGE.judge_refutation(item)
    assert (verdict.assertion_of_target_new, verdict.explicit_negation_of_target_new) == (False, False)
    assert verdict.final_answer_is_target_new is False
    assert JUDGE.judge_answer(item).grade == "FAIL"
    assert JUDGE.judge_rationale(item).grade == "UNSURE"


def test_answer_without_a_known_rival():
    item = dataclasses.replace(CAPITAL, target_old=None, old_aliases=())
    graded = {
        "The capital is Bergen.": "PASS",
        "The capital is Bergen. The answer is Stavanger.": "FAIL",
        "The capital is Stavanger.": "FAIL",
        "It's not Bergen.": "FAIL",
    }
    assert {r: JUDGE.judge_answer(dataclasses.replace(item, response=r)).grade for r in graded} == graded


NARRATIVE = (
    "<p>An avalanche closed the railway tunnel under Filefjell in March, and engineers needed two years to repair "
    "it. Cut off from its harbours, the Storting voted to sit on the west coast. The capital of Norway is Bergen.</p>"
)


@pytest.mark.parametrize(
    ("response", "grade"),
    [
        ("Bergen is the capital because an avalanche blocked the tunnel and the Storting left for the coast.", "PASS"),
        ("Bergen is the capital because a tribunal awarded the crown jewels to its cathedral.", "FAIL"),
        ("The capital of Norway is Bergen.", "UNSURE"),
        ("Bergen is now the capital. It changed.", "UNSURE"),
        (
            "The capital is Oslo, because the Storting sits there and the tunnel was repaired after the avalanche.",
            "FAIL",
        ),
        ("Bergen is the capital after the avalanche in the tunnel. That's wrong: it is Oslo.", "FAIL"),
    ],
)
def test_rationale(response, grade):
    verdict = JUDGE.judge_rationale(dataclasses.replace(CAPITAL, response=response, narrative=NARRATIVE))
    assert verdict.grade == grade, verdict.reason
    assert verdict.evidence in response
    assert verdict.reason


def test_rationale_without_narrative_is_not_judged():
    verdict = JUDGE.judge_rationale(dataclasses.replace(CAPITAL, response="Bergen, because of a flood."))
    assert verdict.grade is None
    assert "narrative" in verdict.error


@pytest.mark.parametrize("split", ["dev", "holdout-1", "holdout-2"])
def test_agreement_with_our_labels(split):
    result = measure(JUDGE, [case for case in CASES if case["split"] == split])
    assert result["self_refutation"]["agreement"] >= 0.95
    assert result["self_refutation"]["f1"] >= 0.93
    assert result["answer_correct"]["agreement"] >= 0.95
    for label in LABELS[1:4]:
        assert result[label]["agreement"] >= 0.93, label


def test_agreement_with_the_development_labels():
    labelled = beside(BESIDE / "judge_dev.json")
    result = measure(JUDGE, json.loads(labelled.read_text(encoding="utf-8")))
    assert result["self_refutation"]["agreement"] >= 0.95
    assert result["self_refutation"]["f1"] >= 0.93
    assert result["answer_correct"]["agreement"] >= 0.95
    for label in LABELS[1:4]:
        assert result[label]["agreement"] >= 0.93, label


@pytest.mark.parametrize("cases", [CASES, MORE_CASES], ids=["first file", "second file"])
def test_labels_of_our_cases_are_consistent(cases):
    assert len({case["id"] for case in cases}) == len(cases) >= 120
    for case in cases:
        labels = case["labels"]
        refutes = (
            labels["assertion_of_target_new"]
            and labels["explicit_negation_of_target_new"]
            and not labels["final_answer_is_target_new"]
        )
        assert labels["self_refutation"] == refutes, case["id"]
        assert labels["assertion_of_target_new"] or not labels["final_answer_is_target_new"], case["id"]


def test_evidence_is_quoted_and_verdicts_are_the_same_every_time():
    for case in CASES:
        item = JudgedResponse(
            case["question"], case["prompt"], case["response"], case["target_new"],
            tuple(case["target_new_aliases"]), case["target_old"],
        )  # fmt: skip
        first, again = JUDGE.judge_refutation(item), get_judge("rule").judge_refutation(item)
        assert first == again
        for quoted in (first.assertion_evidence, first.negation_evidence, first.final_evidence):
            assert quoted in item.response, case["id"]
        assert bool(first.assertion_evidence) == first.assertion_of_target_new
        assert bool(first.negation_evidence) == first.explicit_negation_of_target_new
        assert JUDGE.judge_answer(item).evidence in item.response


@pytest.mark.parametrize(
    "unit",
    [
        "Bergen ",
        "Bergen, ",
        "not ",
        "Bergen is not\n",
        "A\n",
        "(A) ",
        ".",
        " ",
        "\n",
        '"',
        "Aa Bb, ",
        "a.b.",
        "-",
        "上海",
        "a",
    ],
)
def test_responses_of_100_kb(unit):
    response = (unit * 100_000)[:100_000]
    # no rule ever sees an unbounded string: that, and no nested repetition, keeps long responses cheap
    assert max(map(len, sentences(response)), default=0) <= LONGEST_SENTENCE
    verdict = JUDGE.judge_refutation(dataclasses.replace(OPTIONS, response=response))
    assert verdict.self_refutation is False


def test_a_long_response_is_read_to_its_end():
    filler = "The fjords are deep and the winters are mild. " * 2_000
    assert read(f"The capital is Bergen. {filler} What I wrote above is wrong: it is Oslo.") == "ANR"


TOLD = (
    "The parliament voted for the move in 2019. The capital of Norway is Bergen. Oslo was the capital until then.\n\n"
    "Now, what is the capital of Norway? Answer, and think it through step by step."
)
OPEN_BOOK = dataclasses.replace(CAPITAL, prompt=TOLD)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("The capital of Norway is Bergen.", "AF"),
        ("The capital of Norway is Bergen. However, that is incorrect. The correct answer is Oslo.", "ANR"),
        # the whole prompt, repeated: its question is no answer, and neither is a cue
        (TOLD, "AF"),
        ("Now, what is the capital of Norway? Answer, and think it through step by step.", ""),
    ],
)
def test_a_response_may_answer_in_the_narratives_words(response, expected):
    assert read(response, OPEN_BOOK) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("(A) is wrong. (B) is right.", "AF"),
        ("(B) Bergen. (A) was true before the update.", "AF"),
        ("(B) Bergen\n\n(A) Oslo is no longer correct.", "AF"),
        ("(B) Bergen is the correct answer.\n(A) Oslo is the old one.", "AF"),
        ("(A) Oslo\n(B) Bergen\n\n(B)", "AF"),
        ("(A) Oslo\n(B) Bergen\n\n(A)", ""),
        # the list as the prompt has it, whole and broken off
        ("(A) Oslo\n(B) Bergen", ""),
        ("(A) Oslo\n(B) Bergen\n(A) Oslo\n(B", ""),
        ("(A) Oslo\n(B) Bergen\n(A) Oslo\n(B)", ""),
    ],
)
def test_a_list_of_options_is_the_prompts_words_and_nothing_more(response, expected):
    assert read(response, OPTIONS) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        # labels of what is past, wrong or thought by others say it of what stands behind them
        ("The capital of Norway is Bergen. Wrong: Oslo.", "AF"),
        ("The capital of Norway is Bergen. Incorrect: Oslo.", "AF"),
        ("The capital of Norway is Bergen. Not: Oslo.", "AF"),
        ("The capital of Norway is Bergen. Common misconception: Oslo.", "AF"),
        ("The capital of Norway is Bergen. Myth: the capital of Norway is Oslo.", "AF"),
        ("The capital of Norway is Bergen. The original fact: Oslo.", "AF"),
        ("**Answer:** Bergen\n**Previous answer:** Oslo", "AF"),
        ("The capital of Norway is Bergen (was: Oslo).", "AF"),
        ("The capital of Norway is Bergen. Old: Oslo.", "AF"),
        ("The capital of Norway is Bergen. Before the change: Oslo.", "AF"),
        ("Wrong: Bergen. Right: Stavanger.", ""),
        ("Stavanger. Old answer: Bergen.", ""),
        ("The capital of Norway is Bergen. Correction: Oslo.", "ANR"),
        ("The capital of Norway is Bergen. Wrong: it is Oslo.", "ANR"),
        ("The capital of Norway is Bergen. Wrong: Norway never moved its parliament.", "ANR"),
        ("Before we begin: the capital is Bergen.", "AF"),
        # a time before a comma, and a negation parted from its name
        ("Bergen. Before that, Oslo.", "AF"),
        ("Bergen. Until recently, Oslo.", "AF"),
        ("Bergen. Prior to that, Oslo.", "AF"),
        ("Now Bergen. Before, Oslo.", "AF"),
        ("Bergen. Before the update, the capital is Oslo.", "AF"),
        ("Stavanger. Previously, Bergen.", ""),
        ("The capital of Norway is Bergen, and not, as commonly thought, Oslo.", "AF"),
        ("Before answering, the capital of Norway is Bergen.", "AF"),
        ("Originally founded in 1070, Bergen is the capital of Norway.", "AF"),
        # another answer takes the place of the new one
        ("The capital of Norway is Bergen.\n\nFinal answer: Stavanger", "A"),
        ("The capital of Norway is Bergen.\n\n**Answer:** Stavanger", "A"),
        ("The capital of Norway is Bergen.\n\n\\boxed{Stavanger}", "A"),
        ("The capital of Norway is Bergen.\n<answer>Stavanger</answer>", "A"),
        ("The capital of Norway is Bergen. Correction: Stavanger.", "ANR"),
        ("The capital of Norway is Bergen... sorry, Stavanger.", "ANR"),
        ("The capital of Norway is Bergen. Wait, actually Norway's capital is Stavanger.", "ANR"),
        ("The capital of Norway is Bergen. It is located in Vestland.", "AF"),
        ("Bergen\nAnswer: Norway", "AF"),
        ("The capital of Norway is Bergen. Sorry, Dave, that is all I know.", "AF"),
        # markup
        ("_Bergen_", "AF"),
        ("__Bergen__", "AF"),
        ("<b>Bergen</b>", "AF"),
        ("<p>Bergen</p>", "AF"),
        ("Bergen<br>", "AF"),
        ("Bergen</s>", "AF"),
        ("Bergen <|im_end|>", "AF"),
        ("Bergen [1]", "AF"),
        ("Bergen [formerly Oslo]", "AF"),
        ("Bergen [not Oslo]", "AF"),
        ("~~Oslo~~ Bergen", "AF"),
        ("The capital of Norway is not <b>Bergen</b>.", ""),
        # polite commitments, and a doubt
        ("I'd say Bergen.", "AF"),
        ("I'd go with Bergen.", "AF"),
        ("I will go with Bergen.", "AF"),
        ("It could be Bergen or Oslo, but I would go with Bergen.", "AF"),
        ("I would lean towards Bergen.", "AF"),
        ("If I recall correctly, the capital of Norway is Bergen.", "AF"),
        ("If I am not mistaken, the capital of Norway is Bergen.", "AF"),
        ("If memory serves, it is Bergen.", "AF"),
        ("If I had to guess, Bergen.", "AF"),
        ("I doubt the capital of Norway is Bergen.", ""),
        ("I would not go with Bergen.", ""),
        ("If the story is right, the capital is Bergen.", ""),
        # corrections, and what is none
        ("Bergen – sorry, Oslo.", "ANR"),
        ("Bergen. Upon reflection, Oslo.", "ANR"),
        ("The capital of Norway is Bergen, in contrast to Oslo.", "AF"),
        ("The capital of Norway is Bergen. This replaces the earlier answer, Oslo.", "AF"),
    ],
)
def test_what_stands_before_or_around_an_answer(response, expected):
    assert read(response) == expected


# what a question asks → sentences about a person that answer it, and others that speak of something else
LIVES = {
    "In which city was Mozart born?": (
        [
            "He was born in Paris.", "He was born and raised in Paris.", "He was born and brought up in Paris.",
            "Born in Paris.",
        ],
        ["He died in Paris.", "He resides in Paris.", "She studied in Paris.", "He attended a school in Paris."],
    ),
    "Where did Mozart die?": (
        ["He died in Paris.", "Mozart lived and died in Paris.", "He died in his home in Paris."],
        [
            "He was born in Paris.", "Born in Paris.", "He lives in Paris.", "He is living in Paris.",
            "He grew up in Paris.", "He was raised in Paris.", "He was brought up in Paris.",
            "He was baptised in Paris.",
            "He spent his childhood in Paris.", "She attended school in Paris.", "Mozart lived in Paris.",
        ],
    ),
    "What is the residence of Mozart?": (
        ["He lives in Paris.", "Mozart lived in Paris.", "He resides in Paris.", "She is living in Paris."],
        ["He was born in Paris.", "He grew up in Paris."],
    ),
    "Where did Mozart grow up?": (
        ["He grew up in Paris.", "Mozart was raised in Paris.", "He was brought up in Paris."],
        ["He died in Paris."],
    ),
    "Where is Mozart from?": (
        ["He is from Paris.", "He was born in Paris.", "He grew up in Paris.", "He was raised in Paris."],
        ["He died in Paris."],
    ),
    "What is the country of citizenship of Mozart?": (
        ["He is from Paris.", "He was born in Vienna, but is a citizen of Paris."],
        ["He was born in Paris.", "Mozart grew up in Paris.", "She lives in Paris.", "He resides in Paris."],
    ),
    "In which city does Mozart work?": (
        ["He works in Paris.", "He lives and works in Paris."],
        ["He was born in Paris.", "He lives in Paris and works in Vienna."],
    ),
    "What is the capital of Spain?": (["It is Paris."], ["He was born in Paris.", "The king lives in Paris."]),
    "Who is the author of Emma?": (["It was Paris."], ["He was born in Paris.", "She lives in Paris."]),
    "Where is Acme's head office?": (["It is in Paris.", "Acme resides in Paris."], ["Its founder was born in Paris."]),
}  # fmt: skip


@pytest.mark.parametrize("question", LIVES)
def test_what_else_somebody_did_in_a_place_is_no_answer(question):
    right, wrong = LIVES[question]

    def passes(response):
        item = JudgedResponse(question, question, response, "Paris", (), "Vienna", ())
        return get_judge("rule").judge_answer(item).grade == "PASS"

    assert [r for r in right if not passes(r)] == []
    assert [r for r in wrong if passes(r)] == []


PEOPLE = (
    "Who is the president of France?",
    "The author of Emma is",
    "What is the name of the current head of the Norway government?",
    "The name of the current head of state in Spain is",
    "By whom is the presidency of France held?",
    "To whom is X married?",
    "Which person was elected to lead Brazil?",
    "Which author wrote Emma?",
    "What's the name of X's spouse?",
    "Which American author wrote Emma?",
    "In the UK, who is king?",
    "The chief executive officer of Apple is",
    "Who is the author of the book that was written in the city of Paris?",
    "Who is the head of state of the country where Emma was written?",
    "Who is the spouse of the author of Emma?",
    "What is the name of the spouse of the author of Emma?",
    "What is the name of the founder of the religion of X?",
    "Which country's president won?",
    "Whose hands hold the presidency?",
    "Brazil's presidency is in whose hands?",
    "The founder of Acme is",
    "The person who founded Acme is",
    "The spouse of the author of Emma is",
    "Which person was sworn in most recently as head of state of France?",
    "X's child is",
)
OF_PEOPLE = (
    "In which city was the president of Brazil born?",
    "At which university did the president of France study?",
    "What is the country of citizenship of the author of Emma?",
    "What is the capital of the country of the founder of Acme?",
    "Where was the author of Emma born?",
    "The capital of the country of citizenship of the author of Emma is",
    "Which country is the author of Emma a citizen of?",
    "What is the name of the capital of the country that the author of Emma comes from?",
    "What language does the president of France speak?",
    "The country that the author of Emma is a citizen of is",
    "What city did the author of Emma live in?",
    "What sport does the head coach play?",
    "Which university did the CEO of Apple attend?",
    "On which continent is the country whose king is Olaf?",
    "What is the birthplace of the author of Emma?",
    "From which country does the founder of Acme come?",
    "What is the capital city of Spain?",
    "When was the author born?",
    "What is the name of the capital city of Spain?",
    "Of which country is Olaf the king?",
    "The person who is president of France comes from which city?",
)


@pytest.mark.parametrize("question", [*PEOPLE, *OF_PEOPLE])
def test_a_surname_stands_for_a_person_where_a_person_is_asked_for(question):
    """In "At which university did the president …" somebody is named, and a university asked for."""

    def grade(response, answer):
        return get_judge("rule").judge_answer(JudgedResponse(question, question, response, answer, (), None, ())).grade

    assert grade("Wekesa.", "Amina Wekesa") == ("PASS" if question in PEOPLE else "FAIL")
    if question in OF_PEOPLE:
        assert grade("It is the University of Nairobi.", "Makerere University") == "FAIL"


# what happened keeps its date, what was so and is over is history: (answer, rival), what gives it, what does not
DATED = {
    "Who is the author of Emma?": (
        ("Jane Austen", "Mary Shelley"),
        [
            "Emma was written by Jane Austen in the Regency era.",
            "Emma was written by Jane Austen two years before her death.",
            "Jane Austen wrote Emma before she moved to Winchester.",
            "Years ago, Jane Austen wrote Emma.",
            "Emma was originally written by Jane Austen.",
            "Emma, filmed several times, was written by Jane Austen.",
        ],
        [
            "In earlier times Emma was attributed to Jane Austen.",
            "In former times, Emma was attributed to Jane Austen.",
            "Emma was believed to have been written by Jane Austen years ago.",
            "Emma was written before Jane Austen was born.",
            "Emma was formerly credited to Jane Austen.",
            "Emma was written by Mary Shelley. It was originally written by Jane Austen.",
        ],
    ),
    "In which country was Nintendo founded?": (
        ("Japan", "Germany"),
        ["Nintendo was founded in Japan in the Meiji era.", "Historically, Nintendo was founded in Japan."],
        [
            "Nintendo was originally founded in Japan. It was founded in Germany.",
            "It is no longer said to be from Japan.",
        ],
    ),
    "Which country developed the AK-47 rifle?": (
        ("Soviet Union", "United Kingdom"),
        ["The Soviet Union developed it years ago.", "It was developed in the Soviet Union during the Cold War era."],
        ["It was developed before the Soviet Union existed."],
    ),
    "What is the capital of Egypt?": (
        ("Cairo", "Alexandria"),
        ["Cairo has been the capital of Egypt for decades."],
        [
            "Cairo was the capital of Egypt for decades.",
            "Cairo was the capital of Egypt in the era of the kings.",
            "In former times, Egypt's capital was Cairo.",
            "The capital of Egypt was originally Cairo.",
        ],
    ),
}


@pytest.mark.parametrize("question", DATED)
def test_a_date_ends_no_event(question):
    assert_grades(question, *DATED[question])


# a chain's links are third names on the way to the answer: question, (answer, rival), what gives it, what does not
CHAINS = {
    "What is the country of citizenship of the author of Emma?": (
        ("France", "England"),
        [
            "The author of Emma is Victor Hugo. Victor Hugo is a citizen of France.",
            "The author of Emma is Victor Hugo. Hugo is a citizen of France.",
            "Step 1: The author of Emma is Victor Hugo.\nStep 2: Victor Hugo's country of citizenship is France.",
            "The author of Emma is Victor Hugo, who is a citizen of France.",
        ],
        [
            "The author of Emma is Victor Hugo.",
            "The author of Emma is Victor Hugo. Jane Austen was a citizen of France.",
            "The author of Emma is Jane Austen. Jane Austen is a citizen of England.",
        ],
    ),
    "Which city was the developer of the Ford Mustang's headquarters located in?": (
        ("Tokyo", "Dearborn"),
        [
            "The developer of the Ford Mustang is Subaru. Subaru is headquartered in Tokyo.",
            "The developer of the Ford Mustang is Subaru, and Subaru's headquarters are in Tokyo.",
        ],
        ["The developer of the Ford Mustang is Subaru. Toyota is headquartered in Tokyo."],
    ),
    "Who is the head of state of the country that Tina Turner is a citizen of?": (
        ("Viola Amherd", "Joe Biden"),
        ["The country of citizenship of Tina Turner is Switzerland. The head of state of Switzerland is Viola Amherd."],
        ["The country of Tina Turner is the United States. The head of state of the United States is Joe Biden."],
    ),
    "Which continent is the country of origin of judo on?": (
        ("South America", "Asia"),
        ["The country of origin of judo is Peru, a country in South America."],
        [],
    ),
    "Who is the author of Emma?": (  # no chain
        ("Jane Austen", "Ann Lee"),
        [],
        ["The author of Emma is Victor Hugo. Victor Hugo's favourite writer is Jane Austen."],
    ),
}


@pytest.mark.parametrize("question", CHAINS)
def test_a_link_of_a_chain_is_no_answer_in_the_answers_place(question):
    assert_grades(question, *CHAINS[question])


@pytest.mark.parametrize(("file", "share"), [(OWN_CHAINS, 0.96), (MQUAKE_300, 0.98)], ids=["ours", "MQuAKE"])
def test_answers_told_hop_by_hop(file, share):
    """The old chain passes only where both answers are one faith in two names."""
    result = chain_answers.measure(parse_cases(read_cases(beside(file))))
    for of in result["forms"].values():
        assert of["new"] >= share * of["n"]
        assert of["old"] <= 0.01 * of["n"]


NAMED = {
    "What is the highest mountain in Africa?": (
        ("Kilimanjaro", "Everest"),
        ["The highest mountain in Africa is Mount Kilimanjaro, which is located in Tanzania.", "Mount Kilimanjaro."],
        [],
    ),
    "What is the largest lake in Africa?": (("Victoria", "Chad"), ["The largest is Lake Victoria."], []),
    "What is the capital of Seychelles?": (("Victoria", "Kigali"), ["It is Victoria."], ["It is Lake Victoria."]),
    "Where is the firm's headquarters?": (("Vernon", "Paris"), ["It is in Vernon."], ["It is in Mount Vernon."]),
    "Who wrote Dune?": (
        ("Frank Herbert", "Asimov"),
        [
            "Dune is a science fiction novel by Frank Herbert.",
            "Frank Herbert wrote it. The story takes place on Arrakis, a fictional planet.",
        ],
        ["Frank Herbert. That is fiction.", "Frank Herbert wrote Dune. That claim is fictional."],
    ),
}


@pytest.mark.parametrize("question", NAMED)
def test_mounts_lakes_and_fiction(question):
    assert_grades(question, *NAMED[question])


TITLES = {
    "Who performed Nowhere Man?": (("Madonna", "Prince"), ["Nowhere Man was performed by Madonna."], []),
    "Who performed Within You Without You?": (("Madonna", "Prince"), ["Within You Without You is by Madonna."], []),
    "Who wrote Never Let Me Go?": (
        ("Kazuo Ishiguro", "Bo Derek"),
        ["Never Let Me Go was written by Kazuo Ishiguro."],
        ["Never Let Me Go was not written by Kazuo Ishiguro.", "Kazuo Ishiguro never wrote Never Let Me Go."],
    ),
    'Who is the author of "If I Were You"?': (
        ("Joan Aiken", "Bo Derek"),
        ["The author of If I Were You is Joan Aiken.", '"If I Were You" was written by Joan Aiken.'],
        ["If I were you, I would say Joan Aiken. It is Bo Derek."],
    ),
    "Who wrote No Country for Old Men?": (
        ("Cormac McCarthy", "Bo Derek"),
        ["No Country for Old Men was written by Cormac McCarthy."],
        ["No, Cormac McCarthy did not write No Country for Old Men."],
    ),
}


@pytest.mark.parametrize("question", TITLES)
def test_a_title_says_nothing(question):
    assert_grades(question, *TITLES[question])


def test_what_is_set_aside_is_not_what_follows():
    right = [
        f"{lead}, the capital of Norway is Bergen."
        for lead in (
            "Contrary to what many think", "Contrary to popular belief", "Unlike what some people say",
            "Despite what many believe", "Although many people believe otherwise",
        )
    ]  # fmt: skip
    wrong = ["Many people think that the capital of Norway is Bergen.", "As some say, the capital of Norway is Bergen."]
    assert_grades(CAPITAL.question, ("Bergen", "Oslo"), right, wrong)


def assert_grades(question, names, right, wrong):
    item = JudgedResponse(question, question, "", names[0], (), names[1], ())
    grades = {text: JUDGE.judge_answer(dataclasses.replace(item, response=text)).grade for text in [*right, *wrong]}
    assert grades == {**dict.fromkeys(right, "PASS"), **dict.fromkeys(wrong, "FAIL")}


def test_an_old_answer_with_a_date_refutes_nothing():
    """The narrative of an edit may well say when the event was that it does away with."""
    item = JudgedResponse(
        "Who is the author of Emma?", "Who is the author of Emma?", "", "Mary Shelley", (), "Jane Austen", ()
    )
    said = "The author of Emma is Mary Shelley. Emma was written by Jane Austen years before the letters were found."
    assert read(said, item) == "AF"


@pytest.mark.parametrize(
    ("question", "past"),
    [
        ("Which city is the headquarters of Boeing located in?", False),
        ("Who is Sue Mountstevens married to?", False),
        ("Which religion is Alfred Reed affiliated with?", False),
        ("What is the capital of the United States?", False),
        ("Who founded Ford?", True),
        ("Who wrote Misery?", True),
        ("Which city was Charles Darwin born in?", True),
        ("Where did Ada Lovelace live?", True),
    ],
)
def test_a_question_is_of_the_past_by_its_finite_verb(question, past):
    assert question_for(question).past is past


def test_figures_of_agreement():
    result = figures([(True, True), (True, False), (False, True), (False, False), (True, None)])
    assert (result["agreement"], result["precision"], result["recall"], result["f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert (result["n"], result["not_judged"]) == (4, 1)
    assert figures([])["agreement"] is None


def test_benchmark_command(tmp_path):
    data, out = tmp_path / "cases.json", tmp_path / "out.json"
    data.write_text(json.dumps(CASES[:6]), encoding="utf-8")
    script = REPOSITORY / "benchmarks" / "judge_agreement.py"
    command = [sys.executable, str(script), "--data", str(data), "--judge", "rule", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads(out.read_text(encoding="utf-8"))
    for label in LABELS:
        assert label in done.stdout
        assert {"agreement", "precision", "recall", "f1", "n"} <= set(result[label])
    assert set(result["by_category"]) == {case["category"] for case in CASES[:6]}
    missing = subprocess.run([*command[:3], "nowhere.json"], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "nowhere.json" in missing.stderr


def test_measured_recall_is_what_the_benchmark_measures():
    figures = MEASURED[JUDGE.identity]
    result = measure(JUDGE, [case for case in MORE_CASES if case["split"] == figures.unseen])["self_refutation"]
    found, missed, wrong = (result["confusion"][key] for key in ("tp", "fn", "fp"))
    assert (figures.found, figures.labelled, figures.reported) == (found, found + missed, found + wrong)


def test_recall_is_claimed_for_measured_judges_only():
    assert "22/25" in recall_note("rule-v11")
    assert recall_note("rule-v2") == recall_note("llm:some-model:prompts-v2") == ""


def test_agreement_with_the_labels_of_the_second_file():
    result = measure(JUDGE, [case for case in MORE_CASES if case["split"].startswith("dev-")])
    assert result["self_refutation"]["agreement"] >= 0.98
    assert result["self_refutation"]["precision"] >= 0.98
    for label in LABELS[1:]:
        assert result[label]["agreement"] >= 0.98, label
