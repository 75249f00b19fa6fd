"""vLLM as the generator of a network that lives in this process.

The engine is trl's (`VLLMGeneration`), which also hands the network's live weights over; nothing else outside trainers
touches that interface. Prompts go in and continuations come out as token ids, so that neither depends on the engine's
tokenizer, and whatever ends a row is stated, so that none of its own generation configuration enters.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import torch
from transformers import PreTrainedModel

from causaledit.errors import ModelError, one_line
from causaledit.models.adapters import is_adapted
from causaledit.models.batches import free_memory
from causaledit.models.chat import in_context_prefix, next_turn
from causaledit.models.quantised import is_quantised
from causaledit.support.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import GenerationConfig, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

MODES = ("colocate", "server")
MEMORY_SHARE = 0.35
SERVER = "http://127.0.0.1:8000"
ANSWER_SECONDS = 10.0  # an address that is silent for so long has no server
DEVICES = ("cuda",)  # where trl's engines run and take weights from
# what trl sets for vLLM's start; left behind, accelerate and torch would take this process for one of several
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class EngineSettings:
    """Which engine, and what it may take.

    Attributes:
        purpose: What asked for it, as the user wrote it, for messages.
        mode: `colocate` (in this process, on its GPU) or `server` (one that is running).
        memory_share: Share of the GPU's memory that a colocated engine takes.
        server: Address of the server.
        sleeps: Whether a colocated engine gives its memory back between hand-overs.
    """

    purpose: str
    mode: str = "colocate"
    memory_share: float = MEMORY_SHARE
    server: str = SERVER
    sleeps: bool = True


def check_engine(
    settings: EngineSettings, device: torch.device, *, model_parallel: bool = False, any_gpu: bool = False
) -> None:
    """Refuse an engine that cannot be used with a model, before anything is computed.

    Args:
        device: Where the model is, or will be loaded.
        model_parallel: Whether it is spread over several devices.
        any_gpu: The engine is a trainer's, which starts it on the process's own GPU.

    Raises:
        MissingExtraError: vLLM is not installed.
        ModelError: The model is not on this process's first GPU (on one, with `any_gpu`) alone, or no server answers.
    """
    purpose = settings.purpose
    require_extra("vllm", purpose)
    if model_parallel:
        raise ModelError(
            f"{purpose} takes the model's weights from one GPU, and `model_parallel: true` spreads them over several: "
            "use one of the two."
        )
    if device.type not in DEVICES or (device.index and not any_gpu):
        raise ModelError(
            f"{purpose} needs the model on the first GPU that this process sees, and `device` is {str(device)!r}: use "
            "cuda (CUDA_VISIBLE_DEVICES says which GPU that is), or do without vLLM."
        )
    if settings.mode == "server":
        _check_server(settings)


def _check_server(settings: EngineSettings) -> None:
    try:
        reply = httpx.get(f"{settings.server}/health", timeout=ANSWER_SECONDS)
        problem = None if reply.is_success else f"something else answers ({reply.status_code})"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        problem = f"nobody answers ({one_line(error)})"
    if problem:
        raise ModelError(
            f"{settings.purpose}: at {settings.server!r} {problem}. Start the server (docs/scaling.md has the command) "
            "or give another address."
        )


def sampling_parameters(config: GenerationConfig, next_turn: str | None) -> dict[str, Any]:
    """What vLLM's `SamplingParams` must be for it to generate as transformers does by a configuration of ours.

    Args:
        config: Of `models.generation`: greedy, or sampled by temperature and top-p.
        next_turn: Text that ends a row, where no token does.
    """
    sampled = bool(config.do_sample)
    return {
        "temperature": config.temperature if sampled else 0.0,
        "top_p": config.top_p if sampled else 1.0,
        "top_k": config.top_k if sampled else 0,
        "max_tokens": config.max_new_tokens,
        "stop_token_ids": list(config.eos_token_id or []),
        "ignore_eos": True,  # the engine's own; ours are in the list
        **({"stop": [next_turn]} if next_turn else {}),
    }


class VLLMEngine:
    """One engine of vLLM for networks of one structure, one after another or one that changes.

    It has the weights of the network that it last generated for, until `rest`: whoever changes weights says so by it.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._trl: Any = None
        self._structure: Any = None
        self._held: Any = None
        self._sleeps = self._asleep = False
        self._said: set[str] = set()

    def open(self, model: Any, tokenizer: PreTrainedTokenizerBase, *, longest: int) -> None:
        """Start the engine, unless that was done before; one that cannot answer as `model` does is not started.

        Args:
            model: A network, for the engine's architecture.
            longest: Most tokens of a prompt and its continuation; vLLM reserves its cache for them.

        Raises:
            ModelError: vLLM cannot be started.
        """
        if self._trl is not None or self._say(self._why_not(model)):
            return
        from accelerate import Accelerator  # type: ignore[import-untyped]
        from trl.generation.vllm_generation import VLLMGeneration

        settings = self.settings
        self._sleeps = settings.mode == "colocate" and settings.sleeps
        try:
            with _environment_kept():
                self._trl = VLLMGeneration(
                    model=model,
                    accelerator=Accelerator(),
                    processing_class=tokenizer,
                    mode=settings.mode,
                    server_base_url=settings.server,
                    server_timeout=ANSWER_SECONDS,
                    gpu_memory_utilization=settings.memory_share,
                    max_model_length=longest,
                    enable_sleep_mode=self._sleeps,
                    logprobs=None,
                )
        except Exception as error:  # of vLLM, of CUDA, of the server
            raise ModelError(f"{settings.purpose}: vLLM cannot be started: {one_line(error)}") from error
        # trl would let it sleep after every batch, and hand all weights over again before the next one
        self._trl.enable_sleep_mode, self._asleep = False, self._sleeps
        self._trl.model = None
        self._structure = _structure(model)

    def serves(self, model: Any, *, own_generate: bool = False) -> bool:
        """Whether the engine, given a model's parameters, answers as that model does; why not is logged, once.

        Args:
            own_generate: As of `Edited`.
        """
        if self._trl is None:
            return False
        reason = self._why_not(model)
        if reason is None and own_generate:
            reason = "the edited model answers through a `generate` of its own"
        if reason is None and _structure(model) != self._structure:
            reason = "the edited model has other modules, parameters or hooks than the unedited one"
        return not self._say(reason)

    def generate(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig,
    ) -> list[list[int]]:
        """Continue rows of token ids, each on its own.

        Args:
            model: A network that the engine `serves`; its weights are handed over where the engine has others.
            prompts: No padding.
            config: What `generate` of transformers would be given.

        Returns:
            The new tokens of each row, with those that end it.
        """
        if self._held is not model:
            self._hand_over(model)
        self._trl.generation_kwargs = sampling_parameters(config, next_turn(tokenizer))
        _, completions, *_ = self._trl.generate(prompts=[list(row) for row in prompts], images=None, num_generations=1)
        return [list(row) for row in completions]

    def rest(self) -> None:
        """Forget the weights: they will be others. A colocated engine gives its memory back until the next prompt."""
        if self._trl is None:
            return
        self._held = self._trl.model = None
        if self._sleeps and not self._asleep:
            self._trl.llm.sleep(level=2)  # without a copy of the weights: the next hand-over brings others
            self._asleep = True

    def close(self) -> None:
        """Let the engine go."""
        self.rest()
        if self._trl is not None and self.settings.mode == "server":
            self._trl.vllm_client.close_communicator()  # its port is wanted again, by stage 2's rollouts
        self._trl = None
        free_memory()

    def _hand_over(self, model: Any) -> None:
        self._held = None
        if self._asleep:
            free_memory()
            self._trl.llm.wake_up()
            self._asleep = False
        self._trl.model = model
        self._trl.sync_weights()
        self._held = model

    def _why_not(self, model: Any) -> str | None:
        """Why no engine answers as this model does, given its parameters; None where one does."""
        if in_context_prefix(model):
            return "the edited model has its new facts in the prompts"
        if isinstance(model, torch.nn.Module) and is_adapted(model):
            return "the model carries an adapter that is not merged"
        if not isinstance(model, PreTrainedModel):
            return "the model is no plain network of transformers"
        if is_quantised(model):
            return "the model's weights are quantised"
        if self.settings.mode == "colocate" and not _loads_again(model.name_or_path):
            return "the model comes from no folder or hub name, from which vLLM would load its own"
        return None

    def _say(self, reason: str | None) -> bool:
        """Log why this process generates itself, each reason once; whether there is one."""
        if reason is not None and reason not in self._said:
            self._said.add(reason)
            logger.warning("%s: %s; this process answers instead of vLLM", self.settings.purpose, reason)
        return reason is not None


def _loads_again(name: str | None) -> bool:
    """Whether a model's name is one that it can be loaded by; a GGUF file's folder is none."""
    return bool(name) and (not Path(str(name)).exists() or (Path(str(name)) / "config.json").is_file())


def _structure(model: Any) -> list[Any]:
    """What of a network is not in its parameters' values: those are all that is handed over."""
    hooks = ("_forward_hooks", "_forward_pre_hooks")
    modules = [(name, type(m), *(len(getattr(m, kind)) for kind in hooks)) for name, m in model.named_modules()]
    return [*modules, *((name, p.shape, p.dtype) for name, p in model.named_parameters())]


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _LAUNCHED}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
