"""ROME (arXiv 2202.05262): one fact, one layer, a change of rank one. Read `hparams` → `apply`."""
