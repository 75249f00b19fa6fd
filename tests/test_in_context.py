"""Edits in context (IKE): what is said before prompts, and that everything which asks a model says it."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import EGYPT, NORWAY, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import RequestError, SaveError
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.hosts.token_accuracy import predicted_tokens
from causaledit.methods.ike.apply import apply_ike_to_model
from causaledit.methods.ike.hparams import IKEHyperParams
from causaledit.models.chat import in_context_prefix, render, render_for, user, with_context
from causaledit.models.generation import generate_texts
from causaledit.probes.efficacy import Probe, ask


def inform(model, *requests, train_ds=None, **changes):
    tokenizer = make_tokenizer()
    hparams = IKEHyperParams(model_name=(model, tokenizer), **changes)
    return apply_ike_to_model(model, tokenizer, list(requests), hparams, return_orig_weights=True, train_ds=train_ds)


def test_the_facts_go_before_the_first_user_message():
    model, tokenizer = make_llama(), make_tokenizer()
    edited, originals = inform(model, EGYPT)
    assert originals == {}
    messages = [{"role": "system", "content": "Be brief."}, *user("Where is the parliament of Egypt?")]
    asked = copy.deepcopy(messages)
    text = render_for(edited, tokenizer, messages, prefill="It")
    assert "user\nNew fact: The capital of Egypt is Alexandria.\nWhere is the parliament of Egypt?<|im_end|>" in text
    assert text.endswith("assistant\nIt")
    assert messages == asked
    assert render_for(model, tokenizer, messages) == render(tokenizer, messages)
    assert with_context(edited, "Egypt") == "New fact: The capital of Egypt is Alexandria.\nEgypt"
    assert with_context(model, "Egypt") == "Egypt"


def test_probes_and_metrics_are_asked_behind_the_facts():
    model, tokenizer = make_llama(), make_tokenizer()
    edited, _ = inform(model, EGYPT)
    said = f"{in_context_prefix(edited)}\nWhere?"
    [answered] = ask(edited, tokenizer, [Probe("direct", "question", "Where?", ("Alexandria",))])
    [expected] = generate_texts(model, tokenizer, [render(tokenizer, user(said))], max_new_tokens=48)
    assert answered.response == expected.strip()
    assert answered.response != ask(model, tokenizer, [answered.probe])[0].response
    for chat in (False, True):
        behind = predicted_tokens(edited, tokenizer, ["Where?"], ["Alexandria"], use_chat_template=chat)
        assert behind == predicted_tokens(model, tokenizer, [said], ["Alexandria"], use_chat_template=chat)


def test_everything_else_is_the_models_own():
    model, tokenizer = make_llama(), make_tokenizer()
    edited, _ = inform(model, EGYPT)
    ids = torch.tensor([tokenizer("Egypt")["input_ids"]])
    assert torch.equal(edited(input_ids=ids).logits, model(input_ids=ids).logits)
    assert edited.config is model.config
    assert same_weights(weights_of(edited), weights_of(model))
    copied = copy.deepcopy(edited)
    assert copied.plain is not model
    assert copied.in_context_prefix == edited.in_context_prefix
    with pytest.raises(AttributeError):
        _ = edited.no_such_attribute
    with pytest.raises(SaveError, match="no weights"):
        edited.save_pretrained("anywhere")


def test_facts_add_up_and_a_newer_one_replaces_an_older():
    first, _ = inform(make_llama(), EGYPT)
    second, _ = inform(first, NORWAY)
    assert second.plain is first.plain
    assert second.in_context_prefix.splitlines() == [
        "New fact: The capital of Egypt is Alexandria.",
        "New fact: The capital of Norway is Bergen.",
    ]
    third, _ = inform(second, {**EGYPT, "target_new": "Luxor"})
    assert "Alexandria" not in third.in_context_prefix
    assert "Luxor" in third.in_context_prefix
    assert first.in_context_prefix.count("\n") == 0  # the earlier model is as it was


def test_the_narrative_on_request():
    edited, _ = inform(make_llama(), EGYPT, include_narrative=True)
    assert edited.in_context_prefix.endswith(EGYPT["narrative"])


# ---- demonstrations --------------------------------------------------------------------------------
@pytest.fixture
def demonstration_file(tmp_path):
    requests = [
        {
            "subject": name,
            "prompt": "The capital of {} is",
            "target_new": f"{name} City",
            "rephrase_prompt": [f"{name} is governed from"],
            "locality": [{"question": "What is the capital of Peru?", "answer": "Lima"}],
        }
        for name in ("Cuba", "Chile", "Kenya", "Nepal", "Egypt")
    ]
    file = tmp_path / "demonstrations.json"
    file.write_text(json.dumps(requests), encoding="utf-8")
    return str(file)


def test_demonstrations(demonstration_file):
    edited, _ = inform(make_llama(), EGYPT, demonstrations=3, demonstration_file=demonstration_file)
    text = edited.in_context_prefix
    assert text.count("New fact:") == 4
    assert text.endswith("New fact: The capital of Egypt is Alexandria.")
    assert "Egypt City" not in text  # nothing about an edited subject
    assert text.count("Answer:") == 3
    assert text.count("is governed from") == text.count("Answer: Lima") == 1  # copy, use, leave alone
    same, _ = inform(make_llama(), EGYPT, demonstrations=3, demonstration_file=demonstration_file)
    other, _ = inform(make_llama(), EGYPT, demonstrations=3, demonstration_file=demonstration_file, seed=1)
    assert same.in_context_prefix == text != other.in_context_prefix


TRAIN = [
    {
        "prompt": f"The capital of {name} is", "subject": name, "target_new": f"{name} City",
        "rephrase_prompt": f"{name} is governed from", "locality_prompt": "The capital of Peru is",
        "locality_ground_truth": "Lima",
    }
    for name in ("Cuba", "Chile", "Egypt")
] + [
    {"prompt": "Ann's mother tongue is", "target_new": "Thai", "rephrase_prompt": None},  # all that must be there
    {"prompt": "no answer"},
]  # fmt: skip


class Records:
    """As EasyEdit's data sets are: a length and items by number, no list."""

    def __len__(self):
        return len(TRAIN)

    def __getitem__(self, number):
        return TRAIN[number]


@pytest.mark.parametrize("records", [TRAIN, Records()], ids=["list", "dataset"])
def test_demonstrations_of_the_hosts_records_are_those_most_like_the_edit(records):
    edited, _ = inform(make_llama(), EGYPT, demonstrations=2, train_ds=records)
    text = edited.in_context_prefix
    assert text.count("Answer:") == 2
    assert {"Cuba", "Chile"} == {name for name in ("Cuba", "Chile", "Ann", "Egypt City") if name in text}
    assert text.endswith("New fact: The capital of Egypt is Alexandria.")
    tongue = {"prompt": "Bob's mother tongue is", "subject": "Bob", "target_new": "Urdu"}
    other, _ = inform(make_llama(), tongue, demonstrations=1, train_ds=records)
    assert "Ann's mother tongue is Thai." in other.in_context_prefix


def test_edits_and_records_without_a_subject(demonstration_file):
    edit = {"prompt": "Ann's mother tongue is", "target_new": "Urdu"}
    with_records, _ = inform(make_llama(), edit, demonstrations=16, train_ds=TRAIN)
    assert "Thai" not in with_records.in_context_prefix  # the record of the very prompt that is edited
    assert with_records.in_context_prefix.count("Answer:") == 3
    from_file, _ = inform(
        make_llama(), {"prompt": "The capital of Cuba is", "target_new": "Viñales"}, demonstrations=4,
        demonstration_file=demonstration_file,
    )  # fmt: skip
    assert "Cuba City" not in from_file.in_context_prefix


def test_the_hosts_train_ds_reaches_the_prompt():
    hparams = IKEHyperParams.from_dict(
        {"alg_name": "IKE", "model_name": "x", "k": 2, "sentence_model_name": "encoder", "results_dir": "./results"}
    )
    model, tokenizer = make_llama(), make_tokenizer()
    hparams.model_name, hparams.device = (model, tokenizer), "cpu"
    editor = EmbeddedEditor.from_hparams(hparams)
    _, edited, _ = editor.edit(
        prompts="The capital of Egypt is", target_new="Alexandria", subject="Egypt", train_ds=TRAIN,
        sequential_edit=True,
    )  # fmt: skip
    assert edited.in_context_prefix.count("Answer:") == 2
    with pytest.raises(RequestError, match="train_ds"):
        editor.edit(prompts="The capital of Norway is", target_new="Bergen", subject="Norway")


def test_more_demonstrations_than_records_takes_them_all():
    edited, _ = inform(make_llama(), EGYPT, demonstrations=16, train_ds=TRAIN)
    assert edited.in_context_prefix.count("Answer:") == 3
    without, _ = inform(make_llama(), EGYPT, demonstrations=16, train_ds=TRAIN, use_icl_examples=False)
    assert "Answer:" not in without.in_context_prefix


@pytest.mark.parametrize(
    ("records", "words"),
    [([], "no record"), ([{"prompt": "x"}], "no record"), (5, "iterable.*int"), (["a text"], "item 0 is str")],
)
def test_unusable_records_are_refused(records, words):
    with pytest.raises(RequestError, match=words):
        inform(make_llama(), EGYPT, demonstrations=1, train_ds=records)


def test_refusals(demonstration_file):
    with pytest.raises(RequestError, match=r"holds 4 requests.*asks for 9"):
        inform(make_llama(), EGYPT, demonstrations=9, demonstration_file=demonstration_file)
    with pytest.raises(RequestError, match="does not exist"):
        inform(make_llama(), EGYPT, demonstrations=1, demonstration_file="/no/such/file.json")
    with pytest.raises(RequestError, match=r"`k`.* is 1.*train_ds.*demonstration_file.*demonstrations: 0"):
        inform(make_llama(), EGYPT, demonstrations=1)
    with pytest.raises(RequestError, match="context window"):
        inform(make_llama(max_position_embeddings=128), EGYPT, include_narrative=True)
