"""LoRA: supervised fine-tuning of an adapter on the new answer's tokens, merged afterwards."""

from causaledit.methods.method import Method

METHOD = Method(
    name="LoRA",
    hparams="causaledit.methods.lora.hparams:LoRAHyperParams",
    edit="causaledit.methods.lora.apply:edit",
    footprint="causaledit.methods.lora.footprint:footprint",
    remedies="causaledit.methods.lora.footprint:remedies",
    needs_subject=False,
)
