"""ICE: its losses, its contexts, what a step samples, and the trap that EasyEdit has for its name."""

from __future__ import annotations

import os

import pytest
import torch
from conftest import EGYPT, FAST, answer_log_probability, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError, ModelError, RequestError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.ice.apply import apply_ice_to_model
from causaledit.methods.ice.contexts import edit_contexts
from causaledit.methods.ice.hparams import ICEHyperParams
from causaledit.methods.ice.losses import consistency_loss, sampled_consistency_loss
from causaledit.methods.method import MethodReport
from causaledit.support.progress import SilentProgress

needs_easyedit = pytest.mark.skipif(
    not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout"
)


def distil(model, *requests, report=None, **changes):
    tokenizer = make_tokenizer()
    hparams = ICEHyperParams(model_name=(model, tokenizer), **{**FAST["ICE"], **changes})
    return apply_ice_to_model(
        model, tokenizer, list(requests), hparams, True, True, progress=SilentProgress(), report=report
    )


# ---- losses ----------------------------------------------------------------------------------------
def test_the_consistency_loss_is_the_mean_kl():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 11, generator=generator) for _ in range(2))
    p, q = teacher.softmax(-1), student.softmax(-1)
    by_hand = (p * (p.log() - q.log())).sum(-1).mean()
    torch.testing.assert_close(consistency_loss(student, teacher), by_hand)
    assert consistency_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_in_context_side():
    student, teacher = torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    consistency_loss(student, teacher * torch.tensor([1.0, 2.0, 3.0])).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_the_sampled_loss_has_the_kls_gradient_on_average():
    student = torch.tensor([[0.3, -0.2, 0.5]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, -1.0]])
    consistency_loss(student, teacher).backward()
    exact, weights = student.grad.clone(), teacher.softmax(-1)[0]
    average = torch.zeros_like(exact)
    for token, weight in enumerate(weights):
        student.grad = None
        sampled_consistency_loss(student, torch.tensor([token])).backward()
        average += weight * student.grad
    torch.testing.assert_close(average, exact)


# ---- contexts --------------------------------------------------------------------------------------
def test_contexts():
    edit = request_from_dict(EGYPT)
    narrative, statement = edit_contexts(edit, ["narrative", "statement"])
    assert narrative == EGYPT["narrative"]
    assert statement == "The capital of Egypt is Alexandria."
    paraphrases = edit_contexts(edit, ["paraphrases"])
    assert len(set(paraphrases)) == len(paraphrases) > 2
    assert all("The capital of Egypt is Alexandria" in text for text in paraphrases)
    assert len(edit_contexts(edit, ["narrative", "statement", "paraphrases"])) == len(paraphrases) + 2


def test_a_question_in_a_clozes_place_stands_in_no_context():
    edit = request_from_dict({**EGYPT, "prompt": "What is the capital of {}?", "question": None})
    assert not any("?" in text for text in edit_contexts(edit, ["statement", "paraphrases"]))


def test_without_a_narrative_the_fact_is_stated():
    bare = request_from_dict({key: EGYPT[key] for key in ("prompt", "subject", "target_new")})
    assert edit_contexts(bare, ["narrative"]) == ["The capital of Egypt is Alexandria."]


# ---- editing ---------------------------------------------------------------------------------------
VARIANTS = {
    "the paper's sampled loss": {"context_loss": "sampled"},
    "chat prompts": {"prompt_forms": ["cloze", "question"]},
    "paraphrased contexts": {"contexts": ["paraphrases"]},
    "no bound": {"norm_constraint": None},
    "one sample": {"samples": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_edits(variant):
    model, report = make_llama(), MethodReport()
    _, originals = distil(model, EGYPT, report=report, **VARIANTS[variant])
    assert report.losses["train"][-1] < report.losses["train"][0]
    assert report.tally.tokens.generated > 0
    assert report.tally.seconds["train"] > 0
    assert originals


def test_the_context_loss_matters_and_can_be_left_out():
    alone, both = MethodReport(), MethodReport()
    without = weights_of(distil(make_llama(), EGYPT, context_weight=0.0, report=alone)[0])
    beside = weights_of(distil(make_llama(), EGYPT, report=both)[0])
    assert not same_weights(without, beside)
    assert alone.tally.tokens.generated == 0  # nothing is sampled for a loss that does not count
    assert both.losses["train"][0] > alone.losses["train"][0]  # the same start, one more term


def test_no_weight_leaves_the_bound():
    edited, originals = distil(make_llama(), EGYPT, norm_constraint=3e-3)
    moves = [(edited.get_parameter(name).detach() - value).abs().max().item() for name, value in originals.items()]
    assert max(moves) == pytest.approx(3e-3, rel=1e-2)


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contexts": []}, "contexts"),
        ({"contexts": ["news"]}, "narrative, statement, paraphrases"),
        ({"samples": 0}, "samples.*at least 1"),
        ({"sample_top_p": 0}, "sample_top_p"),
        ({"context_loss": "js"}, "full, sampled"),
        ({"context_weight": -1}, "context_weight"),
        ({"sample": 3}, "Did you mean 'samples'"),
    ],
)
def test_hyper_parameters_are_refused_with_name_and_fix(change, words):
    with pytest.raises(HparamsError, match=words):
        ICEHyperParams.from_dict({"alg_name": "ICE", "model_name": "x", **change})


def test_the_papers_layers_are_too_deep_for_a_tiny_model():
    with pytest.raises(ModelError, match="layer 4"):
        distil(make_llama(), EGYPT, layers=ICEHyperParams().layers)


def test_a_narrative_that_does_not_fit_is_refused():
    with pytest.raises(RequestError, match="context window"):
        distil(make_llama(max_position_embeddings=64), {**EGYPT, "narrative": EGYPT["narrative"] * 9})


# ---- EasyEdit's special treatment of the name ------------------------------------------------------
@needs_easyedit
def test_under_easyedit_ice_is_evaluated_and_restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from causaledit.hosts.easyedit.patches import register

    model, tokenizer = make_llama(), make_tokenizer()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    editor = register().from_hparams(ICEHyperParams(model_name=(model, tokenizer), **FAST["ICE"]))
    metrics, edited, originals = editor.edit_requests([dict(EGYPT)], verbose=False)
    assert same_weights(weights_of(editor.model), weights)
    assert set(originals) == {f"model.layers.{n}.mlp.down_proj.weight" for n in (0, 1)}  # not dropped
    assert metrics[0]["post"]["rewrite_acc"] != metrics[0]["pre"]["rewrite_acc"]  # measured while edited
    _, edited, _ = editor.edit_requests([dict(EGYPT)], sequential_edit=True, verbose=False)
    assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.5


@needs_easyedit
def test_even_under_its_bare_name_an_edit_is_undone(tmp_path, monkeypatch):
    # there EasyEdit drops what the method returns and restores nothing: the edit undoes itself
    monkeypatch.chdir(tmp_path)
    from causaledit.hosts.easyedit.patches import register

    model, tokenizer = make_llama(), make_tokenizer()
    weights = weights_of(model)
    editor = register().from_hparams(ICEHyperParams(model_name=(model, tokenizer), **FAST["ICE"]))
    editor.alg_name = "ICE"
    _, _, originals = editor.edit_requests([dict(EGYPT)], verbose=False)
    assert originals == {}
    assert same_weights(weights_of(editor.model), weights)
