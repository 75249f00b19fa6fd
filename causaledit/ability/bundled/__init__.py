"""The bundled ability set: lm-eval tasks with their items, and a text for perplexity and drift. Needs no network."""

from __future__ import annotations

from pathlib import Path

VERSION = 1  # of items, prompts and text: only scores of one version can be compared
FOLDER = Path(__file__).parent
KINDS = ("arithmetic", "comparison", "facts", "reading", "entailment", "sentiment", "instructions")
TASKS = tuple(f"bundled_{kind}" for kind in KINDS)


def bundled_text() -> str:
    """The text on which perplexity and drift are measured."""
    return (FOLDER / "text.txt").read_text(encoding="utf-8")
