"""The host's call: what holds for every method before its own work begins."""

from __future__ import annotations

import inspect

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HostError, HparamsError, ModelError, RequestError
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.methods.registry import METHODS
from causaledit.models.chat import in_context_prefix
from causaledit.models.loading import load_model

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
NAMES = {
    "CausalEdit": "causal_edit", "ROME": "rome", "MEMIT": "memit", "AlphaEdit": "alphaedit", "FT": "ft",
    "LoRA": "lora", "ICE": "ice", "IKE": "ike",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_public_names_and_easyedits_arguments(name):
    module = __import__(f"causaledit.methods.{NAMES[name]}.apply", fromlist=["apply"])
    function = getattr(module, f"apply_{NAMES[name]}_to_model")
    assert function is METHODS[name].load_apply()
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:7] == [
        "model", "tok", "requests", "hparams", "copy", "return_orig_weights", "keep_original_weight",
    ]  # fmt: skip
    assert [parameters[n].default for n in list(parameters)[4:7]] == [False] * 3
    assert {"progress", "report", "sequence"} <= set(parameters)
    assert any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def hparams_of(method, model="", tokenizer=None, **changes):
    return method.load_hparams()(**{**FAST[method.name], **changes})


WRONG_PAIRS = {
    "the wrong way round": (lambda: (make_tokenizer(), make_llama()), "wrong way round"),
    "a dict as the model": (lambda: ({"model": 1}, make_tokenizer()), "model is of type dict"),
    "a state dict": (lambda: (make_llama().state_dict(), make_tokenizer()), "model is of type OrderedDict"),
    "a name as the model": (lambda: ("gpt2", make_tokenizer()), "model is of type str"),
    "no model": (lambda: (None, make_tokenizer()), "model is None"),
    "a class": (lambda: (type(make_llama()), make_tokenizer()), "class LlamaForCausalLM itself"),
    "a layer": (lambda: (torch.nn.Linear(2, 2), make_tokenizer()), "model is of type Linear"),
    "two models": (lambda: (make_llama(), make_llama()), "tokenizer is of type LlamaForCausalLM"),
    "two tokenizers": (lambda: (make_tokenizer(), make_tokenizer()), "model is of type"),
    "no tokenizer": (lambda: (make_llama(), None), "tokenizer is None"),
    "a name as the tokenizer": (lambda: (make_llama(), "gpt2"), "tokenizer is of type str"),
    "a dict as the tokenizer": (lambda: (make_llama(), {"a": 1}), "tokenizer is of type dict"),
    "a config": (lambda: (make_llama().config, make_tokenizer()), "model is of type LlamaConfig"),
}


@pytest.mark.parametrize("wrong", WRONG_PAIRS)
def test_what_is_no_model_or_tokenizer_is_refused_by_every_method_and_host(wrong):
    make, words = WRONG_PAIRS[wrong]
    model, tokenizer = make()
    for method in METHODS.values():
        with pytest.raises(ModelError, match=words):
            method.load_apply()(model, tokenizer, [EGYPT], hparams_of(method))
    with pytest.raises(ModelError, match=words):
        load_model((model, tokenizer), device="cpu")
    with pytest.raises(ModelError, match=words):
        EmbeddedEditor(METHODS["FT"].load_hparams()(model_name=(model, tokenizer), device="cpu"))


@pytest.mark.parametrize("name", [{"model": 1, "tokenizer": 2}, (1, 2, 3), 7, None, [make_tokenizer]])
def test_what_is_no_pair_is_refused(name):
    with pytest.raises(ModelError, match=r"`model_name` must be .*pair"):
        load_model(name, device="cpu")


@every_method
def test_hyper_parameters_that_went_bad_after_they_were_made(method):
    model = make_llama()
    weights, hparams = weights_of(model), hparams_of(method)
    hparams.seed = -1
    with pytest.raises(HparamsError, match=r"`seed`.*-1"):
        method.load_apply()(model, make_tokenizer(), [EGYPT], hparams)
    for wrong in (None, "smollm2", {"alg_name": method.name}, type(hparams)):
        with pytest.raises(HparamsError, match=method.name):
            method.load_apply()(model, make_tokenizer(), [EGYPT], wrong)
    assert same_weights(weights_of(model), weights)


@every_method
@pytest.mark.parametrize(
    "requests", [None, 3, "The capital of Egypt is", [], [None], [{}], [EGYPT, {**NORWAY, "prompt": ""}]]
)
def test_requests_that_cannot_be_read(method, requests):
    model = make_llama()
    with pytest.raises(RequestError):
        method.load_apply()(model, make_tokenizer(), requests, hparams_of(method))


def test_requests_may_come_from_a_generator():
    method, found = METHODS["ROME"], []
    for requests in ([EGYPT], (request for request in [EGYPT])):
        model = make_llama()
        method.load_apply()(model, make_tokenizer(), requests, hparams_of(method))
        found.append(weights_of(model))
    assert same_weights(*found)


@pytest.mark.parametrize("name", ["FT", "IKE", "LoRA"])
def test_the_callers_gradients_are_kept(name):
    model, method = make_llama(), METHODS[name]
    model(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    method.load_apply()(model, make_tokenizer(), [EGYPT], hparams_of(method))
    assert all(torch.equal(p.grad, before[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("size", ["2", "8"])
@pytest.mark.parametrize("method", [m for m in METHODS.values() if not m.distributed], ids=lambda m: m.name)
def test_one_of_several_processes_refuses_to_edit(method, size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", "0")
    model, computed = make_llama(), []
    model.register_forward_pre_hook(lambda *_: computed.append(1))
    with pytest.raises(HostError, match=f"one of {size} processes.*in one process"):
        method.load_apply()(model, make_tokenizer(), [EGYPT], method.load_hparams()(**FAST[method.name]))
    assert not computed


@pytest.mark.parametrize("size", ["1", ""])
def test_the_one_process_of_a_launcher_edits(size, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", "0")
    model, method = make_llama(), METHODS["IKE"]
    edited, _ = method.load_apply()(model, make_tokenizer(), [EGYPT], method.load_hparams()(**FAST["IKE"]))
    assert EGYPT["target_new"] in in_context_prefix(edited)
