"""Tiny random models of many architectures, by what they carry from token to token.

Full attention, windows, positions of several kinds, state-space models, hybrids of both: what batches and shared
beginnings must come through unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers as hf

if TYPE_CHECKING:
    from collections.abc import Callable

VOCABULARY = 600
_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 3, "pad_token_id": 4}
_BODY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_IDS, **_BODY, "num_key_value_heads": 2, "max_position_embeddings": 2048}
_LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW = 16

_Build = tuple[str, str, dict[str, Any]]

# name → config class, model class, settings
_BUILDS: dict[str, _Build] = {
    # plain keys and values
    "Llama": ("LlamaConfig", "LlamaForCausalLM", _GROUPED),
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", {**_IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 2048}),
    "OPT": (
        "OPTConfig", "OPTForCausalLM",
        {**_IDS, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "word_embed_proj_dim": 32, "max_position_embeddings": 2048, "activation_function": "relu"},
    ),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "GPT-NeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_IDS, **_BODY, "max_position_embeddings": 2048}),
    "GPT-J": ("GPTJConfig", "GPTJForCausalLM", {**_IDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "Bloom": ("BloomConfig", "BloomForCausalLM", {**_IDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "MPT": ("MptConfig", "MptForCausalLM", {**_IDS, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2}),
    "Falcon, ALiBi": (
        "FalconConfig", "FalconForCausalLM",
        {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True,
         "new_decoder_architecture": False},
    ),
    "Phi": ("PhiConfig", "PhiForCausalLM", {**_IDS, **_BODY, "max_position_embeddings": 2048}),
    # windows
    "Mistral": ("MistralConfig", "MistralForCausalLM", {**_GROUPED, "sliding_window": WINDOW}),
    "GPT-Neo": (
        "GPTNeoConfig", "GPTNeoForCausalLM",
        {**_IDS, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": WINDOW,
         "attention_types": [[["local", "global"], 1]]},
    ),
    "Gemma 2": ("Gemma2Config", "Gemma2ForCausalLM", {**_GROUPED, "head_dim": 8, "sliding_window": WINDOW}),
    "Gemma 3": (
        "Gemma3TextConfig", "Gemma3ForCausalLM",
        {**_GROUPED, "head_dim": 8, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Cohere 2": (
        "Cohere2Config", "Cohere2ForCausalLM",
        {**_GROUPED, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "GPT-OSS": (
        "GptOssConfig", "GptOssForCausalLM",
        {**_GROUPED, "head_dim": 8, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "Llama 4": (
        "Llama4TextConfig", "Llama4ForCausalLM",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 2, "attention_chunk_size": WINDOW, "intermediate_size_mlp": 48,
         "layer_types": ["chunked_attention", "full_attention"], "no_rope_layers": [1, 0]},
    ),
    # states
    "Mamba": (
        "MambaConfig", "MambaForCausalLM", {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    "Mamba 2": (
        "Mamba2Config", "Mamba2ForCausalLM",
        {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "num_heads": 8, "head_dim": 8,
         "n_groups": 2, "chunk_size": 16},
    ),
    "FalconMamba": (
        "FalconMambaConfig", "FalconMambaForCausalLM",
        {**_IDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    ),
    # hybrids
    "Qwen3-Next": (
        "Qwen3NextConfig", "Qwen3NextForCausalLM",
        {**_GROUPED, **_LINEAR, **_EXPERTS, "head_dim": 8, "shared_expert_intermediate_size": 16,
         "layer_types": ["linear_attention", "full_attention"]},
    ),
    "Qwen3.5": (
        "Qwen3_5TextConfig", "Qwen3_5ForCausalLM",
        {**_GROUPED, **_LINEAR, "head_dim": 8, "layer_types": ["linear_attention", "full_attention"]},
    ),
    "LFM2": ("Lfm2Config", "Lfm2ForCausalLM", {**_GROUPED, "layer_types": ["conv", "full_attention"]}),
    "Jamba": (
        "JambaConfig", "JambaForCausalLM",
        {**_GROUPED, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
         "num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8, "use_mamba_kernels": False},
    ),
    "Zamba 2": (
        "Zamba2Config", "Zamba2ForCausalLM",
        {**_GROUPED, "num_key_value_heads": 4, "num_hidden_layers": 4, "mamba_d_state": 8, "n_mamba_heads": 8,
         "mamba_ngroups": 1, "chunk_size": 16, "adapter_rank": 4, "use_mem_rope": True, "num_mem_blocks": 1,
         "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"], "hybrid_layer_ids": [1, 3]},
    ),
    "Bamba": (
        "BambaConfig", "BambaForCausalLM",
        {**_GROUPED, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_chunk_size": 16,
         "attn_layer_indices": [1]},
    ),
    "Falcon-H1": (
        "FalconH1Config", "FalconH1ForCausalLM",
        {**_GROUPED, "head_dim": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64,
         "mamba_chunk_size": 16},
    ),
    "Granite 4": (
        "GraniteMoeHybridConfig", "GraniteMoeHybridForCausalLM",
        {**_GROUPED, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_chunk_size": 16,
         "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 16,
         "layer_types": ["mamba", "attention"]},
    ),
    "RecurrentGemma": (
        "RecurrentGemmaConfig", "RecurrentGemmaForCausalLM",
        {**_IDS, **_BODY, "num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 8, "lru_width": 32,
         "attention_window_size": 64},
    ),
}  # fmt: skip


def _make(config: str, model: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    built = getattr(hf, model)(getattr(hf, config)(**settings)).eval()
    with torch.no_grad():  # with the usual small weights a tiny model says nearly the same everywhere
        for parameter in built.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
            else:  # biases start at zero, which hides what padding does to a state
                parameter.add_(0.3 * torch.randn_like(parameter))
    return built


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    name: (lambda build=build: _make(*build)) for name, build in _BUILDS.items() if hasattr(hf, build[1])
}
