"""Which engine samples stage 1's traces: none, or vLLM with the weights of the open-book teacher."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from causaledit.errors import HparamsError
from causaledit.methods.causal_edit.bootstrap import samples_traces, teacher_prompt
from causaledit.methods.shared.rollouts import check_vllm
from causaledit.models.vllm_engine import EngineSettings, VLLMEngine
from causaledit.support.launch import launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams


def wants_engine(hparams: CausalEditHyperParams) -> bool:
    """Whether vLLM samples traces."""
    return hparams.bootstrap_use_vllm and 1 in hparams.stages and samples_traces(hparams)


def engine_settings(hparams: CausalEditHyperParams, setting: str) -> EngineSettings:
    """The engine of stage 2's rollouts, which also samples traces.

    Args:
        setting: The hyper-parameter that asks for it.
    """
    address = f"http://{hparams.distill_vllm_server_host}:{hparams.distill_vllm_server_port}"
    return EngineSettings(
        f"`{setting}: true`",
        mode=hparams.distill_vllm_mode,
        memory_share=hparams.distill_vllm_gpu_memory_utilization,
        server=(hparams.distill_vllm_server_base_url or address).rstrip("/"),
        sleeps=hparams.distill_vllm_sleep_mode,
    )


def check_sampling(model: PreTrainedModel, hparams: CausalEditHyperParams) -> None:
    """Refuse traces through vLLM where it cannot sample them.

    Raises:
        HparamsError: There are several processes, which would sample different numbers of batches.
        MissingExtraError, ModelError: As in `check_engine`, or the model is quantised.
    """
    if not wants_engine(hparams):
        return
    if (processes := launched()) > 1:
        raise HparamsError(
            f"`bootstrap_use_vllm: true` samples in one process, and there are {processes}: set it to false."
        )
    check_vllm(model, engine_settings(hparams, "bootstrap_use_vllm"), any_gpu=False)


@contextlib.contextmanager
def trace_engine(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    context_role: str,
) -> Iterator[VLLMEngine | None]:
    """The engine that samples the traces of these edits, for the block; None where the model itself does.

    Args:
        model, tokenizer, requests, hparams, context_role: As in `collect_traces`.
    """
    if not wants_engine(hparams):
        yield None
        return
    prompts = [teacher_prompt(tokenizer, request, hparams, context_role=context_role) for request in requests]
    longest = max(map(len, tokenizer(prompts, add_special_tokens=False)["input_ids"]))
    engine = VLLMEngine(engine_settings(hparams, "bootstrap_use_vllm"))
    engine.open(model, tokenizer, longest=longest + hparams.bootstrap_max_new_tokens)
    try:
        yield engine if engine.serves(model) else None
    finally:
        engine.close()
