"""CausalEdit (CODE, arXiv 2605.28303).

Read in this order: `hparams` → `prompts` → `traces` → `bootstrap` (stage 1) → `teacher` →
`internalise` (stage 2, with `losses`) → `apply`, which holds it together.
"""
