"""A headless Chromium for the tests of pages; they skip, saying so, where there is none."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds: a loaded machine


@contextlib.contextmanager
def started() -> Iterator[Any]:
    """A browser of playwright's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    candidates = (os.environ.get("CHROMIUM"), "/usr/bin/chromium", shutil.which("chromium"))
    chromium = next((c for c in candidates if c and Path(c).exists()), None)
    if chromium is None:
        pytest.skip("no Chromium: set CHROMIUM to one")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=list(_FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def silent_tab(browser: Any, allowed: Any, **options: Any) -> Iterator[Any]:
    """A tab; afterwards its console was silent and nothing was asked for that is not allowed.

    Args:
        browser: From `started`.
        allowed: Whether a URL may be asked for.
        options: As in playwright's `new_page`.
    """
    tab = browser.new_page(**options)
    tab.set_default_timeout(PATIENCE)
    heard: list[str] = []
    tab.on("console", lambda message: heard.append(message.text))
    tab.on("pageerror", lambda error: heard.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith("data:") or allowed(r.url) else heard.append(r.url))
    try:
        yield tab
    finally:
        tab.close()
    assert heard == []
