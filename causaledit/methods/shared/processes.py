"""One edit in several processes, as `accelerate launch` starts them: what they have to agree on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

import torch

from causaledit.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

Value = TypeVar("Value")


def agreed(value: Value, device: torch.device) -> Value:
    """The first process's value, in all processes; the same value where there is one process.

    Processes sample with the same seed, but GPUs need not round alike: what they sampled may differ, and a stage whose
    processes train on different numbers of rows would wait for ever.

    Args:
        value: Anything that can be pickled.
        device: Where this process computes.
    """
    if launched() == 1:
        return value
    from accelerate import PartialState  # type: ignore[import-untyped]

    PartialState(cpu=device.type == "cpu")  # joins the other processes, once
    held = [value]
    torch.distributed.broadcast_object_list(held, src=0, device=device)
    return held[0]


def most(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    held = torch.tensor(number, device=device)
    torch.distributed.all_reduce(held, op=torch.distributed.ReduceOp.MAX)
    return int(held)


def launched() -> int:
    """How many processes were launched together, of which this is one."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def is_first() -> bool:
    """Whether this process is the one that shows and saves."""
    return (os.environ.get("RANK") or "0") == "0"


def refuse_sharding(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse FSDP: the trained adapter would lie in pieces in the processes, and could not be merged.

    Raises:
        ModelError: The accelerate configuration asks for it.
    """
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true", "yes"):
        raise ModelError(
            "FSDP is configured, and an adapter in pieces cannot be merged or saved here: use data parallel processes "
            "(`distributed_type: MULTI_GPU`), or `model_parallel: true` in one process for a model larger than a GPU."
        )
