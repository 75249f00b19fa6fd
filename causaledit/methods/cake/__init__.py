"""CaKE (arXiv 2503.16356): a plain LoRA on data that makes the model use the new fact where it is looked up later.

Read in this order: `hparams` → `data` (what an edit is trained on) → `apply`, what a host calls.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="CaKE",
    hparams="causaledit.methods.cake.hparams:CaKEHyperParams",
    edit="causaledit.methods.cake.apply:edit",
    report="causaledit.methods.cake.apply:CaKEReport",
    footprint="causaledit.methods.cake.footprint:footprint",
    remedies="causaledit.methods.cake.footprint:remedies",
)
