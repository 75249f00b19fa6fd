"""Methods by name. A method registers a loader, so that a look-up imports only what it needs."""

from __future__ import annotations

from typing import Any

from causaledit.methods.method import Method

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
            check="causaledit.methods.shared.locate_edit.editor:check_locate_edit",
        ),
        Method(
            name="MEMIT",
            hparams="causaledit.methods.memit.hparams:MEMITHyperParams",
            apply="causaledit.methods.memit.apply:apply_memit_to_model",
            batched=True,
            check="causaledit.methods.shared.locate_edit.editor:check_locate_edit",
        ),
        Method(
            name="AlphaEdit",
            hparams="causaledit.methods.alphaedit.hparams:AlphaEditHyperParams",
            apply="causaledit.methods.alphaedit.apply:apply_alphaedit_to_model",
            batched=True,
            check="causaledit.methods.shared.locate_edit.editor:check_locate_edit",
        ),
        Method(
            name="ICE",
            hparams="causaledit.methods.ice.hparams:ICEHyperParams",
            apply="causaledit.methods.ice.apply:apply_ice_to_model",
            batched=True,
            needs_subject=False,
        ),
        Method(
            name="LoRA",
            hparams="causaledit.methods.lora.hparams:LoRAHyperParams",
            apply="causaledit.methods.lora.apply:apply_lora_to_model",
            batched=True,
            needs_subject=False,
        ),
        Method(
            name="FT",
            hparams="causaledit.methods.ft.hparams:FTHyperParams",
            apply="causaledit.methods.ft.apply:apply_ft_to_model",
            batched=True,
            needs_subject=False,
        ),
        Method(
            name="IKE",
            hparams="causaledit.methods.ike.hparams:IKEHyperParams",
            apply="causaledit.methods.ike.apply:apply_ike_to_model",
            batched=True,
            changes_weights=False,
            needs_subject=False,
        ),
    )
}


def method_of(hparams: Any) -> Method | None:
    """The method of ours whose hyper-parameters these are, or None; nothing is imported for it."""
    kinds = {f"{kind.__module__}:{kind.__qualname__}" for kind in type(hparams).__mro__}
    return next((method for method in METHODS.values() if method.hparams in kinds), None)
