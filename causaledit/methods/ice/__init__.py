"""ICE: consistent in-context editing (arXiv 2406.11194), gradient editing toward the model's own in-context answers."""

from causaledit.methods.method import Method

METHOD = Method(
    name="ICE",
    hparams="causaledit.methods.ice.hparams:ICEHyperParams",
    edit="causaledit.methods.ice.apply:edit",
    needs_subject=False,
    footprint="causaledit.methods.ice.footprint:footprint",
    remedies="causaledit.methods.ice.footprint:remedies",
)
