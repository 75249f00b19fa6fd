"""One edit in several processes, as `accelerate launch` starts them: what they have to agree on."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

from causaledit.errors import ModelError
from causaledit.models.sharded import is_sharded, wants_sharding
from causaledit.support.launch import launched

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


def refuse_merging() -> None:
    """Refuse to merge an adapter where the model's weights lie, or will lie, in pieces in the processes.

    Raises:
        ModelError: FSDP is configured.
    """
    if wants_sharding():
        raise ModelError(
            "Nothing can be merged into weights that lie in pieces in several processes (FSDP): make single edits with "
            "--adapter-only (`merge_adapter: false`), and merge afterwards in one process (docs/scaling.md)."
        )


def check_sharded(model: Any, *, merged: bool) -> None:
    """Refuse what cannot be done with weights that lie in pieces in the processes, or that should and do not.

    Args:
        model: The plain network.
        merged: Whether the adapter would be merged into the weights.

    Raises:
        ModelError: The message says which.
    """
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    if AcceleratorState._shared_state and getattr(AcceleratorState(), "fsdp_plugin", None) is not None:
        raise ModelError(
            "An `Accelerator` with FSDP was made in this process, and would shard the adapter too: edit before one is "
            "made, in processes that `accelerate launch` started."
        )
    if wants_sharding() and not is_sharded(model):
        raise ModelError(
            "FSDP is configured, and this model is whole in every process: load it with "
            "`causaledit.models.loading.load_model`, or set `distributed_type: MULTI_GPU`."
        )
    if merged:
        refuse_merging()
