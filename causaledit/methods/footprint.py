"""What a method needs in memory and computes, stage by stage, told from a model's configuration and hyper-parameters.

A method names a function `footprint(planner) -> list[StageFootprint]` in its `METHOD`; a `Planner` gives it the model
without weights (`models/footprint.py`), and the method runs the heaviest passes of its stages on that.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from causaledit.methods.shared.trainers import optimizer_name
from causaledit.models.adapters import lora_config
from causaledit.models.footprint import Peak, PlannedModel, empty_model, with_storages
from causaledit.support.lengths import Lengths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# bytes of a weight whose matrix is quantised, with the scales of its blocks of 64
_QUANTIZED = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}


@dataclass(frozen=True)
class StageFootprint:
    """One stage of one edit, on one device.

    Attributes:
        stage: Its name, as in the seconds that a run reports.
        peak: What passes allocate at most beside all that follows.
        adapter: Bytes of the adapter.
        optimizer: Bytes of gradients and of the optimiser's state.
        copies: Bytes of copies of weights, and of statistics, that the stage keeps on the device.
        host: Bytes of such copies in host memory, beside a GPU.
        generated: Tokens that it generates at most.
        trained: Tokens that it trains on at most, padding not counted.
        engine: Bytes that a colocated vLLM engine holds meanwhile.
    """

    stage: str
    peak: Peak
    adapter: int = 0
    optimizer: int = 0
    copies: int = 0
    host: int = 0
    generated: int = 0
    trained: int = 0
    engine: int = 0

    def total(self, parameters: int) -> int:
        """Bytes in all, with those of the model's parameters."""
        return parameters + self.adapter + self.optimizer + self.copies + self.engine + self.peak.total


@dataclass
class Planner:
    """A model's configuration with a method's hyper-parameters, and where both are to run.

    Attributes:
        config: The model's, of transformers.
        hparams: The method's.
        lengths: How long the texts are.
        gpu: Whether it runs on a GPU.
        dtype: Of the weights.
        gpus: Over how many the weights are spread (FSDP).
        memory: Bytes of each GPU, where known.
    """

    config: Any
    hparams: Any
    lengths: Lengths = field(default_factory=Lengths)
    gpu: bool = True
    dtype: torch.dtype = torch.bfloat16
    gpus: int = 1
    memory: int | None = None

    @contextlib.contextmanager
    def model(self, adapt: Callable[[Any], Any] | None = None) -> Iterator[PlannedModel]:
        """The model without weights, for the block.

        Args:
            adapt: Puts an adapter on it, on the meta device.
        """
        network = empty_model(self.config, self.dtype)
        if adapt is not None:
            network = adapt(network)
        # a trainer's mixed precision; stages 1 and 2 set it for bfloat16 weights on a GPU
        with with_storages(network, autocast=self.gpu and self.dtype == torch.bfloat16) as planned:
            yield planned

    def weights(self) -> int:
        """Number of the model's parameters."""
        return sum(parameter.numel() for parameter in empty_model(self.config, self.dtype).parameters())

    def parameters(self) -> int:
        """Bytes of the model's parameters on each device."""
        network = empty_model(self.config, self.dtype)
        head = network.get_output_embeddings()
        small = _QUANTIZED.get(getattr(self.hparams, "quantization", "none"))
        total = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        if small is not None:
            quantised = [m.weight for m in network.modules() if isinstance(m, torch.nn.Linear) and m is not head]
            total -= round(sum(w.numel() * (w.element_size() - small) for w in quantised))
        if self.gpus == 1:
            return total
        blocks: dict[str, int] = {}
        for name, parameter in network.named_parameters():
            block = next(
                (".".join(name.split(".")[: i + 1]) for i, p in enumerate(name.split(".")) if p.isdigit()), name
            )
            blocks[block] = blocks.get(block, 0) + parameter.numel() * parameter.element_size()
        # FSDP gathers a block before it is read, and the next one meanwhile
        return total // self.gpus + 2 * max(blocks.values())

    def adapted_bytes(self, planned: PlannedModel) -> int:
        """Bytes of the weights that an adapter will be merged into."""
        layers = [m.get_base_layer() for m in planned.model.modules() if isinstance(m, BaseTunerLayer)]
        return sum(bytes_of(list(layer.parameters(recurse=False))) for layer in layers)

    def kept_on_host(self, count: int) -> dict[str, int]:
        """Bytes that are kept in host memory, as a field of `StageFootprint`; on a CPU the device has no other."""
        return {"host" if self.gpu else "copies": count}

    def engine(self, share: float) -> int:
        """Bytes of a colocated vLLM engine: its share of the GPU; where that is not known, its weights alone."""
        return round(share * self.memory) if self.memory is not None else self.weights() * self.dtype.itemsize

    def with_settings(self, **changes: Any) -> Planner:
        """The same with other hyper-parameters."""
        return replace(self, hparams=replace(self.hparams, **changes))


@dataclass(frozen=True)
class Remedy:
    """Settings that make an edit smaller.

    Attributes:
        changes: Hyper-parameters and their values.
        effect: What else they do, in a few words.
        stages: Those that they make smaller; empty: all.
    """

    changes: dict[str, Any]
    effect: str
    stages: tuple[str, ...] = ()


def bytes_of(parameters: Iterable[torch.Tensor]) -> int:
    """Bytes of parameters."""
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


# ---- adapters --------------------------------------------------------------------------------------
def with_adapter(network: Any, hparams: Any, config: Any = None) -> Any:
    """Put an adapter on a model on the meta device, ready for training.

    Args:
        network: From `empty_model`.
        hparams: The method's.
        config: Of peft; by default the one that `models.adapters` makes of the hyper-parameters.
    """
    adapted = get_peft_model(network, config or lora_config(network, hparams), low_cpu_mem_usage=True)
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):  # as peft does for others
            parameter.data = parameter.data.float()
    adapted.train()
    if getattr(hparams, "gradient_checkpointing", False):
        with warnings.catch_warnings():  # the new name is not in all versions that we take
            warnings.simplefilter("ignore", FutureWarning)
            # fake tensors have no random state to preserve
            adapted.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
    return adapted


def adapter_terms(adapted: PlannedModel, planner: Planner) -> dict[str, int]:
    """Bytes of the adapter, and of its gradients and optimiser state."""
    own = bytes_of(adapted.trainable)
    numbers = sum(parameter.numel() for parameter in adapted.trainable)
    device = torch.device("cuda" if planner.gpu else "cpu")
    state = 2 if "8bit" in optimizer_name(planner.hparams, device) else 8  # two moments of each number
    return {"adapter": own, "optimizer": own + state * numbers}


def adapter_stages(adapted: PlannedModel, planner: Planner) -> list[StageFootprint]:
    """Merging: the originals are copied to host memory, and one matrix's update is there at a time.

    An adapter on quantised weights is merged into a second network, which holds them as they were before.
    """
    if not planner.hparams.merge_adapter:
        return []
    layers: list[Any] = [m.get_base_layer() for m in adapted.model.modules() if isinstance(m, BaseTunerLayer)]
    largest = max((layer.weight.numel() for layer in layers), default=0)
    delta = 4 * largest + largest * planner.dtype.itemsize
    if getattr(planner.hparams, "quantization", "none") != "none":
        kept = {"copies": planner.weights() * planner.dtype.itemsize}
    else:
        kept = planner.kept_on_host(planner.adapted_bytes(adapted))
    return [StageFootprint("merge", Peak(delta, {"activations": delta}), adapter=bytes_of(adapted.trainable), **kept)]
