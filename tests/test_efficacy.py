"""The efficacy probes: what counts as right, what was trained on, and how long answers are."""

from __future__ import annotations

import pytest
from conftest import EGYPT, FAST, make_llama, make_tokenizer

from causaledit.facts.requests import request_from_dict
from causaledit.methods.registry import METHODS
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.mquake.cases import parse_cases
from causaledit.probes.efficacy import SCORES, Answered, Probe, ask, case_probes, edit_probes, is_hit, pooled, rates
from causaledit.probes.sets import build_probes
from causaledit.probes.trained import TrainedPrompts
from causaledit.support.progress import SilentProgress

QUESTION, CLOZE = "What is the capital of Egypt?", "The capital of Egypt is"
CASE = {
    "case_id": 1,
    "requested_rewrite": [
        {
            **EGYPT,
            "prompt": "The capital of {} is",
            "question": QUESTION,
            "rephrase_prompt": ["Which city is Egypt's capital?", "Egypt is governed from which city?"],
            "learning_prompt": [{"question": "Where does Egypt's parliament sit?", "answer": "Alexandria"}],
            "target_true": {"str": "Cairo"},
        }
    ],
    "questions": ["Where is the head of state of the Nile's last country?", "Which city governs the Sphinx?"],
    "answer": "Cairo",
    "answer_alias": [],
    "new_answer": "Alexandria",
    "new_answer_alias": [],
    "single_hops": [{"question": QUESTION, "cloze": CLOZE, "answer": "Cairo", "answer_alias": []}],
    "new_single_hops": [{"question": QUESTION, "cloze": CLOZE, "answer": "Alexandria", "answer_alias": []}],
}


# ---- what was trained on -------------------------------------------------------------------------------------------
def test_a_probe_is_trained_on_however_its_text_is_spaced_and_cased():
    trained = TrainedPrompts([" What is  the capital of Egypt? ", ""])
    assert QUESTION in trained and QUESTION.upper() in trained
    assert f"Now, {QUESTION}" not in trained and CLOZE not in trained and "" not in trained


def answered(family, response, hit, prompt="p", trained=False):
    return Answered(Probe(family, "question", prompt, ("a",)), response, hit, trained)


def test_unseen_leaves_out_what_was_trained_on():
    post = [
        answered("direct", "one two", True, trained=True),
        answered("direct", "one two three four", False),
        answered("direct", "one two three", True),
        answered("multi_hop", "a", True, trained=True),
        answered("multi_hop", "b", False),
    ]
    found = rates(post, post)
    direct = found["direct"]
    assert (direct["hits"], direct["total"], direct["words_per_response"]) == (2, 3, 3)
    assert (direct["unseen"]["hits"], direct["unseen"]["total"]) == (1, 2)
    # a case's questions count once: right by a trained one alone is not right unseen
    assert (found["multi_hop"]["hits"], found["multi_hop"]["total"]) == (1, 1)
    assert (found["multi_hop"]["unseen"]["hits"], found["multi_hop"]["unseen"]["total"]) == (0, 1)
    both = pooled([found, found])
    assert (both["direct"]["unseen"]["hits"], both["direct"]["unseen"]["total"]) == (2, 4)
    assert both["direct"]["words_per_response"] == 3
    assert set(both) == set(SCORES)


def test_where_nobody_says_what_was_trained_on_there_is_no_unseen_rate():
    post = [answered("direct", "one", True, trained=None)]
    found = rates(post, post)
    assert found["direct"]["unseen"] is None and pooled([found])["direct"]["unseen"] is None


def trained_by(method, **changes):
    """What an edit of the case says that it trained on."""
    model, tokenizer = make_llama(), make_tokenizer()
    hparams = method.load_hparams()(
        model_name=(model, tokenizer), alg_name=method.name, **{**FAST[method.name], **changes}
    )
    report = method.load_report()()
    method.load_apply()(
        model, tokenizer, CASE["requested_rewrite"], hparams,
        return_orig_weights=True, progress=SilentProgress(), report=report,
    )  # fmt: skip
    return TrainedPrompts(report.trained_prompts)


def all_probes():
    requests = [request_from_dict(rewrite) for rewrite in CASE["requested_rewrite"]]
    short = [probe.prompt for probe in case_probes(CASE, requests)]
    return {*short, *(probe.prompt for probe in build_probes(parse_cases([CASE])[0]))}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_only_the_edits_own_question_and_cloze_are_probes_and_training_prompts(method):
    trained = trained_by(method)
    marked = {prompt for prompt in all_probes() if prompt in trained}
    assert marked <= {QUESTION, CLOZE}
    assert bool(marked) == method.changes_weights


def test_paraphrases_that_were_trained_on_are_marked():
    trained = trained_by(METHODS["CausalEdit"], distill_cake_data=True)
    paraphrases = set(CASE["requested_rewrite"][0]["rephrase_prompt"])
    assert {prompt for prompt in all_probes() if prompt in trained} == {QUESTION, CLOZE, *paraphrases}


# ---- what is right -------------------------------------------------------------------------------------------------
def locality_probe():
    request = request_from_dict(
        {**EGYPT, "target_new": "France", "locality": [{"question": "Where is Zagreb?", "answer": "Croatia"}]}
    )
    return next(probe for probe in edit_probes(request) if probe.family == "locality")


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("Zagreb is in Croatia.", True),
        ("Croatia.", True),
        ("Zagreb lies near Croatia. The answer is France.", False),
        ("It was in Croatia once. Now Zagreb is in France.", False),
        ("Zagreb is not in Croatia.", False),
        ("I do not know.", False),
    ],
)
def test_locality_asks_for_the_answer_and_not_the_edits(response, right):
    assert is_hit(locality_probe(), response) is right


def test_unchanged_is_the_same_text_or_right_both_times():
    pairs = [
        ("Zagreb is in Croatia.", True, "It is in Croatia", True),
        ("I think in Spain.", False, "I think  in spain.", False),
        ("I think in Spain.", False, "I think in Italy.", False),
        ("Croatia", True, "France", False),
    ]
    pre = [answered("locality", before, hit) for before, hit, _, _ in pairs]
    post = [answered("locality", after, hit) for _, _, after, hit in pairs]
    found = rates(pre, post)
    assert (found["unchanged"]["hits"], found["unchanged"]["total"]) == (2, 4)
    assert (found["locality"]["hits"], found["locality"]["total"]) == (1, 2)  # of those right before


# ---- how it is asked -----------------------------------------------------------------------------------------------
def test_probes_are_asked_in_the_mode_that_the_edit_was_made_in():
    model, tokenizer = make_llama(), make_tokenizer()
    opening = "{% if enable_thinking is defined and not enable_thinking %}<think>no</think>{% endif %}"
    tokenizer.chat_template = tokenizer.chat_template + opening
    options = {"enable_thinking": False}
    prompt = render(prepare_tokenizer(tokenizer, options), user("Where?"))
    assert prompt.endswith("<think>no</think>")
    [found] = ask(model, tokenizer, [Probe("direct", "question", "Where?", ("x",))], template_kwargs=options)
    [expected] = generate_texts(model, prepare_tokenizer(tokenizer, options), [prompt], max_new_tokens=48)
    [other] = ask(model, tokenizer, [found.probe])
    assert found.response == expected.strip() != other.response
