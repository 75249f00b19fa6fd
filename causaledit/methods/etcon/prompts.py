"""Every text EtCon shows a model, and how an answer is written and read back. Written for this project."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.facts.relations import RelationBank

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest
    from causaledit.methods.etcon.hparams import EtConHyperParams

# answer format → wordings; `{form}` is the question or the cloze
REASONING_CUES = {
    "boxed": (
        "{form} Reason step by step. Close with the final answer alone, written as "
        "<answer> \\boxed{{final answer}} </answer>.",
    ),
    "line": (
        "{form} Think step by step, and close with a line that begins with 'Answer:'.",
        "{form} Reason step by step, then give the answer on a last line.",
    ),
}

OPENING, CLOSING = "<answer>", "</answer>"
BOX = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}")
LINE = re.compile(r"^[ \t*]*answer\s*:[ \t*]*(.*)$", re.IGNORECASE | re.MULTILINE)


def reasoning_prompts(request: EditRequest, hparams: EtConHyperParams) -> list[str]:
    """The closed-book prompts that ask for a reasoning and an answer in the format; both stages use them."""
    forms = {"question": request.question_form, "cloze": request.cloze}
    cues = REASONING_CUES[hparams.answer_format]
    return [cue.format(form=forms[form]) for form in hparams.prompt_forms for cue in cues]


def direct_prompts(request: EditRequest, hparams: EtConHyperParams) -> list[str]:
    """Prompts that ask for the fact alone: its question, its cloze, paraphrases; none with `direct_prompts: false`."""
    if not hparams.direct_prompts:
        return []
    paraphrases = RelationBank.bundled().paraphrases(request, hparams.prompt_paraphrases)
    return list(dict.fromkeys([request.question_form, request.cloze, *paraphrases]))


def closing(answer: str, answer_format: str) -> str:
    """The end of a response that gives an answer."""
    return f"{OPENING} \\boxed{{{answer}}} {CLOSING}" if answer_format == "boxed" else f"Answer: {answer}"


def read_closing(response: str, answer_format: str) -> tuple[str, str, str] | None:
    """A response as what comes before its first answer in the format, that answer, and what comes after it.

    Returns:
        None where there is no such answer, or an empty one.
    """
    if answer_format == "line":
        found = LINE.search(response)
        start, end = found.span() if found else (0, 0)
    else:
        start = response.find(OPENING)
        end = response.find(CLOSING, start)
        found = BOX.search(response, start, end) if 0 <= start < end else None
        end += len(CLOSING)
    answer = found[1].strip(" \t*") if found else ""
    return (response[:start], answer, response[end:]) if answer else None
