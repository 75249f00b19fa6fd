"""IKE: the new facts (and demonstrations) before every prompt; no weight changes. The upper reference point."""

from causaledit.methods.method import Method

METHOD = Method(
    name="IKE",
    hparams="causaledit.methods.ike.hparams:IKEHyperParams",
    edit="causaledit.methods.ike.apply:edit",
    changes_weights=False,
    needs_subject=False,
)
