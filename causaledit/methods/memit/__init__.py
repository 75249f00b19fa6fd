"""MEMIT (arXiv 2210.07229): many facts at once, spread over layers. Read `hparams` → `apply`."""

from causaledit.methods.method import Method

METHOD = Method(
    name="MEMIT",
    hparams="causaledit.methods.memit.hparams:MEMITHyperParams",
    edit="causaledit.methods.memit.apply:edit",
    report="causaledit.methods.shared.locate_edit.editor:LocateEditReport",
    check="causaledit.methods.shared.locate_edit.subjects:refuse_unclear_subjects",
    footprint="causaledit.methods.memit.footprint:footprint",
    remedies="causaledit.methods.shared.locate_edit.footprint:remedies",
)
