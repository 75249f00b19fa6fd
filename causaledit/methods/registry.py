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


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="CausalEdit",
            hparams="causaledit.methods.causal_edit.hparams:CausalEditHyperParams",
            apply="causaledit.methods.causal_edit.apply:apply_causal_edit_to_model",
            batched=True,
        ),
        Method(
            name="ROME",
            hparams="causaledit.methods.rome.hparams:ROMEHyperParams",
            apply="causaledit.methods.rome.apply:apply_rome_to_model",
            batched=True,
        ),
        Method(
            name="MEMIT",
            hparams="causaledit.methods.memit.hparams:MEMITHyperParams",
            apply="causaledit.methods.memit.apply:apply_memit_to_model",
            batched=True,
        ),
        Method(
            name="AlphaEdit",
            hparams="causaledit.methods.alphaedit.hparams:AlphaEditHyperParams",
            apply="causaledit.methods.alphaedit.apply:apply_alphaedit_to_model",
            batched=True,
        ),
        Method(
            name="ICE",
            hparams="causaledit.methods.ice.hparams:ICEHyperParams",
            apply="causaledit.methods.ice.apply:apply_ice_to_model",
            batched=True,
        ),
        Method(
            name="LoRA",
            hparams="causaledit.methods.lora.hparams:LoRAHyperParams",
            apply="causaledit.methods.lora.apply:apply_lora_to_model",
            batched=True,
        ),
        Method(
            name="FT",
            hparams="causaledit.methods.ft.hparams:FTHyperParams",
            apply="causaledit.methods.ft.apply:apply_ft_to_model",
            batched=True,
        ),
        Method(
            name="IKE",
            hparams="causaledit.methods.ike.hparams:IKEHyperParams",
            apply="causaledit.methods.ike.apply:apply_ike_to_model",
            batched=True,
            changes_weights=False,
        ),
    )
}


def get_method(name: str, *, host: str = "auto") -> Method:
    """Look a method up.

    Args:
        name: The `alg_name`.
        host: `auto`: EasyEdit's own method of that name where EasyEdit can be imported and has one, ours
            otherwise (CausalEdit is always ours); `embedded`: ours; `easyedit`: EasyEdit's own.

    Raises:
        HostError: There is none of that name; the nearest is offered. Or EasyEdit is asked for and unusable.
    """
    known = list(METHODS)
    if host != "embedded" and isinstance(name, str) and name != "CausalEdit":
        from causaledit.hosts import easyedit

        if host == "easyedit" or easyedit.is_available():
            theirs = easyedit.own_methods()
            if name in theirs:
                return theirs[name]
            known = list(theirs) if host == "easyedit" else sorted({*known, *theirs})
    if host != "easyedit" and isinstance(name, str) and name in METHODS:
        return METHODS[name]
    raise HostError(
        f"There is no method `alg_name` {name!r} here.{did_you_mean(str(name), known)} Known: {', '.join(known)}."
    )


def method_of(hparams: Any) -> Method | None:
    """The method of ours whose hyper-parameters these are, or None; nothing is imported for it."""
    kinds = {f"{kind.__module__}:{kind.__qualname__}" for kind in type(hparams).__mro__}
    return next((method for method in METHODS.values() if method.hparams in kinds), None)
