"""An adapter that was trained on quantised weights, merged into the weights as they were before.

The merged model is another one than that which was trained: its weights have the precision that quantising took away.
How far apart the two are is measured, position by position, while both are there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model, set_peft_model_state_dict

from causaledit.models.adapters import adapter_state, forget_adapter
from causaledit.models.edited import Edited
from causaledit.models.loading import load_model
from causaledit.models.quantised import originals_of
from causaledit.models.randomness import in_eval_mode

if TYPE_CHECKING:
    from collections.abc import Sequence

POSITIONS = 8  # at the end of each text, at which the two models are compared


@dataclass(frozen=True)
class MergeError:
    """How far a merged model is from the quantised one with its adapter, at the ends of some texts.

    Attributes:
        base: Where the weights are that were merged into.
        dtype: Their precision.
        quantised: The precision of what the adapter was trained on, as bitsandbytes calls it.
        texts: Number of texts: the edit's own prompts with their new answers, and bundled questions.
        positions: Number of positions compared.
        mean_kl: Mean over them of KL(quantised with adapter ‖ merged), in nats.
        largest_kl: The largest of them.
        largest_logit_difference: Over all positions and tokens, of logits that were shifted to a mean of 0.
        same_first: Share of positions at which both give the same token the highest probability.
    """

    base: str
    dtype: str
    quantised: str
    texts: int
    positions: int
    mean_kl: float
    largest_kl: float
    largest_logit_difference: float
    same_first: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class MergedElsewhere(Edited):
    """An edit in a network of its own; the one that was trained on is as it was.

    Args:
        model: The merged network.
        plain: The quantised network.
        changed: How many weights the adapter reached.
    """

    def __init__(self, model: Any, plain: Any, changed: int) -> None:
        super().__init__(model, plain)
        self._changed = changed

    def _take_back(self, handed_over: bool) -> Any:
        return self.plain

    def parameters_changed(self) -> int:
        """Those that the adapter was merged into."""
        return self._changed


def merge_into_originals(
    peft_model: Any, model: Any, texts: Sequence[Sequence[int]], *, dtype: str = "auto", fp16: bool = False
) -> tuple[MergedElsewhere, MergeError]:
    """Load the weights that a quantised model was made from, merge its adapter into them, and compare the two.

    Args:
        peft_model: The trained adapter around `model`; taken off again.
        model: The quantised network, with nothing on it afterwards.
        texts: Token ids on which the two are compared.
        dtype, fp16: Precision of the merged weights, as for `load_model`.

    Raises:
        ModelError: There are no such weights any more.
    """
    source = originals_of(model)
    wanted = _last_logits(peft_model, texts)
    config = next(iter(peft_model.peft_config.values()))
    state = {name: value.detach().cpu() for name, value in adapter_state(peft_model).items()}
    peft_model.unload()
    forget_adapter(model)
    fresh = load_model(source, device=model.device, dtype=dtype, fp16=fp16).model
    adapted = get_peft_model(fresh, config)
    set_peft_model_state_dict(adapted, state)
    reached = {id(p): p.numel() for layer in _adapted(adapted) for p in [layer.get_base_layer().weight]}
    merged: Any = adapted.merge_and_unload()
    forget_adapter(merged)
    merged.eval()
    error = _compared(wanted, _last_logits(merged, texts))
    bits = 4 if getattr(model.config.quantization_config, "load_in_4bit", False) else 8
    return MergedElsewhere(merged, model, sum(reached.values())), MergeError(
        base=source, dtype=str(merged.dtype).removeprefix("torch."), quantised=f"{bits}bit",
        texts=len(texts), **error,
    )  # fmt: skip


def _adapted(adapted: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]


@torch.no_grad()
def _last_logits(model: Any, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    """Per text the `(positions, vocabulary)` logits at its end, in float32 and in host memory."""
    found = []
    with in_eval_mode(model):
        for text in texts:
            logits = model(input_ids=torch.tensor([list(text)], device=model.device), use_cache=False).logits[0]
            found.append(logits[-POSITIONS:].float().cpu())
    return found


def _compared(trained: Sequence[torch.Tensor], merged: Sequence[torch.Tensor]) -> dict[str, Any]:
    kl, difference, same = [], 0.0, []
    for one, other in zip(trained, merged, strict=True):
        p, q = one.log_softmax(-1), other.log_softmax(-1)
        kl.append((p.exp() * (p - q)).sum(-1))
        gap = (one - one.mean(-1, keepdim=True)) - (other - other.mean(-1, keepdim=True))
        difference = max(difference, float(gap.abs().max()))
        same.append(one.argmax(-1) == other.argmax(-1))
    every = torch.cat(kl)
    return {
        "positions": len(every),
        "mean_kl": float(every.mean()),
        "largest_kl": float(every.max()),
        "largest_logit_difference": difference,
        "same_first": float(torch.cat(same).float().mean()),
    }
