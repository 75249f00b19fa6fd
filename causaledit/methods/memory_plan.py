"""Whether an edit fits on a GPU, and what to set if it does not: `causaledit plan`."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import ModelError
from causaledit.methods.footprint import Lengths, Planner
from causaledit.models.loading import load_config, resolve_dtype

if TYPE_CHECKING:
    from causaledit.methods.footprint import Remedy, StageFootprint
    from causaledit.methods.method import Method

logger = logging.getLogger(__name__)

# what a GPU holds beside tensors (CUDA's context, kernels), and what the allocator loses between them
CONTEXT_BYTES, LOST_SHARE = 600 * 2**20, 0.05


@dataclass(frozen=True)
class MemoryPlan:
    """What one edit needs on each GPU.

    Attributes:
        planner: What was planned.
        weights: Number of the model's parameters.
        parameters: Their bytes on each device.
        stages: In their order.
        memory: Bytes of each GPU, or None.
    """

    planner: Planner
    weights: int
    parameters: int
    stages: list[StageFootprint]
    memory: int | None = None

    @property
    def highest(self) -> StageFootprint:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: stage.total(0))

    @property
    def peak(self) -> int:
        """Bytes of tensors at the highest moment."""
        return self.highest.total(self.parameters)

    @property
    def needed(self) -> int:
        """Bytes that a GPU must have: the peak, and what is lost around it."""
        return round(self.peak * (1 + LOST_SHARE)) + CONTEXT_BYTES

    @property
    def fits(self) -> bool | None:
        """Whether it does; None where no memory is given."""
        return None if self.memory is None else self.needed <= self.memory

    @property
    def host(self) -> int:
        """Bytes of host memory that copies and statistics take beside a GPU."""
        return max(stage.host for stage in self.stages)

    @property
    def generated(self) -> int:
        """Tokens generated for one edit, at most."""
        return sum(stage.generated for stage in self.stages)

    @property
    def trained(self) -> int:
        """Tokens trained on for one edit, at most."""
        return sum(stage.trained for stage in self.stages)

    def seconds(self, generate_rate: float, train_rate: float) -> float:
        """Time of one edit at most, at so many tokens per second generated (all rows together) and trained on."""
        return self.generated / generate_rate + self.trained / train_rate


def plan_edit(
    method: Method,
    hparams: Any,
    *,
    model: str | None = None,
    lengths: Lengths | None = None,
    gpu: bool = True,
    gpus: int = 1,
    memory: int | None = None,
) -> MemoryPlan:
    """Plan one edit from the model's configuration; no weights are read.

    Args:
        method: From the registry.
        hparams: Its hyper-parameters.
        model: Folder, hub name or embedded name, instead of the one that the hyper-parameters name.
        lengths: How long the edit's texts are.
        gpu: Whether it runs on GPUs, or on a CPU.
        gpus: Over how many the base weights are spread (FSDP).
        memory: Bytes of each GPU.

    Raises:
        ModelError: The configuration cannot be read, or the method does not say what it needs.
    """
    if method.footprint is None:
        raise ModelError(
            f"{method.name} does not say what its stages need: plan a method that does, such as CausalEdit."
        )
    config = load_config(model or hparams.model_name)
    device = torch.device("cuda" if gpu else "cpu")
    dtype = resolve_dtype(getattr(hparams, "dtype", "auto"), device, fp16=getattr(hparams, "fp16", False))
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(config, "dtype", None) or torch.float32
    planner = Planner(config, hparams, lengths or Lengths(), gpu=gpu, dtype=dtype, gpus=gpus, memory=memory)
    return _planned(method, planner, memory)


def _planned(method: Method, planner: Planner, memory: int | None) -> MemoryPlan:
    return MemoryPlan(planner, planner.weights(), planner.parameters(), method.load_footprint()(planner), memory)


@dataclass
class Way:
    """Settings that were tried in turn until an edit fitted.

    Attributes:
        remedies: Those that lowered the peak.
        plan: With all of them.
    """

    plan: MemoryPlan
    remedies: list[Remedy] = field(default_factory=list)


def way_to_fit(method: Method, plan: MemoryPlan) -> Way:
    """Switch on what makes the highest stage smaller, mildest first, until the edit fits or nothing is left.

    A remedy that does not lower the peak by a percent is left out.
    """
    way, useless = Way(plan), set()
    while not way.plan.fits:
        stage = way.plan.highest.stage
        for remedy in method.load_remedies()(way.plan.planner.hparams):
            changes = tuple(remedy.changes.items())
            if (remedy.stages and stage not in remedy.stages) or (stage, changes) in useless:
                continue
            tried = _planned(method, way.plan.planner.with_settings(**remedy.changes), plan.memory)
            if tried.peak < 0.99 * way.plan.peak:
                # a stronger one of the same settings takes the place of a weaker one
                way.remedies = [r for r in way.remedies if set(r.changes) - set(remedy.changes)] + [remedy]
                way.plan = tried
                break
            useless.add((stage, changes))
        else:
            break
    return way


def as_data(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "weights": plan.weights,
        "parameters": plan.parameters,
        "stages": [{**dataclasses.asdict(stage), "total": stage.total(plan.parameters)} for stage in plan.stages],
        "peak": plan.peak,
        "needed": plan.needed,
        "host": plan.host,
        "fits": plan.fits,
        "generated": plan.generated,
        "trained": plan.trained,
    }
