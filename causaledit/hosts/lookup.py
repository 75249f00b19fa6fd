"""Whose method of a name runs: EasyEdit's own where it is importable, ours otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.errors import HostError, did_you_mean
from causaledit.methods.registry import METHODS, why_broken

if TYPE_CHECKING:
    from causaledit.methods.method import Method


def get_method(name: str, *, host: str = "auto") -> Method:
    """Look a method up.

    Args:
        name: The `alg_name`.
        host: `auto`: EasyEdit's own method of that name where EasyEdit can be imported and has one, ours
            otherwise (CausalEdit is always ours); `embedded`: ours; `easyedit`: EasyEdit's own.

    Raises:
        HostError: There is none of that name; the nearest is offered. Or EasyEdit is asked for and unusable, or the
            installed package that brings the method is.
    """
    known = list(METHODS)
    if host != "embedded" and isinstance(name, str) and name != "CausalEdit":
        from causaledit.hosts import easyedit

        if host == "easyedit" or easyedit.is_available():
            theirs = easyedit.own_methods()
            if name in theirs:
                return theirs[name]
            known = list(theirs) if host == "easyedit" else sorted({*known, *theirs})
    if host != "easyedit" and isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and (reason := why_broken(name)):
        raise HostError(reason)
    raise HostError(
        f"There is no method `alg_name` {name!r} here.{did_you_mean(str(name), known)} Known: {', '.join(known)}."
    )
