"""Methods by name. A method registers a loader, so that a look-up imports only what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from causaledit.errors import HostError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Method:
    """One editing method: where its hyper-parameters and its apply function are.

    Attributes:
        name: The `alg_name`.
        hparams: `"module:attribute"` of the hyper-parameter class.
        apply: `"module:attribute"` of the function a host calls.
        batched: Whether several requests may be applied together.
    """

    name: str
    hparams: str
    apply: str
    batched: bool

    def load_hparams(self) -> type:
        """The hyper-parameter class."""
        return _load(self.hparams)

    def load_apply(self) -> Callable[..., Any]:
        """`apply(model, tok, requests, hparams, copy, return_orig_weights, …) -> (model, weights_copy)`."""
        return _load(self.apply)


def _load(reference: str) -> Any:
    module, attribute = reference.split(":")
    return getattr(import_module(module), attribute)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="CausalEdit",
            hparams="causaledit.methods.causal_edit.hparams:CausalEditHyperParams",
            apply="causaledit.methods.causal_edit.apply:apply_causal_edit_to_model",
            batched=True,
        ),
    )
}


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        HostError: There is none of that name; the nearest is offered.
    """
    try:
        return METHODS[name]
    except (KeyError, TypeError):
        raise HostError(
            f"There is no method `alg_name` {name!r} here.{did_you_mean(str(name), METHODS)} "
            f"Known: {', '.join(METHODS)}."
        ) from None
