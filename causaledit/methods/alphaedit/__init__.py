"""AlphaEdit (arXiv 2410.02355): as MEMIT, in the null space of what is to stay.

Read `hparams` → `null_space` → `apply`.
"""
