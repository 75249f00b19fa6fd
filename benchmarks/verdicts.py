"""What judges say of the efficacy benchmark's answers: the narrative's cause in "why" and where it does not belong,
self-refutation in conflict.

Data flow: answers as they are written → responses for a judge → outcomes per answer or per edit → rates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import JudgeError
from causaledit.facts.requests import requests_from_data
from causaledit.facts.text import word_count
from causaledit.judges.base import Judge, JudgedResponse
from causaledit.judges.judging import judge_responses
from causaledit.judges.registry import get_judge
from causaledit.judges.rule import RuleJudge
from causaledit.judges.store import VerdictStore
from causaledit.mquake.cases import read_case
from causaledit.probes.efficacy import WHY, edit_probes
from causaledit.probes.sets import CaseProbe, build_probes
from causaledit.reading.commitment import Reading, gives_answer
from causaledit.reading.rationale import compare
from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.facts.requests import EditRequest

COLUMNS = {"before": "pre", "stage_1": "stage_1", "after": "post"}  # as a summary names them, as a case does
CONFLICT_TOKENS = 128
JUDGE_WORKERS = 4
# what is read in an answer to "why" about something that was not edited
INTRUSIONS = {
    "right": "why of others: still right",
    "new": "why of others: the edit's answer",
    "cause": "why of others: the edit's cause",
}

Verdicts = Callable[[JudgedResponse], Any]


# ---- "why" ---------------------------------------------------------------------------------------------------------
def why_responses(case: dict, answers: Sequence[dict]) -> list[tuple[dict, JudgedResponse]]:
    """The answers to "why", each with what a judge is given: the question, both answers and the edit's narrative.

    Args:
        case: As in the data file, with narratives.
        answers: The answers to the case's probes, as they are written (`pre`, `stage_1`, `post`).
    """
    asked = {
        probe.prompt: request
        for request in requests_from_data(case["requested_rewrite"])
        for probe in edit_probes(request)
        if probe.kind == "why"
    }
    found = []
    for answer in answers:
        if answer["kind"] != "why" or answer["prompt"] not in asked:
            continue
        request = asked[answer["prompt"]]
        new, *aliases = answer["answers"]
        old, *old_aliases = answer["rivals"] or [None]
        response = JudgedResponse(
            question=request.question_form, prompt=answer["prompt"], response=answer["response"],
            target_new=new, aliases=tuple(aliases), target_old=old, old_aliases=tuple(old_aliases),
            narrative=request.narrative,
        )  # fmt: skip
        found.append((answer, response))
    return found


def rationale_outcomes(case: dict, answers: Sequence[dict], verdict_of: Verdicts | None = None) -> dict[str, Any]:
    """Prompt → whether the answer to "why" gives the cause; None where that is not judged.

    Args:
        case, answers: As for `why_responses`.
        verdict_of: A judge's verdict of a response, or None; the rule judge's where it is left out.
    """
    verdict_of = verdict_of or RuleJudge().judge_rationale
    outcomes = {}
    for answer, response in why_responses(case, answers):
        verdict = verdict_of(response) if response.narrative else None
        judged = verdict is not None and not verdict.error
        outcomes[answer["prompt"]] = verdict.grade == "PASS" if judged else None
    return outcomes


def rationale(case: dict, answers: Sequence[dict], verdict_of: Verdicts | None = None) -> dict:
    """How many of the answers to "why" give the cause that the narrative of their edit tells.

    Returns:
        A rate as plain data, with `responses` and `words_per_response`. An answer whose edit has no narrative is not
        judged; one that gives no explanation, or too thin a one, is no hit.
    """
    outcomes = rationale_outcomes(case, answers, verdict_of)
    words = [word_count(answer["response"]) for answer, _ in why_responses(case, answers)]
    return _with_words(Rate.of(outcomes.values()), words)


def rationales(cases: Sequence[dict], done: Sequence[dict], verdict_of: Verdicts | None = None) -> dict:
    """The `rationale` of all finished cases together, before, after stage 1 (None without it) and after."""
    by_id = {case["case_id"]: case for case in cases}
    return {
        name: _pooled([rationale(by_id[c["case_id"]], c[key], verdict_of) for c in done])
        for name, key in COLUMNS.items()
    }


# ---- another judge -------------------------------------------------------------------------------------------------
def judge_named(text: str) -> Callable[[], Judge]:
    """What gives the judge that `hf:MODEL` or `llm:MODEL@URL` names; without `@URL` as `llm` finds its endpoint.

    A local model is loaded when it is called, so that it takes no memory while edits are measured.

    Raises:
        JudgeError: It names none, or lacks a model or a key.
    """
    kind, _, model = text.partition(":")
    if kind == "hf" and model:
        return lambda: get_judge("hf", model=model)
    name, _, url = model.partition("@")
    if kind != "llm" or not name:
        raise JudgeError(f"--rationale-judge must be hf:MODEL or llm:MODEL@URL, got {text!r}.")
    judge = get_judge("llm", model=name, base_url=url or None)
    return lambda: judge


def judged_rationales(judge: Judge, cases: Sequence[dict], done: Sequence[dict], store: Path) -> dict:
    """As `rationales`, by another judge, whose verdicts are kept in `store` as they come; with its identity, `judge`.

    Raises:
        JudgingStoppedError: The judge cannot go on; what came before is kept.
    """
    by_id = {case["case_id"]: case for case in cases}
    responses = [
        response
        for result in done
        for key in COLUMNS.values()
        for _, response in why_responses(by_id[result["case_id"]], result[key])
        if response.narrative
    ]
    with VerdictStore(store) as kept:
        units = [("rationale", response) for response in responses]
        table = judge_responses(judge, units, store=kept, workers=JUDGE_WORKERS)
    return {"judge": judge.identity, **rationales(cases, done, lambda response: table.get("rationale", response))}


# ---- conflict ------------------------------------------------------------------------------------------------------
def conflict_probes(case: dict) -> list[CaseProbe]:
    """The eight conflict prompts of each edit with an old answer, as `causaledit run` asks them."""
    return build_probes(read_case(case), ("conflict",))


def refutations(case: dict, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Per edit: whether an answer asserts the new answer, whether one refutes itself, and their numbers of words.

    Args:
        case: As in the data file.
        answers: To `conflict_probes(case)`, in order.
    """
    read = read_case(case)
    found: dict[int, dict[str, Any]] = {}
    for probe, answer in zip(conflict_probes(case), answers, strict=True):
        assert probe.edit is not None
        edit = read.edits[probe.edit]
        verdict = RuleJudge().judge_refutation(
            JudgedResponse(
                question=edit.request.question_form, prompt=probe.prompt, response=answer,
                target_new=edit.request.target_new, aliases=edit.new_aliases,
                target_old=edit.request.ground_truth, old_aliases=edit.old_aliases,
            )
        )  # fmt: skip
        one = found.setdefault(probe.edit, {"edit": probe.edit, "asserts": False, "refutes": False, "words": []})
        one["asserts"] |= bool(verdict.assertion_of_target_new)
        one["refutes"] |= bool(verdict.self_refutation)
        one["words"].append(word_count(answer))
    return list(found.values())


def self_refutations(done: Sequence[dict]) -> dict:
    """SRR over the conflict probes, after stage 1 and after: edits that refute themselves, of those that assert.

    None where conflict probes were not asked.
    """
    return {name: _self_refutation(done, key) for name, key in COLUMNS.items() if name != "before"}


def _self_refutation(done: Sequence[dict], key: str) -> dict | None:
    edits = [edit for result in done for edit in (result.get("refutations") or {}).get(key) or ()]
    if not edits:
        return None
    asserting = [edit for edit in edits if edit["asserts"]]
    return _with_words(Rate.of(edit["refutes"] for edit in asserting), [n for edit in edits for n in edit["words"]])


# ---- "why" of what was not edited ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Neighbour:
    """A "why" about something that no edit changes.

    Attributes:
        prompt: A locality question with the cue of the edits' own "why" probes.
        answer: The locality question's answer, which must stay.
        request: The edit whose answer and cause must not turn up.
    """

    prompt: str
    answer: str
    request: EditRequest


def neighbours(case: dict) -> list[Neighbour]:
    """The locality questions of a case's edits, each asked for the reason."""
    found = {}
    for request in requests_from_data(case["requested_rewrite"]):
        for pair in request.locality:
            prompt = WHY.format(question=pair.question[:1].lower() + pair.question[1:])
            found.setdefault(prompt, Neighbour(prompt, pair.answer, request))
    return list(found.values())


def intrusions(case: dict, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Per answer: whether it is right, whether it gives the edit's new answer, whether it tells the edit's cause.

    Args:
        case: As in the data file.
        answers: To `neighbours(case)`, in order.
    """
    found = []
    for neighbour, answer in zip(neighbours(case), answers, strict=True):
        request, right = neighbour.request, (neighbour.answer,)
        new = (request.target_new,)
        told = {"question": neighbour.prompt, "prompt": neighbour.prompt}
        cause = compare(answer, request.narrative or "", Reading("", "", "", ""), new=right, question=neighbour.prompt)
        found.append(
            {
                "prompt": neighbour.prompt,
                "response": answer,
                "right": gives_answer(answer, right, new, **told),
                "new": gives_answer(answer, new, right, **told),
                "cause": cause.grade == "PASS",
                "words": word_count(answer),
            }
        )
    return found


def intrusion_rates(done: Sequence[dict]) -> dict[str, dict]:
    """What became of the "why" about what was not edited: by name of the rate, by column.

    `right` is over the answers that were right before; `new` and `cause` are over all of them: the fewer the better.
    """
    kept = [c for c in done if c.get("intrusions")]
    return {name: {column: _intrusion(kept, name, key) for column, key in COLUMNS.items()} for name in INTRUSIONS}


def _intrusion(done: Sequence[dict], name: str, key: str) -> dict | None:
    asked = [case["intrusions"] for case in done if key in case["intrusions"]]
    if not asked:
        return None
    pairs = [
        pair
        for found in asked
        for pair in zip(found["pre"], found[key], strict=True)
        if name != "right" or pair[0]["right"]
    ]
    return _with_words(Rate.of(after[name] for _, after in pairs), [after["words"] for _, after in pairs])


# ---- rates ---------------------------------------------------------------------------------------------------------
def _with_words(rate: Rate, words: Sequence[int]) -> dict:
    mean = sum(words) / len(words) if words else None
    return {**rate.to_dict(), "responses": len(words), "words_per_response": mean}


def _pooled(parts: Sequence[dict]) -> dict | None:
    n = sum(part["responses"] for part in parts)
    words = sum(part["responses"] * (part["words_per_response"] or 0) for part in parts)
    rate = Rate(*(sum(part[key] for part in parts) for key in ("hits", "total", "not_judged")))
    return {**rate.to_dict(), "responses": n, "words_per_response": words / n if n else None} if n else None
