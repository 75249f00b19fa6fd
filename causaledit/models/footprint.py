"""Memory of a computation that is not carried out: the real code on a model without weights.

A model is built from its configuration with torch's fake tensors, which have shapes, types and storages but no data.
Whatever runs on it, forward and backward passes, gradient checkpointing, losses, allocates fake storages exactly as the
real tensors would be; `MemoryTracker` adds them up. So no formula per architecture is needed, and what the code wastes
is counted.
"""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from causaledit.errors import ModelError, one_line
from causaledit.models.batches import keys_and_values, takes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS = ("logits", "cache", "activations")


@dataclass
class Peak:
    """The most that was alive at a time, in bytes, and what it was.

    Attributes:
        parts: Bytes by kind at that moment: `logits` (whatever is as wide as the vocabulary), `cache` (keys and
            values), `activations` (everything else).
    """

    total: int = 0
    parts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


def larger(*peaks: Peak) -> Peak:
    """The highest of several peaks that do not coincide."""
    return max(peaks, key=lambda peak: peak.total)


class MemoryTracker(TorchDispatchMode):
    """Adds up the storages of all tensors that operations give while it is entered, until they are freed.

    Args:
        vocabulary: Width of the output layer, by which logits are told from other tensors.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self._vocabulary = vocabulary
        self._known: weakref.WeakKeyDictionary[torch.UntypedStorage, None] = weakref.WeakKeyDictionary()
        self._now = dict.fromkeys(KINDS, 0)
        self.peak = Peak()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave tensors that were there before, such as weights, out of the sum."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = None

    def add(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's storage from now on until it is freed."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self._now[kind] += size
        weakref.finalize(storage, self._freed, kind, size)
        if (total := sum(self._now.values())) > self.peak.total:
            self.peak = Peak(total, dict(self._now))

    def _freed(self, kind: str, size: int) -> None:
        self._now[kind] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it gives."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                wide = leaf.dim() > 0 and leaf.shape[-1] == self._vocabulary
                self.add(leaf, "logits" if wide else "activations")
        return out


@dataclass
class PlannedModel:
    """A model without weights.

    Attributes:
        model: The network; every tensor of it is fake.
        autocast: Whether passes run under bfloat16 autocast, as trainers do on a GPU with bfloat16 weights.
    """

    model: Any
    autocast: bool

    @property
    def vocabulary(self) -> int:
        """Width of the output layer."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextlib.contextmanager
    def tracked(self, *, training: bool) -> Iterator[MemoryTracker]:
        """Count what the block allocates beside the model's parameters and the gradients of those that are trained.

        Args:
            training: Whether it runs as in a trainer (autocast), or as `generate` does.
        """
        with contextlib.ExitStack() as stack:
            if training and self.autocast:
                stack.enter_context(torch.autocast("cpu", dtype=torch.bfloat16))
            for parameter in self.trainable:  # there from the second pass on
                parameter.grad = torch.empty_like(parameter)
            tracker = stack.enter_context(MemoryTracker(self.vocabulary))
            gradients = [parameter.grad for parameter in self.trainable if parameter.grad is not None]
            tracker.ignore([*self.model.parameters(), *self.model.buffers(), *gradients])
            yield tracker


def empty_model(config: Any, dtype: torch.dtype) -> Any:
    """A causal LM of a configuration on the meta device.

    Args:
        config: Of transformers.
        dtype: Of the weights.

    Raises:
        ModelError: transformers has no causal LM for the configuration.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except ValueError as error:
        raise ModelError(
            f"`model_name`: transformers builds no causal LM from {type(config).__name__}: {one_line(error)}"
        ) from None
    model.tie_weights()
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def with_storages(model: Any, *, autocast: bool) -> Iterator[PlannedModel]:
    """Give a model on the meta device fake storages for the block; whatever runs in the block allocates nothing.

    Args:
        model: From `empty_model`, with or without an adapter.
        autocast: See `PlannedModel`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        made: dict[int, torch.Tensor] = {}
        for part in model.modules():
            for name, value in [*part._parameters.items(), *part._buffers.items()]:
                if value is None:
                    continue
                if id(value) not in made:  # tied ones stay tied
                    made[id(value)] = _with_storage(value)
                (part._parameters if name in part._parameters else part._buffers)[name] = made[id(value)]
        yield PlannedModel(model, autocast)


def _with_storage(value: torch.Tensor) -> Any:
    empty = torch.empty(value.shape, dtype=value.dtype, device="cpu")
    if isinstance(value, torch.nn.Parameter):
        return torch.nn.Parameter(empty, requires_grad=value.requires_grad)
    return empty


@torch.no_grad()
def generation_peak(
    planned: PlannedModel, *, rows: int, prompt: int, new: int, shared: bool, sampled: bool = True, kept: int = 0
) -> Peak:
    """Peak of generating from a key-value cache: at its last token, where the cache is longest, or at the first.

    Args:
        rows: Sequences side by side.
        prompt: Tokens of each prompt.
        new: Tokens of each continuation.
        shared: Whether the rows have one prompt, which is read once.
        sampled: Whether the distribution is cut by top-p, which sorts it.
        kept: How many steps' logits `generate` keeps.
    """
    with planned.tracked(training=False) as tracker:
        cache = keys_and_values(planned.model)
        tokens = torch.zeros(1 if shared else rows, prompt, dtype=torch.long)
        fewer = {"logits_to_keep": 1} if takes(planned.model, "logits_to_keep") else {}
        planned.model(input_ids=tokens, past_key_values=cache, use_cache=True, **fewer)
        if cache is None:
            return tracker.peak
        reading, layers = tracker.peak, list[Any](cache.layers)
        for layer in layers:
            for name in ("keys", "values"):
                states = getattr(layer, name)
                length = min(prompt + new - 1, getattr(layer, "sliding_window", prompt + new))
                setattr(layer, name, torch.empty(rows, states.shape[1], length, states.shape[3], dtype=states.dtype))
        before = [torch.empty(rows, planned.vocabulary, dtype=torch.float32) for _ in range(kept)]
        places = {"position_ids": torch.full((rows, 1), prompt + new - 1)}
        logits = planned.model(
            input_ids=torch.zeros(rows, 1, dtype=torch.long),
            attention_mask=torch.ones(rows, prompt + new, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            **(places if takes(planned.model, "position_ids") else {}),
        ).logits
        scores = logits[:, -1].to(copy=True, dtype=torch.float32)
        if sampled:
            _sample(scores)
        if before:
            scores.log_softmax(-1)
        if tracker.peak is not reading:  # else the prompts' pass is the highest moment, before the cache is long
            held = sum(states.untyped_storage().nbytes() for layer in layers for states in (layer.keys, layer.values))
            tracker.peak.parts["activations"] -= held
            tracker.peak.parts["cache"] = held
    return tracker.peak


def _sample(scores: torch.Tensor) -> None:
    """What transformers' temperature, top-p and multinomial sampling allocate."""
    scores = scores / 1.0
    ordered, order = torch.sort(scores, descending=False)
    remove = ordered.softmax(dim=-1).cumsum(dim=-1) <= 0.1
    scores = scores.masked_fill(remove.scatter(1, order, remove), float("-inf"))
    torch.multinomial(scores.softmax(dim=-1), num_samples=1)
