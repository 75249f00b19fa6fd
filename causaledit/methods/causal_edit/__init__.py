"""CausalEdit (CODE, arXiv 2605.28303).

Read in this order: `hparams` → `prompts` → `traces` → `bootstrap` (stage 1) → `teacher` →
`internalise` (stage 2, with `losses`) → `apply`, which holds it together.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="CausalEdit",
    hparams="causaledit.methods.causal_edit.hparams:CausalEditHyperParams",
    edit="causaledit.methods.causal_edit.apply:edit",
    report="causaledit.methods.causal_edit.apply:EditReport",
)
