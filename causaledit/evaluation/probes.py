"""The closed-book probes of an edit, as data: what is asked before and after.

Their wording is held out: no training prompt of the method is one of them (a test compares them).
A change of wording, or of what is a hit, raises `PROBE_VERSION`; figures compare only within one version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from causaledit.evaluation.answers import normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.requests import EditRequest

PROBE_VERSION = 2

Family = Literal["direct", "reasoning", "multi_hop", "locality"]
MAX_NEW_TOKENS: dict[Family, int] = {"direct": 48, "reasoning": 96, "multi_hop": 48, "locality": 48}

STEP_BY_STEP = "Now, {question} Let's work it out step by step."
WHY = "Now, {question} Why is that? Explain step by step."


@dataclass(frozen=True)
class Probe:
    """One closed-book prompt.

    Attributes:
        family: Which rate it counts in.
        kind: What it is within the family (question, cloze, paraphrase, step by step, why, …).
        prompt: The user message.
        answers: The answer that counts as right, with aliases.
        rivals: What it must not be answered with: the old answer with aliases, for locality the edit's new answer.
    """

    family: Family
    kind: str
    prompt: str
    answers: tuple[str, ...]
    rivals: tuple[str, ...] = ()


def edit_probes(
    request: EditRequest, *, aliases: tuple[str, ...] = (), rival_aliases: tuple[str, ...] = ()
) -> list[Probe]:
    """Direct, reasoning and locality probes of one edit.

    Args:
        request: The edit; its paraphrases and locality questions become probes.
        aliases: Further names of the new answer.
        rival_aliases: Further names of the old answer.
    """
    new = (request.target_new, *aliases)
    old = (*((request.ground_truth,) if request.ground_truth else ()), *rival_aliases)
    question = request.question_form
    lowered = question[:1].lower() + question[1:]
    probes = [
        Probe("direct", "question", question, new, old),
        Probe("direct", "cloze", request.cloze, new, old),
        *(Probe("direct", "paraphrase", pair.question, new, old) for pair in request.rephrase),
        Probe("reasoning", "step by step", STEP_BY_STEP.format(question=lowered), new, old),
        Probe("reasoning", "why", WHY.format(question=lowered), new, old),
    ]
    for pair in request.locality:
        other = () if normalise(pair.answer) in map(normalise, new) else new
        probes.append(Probe("locality", "locality", pair.question, (pair.answer,), other))
    return list(dict.fromkeys(probes))


def case_probes(case: Mapping[str, Any], requests: list[EditRequest]) -> list[Probe]:
    """All probes of an MQuAKE case: those of its edits, and its multi-hop questions.

    Args:
        case: The case (`questions`, `new_answer`, `new_answer_alias`, `single_hops`, `new_single_hops`).
        requests: Its edits.
    """
    probes: list[Probe] = []
    for request in requests:
        probes += edit_probes(
            request,
            aliases=_aliases(case.get("new_single_hops", ()), request.target_new),
            rival_aliases=_aliases(case.get("single_hops", ()), request.ground_truth or ""),
        )
    new = (case["new_answer"], *case.get("new_answer_alias", ()))
    old = (case["answer"], *case.get("answer_alias", ()))
    probes += [Probe("multi_hop", "multi-hop", question, new, old) for question in case["questions"]]
    return probes


def _aliases(hops: Any, answer: str) -> tuple[str, ...]:
    """Aliases of an answer in a chain; codes such as "PL" or flags are left out, they match by accident."""
    return tuple(
        alias for hop in hops if hop["answer"] == answer for alias in hop.get("answer_alias", ()) if len(alias) > 3
    )
