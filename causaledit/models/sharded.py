"""A network whose frozen weights lie in pieces in several processes (FSDP2), one GPU each.

transformers shards such a network while it reads it: every process reads its own pieces alone, and a layer's weights
are gathered for as long as the layer computes. An adapter that is put on afterwards is whole in every process. Every
forward pass takes all processes: whoever uses the network makes the same calls in all of them.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import ModelError
from causaledit.models.batches import keys_and_values, unwrapped
from causaledit.support.launch import launched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SWITCH = "ACCELERATE_USE_FSDP"  # set by `accelerate launch` for `distributed_type: FSDP`

# what an accelerate configuration may not say: variable, value, fix
_REFUSED = (
    ("FSDP_VERSION", "1", "set `fsdp_version: 2`"),
    ("FSDP_OFFLOAD_PARAMS", "true", "set `fsdp_offload_params: false`, and `num_processes` to more GPUs"),
    (
        "FSDP_ACTIVATION_CHECKPOINTING",
        "true",
        "set `fsdp_activation_checkpointing: false`, and `gradient_checkpointing: true` in the hyper-parameters",
    ),
)


def wants_sharding(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the processes were launched to share one network's weights."""
    return launched() > 1 and environment.get(SWITCH, "false").lower() in ("1", "true", "yes")


def check_sharding(
    path: Path,
    device: torch.device,
    *,
    quantization: str,
    model_parallel: bool,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Refuse what cannot be sharded, before anything is loaded.

    Args:
        path: Where the model is, or a hub's name.
        device: The one that was asked for.
        quantization, model_parallel: As in `load_model`.
        environment: What `accelerate launch` sets for its processes.

    Raises:
        ModelError: The message says what does not allow it.
    """
    for name, value, fix in _REFUSED:
        if environment.get(name, "2" if name == "FSDP_VERSION" else "").lower() == value:
            raise ModelError(f"FSDP is configured with {name}={value}, which edits here cannot use: {fix}.")
    if path.suffix == ".gguf" or (path / "adapter_config.json").is_file():
        kind = "GGUF files" if path.suffix == ".gguf" else "saved adapters"
        raise ModelError(f"{str(path)!r}: FSDP spreads no {kind}: give a model folder or a hub name.")
    if model_parallel:
        raise ModelError(
            "`model_parallel: true` spreads a model in one process, and FSDP over several: set it to false."
        )
    if quantization != "none":
        raise ModelError(f"`quantization: {quantization}` and FSDP do not go together: set `quantization: none`.")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    found = accelerator.type if accelerator is not None else "cpu"
    if device.type != found:
        raise ModelError(f"FSDP puts the weights on {found}, and `device` is {str(device)!r}: set it to auto.")
    from transformers import Trainer

    if not hasattr(Trainer, "_sync_replicated_trainable_parameters"):
        from transformers import __version__

        raise ModelError(
            f"An adapter on sharded weights (FSDP) needs transformers 5.20 or later, and this is {__version__}: update "
            "it, or use data parallel processes (`distributed_type: MULTI_GPU`)."
        )


def sharding_options() -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread the weights over all processes."""
    from transformers.distributed import DistributedConfig

    return {"distributed_config": DistributedConfig(fsdp_size=launched())}


@contextlib.contextmanager
def without_accelerates_sharding() -> Iterator[None]:
    """For the block accelerate's own sharding is off: transformers shards as it loads, and once is enough.

    Both read the switch from the environment, where the launcher put it.
    """
    before = os.environ.get(SWITCH)
    if before is not None:
        os.environ[SWITCH] = "false"
    try:
        yield
    finally:
        if before is not None:
            os.environ[SWITCH] = before


def is_sharded(model: Any) -> bool:
    """Whether a network, or the one inside a PeftModel, lies in pieces in several processes."""
    from transformers.integrations import is_fsdp_managed_module

    return bool(is_fsdp_managed_module(unwrapped(model)))


def settle_sharded(model: Any) -> None:
    """Freeze a network that was just sharded, and keep its processes in step.

    Raises:
        ModelError: transformers does not know the network's layers, so that most of it would be gathered at once, or
            the network carries a state from token to token, so that its rows cannot be padded into one call.
    """
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if module is not model and isinstance(module, FSDPModule)]
    apart = {parameter for module in parts for parameter in module.parameters()}  # type: ignore[attr-defined]
    together = sum(parameter.numel() for parameter in model.parameters() if parameter not in apart)
    if together > sum(parameter.numel() for parameter in apart):
        raise ModelError(
            f"transformers has no plan of how to spread a {model.config.model_type} over processes by layers (FSDP): "
            "use `distributed_type: MULTI_GPU`, or `model_parallel: true` in one process."
        )
    if keys_and_values(model) is None:
        raise ModelError(
            f"{type(model).__name__} carries a state from token to token, and FSDP needs the same forward passes in "
            "all processes: use data parallel processes (`distributed_type: MULTI_GPU`)."
        )
    model.requires_grad_(False)  # before the first forward pass: gathered weights take this over then, for good
    model.get_output_embeddings().register_forward_hook(_FirstProcessSpeaks())


class _FirstProcessSpeaks:
    """A hook of the output layer: without gradients, its logits are the first process's in all processes.

    All that is sampled or chosen then is the same everywhere, although GPUs need not round alike: so that all processes
    go on with the same number of forward passes, and none waits for ever.
    """

    def __init__(self) -> None:
        self.active = True

    def __call__(self, module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        if self.active and not torch.is_grad_enabled():
            logits = logits.contiguous()
            torch.distributed.broadcast(logits, src=0)
        return logits


@contextlib.contextmanager
def rows_apart(model: Any, apart: bool = True) -> Iterator[None]:
    """For the block each process of a sharded network reads rows of its own (training), or again all the same ones.

    Nothing is done for a whole network.

    Args:
        model: The network, or a PeftModel around it.
        apart: False: all processes read the same rows.
    """
    hooks = unwrapped(model).get_output_embeddings()._forward_hooks.values() if is_sharded(model) else ()
    speakers = [(hook, hook.active) for hook in hooks if isinstance(hook, _FirstProcessSpeaks)]
    for hook, _ in speakers:
        hook.active = not apart
    try:
        yield
    finally:
        for hook, active in speakers:
            hook.active = active


def own_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The state of a model without what lies in pieces: of an adapter around a sharded network the adapter's alone.

    peft, asked for an adapter's state, would gather the whole network in every process.
    """
    from torch.distributed.tensor import DTensor

    return {name: value for name, value in model.state_dict().items() if not isinstance(value, DTensor)}


def reshard(model: torch.nn.Module) -> None:
    """Give back what is gathered of a sharded network: its modules then hold their pieces alone.

    Nothing is sent. Whoever notes or replaces the parameters that modules hold does so on pieces only: FSDP swaps
    them for gathered ones, and some stay gathered after a forward pass.
    """
    if not is_sharded(model):
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
