"""Nudge: a few steps of gradient descent on one weight. Read `hparams` → `apply`."""

from causaledit.methods.method import Method

METHOD = Method(
    name="Nudge",
    hparams="causaledit_nudge.hparams:NudgeHyperParams",
    edit="causaledit_nudge.apply:edit",
)
