"""Where the bundled files are: beside the package in a checkout, inside it once installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _root() -> Path:
    checkout = _PACKAGE.parent
    return checkout if (checkout / "hparams" / "CausalEdit").is_dir() else _PACKAGE


def hparams_dir(alg_name: str) -> Path:
    """Folder with the bundled YAML files of one method."""
    return _root() / "hparams" / alg_name


def data_dir() -> Path:
    """Folder with the bundled data sets."""
    return _root() / "data"
