"""What every method's apply function does alike: checks, seeds, progress, snapshots, restoration."""

from __future__ import annotations

import contextlib
import copy as copying
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from causaledit.errors import ModelError, RequestError
from causaledit.models.weights import preserved_state, restore
from causaledit.progress import EditTally, ProgressSink, terminal_progress
from causaledit.requests import EditRequest, requests_from_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass
class MethodReport:
    """What one call did, for the model card and the tables.

    Attributes:
        requests: The edits as the method took them.
        losses: Per stage, the loss of each optimiser step.
        tally: Seconds per stage and tokens.
    """

    requests: list[EditRequest] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    tally: EditTally = field(default_factory=EditTally)


def ready_edits(model: Any, requests: Iterable[Mapping[str, Any] | EditRequest]) -> list[EditRequest]:
    """Read the requests, and refuse what no method can edit.

    Raises:
        RequestError: A request is unusable, or two change the same fact.
        ModelError: The model carries an adapter.
    """
    edits = requests_from_data(list(requests))
    if hasattr(model, "peft_config") or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ModelError(
            "The model already carries a PEFT adapter: merge it (`model.merge_and_unload()`) before another edit."
        )
    if len({(e.subject, e.prompt) for e in edits}) != len(edits):
        raise RequestError("Two requests of one batch change the same fact (same subject and prompt): keep one.")
    return edits


@contextlib.contextmanager
def editing(model: Any, *, copy: bool, seed: int, progress: ProgressSink | None) -> Iterator[tuple[Any, ProgressSink]]:
    """The model to edit (a copy if asked), seeded, with everything but weights preserved, and a progress sink.

    Inside, the model is in eval mode and no parameter asks for a gradient.
    """
    target = copying.deepcopy(model) if copy else model
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(seed))
        sink = progress if progress is not None else stack.enter_context(terminal_progress())
        stack.enter_context(preserved_state(target))
        target.eval()
        target.requires_grad_(False)
        yield target, sink


@contextlib.contextmanager
def rewriting(model: Any, names: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Snapshot parameters by name for a block that changes them; any exception (Ctrl-C too) puts them back.

    The snapshot lies in host memory and is what a host gets as `weights_copy`.
    """
    originals = {name: model.get_parameter(name).detach().to("cpu", copy=True) for name in names}
    try:
        yield originals
    except BaseException:
        restore(model, originals)
        raise


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed all generators for the block and put the caller's states back."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
