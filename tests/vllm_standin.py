"""A stand-in for trl's `VLLMGeneration`, whose engine needs a GPU: the interface that `models.vllm_engine` relies on.

It takes no argument that the real one does not, sleeps and wakes like it, loses its weights asleep, leaves the
environment as it does, and generates with the weights that it was handed, one plain row at a time.
"""

from __future__ import annotations

import copy
import inspect
import os
from typing import Any, ClassVar

import pytest
import torch
from transformers import GenerationConfig
from trl.generation.vllm_generation import VLLMGeneration

from causaledit.models import vllm_engine
from causaledit.support.extras import EXTRAS

CONSTRUCTOR, GENERATE = inspect.signature(VLLMGeneration.__init__), inspect.signature(VLLMGeneration.generate)


class Sleeper:
    """As `vllm.LLM`: level 2 throws the weights away."""

    def __init__(self, network: Any, *, asleep: bool):
        self.network, self.calls = network, []
        self.asleep = asleep
        if asleep:
            self._lose()

    def sleep(self, level: int) -> None:
        assert level == 2 and not self.asleep
        self.asleep = True
        self.calls.append("sleep")
        self._lose()

    def wake_up(self) -> None:
        assert self.asleep
        self.asleep = False
        self.calls.append("wake up")

    def _lose(self) -> None:
        with torch.no_grad():
            for parameter in self.network.parameters():
                parameter.fill_(float("nan"))


class Client:
    """As trl's `VLLMClient`, as far as it is used directly."""

    closed = False

    def close_communicator(self) -> None:
        self.closed = True


class StandIn:
    """See the module."""

    made: ClassVar[list[StandIn]] = []

    def __init__(self, **settings: Any):
        bound = CONSTRUCTOR.bind(self, **settings)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:
            setattr(self, name, value)
        self.given = settings
        assert self.accelerator.num_processes == 1
        self.network = copy.deepcopy(self.model).requires_grad_(False)
        self.network.generation_config = GenerationConfig()
        if self.mode == "colocate":
            self.llm = Sleeper(self.network, asleep=self.enable_sleep_mode)
            os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
        else:
            self.vllm_client = Client()
        self.handed: list[dict[str, torch.Tensor]] = []
        self.batches: list[tuple[list[list[int]], dict[str, Any]]] = []
        StandIn.made.append(self)

    def sync_weights(self) -> None:
        assert self.mode == "server" or not self.llm.asleep
        given = {name: parameter.detach().clone() for name, parameter in self.model.named_parameters()}
        self.handed.append(given)
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(given[name])

    def generate(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        bound = GENERATE.bind(self, *args, **kwargs)
        prompts = bound.arguments["prompts"]
        assert bound.arguments["images"] is None and bound.arguments["num_generations"] == 1
        assert self.mode == "server" or not (self.llm.asleep or self.enable_sleep_mode)
        assert self.logprobs is None
        sent = dict(self.generation_kwargs)
        self.batches.append((prompts, sent))
        greedy = sent["temperature"] == 0
        tokenizer = {"tokenizer": self.processing_class} if "stop" in sent else {}
        config = GenerationConfig(
            do_sample=not greedy, max_new_tokens=sent["max_tokens"], eos_token_id=sent["stop_token_ids"],
            pad_token_id=0, stop_strings=sent.get("stop"),
            **({} if greedy else {"temperature": sent["temperature"], "top_p": sent["top_p"], "top_k": sent["top_k"]}),
        )  # fmt: skip
        rows = []
        for prompt in prompts:
            assert len(prompt) + sent["max_tokens"] <= self.max_model_length
            ids = torch.tensor([prompt])
            made = self.network.generate(
                ids, generation_config=config, attention_mask=torch.ones_like(ids), **tokenizer
            )
            rows.append(made[0, len(prompt) :].tolist())
        return prompts, rows, None, None


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """vLLM as if it were installed and ran on a CPU."""
    import trl.generation.vllm_generation as module

    monkeypatch.setattr(module, "VLLMGeneration", StandIn)
    monkeypatch.setattr(vllm_engine, "DEVICES", ("cpu",))
    monkeypatch.setitem(EXTRAS, "vllm", ("trl",))
    monkeypatch.setattr(StandIn, "made", [])
    return StandIn
