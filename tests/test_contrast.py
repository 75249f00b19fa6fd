"""`lora_init: contrast`: where an adapter begins to listen, against exact gradients and moments."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from architectures import ARCHITECTURES
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer, same_weights, weights_of
from peft.tuners.lora.layer import LoraLayer
from test_orthogonal import FURTHER

from causaledit.errors import HparamsError, ModelError
from causaledit.facts.requests import requests_from_data
from causaledit.hosts.lookup import get_method
from causaledit.methods.call import edit_in_place
from causaledit.methods.footprint import Lengths, Planner, with_adapter
from causaledit.methods.hyperparams import AdapterHyperParams
from causaledit.methods.lora.hparams import LoRAHyperParams
from causaledit.methods.shared.contrast import OTHERS_READ, begin_in_contrast, others_rows
from causaledit.methods.shared.footprints import contrast_peak
from causaledit.methods.shared.supervised import completion_rows
from causaledit.models.adapters import add_adapter
from causaledit.models.batches import context_and_completion
from causaledit.models.chat import prepare_tokenizer
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

REQUESTS = requests_from_data([EGYPT, NORWAY])
METHODS = list(FURTHER)


def adapted(model, **changes):
    hparams = AdapterHyperParams(
        model_name="tiny", lora_rank=3, lora_dropout=0.0, lora_target_modules=["all-linear"], **changes
    )
    return add_adapter(model, hparams), hparams


def rows_for(tokenizer, requests=REQUESTS):
    pairs = [(r.question, f"{r.cloze} {r.target_new}.") for r in requests for _ in range(2)]
    return [context_and_completion(row) for row in completion_rows(tokenizer, pairs)]


def begin(model, hparams, requests=REQUESTS):
    tokenizer = prepare_tokenizer(make_tokenizer())
    begin_in_contrast(
        model, tokenizer, rows_for(tokenizer, requests), requests, hparams, preservation=None, count=TokenCount()
    )


def adapters(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer)}


def rows_of_a(model):
    return {n: m.lora_A["default"].weight.detach().clone() for n, m in adapters(model).items()}


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 40)[None]).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_adapter_listens_elsewhere_and_says_nothing_yet(architecture):
    try:
        model, hparams = adapted(ARCHITECTURES[architecture](), lora_init="contrast")
        logits(model)
    except (ModelError, AttributeError) as error:
        pytest.skip(f"peft has no adapter for all of its layers: {error}")
    model.train()
    before, said = rows_of_a(model), logits(model.eval())
    model.train()
    begin(model, hparams)
    assert model.training
    after = rows_of_a(model)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) >= len(before) / 2
    for name in moved:
        assert torch.isfinite(after[name]).all()
        assert after[name].norm(dim=1).mean() == pytest.approx(float(before[name].norm(dim=1).mean()), rel=0.05)
    assert torch.equal(said, logits(model.eval()))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in adapters(model).values())


def exact(model, tokenizer, rows, others):
    """By layer: the gradient with respect to the whole weight, and the inputs at every position of the other rows."""
    layers = adapters(model)
    weights = {name: layer.get_base_layer().weight.requires_grad_(True) for name, layer in layers.items()}
    tokens = sum(len(completion) for _, completion in rows)
    for context, completion in rows:
        found = model(input_ids=torch.tensor([[*context, *completion]])).logits[0, len(context) - 1 : -1]
        (torch.nn.functional.cross_entropy(found, torch.tensor(completion), reduction="sum") / tokens).backward()
    gradients = {name: weight.grad.clone() for name, weight in weights.items()}
    inputs = {name: [] for name in layers}
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0][0]))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        for row in others:
            model(input_ids=torch.tensor([row]))
    for hook in hooks:
        hook.remove()
    return gradients, {name: torch.cat(found) for name, found in inputs.items()}


def contrast(rows, gradient, inputs, ridge):
    """The formula's value in the space of some rows: the sum of the generalised eigenvalues there."""
    rows, gradient, inputs = rows.double(), gradient.double(), inputs.double()
    moment = inputs.T @ inputs / len(inputs)
    moment += ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.double)
    strong = (gradient @ rows.T).T @ (gradient @ rows.T)
    return float(torch.linalg.solve(rows @ moment @ rows.T, strong).trace())


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_its_directions_are_near_the_best_there_are(ridge):
    tokenizer = prepare_tokenizer(make_tokenizer())
    model, hparams = adapted(make_llama(), lora_init="contrast", lora_init_ridge=ridge)
    at_random = rows_of_a(model)
    begin(model, hparams)
    pointed = rows_of_a(model)
    rows = rows_for(tokenizer)
    others = others_rows(tokenizer, rows, REQUESTS, random.Random(hparams.seed))
    gradients, inputs = exact(model, tokenizer, rows, others)
    shares, drawn = [], []
    for name, gradient in gradients.items():
        moment = inputs[name].double().T @ inputs[name].double() / len(inputs[name])
        moment += ridge * moment.diagonal().mean() * torch.eye(len(moment), dtype=torch.double)
        whole = torch.linalg.solve(moment, gradient.double().T @ gradient.double())
        best = float(torch.linalg.eigvals(whole).real.sort(descending=True).values[:3].sum())
        shares.append(contrast(pointed[name], gradient, inputs[name], ridge) / best)
        drawn.append(contrast(at_random[name], gradient, inputs[name], ridge) / best)
    # the gradient is known by a sketch, and what rows begin with is counted once
    assert min(shares) > 0.5
    assert sum(shares) / len(shares) > 0.8
    assert max(drawn) < min(shares)


def test_few_positions_and_the_same_ones_many_times_over_point_the_same_way(monkeypatch):
    from causaledit.methods.shared import contrast as module

    pointed = []
    for times in (1, 40):  # fewer positions than inputs, and more: two ways to solve the same equations
        model, hparams = adapted(make_llama(hidden_size=128, intermediate_size=256), lora_init="contrast")
        plain = module.other_inputs

        def few(*args, times=times, plain=plain):
            return {name: found[:20].repeat(times, 1) for name, found in plain(*args).items()}

        monkeypatch.setattr(module, "other_inputs", few)
        begin(model, hparams)
        monkeypatch.setattr(module, "other_inputs", plain)
        pointed.append(rows_of_a(model))
    for name, rows in pointed[0].items():
        assert torch.nn.functional.cosine_similarity(rows, pointed[1][name]).abs().min() > 0.999, name


def test_other_rows_name_other_subjects_and_end_before_the_new_answer():
    tokenizer = prepare_tokenizer(make_tokenizer())
    rows = rows_for(tokenizer)
    texts = [str(tokenizer.decode(row)) for row in others_rows(tokenizer, rows, REQUESTS, random.Random(0))]
    assert len(texts) == len(rows)
    for text, request in zip(texts, [REQUESTS[0]] * 2 + [REQUESTS[1]] * 2, strict=True):
        assert request.subject not in text
        assert request.target_new not in text
        before, behind = request.cloze.split(request.subject)
        assert before in text
        assert text.endswith(behind.rstrip())


def test_an_answer_without_the_new_one_is_left_out_of_other_rows():
    tokenizer = prepare_tokenizer(make_tokenizer())
    pairs = [("What is the language of the country whose capital is in Egypt?", "It is Arabic, as ever.")]
    rows = [context_and_completion(row) for row in completion_rows(tokenizer, pairs)]
    (found,) = others_rows(tokenizer, rows, REQUESTS[:1], random.Random(0))
    text = str(tokenizer.decode(found))
    assert "Arabic" not in text
    assert "Egypt" not in text


@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_an_adapter_begins_there(name):
    def run(**changes):
        model, tokenizer = make_llama(), make_tokenizer()
        method = get_method(name)
        values = {**FAST[name], **FURTHER[name], "lora_rank": 2, **changes}
        before = weights_of(model)
        edited = edit_in_place(
            method, model, tokenizer, [dict(EGYPT)],
            method.load_hparams()(model_name=(model, tokenizer), **values), progress=SilentProgress(), sequence=None,
        )  # fmt: skip
        after = weights_of(model)
        edited.undo()
        assert same_weights(before, weights_of(model))
        return after

    pointed = run(lora_init="contrast")
    assert same_weights(pointed, run(lora_init="contrast"))
    assert not same_weights(pointed, run())


def test_what_it_cannot_be_combined_with_is_refused():
    with pytest.raises(HparamsError, match=r"lora_init: contrast.*adalora"):
        LoRAHyperParams(model_name="tiny", lora_type="adalora", lora_init="contrast", steps=4)
    with pytest.raises(HparamsError, match=r"lora_init.*random.*contrast"):
        LoRAHyperParams(model_name="tiny", lora_init="pissa")
    with pytest.raises(HparamsError, match="lora_init_ridge"):
        LoRAHyperParams(model_name="tiny", lora_init_ridge=0.0)


def test_the_plan_of_memory_counts_it():
    hparams = AdapterHyperParams(model_name=(make_llama(), None), dtype="float32", lora_init="contrast")
    planner = Planner(
        make_llama().config, hparams, Lengths(prompt=60, opening=0, answer=2), gpu=False, dtype=torch.float32
    )
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        planned = contrast_peak(adapted, planner).total
    positions = 2 * OTHERS_READ * 62 // 2  # every other one: there are more than POSITIONS
    inputs = positions * 4 * 2 * (32 + 32 + 32 + 64)  # bytes × layers × what their four inputs are wide
    assert inputs < planned < 3 * inputs
    planner.hparams.lora_init = "random"
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        assert contrast_peak(adapted, planner).total == 0
