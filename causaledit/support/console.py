"""A terminal that shows texts as they are."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def plain_console(*, markup: bool = False, **options: Any) -> Console:
    """A rich console that takes nothing in a text for its own: neither `[/b]` for markup nor `:x:` for an emoji.

    What is printed are answers of models, requests and paths, and with `--json` what another program reads.

    Args:
        markup: Read markup all the same; whoever prints escapes then what is not theirs.
        options: Further arguments of `rich.console.Console`.
    """
    return Console(emoji=False, markup=markup, **options)
