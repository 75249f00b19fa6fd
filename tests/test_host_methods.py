"""Whose method a name means: EasyEdit's own where it is importable and has one, ours otherwise."""

from __future__ import annotations

import os

import pytest
import torch
import yaml
from conftest import (
    EGYPT,
    FAST,
    answer_log_probability,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)

from causaledit.errors import HostError, HparamsError
from causaledit.hosts.lookup import get_method
from causaledit.methods.ft.hparams import FTHyperParams
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS, method_of
from causaledit.models.edited import undo_edit

needs_easyedit = pytest.mark.skipif(
    not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout"
)

# A file in EasyEdit's format.
THEIR_FT = """
alg_name: "FT"
model_name: "x"
device: 0
layers: [1]
num_steps: 15
batch_size: 1
max_length: 40
lr: 1e-2
weight_decay: 0
kl_factor: 0
norm_constraint: false
objective_optimization: "target_new"
rewrite_module_tmp: "model.layers.{}.mlp.down_proj.weight"
layer_module_tmp: "model.layers.{}"
mlp_module_tmp: "model.layers.{}.mlp"
attn_module_tmp: "model.layers.{}.self_attn"
ln_f_module: "model.norm"
lm_head_module: "lm_head"
model_parallel: false
"""


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs


@pytest.mark.parametrize("name", METHODS)
def test_on_the_embedded_host_every_method_is_ours(name):
    assert get_method(name, host="embedded") is METHODS[name]


def test_without_easyedit_ours_are_taken(monkeypatch):
    monkeypatch.setattr("causaledit.hosts.easyedit.is_available", lambda: False)
    assert get_method("FT") is METHODS["FT"]
    with pytest.raises(HostError, match="'WISE'"):
        get_method("WISE")


def test_hyper_parameters_say_whose_method_they_are():
    assert method_of(FTHyperParams()) is METHODS["FT"]
    assert method_of(object()) is None
    for method in METHODS.values():
        assert method_of(method.load_hparams()()) is method


@needs_easyedit
def test_with_easyedit_its_own_are_taken():
    assert get_method("CausalEdit") is METHODS["CausalEdit"]
    assert get_method("ICE") is METHODS["ICE"]  # EasyEdit has none
    for name, batched in (("ROME", False), ("MEMIT", True), ("WISE", False), ("LoRA", True), ("GRACE", False)):
        method = get_method(name)
        assert method is not METHODS.get(name)
        assert (method.name, method.batched) == (name, batched)
        assert method.load_hparams().__mro__[1].__module__.startswith("easyeditor.")
    with pytest.raises(HostError, match=r"'WIZE'.*Did you mean 'WISE'"):
        get_method("WIZE")
    with pytest.raises(HostError, match="'ICE'"):
        get_method("ICE", host="easyedit")


@needs_easyedit
def test_easyedits_ft_edits_through_our_calls_and_is_restored(tmp_path):
    from easyeditor import FTHyperParams as Theirs

    (tmp_path / "mine.yaml").write_text(THEIR_FT, encoding="utf-8")
    method = get_method("FT")
    hparams = method.load_hparams().from_hparams(tmp_path / "mine")
    assert isinstance(hparams, Theirs)
    assert (hparams.lr, hparams.num_steps) == (1e-2, 15)
    hparams.device = "cpu"
    model, tokenizer, report = make_llama(), make_tokenizer(), MethodReport()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    request = dict(EGYPT)
    edited, originals = method.load_apply()(
        model, tokenizer, [request], hparams, return_orig_weights=True, report=report
    )
    assert request == EGYPT
    assert set(originals) == {"model.layers.1.mlp.down_proj.weight"}
    assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.1
    assert report.tally.seconds["edit"] > 0
    assert same_weights(weights_of(undo_edit(model, edited, originals)), weights)
    assert not any(p.requires_grad is False for p in model.parameters())  # as it was


@needs_easyedit
def test_a_fault_in_easyedits_method_restores_the_model(tmp_path):
    (tmp_path / "mine.yaml").write_text(THEIR_FT, encoding="utf-8")
    method = get_method("FT")
    hparams = method.load_hparams().from_hparams(tmp_path / "mine.yaml")
    hparams.device = "cpu"
    model, left = make_llama(), [5]
    weights = weights_of(model)

    def fault(*args):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    handle = model.get_input_embeddings().register_forward_pre_hook(fault)
    with pytest.raises(KeyboardInterrupt):
        method.load_apply()(model, make_tokenizer(), [EGYPT], hparams)
    handle.remove()
    assert same_weights(weights_of(model), weights)


@needs_easyedit
def test_easyedits_hyper_parameters_are_checked(tmp_path):
    kind = get_method("FT").load_hparams()
    (tmp_path / "mine.yaml").write_text(THEIR_FT.replace("num_steps", "num_stepz"), encoding="utf-8")
    with pytest.raises(HparamsError, match=r"mine\.yaml.*num_stepz.*num_steps"):
        kind.from_hparams(tmp_path / "mine.yaml")
    with pytest.raises(HparamsError, match=r"'ROME'.*'FT'"):
        kind.from_dict({"alg_name": "ROME"})
    with pytest.raises(HparamsError, match=r"unknown key 'steps' for EasyEdit's FT"):
        kind.from_dict({"alg_name": "FT", "model_name": "x", "steps": 3})
    with pytest.raises(HparamsError, match=r"also needs.*lr.*EasyEdit's format"):
        kind.from_dict({"alg_name": "FT", "model_name": "x"})
    with_type = kind.from_dict({**yaml.safe_load(THEIR_FT), "dtype": "float32"})
    assert (with_type.dtype, with_type.lr) == ("float32", 1e-2)
    assert kind.from_hparams("llama3-8b").layers == [21]  # a name among the checkout's own files
    with pytest.raises(HparamsError, match=r"In EasyEdit's checkout: .*llama3-8b"):
        kind.from_hparams("no-such-model")


@needs_easyedit
def test_editors_run_the_method_whose_hyper_parameters_they_get(tmp_path):
    from causaledit.hosts.easyedit.patches import register

    editor = register().from_hparams(FTHyperParams(model_name=(make_llama(), make_tokenizer()), **FAST["FT"]))
    before = weights_of(editor.model)
    metrics, _, originals = editor.edit_requests([dict(EGYPT)], verbose=False)
    assert set(originals) == {f"model.layers.{n}.mlp.down_proj.weight" for n in (0, 1)}
    assert same_weights(weights_of(editor.model), before)
    assert all(torch.equal(before[name], value) for name, value in originals.items())
    assert len(metrics) == 1
