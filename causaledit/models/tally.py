"""Token counts of a run (kept apart from generation, which needs torch)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TokenCount:
    """Tokens a run generated and trained on (padding not counted)."""

    generated: int = 0
    trained: int = 0
