"""Model folders as clones, broken downloads and other people's code leave them: one line that names file and fix."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from conftest import make_llama, make_tokenizer
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from causaledit.errors import ModelError
from causaledit.models.adapters import name_base_model
from causaledit.models.loading import load_model
from causaledit.models.quantised import is_quantised

needs_bitsandbytes = pytest.mark.skipif(not importlib.util.find_spec("bitsandbytes"), reason="no bitsandbytes")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 140416\n"


@pytest.fixture
def folder(tiny_model_folder, tmp_path):
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "sharded"
    make_llama(num_hidden_layers=3).save_pretrained(folder, max_shard_size="40KB")
    make_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def refused(folder, *told):
    with pytest.raises(ModelError) as caught:
        load_model(folder, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    for text in told:
        assert text in message
    return message


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.fixture
def adapter(folder, tmp_path):
    saved = tmp_path / "adapter"
    model = get_peft_model(load_model(folder, device="cpu").model, LoraConfig(target_modules=["q_proj"]))
    name_base_model(model, str(folder))
    model.save_pretrained(saved)
    return saved


@pytest.mark.parametrize(
    ("options", "has"),
    [
        ({"dtype": "bfloat16"}, lambda base: base.dtype == torch.bfloat16),
        pytest.param({"quantization": "8bit"}, is_quantised, marks=needs_bitsandbytes),
    ],
    ids=["dtype", "quantization"],
)
def test_an_adapters_base_model_is_loaded_as_it_is_asked_for(adapter, options, has):
    loaded = load_model(adapter, device="cpu", **options).model
    assert has(loaded.get_base_model())
    assert loaded.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2).shape[1] > 3


def test_whole_folders_load(folder, sharded):
    load_model(folder, device="cpu")
    load_model(sharded, device="cpu")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs(folder, name):
    (folder / name).write_text(POINTER, encoding="utf-8")
    refused(folder, str(folder / name), "Git LFS", "git lfs pull")


@pytest.mark.parametrize("kept", [0, 4, 20, 5000, -1])
def test_a_file_that_was_cut_off(folder, kept):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    refused(folder, str(file), "download it again")


def test_a_file_that_is_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"<!DOCTYPE html><html><body>Not found</body></html>" * 9)
    refused(folder, "model.safetensors", "damaged")


def test_a_shard_that_is_cut_off_or_missing(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-9])
    refused(sharded, str(shard), "bytes of")
    shard.unlink()
    refused(sharded, str(shard), "is missing", "model.safetensors.index.json")


def test_a_file_that_is_not_read_may_be_a_pointer(folder):
    (folder / "pytorch_model.bin").write_text(POINTER, encoding="utf-8")
    (folder / "flax_model.msgpack").write_text(POINTER, encoding="utf-8")
    load_model(folder, device="cpu")


def test_weights_that_are_missing_or_of_another_shape_are_not_left_random(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, file, {"format": "pt"})
    refused(folder, "not whole", "model.layers.0.mlp.up_proj.weight")
    change(folder / "config.json", intermediate_size=48)
    refused(folder, "another shape", "down_proj")


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors")


def test_an_unpickled_file(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage")
    refused(folder, str(folder))


def test_a_missing_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    refused(folder, "tokenizer.save_pretrained", "(model, tokenizer)")


def test_code_of_its_own_is_not_run_and_not_asked_for(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    change(folder / "config.json", model_type="own", auto_map={
        "AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel",
    })  # fmt: skip
    (folder / "configuration_own.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    (folder / "modeling_own.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    refused(folder, "code of its own", "trust_remote_code=True", "(model, tokenizer)")


def test_an_architecture_that_transformers_does_not_know(folder):
    change(folder / "config.json", model_type="unheard_of", architectures=["UnheardOfForCausalLM"])
    refused(folder, "unheard_of")


@pytest.mark.parametrize("content", [POINTER.encode(), b"GGUF\x03\x00", b"", b"other"])
def test_a_gguf_file_that_is_none(tmp_path, content):
    (tmp_path / "model.gguf").write_bytes(content)
    refused(tmp_path / "model.gguf", str(tmp_path / "model.gguf"))


def test_an_adapter_of_which_the_file_is_a_pointer(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_text(POINTER, encoding="utf-8")
    refused(tmp_path, "adapter_model.safetensors", "git lfs pull")
    (tmp_path / "adapter_model.safetensors").unlink()
    refused(tmp_path, "no base model", "base_model_name_or_path")
