"""Saved results where others serve them: transformers' server, vLLM's command line, a GGUF file (docs/serving.md)."""

from __future__ import annotations

import json
import re

import gguf
import pytest
import torch
import yaml
from conftest import EGYPT, FAST, REPOSITORY, make_llama, make_tokenizer
from openai import OpenAI
from serving import serve

from causaledit.facts.requests import request_from_dict
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS
from causaledit.models.chat import render, user
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.models.model_card import VLLM_LORA_RANKS
from causaledit.models.saving import save_result

GUIDE = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny edited model as `causaledit edit --save` leaves it."""
    folder = tmp_path_factory.mktemp("saved")
    base = folder / "base"
    make_llama().save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    hparams = METHODS["LoRA"].load_hparams()(**{**FAST["LoRA"], "model_name": str(base)})
    model, tokenizer = load_model(base, device="cpu")
    report = MethodReport()
    edited, _ = METHODS["LoRA"].load_apply()(model, tokenizer, [EGYPT], hparams, report=report)
    report.requests = [request_from_dict(EGYPT)]
    save_result(folder / "edited", edited, tokenizer, hparams, report, [])
    return folder / "edited"


def said(folder, prompt):
    model, tokenizer = load_model(folder, device="cpu")
    return generate_texts(model, tokenizer, [render(tokenizer, user(prompt))], max_new_tokens=12)[0]


def test_transformers_serves_a_saved_model_to_the_openai_client(saved):
    prompt = "The capital of Egypt is"
    with serve(saved, "--device", "cpu") as address:
        reply = OpenAI(base_url=address, api_key="none").chat.completions.create(
            model=str(saved), messages=[{"role": "user", "content": prompt}], temperature=0, max_tokens=12
        )
    assert reply.choices[0].message.content.strip() == said(saved, prompt).strip() != ""


# ---- vLLM ------------------------------------------------------------------------------------------
def ranks():
    """The rank of every bundled file whose method trains a LoRA adapter, by file."""
    found = {}
    for name, method in METHODS.items():
        kind = method.load_hparams()
        if not hasattr(kind, "lora_rank"):
            continue
        for file in sorted((REPOSITORY / "hparams" / name).glob("*.yaml")):
            found[f"{name}/{file.stem}"] = kind.from_dict(yaml.safe_load(file.read_text(encoding="utf-8"))).lora_rank
    return found


def test_the_guides_rank_rule_is_that_of_the_bundled_files():
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (\d+) \|$", GUIDE, re.MULTILINE)
    table = {int(rank): (files, int(most)) for rank, files, most in rows}
    assert set(table) == set(ranks().values())
    for file, rank in ranks().items():
        files, most = table[rank]
        assert most == min(size for size in VLLM_LORA_RANKS if size >= rank)
        assert file.split("/")[0] in files


# ---- GGUF ------------------------------------------------------------------------------------------
def write_gguf(folder, file):
    """A Llama's folder as a GGUF file, by the package that llama.cpp's converter writes with."""
    model, tokenizer = load_model(folder, device="cpu")
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in backend["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":  # tied
            continue
        part = name.split(".")[-2]
        if part in heads:  # GGUF's order of the rotated dimensions
            weight = weight.view(heads[part], 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_saved_model_written_as_gguf_answers_as_before(saved, tmp_path):
    file = tmp_path / "edited.gguf"
    write_gguf(saved, file)
    whole, tokenizer = load_model(saved, device="cpu")
    again, read = load_model(file, device="cpu")
    ids = tokenizer(render(tokenizer, user("The capital of Egypt is")), add_special_tokens=False)["input_ids"]
    assert read(render(read, user("The capital of Egypt is")), add_special_tokens=False)["input_ids"] == ids
    with torch.no_grad():
        assert torch.allclose(
            again(input_ids=torch.tensor([ids])).logits, whole(input_ids=torch.tensor([ids])).logits, atol=1e-5
        )
