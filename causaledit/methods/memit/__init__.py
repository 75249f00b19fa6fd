"""MEMIT (arXiv 2210.07229): many facts at once, spread over layers. Read `hparams` → `apply`."""
