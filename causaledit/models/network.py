"""The network of transformers in a model: itself, or what another library's model is built around.

EasyEdit's WISE and GRACE wrap a network, call their own hyper-parameters `config`, and decide per call which weights
answer. Such a model can be asked like any other: what its network knows is asked of the network.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel


def is_network(model: Any) -> bool:
    """Whether a model speaks for itself: one of transformers, or around one whose attributes are its own (peft)."""
    return isinstance(getattr(model, "config", None), PretrainedConfig)


def network_of(model: Any) -> Any:
    """The network in a model; the model where there is none to be found."""
    if is_network(model):
        return model
    inside = model.modules() if isinstance(model, torch.nn.Module) else vars(model).values()
    return next((part for part in inside if isinstance(part, PreTrainedModel)), model)


def device_of(model: Any) -> torch.device:
    """Where a model's inputs go."""
    network = network_of(model)
    found = getattr(network, "device", None)
    if found is None and isinstance(network, torch.nn.Module):
        found = next((parameter.device for parameter in network.parameters()), None)
    return torch.device("cpu" if found is None else found)
