"""`lora_init: subject`: the directions are the generalised eigenvectors, found at the subject, and stay as they are."""

from __future__ import annotations

import dataclasses

import pytest
import scipy.linalg
import torch
from conftest import EGYPT, MODELS, NORWAY, fast_hparams, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError
from causaledit.methods.causal_edit import apply as apply_module
from causaledit.methods.causal_edit.apply import apply_causal_edit_to_model
from causaledit.methods.causal_edit.directions import adapted_layers, leading_directions, listen_at_subjects
from causaledit.methods.causal_edit.internalise import add_teacher_snapshot
from causaledit.methods.causal_edit.training import add_adapter
from causaledit.methods.locate_edit.subjects import tokens_of
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.hooks import inputs_of
from causaledit.progress import SilentProgress
from causaledit.requests import request_from_dict

REQUESTS = [request_from_dict(EGYPT), request_from_dict(NORWAY)]


def subject_hparams(**changes):
    return fast_hparams(None, None, **{"lora_init": "subject", "lora_rank": 2, "lora_dropout": 0.0, **changes})


def samples(n, features, seed):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize("tokens", [5, 40], ids=["fewer tokens than features", "more"])
def test_directions_are_the_generalised_eigenvectors(tokens):
    keys, other = samples(7, 12, 0), samples(tokens, 12, 1)
    ridge = 0.05
    moment = other.T @ other / tokens
    moment += ridge * moment.diagonal().mean() * torch.eye(12, dtype=torch.double)
    values, vectors = scipy.linalg.eigh((keys.T @ keys).numpy(), moment.numpy())
    found = leading_directions(keys, other, rank=3, ridge=ridge)
    assert found.shape == (3, 12)
    for place, direction in enumerate(found):
        expected = torch.from_numpy(vectors[:, -1 - place].copy())
        cosine = torch.nn.functional.cosine_similarity(direction, expected, dim=0)
        assert abs(float(cosine)) == pytest.approx(1, abs=1e-6)
        assert float((keys @ direction).square().mean()) == pytest.approx(1, rel=1e-6)
    assert values[-1] > values[-2]  # else the vectors above were arbitrary


def test_one_key_gives_romes_direction():
    key, other = samples(1, 6, 2), samples(30, 6, 3)
    [found] = leading_directions(key, other, rank=1, ridge=1e-9)
    solved = torch.linalg.solve(other.T @ other / 30, key[0])
    torch.testing.assert_close(found * torch.sign(found @ key[0]), solved / (key[0] @ solved), rtol=1e-5, atol=1e-8)


def test_no_more_directions_than_the_keys_span():
    key = samples(1, 6, 2)
    assert leading_directions(torch.cat([key, key, 2 * key]), samples(9, 6, 3), rank=4, ridge=0.1).shape == (1, 6)


def test_all_tokens_of_all_occurrences_are_found():
    tokenizer = make_tokenizer()
    text = "The capital of Egypt is old. Egypt is in Africa."
    found = tokens_of(tokenizer, text, "Egypt")
    assert found.ids == tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([found.ids[i]]).strip() for i in found.at]
    assert "".join(pieces) == "EgyptEgypt"
    assert tokens_of(tokenizer, text, "Norway").at == []


@pytest.mark.parametrize("architecture", MODELS)
def test_an_adapter_listens_at_its_subject(architecture):
    model, tokenizer = MODELS[architecture](), prepare_tokenizer(make_tokenizer())
    hparams = subject_hparams(lora_target_modules=["all-linear"])
    peft_model = add_adapter(model, hparams, times=2)
    before = {name: layer.lora_B["default"].weight.clone() for name, layer in adapted_layers(peft_model).items()}
    listen_at_subjects(peft_model, tokenizer, REQUESTS, hparams)
    layers = adapted_layers(peft_model)
    asked = [render(tokenizer, user(f"Which people live in {name}?")) for name in ("Egypt", "Norway", "Cuba")]
    with torch.no_grad():
        heard = []
        for text in asked:
            ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            received = inputs_of(peft_model, list(layers.values()), input_ids=ids)
            heard.append([layer.lora_A["default"](x)[0] for layer, x in zip(layers.values(), received, strict=True)])
    for name, layer in layers.items():
        weight = layer.lora_A["default"].weight
        assert weight.shape[0] == 4
        assert not weight.requires_grad
        assert torch.equal(layer.lora_B["default"].weight, before[name])
        assert layer.lora_B["default"].weight.requires_grad
    own = other = 0.0
    for at_egypt, at_norway, at_cuba in zip(*heard, strict=True):
        own += float(at_egypt[:, :2].square().sum()) + float(at_norway[:, 2:].square().sum())
        other += float(at_cuba.square().sum()) / 2
    assert own > 2 * other  # and each edit has its own part of the ranks


@pytest.mark.parametrize("student_use_sft", [True, False])
def test_both_stages_leave_the_directions_as_they_are(monkeypatch, student_use_sft):
    seen = []
    listened = apply_module.listen_at_subjects

    def spy(peft_model, *args):
        listened(peft_model, *args)
        seen.append({n: layer.lora_A["default"].weight.clone() for n, layer in adapted_layers(peft_model).items()})

    monkeypatch.setattr(apply_module, "listen_at_subjects", spy)
    hparams = subject_hparams(merge_adapter=False, teacher="bootstrapped", student_use_sft=student_use_sft)
    edited, _ = apply_causal_edit_to_model(
        make_llama(), make_tokenizer(), [EGYPT, NORWAY], hparams, progress=SilentProgress()
    )
    [start] = seen
    assert start
    for name, layer in adapted_layers(edited).items():
        assert torch.equal(layer.lora_A["default"].weight, start[name])
        assert layer.lora_B["default"].weight.abs().max() > 0
    assert edited.peft_config["default"].r == 4
    assert edited.peft_config["default"].lora_alpha / 4 == 2  # the scale is that of one edit


def test_the_snapshot_does_not_put_the_directions_back_into_training():
    hparams = subject_hparams()
    peft_model = add_adapter(make_llama(), hparams)
    listen_at_subjects(peft_model, prepare_tokenizer(make_tokenizer()), REQUESTS[:1], hparams)
    add_teacher_snapshot(peft_model)
    trained = {name for name, parameter in peft_model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_B.default." in name for name in trained)


def test_the_merged_update_reads_those_directions_alone():
    model = make_llama()
    hparams = subject_hparams(lora_target_modules=["down_proj"])
    before = weights_of(model)
    edited, originals = apply_causal_edit_to_model(
        model, make_tokenizer(), [EGYPT], hparams, return_orig_weights=True, progress=SilentProgress()
    )
    assert originals
    assert all("down_proj" in name for name in originals)
    for name, old in originals.items():
        change = edited.get_parameter(name).detach().double() - old.double()
        strength = torch.linalg.svdvals(change)
        assert strength[0] > 0
        assert float(strength[2:].max()) < 1e-3 * float(strength[0])  # rank 2, but for the merge's rounding
    again = make_llama()
    twin, _ = apply_causal_edit_to_model(again, make_tokenizer(), [EGYPT], hparams, progress=SilentProgress())
    assert same_weights(weights_of(edited), weights_of(twin))  # same seed, same edit
    assert not same_weights(weights_of(edited), before)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(HparamsError, match="lora_init"):
        subject_hparams(lora_init="nearest")
    with pytest.raises(HparamsError, match="subject_ridge"):
        subject_hparams(subject_ridge=0)
    assert dataclasses.replace(subject_hparams(), lora_init="random").lora_init == "random"
