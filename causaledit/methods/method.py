"""What a method is: its entry in the registry, its report, and what the edits of a sequence share."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from causaledit.support.costs import EditTally, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.facts.requests import EditRequest


@dataclass(frozen=True)
class Method:
    """One editing method: where its hyper-parameters and its apply function are.

    Attributes:
        name: The `alg_name`.
        hparams: `"module:attribute"` of the hyper-parameter class.
        apply: `"module:attribute"` of the function a host calls.
        batched: Whether several requests may be applied together.
        changes_weights: False for a method whose edit lives in the prompt (IKE).
    """

    name: str
    hparams: str
    apply: str
    batched: bool
    changes_weights: bool = True

    def load_hparams(self) -> type:
        """The hyper-parameter class."""
        return _load(self.hparams)

    def load_apply(self) -> Callable[..., Any]:
        """`apply(model, tok, requests, hparams, copy, return_orig_weights, …) -> (model, weights_copy)`."""
        return _load(self.apply)


def _load(reference: str) -> Any:
    module, attribute = reference.split(":")
    return getattr(import_module(module), attribute)


@dataclass
class MethodReport:
    """What one call did, for the model card and the tables.

    Attributes:
        requests: The edits as the method took them.
        losses: Per stage, the loss of each optimiser step.
        trained_prompts: Every user prompt that the edit was trained on: such a question is no test of it.
        tally: Seconds per stage and tokens.
    """

    requests: list[EditRequest] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    trained_prompts: list[str] = field(default_factory=list)
    tally: EditTally = field(default_factory=EditTally)

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """What `causaledit.json` says of an edit: requests, hyper-parameters, versions, metrics, cost.

        Args:
            hparams: The method's hyper-parameters.
            metrics: What the host measured, one entry an edit.
        """
        return {
            "method": hparams.alg_name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "requests": [request.to_dict() for request in self.requests],
            "losses": self.losses,
            "hparams": hparams.to_dict(),
            "versions": versions(),
            "metrics": metrics,
            "seconds": self.tally.seconds,
            "tokens": vars(self.tally.tokens),
        }


Memory = TypeVar("Memory")


class EditSequence:
    """The methods' memories of one sequence of edits, by method name."""

    def __init__(self) -> None:
        self._memories: dict[str, Any] = {}

    def memory(self, method: str, make: Callable[[], Memory]) -> Memory:
        """The method's memory, made by `make` at its first edit; written to by edits that succeeded."""
        return self._memories.setdefault(method, make())
