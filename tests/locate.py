"""What the tests of ROME, MEMIT and AlphaEdit share: fast settings, edits, and states read by hand."""

from __future__ import annotations

import torch
from conftest import (
    FAST,
    make_gpt2,
    make_llama,
    make_opt,
    make_qwen3,
    make_tokenizer,
)

from causaledit.facts.requests import request_from_dict
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.locate_edit.covariance import moments_for
from causaledit.methods.shared.locate_edit.editor import LocateEditor, LocateEditReport
from causaledit.methods.shared.locate_edit.stored import Moment
from causaledit.models.layout import find_layout
from causaledit.support.progress import SilentProgress

LOCATE = ("ROME", "MEMIT", "AlphaEdit")
DEFAULTS = {"fact_token": "subject_last"}
TEXT = "The capital of Egypt is Cairo.\n\nThe capital of Norway is Oslo, and parliament voted to move.\n\n"


def hparams_for(name, **changes):
    return METHODS[name].load_hparams()(**{**FAST[name], **DEFAULTS, **changes})


def apply(name, model, *requests, **changes):
    options = {key: changes.pop(key) for key in ("sequence", "report") if key in changes}
    return METHODS[name].load_apply()(
        model, make_tokenizer(), list(requests), hparams_for(name, **changes), return_orig_weights=True,
        progress=SilentProgress(), **options,
    )  # fmt: skip


def editor_for(name, model, **changes):
    hparams = hparams_for(name, **changes)
    return LocateEditor(
        model, make_tokenizer(), find_layout(model, hparams), hparams,
        progress=SilentProgress(), report=LocateEditReport(),
    )  # fmt: skip


def edits(*requests):
    return [request_from_dict(request) for request in requests]


def states_by_hand(model, module, text, at):
    """A module's input and output at one token of a text, by one plain forward pass."""
    seen = {}
    handle = module.register_forward_hook(lambda _, args, out: seen.update(i=args[0][0, at], o=out[0, at]))
    with torch.no_grad():
        model(input_ids=torch.tensor([make_tokenizer()(text)["input_ids"]]))
    handle.remove()
    return seen["i"], seen["o"]


def random_moment(n=12, count=100, seed=0):
    torch.manual_seed(seed)
    keys = torch.randn(count, n, dtype=torch.double)
    return Moment(keys.T @ keys / count, count, "a test")


class InterruptAt:
    """Ctrl-C in the n-th forward pass."""

    def __init__(self, model, number):
        self.model, self.left = model, number

    def __enter__(self):
        self.handle = self.model.get_input_embeddings().register_forward_pre_hook(self.look)

    def __exit__(self, *exc):
        self.handle.remove()

    def look(self, *args):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def find_moments(model, **changes):
    hparams = hparams_for("MEMIT", **{"layers": [0, 1], "stats_cache": True, "mom2_memory_gb": 1e-9, **changes})
    return moments_for(model, make_tokenizer(), find_layout(model, hparams), hparams.layers, hparams, SilentProgress())


def architectures():
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        GPTJConfig,
        GPTJForCausalLM,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        MptConfig,
        MptForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    new = {"vocab_size": len(make_tokenizer()), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
           "num_attention_heads": 2, "initializer_range": 0.1}  # fmt: skip
    grouped = {**new, "num_key_value_heads": 1}
    old = {"vocab_size": len(make_tokenizer()), "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8}
    llama = ("model.layers.{}", "mlp.down_proj", "model.norm")
    return {
        "llama": (make_llama, llama),
        "qwen2": (lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)), llama),
        "qwen3": (make_qwen3, llama),
        "mistral": (lambda: MistralForCausalLM(MistralConfig(**grouped)), llama),
        "narrow mistral": (lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=8)), llama),
        "gemma": (lambda: GemmaForCausalLM(GemmaConfig(**grouped, head_dim=16)), llama),
        "opt": (make_opt, ("model.decoder.layers.{}", "fc2", "model.decoder.final_layer_norm")),
        "mpt": (
            lambda: MptForCausalLM(
                MptConfig(
                    vocab_size=len(make_tokenizer()),
                    d_model=32,
                    n_layers=2,
                    n_heads=2,
                    expansion_ratio=2,
                    initializer_range=0.1,
                )
            ),
            ("transformer.blocks.{}", "ffn.down_proj", "transformer.norm_f"),
        ),
        "gpt2": (make_gpt2, ("transformer.h.{}", "mlp.c_proj", "transformer.ln_f")),
        "gptj": (
            lambda: GPTJForCausalLM(GPTJConfig(**old)),
            ("transformer.h.{}", "mlp.fc_out", "transformer.ln_f"),
        ),
        "neox": (
            lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**new)),
            ("gpt_neox.layers.{}", "mlp.dense_4h_to_h", "gpt_neox.final_layer_norm"),
        ),
    }


ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral", "narrow mistral", "gemma", "opt", "gpt2", "gptj", "neox", "mpt"]
