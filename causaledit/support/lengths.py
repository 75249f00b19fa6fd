"""How long the texts of an edit are; apart from what plans with them, so that the command line can show its help."""

from __future__ import annotations

from dataclasses import dataclass

from causaledit.support.options import option


@dataclass(frozen=True)
class Lengths:
    """How long the texts of an edit are, in tokens."""

    prompt: int = option(64, "Tokens of a closed-book prompt, chat template included.", flag="--prompt-tokens", min=1)
    opening: int = option(
        32, "Tokens with which all prompts begin, the chat template's opening: read once where prompts are short.",
        flag="--opening-tokens", min=0,
    )  # fmt: skip
    context: int = option(
        448, "Tokens of the teacher's prompt: narrative, both answers and question.", flag="--context-tokens", min=1
    )
    answer: int = option(8, "Tokens of an answer.", flag="--answer-tokens", min=1)
    trace: int | None = option(
        None, "Tokens of a trace that stage 1 trains on; the most that may be sampled by default.",
        flag="--trace-tokens", min=1,
    )  # fmt: skip
