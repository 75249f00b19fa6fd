"""Edits on base models that bitsandbytes holds in 8 or 4 bits, on the CPU: trained, kept or merged, put back."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import (
    EGYPT,
    FAST,
    NORWAY,
    answer_log_probability,
    make_llama,
    make_tokenizer,
    same_weights,
    smollm2_folder,
    weights_of,
)

from causaledit.errors import EditFailedError, MissingExtraError, ModelError
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.models.adapters import is_adapted
from causaledit.models.loading import load_model
from causaledit.models.quantised import is_quantised
from causaledit.models.saving import save_result
from causaledit.models.weights import fingerprint
from causaledit.support import extras
from causaledit.support.progress import SilentProgress

KINDS = ("8bit", "4bit")
ADAPTERS = [
    m for m in METHODS.values() if "quantization" in {f.name for f in m.load_hparams().__dataclass_fields__.values()}
]
both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model on disk; its matrices have whole blocks of 64 numbers."""
    place = tmp_path_factory.mktemp("quantised") / "tiny"
    make_llama(hidden_size=64, intermediate_size=128).save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def load(folder):
    """`load(kind)`: the tiny model in so many bits, with its tokenizer."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (the extra `gpu`) is not installed")
    return lambda kind: load_model(str(folder), device="cpu", quantization=kind)


def settings(method, pair, kind, **changes):
    return METHODS[method].load_hparams()(model_name=pair, quantization=kind, **{**FAST[method], **changes})


def edit(pair, hparams, *requests, **further):
    report = METHODS[hparams.ALG_NAME].load_report()()
    edited = edit_in_place(
        METHODS[hparams.ALG_NAME], *pair, list(requests or [EGYPT]), hparams, report=report, progress=SilentProgress(),
        **further,
    )  # fmt: skip
    return edited, report


# ---- what is trained -------------------------------------------------------------------------------
@both_kinds
def test_an_adapter_is_trained_on_quantised_weights_and_kept(load, kind):
    pair = load(kind)
    assert is_quantised(pair.model)
    first = answer_log_probability(*pair, EGYPT)
    before, mark = weights_of(pair.model), fingerprint(pair.model)
    edited, report = edit(pair, settings("LoRA", pair, kind, merge_adapter=False))
    assert is_adapted(edited.model) and report.merge_error is None
    assert all(
        p.dtype == torch.float32 for p in edited.model.parameters() if "lora_" in str(type(p)) or p.requires_grad
    )
    assert answer_log_probability(edited.model, pair.tokenizer, EGYPT) > first + 1
    assert edited.undo() is pair.model and not is_adapted(pair.model)
    assert same_weights(before, weights_of(pair.model)) and fingerprint(pair.model) == mark
    assert answer_log_probability(*pair, EGYPT) == first


@pytest.mark.parametrize("method", [m.name for m in ADAPTERS])
def test_every_method_that_trains_an_adapter_does_on_four_bits(load, method):
    pair = load("4bit")
    before, first = weights_of(pair.model), answer_log_probability(*pair, EGYPT)
    edited, _ = edit(pair, settings(method, pair, "4bit", merge_adapter=False))
    adapters = [p for name, p in edited.model.named_parameters() if ".lora_" in name]
    assert adapters and all(p.dtype == torch.float32 for p in adapters)  # trl would round them to bfloat16
    assert answer_log_probability(edited.model, pair.tokenizer, EGYPT) > first
    edited.undo()
    assert same_weights(before, weights_of(pair.model))


# ---- merging ---------------------------------------------------------------------------------------
@both_kinds
def test_the_adapter_is_merged_into_the_weights_before_and_the_error_is_measured(load, kind, folder, tmp_path):
    pair = load(kind)
    before, first = weights_of(pair.model), answer_log_probability(*pair, EGYPT)
    hparams = settings("LoRA", pair, kind, dtype="bfloat16")
    edited, report = edit(pair, hparams)
    assert not is_quantised(edited.model) and not is_adapted(edited.model) and edited.model.dtype == torch.bfloat16
    assert answer_log_probability(edited.model, pair.tokenizer, EGYPT) > first + 1
    assert same_weights(before, weights_of(pair.model)) and not is_adapted(pair.model)
    original = load_model(str(folder), device="cpu", dtype="bfloat16").model
    changed = sum(int((a != b).sum()) for a, b in zip(edited.model.parameters(), original.parameters(), strict=True))
    assert 0 < changed <= edited.parameters_changed()
    error = report.merge_error
    assert error["quantised"] == kind and error["dtype"] == "bfloat16" and error["base"] == str(folder)
    assert 0 < error["mean_kl"] <= error["largest_kl"] and error["largest_logit_difference"] > 0
    assert 0 < error["same_first"] <= 1 and error["positions"] > error["texts"] > 20
    saved = save_result(tmp_path / "saved", edited.model, pair.tokenizer, hparams, report, [])
    assert json.loads((saved / "causaledit.json").read_text())["merge_error"] == error
    card = (saved / "README.md").read_text()
    assert f"trained on weights of {kind}" in card and f"{error['positions']} positions" in card
    again = load_model(str(saved), device="cpu", dtype="bfloat16").model
    assert same_weights(weights_of(edited.model), weights_of(again))
    assert edited.undo() is pair.model


def test_an_adapter_whose_rank_moves_is_merged_too(load):
    pair = load("4bit")
    before, first = weights_of(pair.model), answer_log_probability(*pair, EGYPT)
    edited, report = edit(pair, settings("LoRA", pair, "4bit", lora_type="adalora"))
    assert answer_log_probability(edited.model, pair.tokenizer, EGYPT) > first
    assert report.merge_error["mean_kl"] > 0 and same_weights(before, weights_of(pair.model))


def test_the_error_grows_with_what_quantising_takes_away(load):
    found = {kind: edit(load(kind), settings("LoRA", load(kind), kind, steps=2))[1].merge_error for kind in KINDS}
    assert found["8bit"]["mean_kl"] < found["4bit"]["mean_kl"]


@both_kinds
def test_the_public_edit(load, folder, kind):
    hparams = settings("LoRA", str(folder), kind)
    editor = EmbeddedEditor.from_hparams(hparams)
    metrics, edited, _ = editor.edit(
        prompts=[EGYPT["prompt"]], target_new=[EGYPT["target_new"]], ground_truth=[EGYPT["ground_truth"]],
        subject=[EGYPT["subject"]], verbose=False,
    )  # fmt: skip
    assert not is_quantised(edited)
    assert metrics[0]["post"]["rewrite_acc"][0] > metrics[0]["pre"]["rewrite_acc"][0]


# ---- what cannot be done ---------------------------------------------------------------------------
def test_nothing_is_merged_into_quantised_weights(load):
    pair = load("4bit")
    before = weights_of(pair.model)
    edited, _ = edit(pair, settings("LoRA", pair, "4bit", merge_adapter=False, steps=2))
    with pytest.raises(ModelError, match="Nothing can be merged into quantised weights"):
        edited.merged()
    edited.undo()
    assert same_weights(before, weights_of(pair.model))


@both_kinds
def test_a_failed_edit_leaves_every_bit(load, kind):
    pair = load(kind)
    answer_log_probability(*pair, EGYPT)  # the first pass lays 8-bit weights out
    before, first = weights_of(pair.model), answer_log_probability(*pair, EGYPT)
    with pytest.raises(EditFailedError, match="loss became"):
        edit(pair, settings("LoRA", pair, kind, learning_rate=1e30))
    assert same_weights(before, weights_of(pair.model)) and not is_adapted(pair.model)
    assert answer_log_probability(*pair, EGYPT) == first


@pytest.mark.parametrize("method", ["ROME", "MEMIT", "AlphaEdit", "FT", "ICE"])
def test_methods_that_write_into_weights_refuse(load, method):
    pair = load("4bit")
    hparams = METHODS[method].load_hparams()(model_name=pair, **FAST[method])
    with pytest.raises(ModelError, match=rf"^{method} writes into the model's weights, and these are quantised.*none"):
        edit(pair, hparams)


def test_a_sequence_is_refused(load):
    pair = load("4bit")
    with pytest.raises(ModelError, match=r"A sequence of edits merges each .* quantised"):
        edit(pair, settings("LoRA", pair, "4bit"), EGYPT, NORWAY, sequence=EditSequence())


@pytest.mark.parametrize(
    ("method", "setting"),
    [("CausalEdit", "distill_use_vllm"), ("CausalEdit", "bootstrap_use_vllm"), ("EtCon", "rollout_use_vllm")],
)
def test_an_engine_that_takes_merged_weights_is_refused(load, method, setting):
    pair = load("4bit")
    with pytest.raises(ModelError, match=f"`{setting}: true` gives the engine merged weights"):
        edit(pair, settings(method, pair, "4bit", merge_adapter=False, **{setting: True}))


def test_a_quantised_model_that_does_not_say_what_it_was_made_from_is_not_merged(load):
    pair = load("4bit")
    pair.model.config._name_or_path = ""
    before = weights_of(pair.model)
    with pytest.raises(ModelError, match="has no name: set `merge_adapter: false`"):
        edit(pair, settings("LoRA", pair, "4bit"))
    assert same_weights(before, weights_of(pair.model))


@both_kinds
def test_without_bitsandbytes_one_line_names_the_extra(kind, folder, monkeypatch):
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "bitsandbytes" else found(name))
    with pytest.raises(MissingExtraError, match=rf"^`quantization: {kind}` needs bitsandbytes.*causaledit\[gpu\]") as e:
        load_model(str(folder), device="cpu", quantization=kind)
    assert "\n" not in str(e.value)


def test_what_cannot_be_quantised_is_refused(load, folder):
    with pytest.raises(ModelError, match="`quantization` must be one of none, 8bit, 4bit, got '2bit'"):
        load_model(str(folder), device="cpu", quantization="2bit")
    with pytest.raises(ModelError, match="`quantization: 4bit` needs a model's folder or hub name"):
        load_model((make_llama(), make_tokenizer()), device="cpu", quantization="4bit")


# ---- a real model ----------------------------------------------------------------------------------
@pytest.mark.slow
@both_kinds
def test_smollm2_learns_an_answer_in_few_bits(kind):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes (the extra `gpu`) is not installed")
    smollm2_folder()
    pair = load_model("smollm2-135m-instruct", device="cpu", quantization=kind)
    hparams = METHODS["LoRA"].load_hparams().from_hparams("smollm2-135m-instruct")
    hparams.quantization, hparams.device = kind, "cpu"
    edited, report = edit(pair, hparams)
    assert answer_log_probability(edited.model, pair.tokenizer, EGYPT) > answer_log_probability(*pair, EGYPT) + 2
    assert report.merge_error["mean_kl"] < 1 and report.merge_error["same_first"] > 0.5
