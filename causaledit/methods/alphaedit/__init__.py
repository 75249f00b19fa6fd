"""AlphaEdit (arXiv 2410.02355): as MEMIT, in the null space of what must stay.

Read `hparams` → `null_space` → `apply`.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="AlphaEdit",
    hparams="causaledit.methods.alphaedit.hparams:AlphaEditHyperParams",
    edit="causaledit.methods.alphaedit.apply:edit",
    report="causaledit.methods.shared.locate_edit.editor:LocateEditReport",
    check="causaledit.methods.shared.locate_edit.subjects:refuse_unclear_subjects",
    footprint="causaledit.methods.alphaedit.footprint:footprint",
    remedies="causaledit.methods.shared.locate_edit.footprint:remedies",
)
