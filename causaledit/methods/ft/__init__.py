"""FT: fine-tuning of chosen weights on the new answer's tokens, with an optional L∞ bound on the update."""

from causaledit.methods.method import Method

METHOD = Method(
    name="FT",
    hparams="causaledit.methods.ft.hparams:FTHyperParams",
    edit="causaledit.methods.ft.apply:edit",
    needs_subject=False,
    footprint="causaledit.methods.ft.footprint:footprint",
    remedies="causaledit.methods.ft.footprint:remedies",
)
