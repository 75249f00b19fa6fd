"""ROME (arXiv 2202.05262): one fact, one layer, a change of rank one. Read `hparams` → `apply`."""

from causaledit.methods.method import Method

METHOD = Method(
    name="ROME",
    hparams="causaledit.methods.rome.hparams:ROMEHyperParams",
    edit="causaledit.methods.rome.apply:edit",
    report="causaledit.methods.shared.locate_edit.editor:LocateEditReport",
    check="causaledit.methods.shared.locate_edit.subjects:refuse_unclear_subjects",
    footprint="causaledit.methods.rome.footprint:footprint",
    remedies="causaledit.methods.shared.locate_edit.footprint:remedies",
)
