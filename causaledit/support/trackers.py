"""Which experiment trackers a run may report to: checked before any work; nothing is imported, nothing asked for."""

from __future__ import annotations

import netrc
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from causaledit.errors import HparamsError, did_you_mean
from causaledit.support.extras import require_extra
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

# name, as in transformers' `report_to` → the extra that brings its package
TRACKERS = {"trackio": "logging", "tensorboard": "logging", "wandb": "wandb"}
_WITHOUT_LOGIN = ("offline", "disabled", "dryrun")  # of WANDB_MODE


def read_trackers(report_to: Any, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The trackers that `report_to` names; none for `none`.

    Args:
        report_to: `none`, a name, or a list of names.
        environment: What a tracker is configured by.

    Raises:
        HparamsError: A name is unknown, or Weights & Biases would ask for a login.
        MissingExtraError: A tracker's package is not installed.
    """
    if report_to == "none":
        return ()
    names = [report_to] if isinstance(report_to, str) else report_to
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) for name in names):
        raise HparamsError(
            f"`report_to` must be none, one of {', '.join(TRACKERS)}, or a list of them, got {report_to!r}."
        )
    for name in names:
        if name not in TRACKERS:
            raise HparamsError(
                f"`report_to` knows no tracker {name!r}.{did_you_mean(name, [*TRACKERS, 'none'])} Known: "
                f"{', '.join(TRACKERS)}; none switches it off."
            )
        require_extra(TRACKERS[name], f"`report_to: {name}`", package=name)
    if "wandb" in names and environment.get("WANDB_MODE") not in _WITHOUT_LOGIN and not _wandb_login(environment):
        raise HparamsError(
            "`report_to: wandb` finds no login here: run `wandb login`, set WANDB_API_KEY, or set WANDB_MODE=offline "
            "to keep the run on this machine."
        )
    return tuple(dict.fromkeys(names))


def _wandb_login(environment: Mapping[str, str]) -> bool:
    """Whether `wandb.init` has a key to use, and so does not ask for one in the terminal."""
    if environment.get("WANDB_API_KEY") or environment.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    homes = [environment["NETRC"]] if environment.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in (expanded(home) for home in homes):
        try:
            if netrc.netrc(file).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
