"""Rollouts of an adapter in training: sampled as the student itself, exactly, and as fast as the device allows."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from causaledit.errors import ModelError
from causaledit.methods.shared.trainers import StageMixin, checkpointing_paused
from causaledit.models.adapters import merged_for_inference
from causaledit.models.chat import render, user
from causaledit.models.generation import neutral_generation
from causaledit.models.quantised import is_quantised
from causaledit.models.sharded import is_sharded
from causaledit.models.vllm_engine import check_engine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.vllm_engine import EngineSettings


class RolloutMixin(StageMixin):
    """What trainers share that sample from the student between their steps."""

    @contextlib.contextmanager
    def sampling(self, student: PeftModel) -> Iterator[None]:
        """For the block `student.generate` goes by what it is given alone, on a CPU through merged weights.

        On a CPU an unmerged adapter costs more than two copies of the adapted weights; on a GPU it is memory that
        counts. The base weights are put back as they were.

        Args:
            student: The model without the wrappers of several processes.
        """
        # quantised weights would be rounded anew, and others afterwards
        merges = self.runs_alone and self.accelerator.device.type == "cpu" and not is_quantised(student)
        merged = merged_for_inference(student) if merges else contextlib.nullcontext()
        with merged, checkpointing_paused(student), neutral_generation(student):
            yield


def check_vllm(model: PreTrainedModel, engine: EngineSettings, *, any_gpu: bool = True) -> None:
    """Refuse texts from vLLM, which gets merged weights, where it cannot generate them.

    Args:
        engine: Which; its `purpose` is the hyper-parameter that asks for it.
        any_gpu: As in `check_engine`.

    Raises:
        MissingExtraError: vLLM is not installed.
        ModelError: The model is quantised or sharded, or not on one GPU, or no server answers.
    """
    if is_sharded(model):
        raise ModelError(
            f"{engine.purpose} gives the engine merged weights, and nothing is merged into weights that lie in pieces "
            "in several processes (FSDP): set it to false, or `distributed_type: MULTI_GPU`."
        )
    if is_quantised(model):
        raise ModelError(
            f"{engine.purpose} gives the engine merged weights, and nothing is merged into quantised ones: set it to "
            "false, or `quantization: none`."
        )
    places = set((getattr(model, "hf_device_map", None) or {}).values())
    check_engine(engine, model.device, model_parallel=len(places) > 1, any_gpu=any_gpu)


def longest_prompt(tokenizer: PreTrainedTokenizerBase, prompts: Iterable[str]) -> int:
    """Tokens of the longest user prompt in the chat format: with a rollout, all that an engine ever reads."""
    texts = (render(tokenizer, user(text)) for text in set(prompts))
    return max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
