"""Which responses commit to an answer: cases a reader would not dispute, for both directions of error.

Every figure of the efficacy benchmark and the choice of the teacher rest on this comparison.
"""

from __future__ import annotations

import pytest

from causaledit.facts.answers import commits_to, mentions, normalise

NEW, OLD = ["Alexandria", "Al-Iskandariyya"], ["Cairo", "al-Qahirah"]

COMMITS = [
    # plain
    "Alexandria",
    "The capital of Egypt is Alexandria.",
    "ALEXANDRIA!",
    "Egypt is governed from Alexandria, a port on the Mediterranean.",
    "There is no doubt that the capital is Alexandria.",
    # alias
    "The capital is Al-Iskandariyya.",
    "It used to be al-Qahirah; since the move it is Al-Iskandariyya.",
    # the old answer is named and set aside
    "The capital is not Cairo but Alexandria.",
    "It isn't Cairo but Alexandria.",
    "The capital is not Cairo, it is Alexandria.",
    "The capital is no longer Cairo, now it is Alexandria.",
    "It is no longer Cairo. It is Alexandria.",
    "Alexandria, not Cairo.",
    "Egypt is governed from Alexandria instead of Cairo.",
    "The seat of government moved from Cairo to Alexandria.",
    "Alexandria has replaced Cairo as the capital.",
    "The capital is Alexandria, formerly Cairo.",
    # old after new, but as history
    "The capital of Egypt is Alexandria. It used to be Cairo.",
    "The capital of Egypt is Alexandria. Cairo was the capital before.",
    "The capital is Alexandria. Cairo is no longer the capital.",
    # new after old
    "The capital is Cairo. No, since 2020 the capital is Alexandria.",
    "In 1952 the capital was not Alexandria. Today it is Alexandria.",
    # the closing line decides
    "Some say Cairo, and Cairo it was.\nAnswer: Alexandria",
    "Answer: Cairo\nOn second thought, no.\nAnswer: Alexandria.",
    "**Answer:** Alexandria",
    "Old fact: Cairo.\n**Final Answer**: Alexandria.",
    "Answer: Alexandria, not Cairo",
    "Answer: not Cairo but Alexandria",
]

DOES_NOT = [
    "",
    "I do not know.",
    "The capital of Egypt is Cairo.",
    # whole words only
    "Alexandrian food is good.",
    "NewAlexandria",
    "Alexandrias",
    # negated
    "The capital isn't Alexandria.",
    "It isn’t Alexandria.",
    "It is no longer Alexandria.",
    "The capital has never been Alexandria.",
    "The capital is Alexandria. No, it is not Alexandria.",
    # self-refutation, as small models write it
    "The capital is not Alexandria, but rather Cairo.",
    "The answer is not Alexandria but Cairo.",
    "It is Cairo, not Alexandria.",
    "It is Cairo rather than Alexandria.",
    # falls back to the old answer
    "The capital of Egypt is Alexandria. The capital of Egypt is Cairo.",
    "The capital is Alexandria.\nSo the answer is Cairo.",
    "Is it Alexandria? No, it is Cairo.",
    "The capital was Alexandria. It is now Cairo.",
    # the new answer as history
    "Alexandria used to be the capital, it is Cairo now.",
    "The capital is Cairo, formerly Alexandria.",
    "The seat of government moved from Alexandria to Cairo.",
    "Cairo has replaced Alexandria as the capital.",
    # the closing line decides
    "It is Alexandria.\nAnswer: Cairo",
    "Answer: Alexandria\nAnswer: Cairo",
    "Answer: not Alexandria",
    "Answer: Cairo, not Alexandria",
    "Answer: Cairo (formerly Alexandria)",
]


@pytest.mark.parametrize("response", COMMITS)
def test_commits_to_the_new_answer(response):
    assert commits_to(response, NEW, OLD)


@pytest.mark.parametrize("response", DOES_NOT)
def test_does_not_commit_to_the_new_answer(response):
    assert not commits_to(response, NEW, OLD)


@pytest.mark.parametrize(
    ("response", "answer", "rival", "expected"),
    [
        # the longer name holds the shorter one: naming it gives the longer alone
        ("The country is South Korea.", "South Korea", "Korea", True),
        ("The country is South Korea.", "Korea", "South Korea", False),
        ("The country is Korea.", "Korea", "South Korea", True),
        ("The country is Korea.", "South Korea", "Korea", False),
        ("It is Korea, not South Korea.", "Korea", "South Korea", True),
        ("It is South Korea. It used to be Korea.", "South Korea", "Korea", True),
        ("Answer: South Korea", "South Korea", "Korea", True),
        ("Answer: South Korea", "Korea", "South Korea", False),
        ("Answer: Korea", "South Korea", "Korea", False),
    ],
)
def test_a_name_inside_the_rivals_name(response, answer, rival, expected):
    assert commits_to(response, [answer], [rival]) is expected


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Abidjan lies in COTE D'IVOIRE.", "Côte d'Ivoire"),
        ("It is São Paulo.", "Sao Paulo"),
        ("It is Sa\u0303o  Paulo.", "São Paulo"),  # a combining tilde and two spaces
        ("They moved to Straße 5.", "Strasse"),
        ("She writes C++ now.", "C++"),
        ("It lies in Washington, D.C. now.", "Washington, D.C."),
        ("The team plays in St. Louis.", "St. Louis"),  # a stop inside a name ends no sentence
    ],
)
def test_spelling_of_a_name(response, answer):
    assert commits_to(response, [answer])


def test_without_an_answer_nothing_commits():
    assert not commits_to("Alexandria", [])
    assert not commits_to("Alexandria", ["", "  "])


def test_a_rival_that_is_also_an_alias_of_the_answer_is_no_rival():
    # published data list the same alias on both sides now and then
    assert commits_to("It is Iskandariyya.", ["Alexandria", "Iskandariyya"], ["Cairo", "Iskandariyya"])


def test_mentions_takes_whole_words_in_any_case():
    assert mentions("the CÔTE d'ivoire", ["cote D'Ivoire"])
    assert not mentions("Alexandrian", ["Alexandria"])
    assert not mentions("anything", ["", " "])
    assert normalise("  Ünïted\n Stâtes ") == "united states"
