"""Packages that only some users need: checked before any work, naming the extra that installs them."""

from __future__ import annotations

from importlib.util import find_spec

from causaledit.errors import MissingExtraError

# what each extra of pyproject.toml brings, by the name it is imported under
EXTRAS = {
    "report": ("matplotlib",),
    "gpu": ("bitsandbytes",),
    "vllm": ("vllm",),
    "ray": ("ray",),
    "ability": ("lm_eval",),
    "ui": ("gradio",),
    "logging": ("trackio", "tensorboard"),
    "wandb": ("wandb",),
}


def require_extra(extra: str, purpose: str, *, package: str | None = None) -> None:
    """Make sure that an extra's packages are installed.

    Args:
        extra: A key of `EXTRAS`.
        purpose: What needs it, as the user called it (`--html`, `distill_use_vllm`).
        package: The one of them that is needed; None: all.

    Raises:
        MissingExtraError: A package is missing; the message says how to install it.
    """
    missing = [name for name in EXTRAS[extra] if package in (None, name) and find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(missing)}, which cannot be found here: "
            f"pip install 'causaledit[{extra}]' (from a checkout: pip install -c constraints.txt '.[{extra}]')."
        )
