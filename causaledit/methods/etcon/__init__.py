"""EtCon, edit then consolidate (arXiv 2512.04753): proximal SFT on FFN layers, then GRPO with a reward of four parts.

Read in this order: `hparams` → `prompts` → `labels` (what stage 1 learns) → `proximal` (stage 1) → `rewards` →
`consolidate` (stage 2) → `apply`, what a host calls.
"""

from causaledit.methods.method import Method

METHOD = Method(
    name="EtCon",
    hparams="causaledit.methods.etcon.hparams:EtConHyperParams",
    edit="causaledit.methods.etcon.apply:edit",
    report="causaledit.methods.etcon.apply:EtConReport",
    footprint="causaledit.methods.etcon.footprint:footprint",
    remedies="causaledit.methods.etcon.footprint:remedies",
)
