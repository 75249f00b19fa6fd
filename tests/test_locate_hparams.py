"""Hyper-parameters of ROME, MEMIT and AlphaEdit."""

from __future__ import annotations

import json

import pytest
import yaml
from conftest import (
    REPOSITORY,
)
from locate import LOCATE

from causaledit.errors import HparamsError
from causaledit.methods.alphaedit.apply import apply_alphaedit_to_model
from causaledit.methods.alphaedit.hparams import AlphaEditHyperParams
from causaledit.methods.memit.apply import apply_memit_to_model
from causaledit.methods.memit.hparams import MEMITHyperParams
from causaledit.methods.registry import METHODS
from causaledit.methods.rome.apply import apply_rome_to_model
from causaledit.methods.rome.hparams import ROMEHyperParams

pytestmark = pytest.mark.usefixtures("own_files")


# ---- hyper-parameters ------------------------------------------------------------------------------
CLASSES = {"ROME": ROMEHyperParams, "MEMIT": MEMITHyperParams, "AlphaEdit": AlphaEditHyperParams}
FILES = [(name, file) for name in LOCATE for file in sorted((REPOSITORY / "hparams" / name).glob("*.yaml"))]
EASYEDIT = {
    "model_name": "x", "stats_dir": "./data/stats", "device": 0, "layers": [4], "fact_token": "subject_last",
    "v_num_grad_steps": 20, "v_lr": "5e-1", "v_loss_layer": 27, "v_weight_decay": "1e-3", "clamp_norm_factor": 4,
    "kl_factor": 0.0625, "mom2_adjustment": True, "context_template_length_params": [[5, 10], [10, 10]],
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm", "lm_head_module": "lm_head", "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000, "mom2_dtype": "float32", "model_parallel": False, "fp16": False,
}  # fmt: skip
SPREAD = {"layer_selection": "all", "mom2_update_weight": 15000}
PROJECTED = {"nullspace_threshold": "2e-2", "L2": 10, "P_loc": "./null_space_project.pt"}


@pytest.mark.parametrize(("name", "file"), FILES, ids=[f"{name}-{file.stem}" for name, file in FILES])
def test_bundled_files(name, file):
    hparams = CLASSES[name].from_hparams(file.stem)
    assert hparams == CLASSES[name].from_hparams(file)
    assert hparams.alg_name == yaml.safe_load(file.read_text("utf-8"))["alg_name"] == name
    assert CLASSES[name].from_dict(json.loads(json.dumps(hparams.to_dict()))) == hparams


def test_every_method_has_its_files():
    for name in LOCATE:
        assert {f.stem for n, f in FILES if n == name} == {
            "smollm2-135m-instruct", "qwen2.5-7b-instruct", "llama3.1-8b-instruct", "gpt2",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more"), [("ROME", {}), ("MEMIT", SPREAD), ("AlphaEdit", {**SPREAD, **PROJECTED})], ids=LOCATE
)
def test_easyedits_files_load_unchanged(name, more, tmp_path):
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump({"alg_name": name, **EASYEDIT, **more}), "utf-8")
    hparams = CLASSES[name].from_hparams(file)
    assert (hparams.v_lr, hparams.v_weight_decay, hparams.v_loss_layer) == (0.5, 1e-3, 27)
    assert hparams.context_template_length_params == [[5, 10], [10, 10]]
    if name == "AlphaEdit":
        assert (hparams.nullspace_threshold, hparams.L2) == (0.02, 10)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("ROME", {"layers": [4, 5]}, ["`layers`", "one layer", "[4, 5]"]),
        ("MEMIT", {"layers": [4, 4]}, ["`layers`", "[4, 4]"]),
        ("MEMIT", {"layers": "all"}, ["`layers`", "'all'"]),
        ("MEMIT", {"layer_selection": "random"}, ["layer_selection", "'random'"]),
        ("MEMIT", {"mom2_update_wieght": 1}, ["mom2_update_wieght", "mom2_update_weight"]),
        ("ROME", {"fact_token": "subject_middle"}, ["fact_token", "subject_last", "'subject_middle'"]),
        ("ROME", {"v_lr": 0}, ["v_lr", "above 0"]),
        ("ROME", {"context_template_length_params": [5, 10]}, ["context_template_length_params", "[5, 10]"]),
        ("ROME", {"rewrite_module_tmp": "model.down_proj"}, ["rewrite_module_tmp", "{}"]),
        ("AlphaEdit", {"L2": 0}, ["L2", "above 0"]),
        ("AlphaEdit", {"nullspace_threshold": -1}, ["nullspace_threshold", "-1"]),
    ],
)
def test_refused_hyper_parameters(name, change, words):
    with pytest.raises(HparamsError) as caught:
        CLASSES[name].from_dict({"alg_name": name, "model_name": "x", **change})
    for word in words:
        assert word in str(caught.value)


def test_layers_are_written_from_the_lowest_on():
    assert MEMITHyperParams(layers=[5, 3, 4]).layers == [3, 4, 5]


def test_the_apply_functions_are_those_of_the_registry():
    assert [METHODS[name].load_apply() for name in LOCATE] == [
        apply_rome_to_model, apply_memit_to_model, apply_alphaedit_to_model,
    ]  # fmt: skip
