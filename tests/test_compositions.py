"""Prompts of two hops: what is asked about an edit, and what is held out."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random

import pytest
from conftest import EGYPT, MQUAKE_300, beside, make_llama, make_tokenizer, smollm2_folder

from causaledit.errors import RequestError
from causaledit.facts.compositions import leading_questions, leading_relations, onward_questions
from causaledit.facts.relations import RelationBank
from causaledit.facts.requests import QuestionAnswer, request_from_dict, requests_from_data
from causaledit.facts.text import normalise
from causaledit.methods.causal_edit.bootstrap import training_pairs
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.methods.shared.compositions import Composition, compose
from causaledit.methods.shared.neighbours import neighbour_questions
from causaledit.models.chat import prepare_tokenizer
from causaledit.models.loading import load_model
from causaledit.mquake.cases import read_case
from causaledit.support.costs import TokenCount
from causaledit.support.paths import data_dir

SMALL = CausalEditHyperParams.from_hparams("smollm2-135m-instruct")
BANK = RelationBank.bundled()
CITIZEN = request_from_dict(
    {"subject": "Ann Lee", "prompt": "{} is a citizen of", "question": "What country is Ann Lee a citizen of?",
     "target_new": "Poland", "ground_truth": "Canada"}
)  # fmt: skip
CAPITAL = request_from_dict(EGYPT)


def test_onward_questions_name_the_subject_and_never_the_new_answer():
    found = onward_questions(CITIZEN, BANK)
    assert {"capital", "official language", "currency"} <= {item.relation.name for item in found}
    for item in found:
        assert "Ann Lee" in item.prompt
        assert "Poland" not in item.prompt
        assert "Poland" in item.hop


def test_the_first_questions_are_of_different_relations():
    found = onward_questions(CITIZEN, BANK)
    several = len({item.relation for item in found})
    assert len({item.relation for item in found[:several]}) == several


def test_no_question_hangs_an_apostrophe_on_a_phrase():
    assert not [item.prompt for item in onward_questions(CITIZEN, BANK) if "citizen of's" in item.prompt]


def test_what_tests_the_edit_is_held_out():
    asked = onward_questions(CITIZEN, BANK)[0].prompt
    probed = dataclasses.replace(CITIZEN, rephrase=(QuestionAnswer(f" {asked.upper()}", "Poland"),))
    assert asked not in [item.prompt for item in onward_questions(probed, BANK)]
    lead = leading_questions(CAPITAL, BANK, leading_relations(CAPITAL, BANK)[0], "Omar")[0]
    held = dataclasses.replace(CAPITAL, locality=(QuestionAnswer(lead, "x"),))
    assert lead not in leading_questions(held, BANK, leading_relations(held, BANK)[0], "Omar")


def test_a_request_says_itself_what_is_held_out():
    asked = onward_questions(CITIZEN, BANK)[0].prompt
    data = {"subject": "Ann Lee", "prompt": "{} is a citizen of", "target_new": "Poland"}
    request = request_from_dict({**data, "held_out": [asked]})
    assert asked not in [item.prompt for item in onward_questions(request, BANK)]
    with pytest.raises(RequestError, match="held_out"):
        request_from_dict({**data, "held_out": asked})


def test_a_subject_is_led_to_by_what_can_have_it():
    names = {relation.name for relation in leading_relations(CAPITAL, BANK)}
    assert "citizenship" in names
    assert "author" not in names


def test_a_relation_that_the_bank_does_not_know_has_no_second_hop():
    odd = request_from_dict({"subject": "Zorb", "prompt": "{} tastes like", "target_new": "plums"})
    assert onward_questions(odd, BANK) == []
    assert leading_relations(odd, BANK) == []


def test_no_prompt_of_two_hops_is_a_benchmark_question():
    for case in json.loads((data_dir() / "causaledit-mini.json").read_text(encoding="utf-8")):
        read = read_case(case)
        held = {normalise(q) for q in (*read.questions, *(hop.question for hop in (*read.hops, *read.old_hops)))}
        for edit in read.edits:
            own = {normalise(edit.request.question_form), normalise(edit.request.cloze)}
            prompts = [item.prompt for item in onward_questions(edit.request, BANK)]
            prompts += [pair[0] for pair in training_pairs(edit.request, [], SMALL)]
            prompts += neighbour_questions(edit.request, 40, bank=BANK, rng=random.Random(0), composed=0.3)
            assert not {normalise(prompt) for prompt in prompts} & (held - own), case["case_id"]


def test_a_benchmark_chain_is_a_question_of_two_hops_for_the_bank():
    """So that what is asked around an edit is what stage 1 teaches. A religion had no founder, a city no continent."""
    cases = json.loads(beside(MQUAKE_300).read_text(encoding="utf-8"))
    edits = [rewrite for case in cases for rewrite in case["requested_rewrite"]]
    relations = {
        edit["relation_id"]: BANK.relation_of(request)
        for edit, request in zip(edits, requests_from_data(edits), strict=True)
    }
    pairs = [pair for case in cases for pair in itertools.pairwise(case["orig"]["new_triples"])]
    linked = 0
    for (_, first, _), (_, second, _) in pairs:
        one, other = relations.get(first), relations.get(second)
        linked += bool(one and other and one.object_kind in other.subject_kinds)
    assert linked >= 0.95 * len(pairs)


def test_every_relation_says_what_its_objects_are():
    for relation in BANK.relations:
        assert relation.object_kind, relation.name
        assert relation.statement.count("{}") == relation.members.count("{}") == 1
        assert all(phrase.count("{}") == 1 for phrase in relation.object_phrases)


@pytest.fixture
def tokenizer():
    return prepare_tokenizer(make_tokenizer())


def test_a_model_that_knows_nothing_gets_no_prompts(tokenizer):
    count = TokenCount()
    assert compose(make_llama(), tokenizer, [CITIZEN], onward=4, leading=4, count=count) == [[]]
    assert count.generated > 0


def test_the_second_hop_of_a_batch_is_the_other_edit(tokenizer):
    poland = dataclasses.replace(
        CAPITAL, subject="Poland", target_new="Gdansk", ground_truth="Warsaw", question="What is the capital of Poland?"
    )
    [found, _] = compose(make_llama(), tokenizer, [CITIZEN, poland], onward=3, leading=0, count=TokenCount())
    assert found
    assert all(isinstance(item, Composition) for item in found)
    assert {item.knowledge for item in found} == {"The capital of Poland is Gdansk."}
    assert found[0].completion == "Ann Lee is a citizen of Poland. The capital of Poland is Gdansk."


def test_two_hops_are_said_as_sentences_where_the_prompt_is_a_question(tokenizer):
    """As in ZsRE. The question stood in the completion, with its answer behind it."""
    asked = dataclasses.replace(CITIZEN, prompt="Which country is {} a citizen of?")
    poland = dataclasses.replace(
        CAPITAL, subject="Poland", target_new="Gdansk", ground_truth="Warsaw", prompt="What is the capital of {}?",
        question=None,
    )  # fmt: skip
    [found, _] = compose(make_llama(), tokenizer, [asked, poland], onward=3, leading=0, count=TokenCount())
    assert found
    for item in found:
        assert item.completion.count("?") == 0
        assert item.completion.endswith(f"Poland. {item.knowledge}")
        assert item.knowledge.endswith(" Gdansk.")
    assert BANK.stated(CITIZEN) == "Ann Lee is a citizen of Poland."
    unknown = dataclasses.replace(CITIZEN, prompt="Which mascot does {} have?", question=None, target_new="a bear")
    assert BANK.stated(unknown) == "a bear."
    assert BANK.paraphrases(unknown, 6) == []  # "Which mascot does Ann Lee have? which?"


def test_none_are_asked_for_where_none_are_wanted(tokenizer):
    count = TokenCount()
    assert compose(make_llama(), tokenizer, [CITIZEN], onward=0, leading=0, count=count) == [[]]
    assert count.generated == 0


@pytest.fixture(scope="module")
def smollm2():
    model, tokenizer = load_model(str(smollm2_folder()))
    return model, prepare_tokenizer(tokenizer, model=model)


@pytest.mark.slow
def test_what_the_model_is_surest_of_comes_first(smollm2):
    """The bank's order gave "The head of state of Poland is the Kingdom of Poland-Lublin." first."""
    [found] = compose(*smollm2, [CITIZEN], onward=10, leading=0, count=TokenCount())
    assert {item.knowledge for item in found[:3]} == {
        "The official language of Poland is Polish.",
        "Poland is located in the continent of Europe.",
        "The capital of Poland is Warsaw.",
    }
    # "The president of Poland is the President of the Republic of Poland" tells nothing
    assert all(item.knowledge.count("Poland") == 1 for item in found)


@pytest.mark.slow
def test_the_two_ways_take_turns(smollm2):
    """Stage 1 learns the first of them, and half of MQuAKE's edits are a chain's second hop."""
    head = request_from_dict(
        {"subject": "United Kingdom", "prompt": "The name of the current head of state in {} is",
         "target_new": "Angela Merkel", "ground_truth": "Charles III"}
    )  # fmt: skip
    [found] = compose(*smollm2, [head], onward=10, leading=6, count=TokenCount())
    names_subject = ["United Kingdom" in item.prompt for item in found]
    assert names_subject[:6] == [True, False] * 3
    for item in found:
        assert "United Kingdom is Angela Merkel." in item.completion
        assert all(sentence[0].isupper() for sentence in item.completion.split(". "))
