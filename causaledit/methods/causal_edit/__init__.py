"""CausalEdit (CODE, arXiv 2605.28303).

Read in this order: `hparams` → `prompts` → `traces` (with `giveaways`) → `bootstrap` (stage 1, its reasons in
`reasons`) → `teacher` → `leads` (stage 2's prompts) → `internalise` (stage 2, with `losses`) → `stages`, which leads
from one to the next → `apply`, what a host calls.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="CausalEdit",
    hparams="causaledit.methods.causal_edit.hparams:CausalEditHyperParams",
    edit="causaledit.methods.causal_edit.apply:edit",
    report="causaledit.methods.causal_edit.apply:EditReport",
    distributed=True,
    footprint="causaledit.methods.causal_edit.footprint:footprint",
    remedies="causaledit.methods.causal_edit.footprint:remedies",
)
