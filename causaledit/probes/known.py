"""Which cases of a file measure integration on a given model: what it must know before an edit, and what it must not.

Portability asks whether a new fact is used with what a model knew already. A case whose other facts the model does not
know measures missing knowledge instead, and one whose new fact it knows already measures nothing (arXiv 2602.02028).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.errors import RunError, did_you_mean
from causaledit.facts.answers import alias_match
from causaledit.facts.text import normalise
from causaledit.probes.asking import Prober
from causaledit.support.jsonl import JsonlStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from causaledit.mquake.cases import Case, Hop
    from causaledit.support.progress import ProgressSink

REQUIREMENTS = ("hops", "chain")
MAX_NEW_TOKENS = 32
CASES_AT_ONCE = 8
RULES = (
    "relation left out",
    "new fact known",
    "unedited hop not known",
    "old chain not known",
)


@dataclass
class Filtered:
    """What a filter kept.

    Attributes:
        kept: Positions of the cases that stay.
        dropped: Case id and the first rule that dropped it, in the file's order.
        by_rule: How many fell out by which rule; every rule is named.
    """

    kept: list[int] = field(default_factory=list)
    dropped: list[tuple[Any, str]] = field(default_factory=list)

    @property
    def by_rule(self) -> dict[str, int]:
        """See above."""
        found = Counter(rule for _, rule in self.dropped)
        return {rule: found[rule] for rule in RULES}


def parse_requirements(value: str) -> tuple[str, ...]:
    """The names of `--known hops,chain`.

    Raises:
        RunError: A name is unknown.
    """
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if name not in REQUIREMENTS:
            raise RunError(
                f"--known: there is no {name!r}.{did_you_mean(name, REQUIREMENTS)} Known: {', '.join(REQUIREMENTS)}."
            )
    return tuple(name for name in REQUIREMENTS if name in names)


def filter_known(
    cases: Sequence[Case],
    model: Any,
    tokenizer: Any,
    *,
    known: Sequence[str],
    leave_out: Sequence[str] = (),
    answers: Path | None = None,
    label: str = "",
    progress: ProgressSink,
) -> Filtered:
    """Keep the cases that a model can be tested on.

    A case is dropped, by the first of these rules that holds: it edits a relation of `leave_out`; the model gives a new
    answer to an edit's question or cloze already; with `hops`, it does not give the answer of a hop of the new chain
    that no edit makes, asked by question or cloze; with `chain`, it answers none of the multi-hop questions as before
    the edit (a case of another form asks none, and stays). Answers are greedy and count by name (`alias_match`, the
    subject's own name left out), where the longer one of old and new answer does not name the other within it.

    Args:
        cases: To choose from.
        known: Of `REQUIREMENTS`.
        leave_out: Relation ids.
        answers: JSON-lines file that keeps the model's answers; a later call goes on from it.
        label: The model's name: answers of another model are refused.
        progress: Counts cases.

    Raises:
        RunError: `answers` holds those of another model.
    """
    result = Filtered()
    prober = Prober(tokenizer, max_new_tokens=MAX_NEW_TOKENS)
    progress.start("asking", len(cases))
    with JsonlStore(answers, "the model's answers") as store:
        _refuse_another_model(store, label)
        for start in range(0, len(cases), CASES_AT_ONCE):
            part = cases[start : start + CASES_AT_ONCE]
            asked = [case for case in part if not _left_out(case, leave_out)]
            prompts = dict.fromkeys(prompt for case in asked for prompt in _prompts(case, known))
            missing = [prompt for prompt in prompts if prompt not in store.rows]
            for prompt, response in zip(missing, prober.ask(model, missing) if missing else (), strict=True):
                store.put({"key": prompt, "response": response})
            for position, case in enumerate(part, start=start):
                rule = _rule(case, store, known, leave_out)
                if rule is None:
                    result.kept.append(position)
                else:
                    result.dropped.append((case.case_id, rule))
                progress.advance()
    progress.finish()
    return result


def _refuse_another_model(store: JsonlStore, label: str) -> None:
    first = store.rows.get("")
    if first is None:
        store.put({"key": "", "model": label, "max_new_tokens": MAX_NEW_TOKENS})
    elif first.get("model") != label or first.get("max_new_tokens") != MAX_NEW_TOKENS:
        raise RunError(
            f"--out: {str(store.path)!r} holds the answers of {first.get('model')!r}, not of {label!r}: name another "
            "--out, or remove that file."
        )


def _left_out(case: Case, relations: Sequence[str]) -> bool:
    return any(edit.relation in relations for edit in case.edits)


def _unedited_hops(case: Case) -> Iterator[Hop]:
    return (hop for number, hop in enumerate(case.hops) if case.edit_of_hop(number) is None)


def _prompts(case: Case, known: Sequence[str]) -> Iterator[str]:
    """Everything that a case's rules need to have asked."""
    for edit in case.edits:
        yield from (edit.request.question_form, edit.request.cloze)
    if "hops" in known:
        for hop in _unedited_hops(case):
            yield from (hop.question, hop.cloze)
    if "chain" in known:
        yield from case.questions


def _rule(case: Case, store: JsonlStore, known: Sequence[str], leave_out: Sequence[str]) -> str | None:
    """The first rule that drops a case, or None."""
    if _left_out(case, leave_out):
        return RULES[0]

    def gives(prompts: Sequence[str], names: Sequence[str], subject: str = "", rivals: Sequence[str] = ()) -> bool:
        responses = [store.rows[prompt]["response"] for prompt in prompts]
        return any(alias_match(_without(text, subject), names, rivals) for text in responses)

    for edit in case.edits:
        request = edit.request
        forms = (request.question_form, request.cloze)
        new = (request.target_new, *edit.new_aliases, *request.target_aliases)
        old = (request.ground_truth or "", *edit.old_aliases, *request.ground_truth_aliases)
        if gives(forms, new, request.subject, rivals=old):
            return RULES[1]
    if "hops" in known and not all(
        gives((hop.question, hop.cloze), (hop.answer, *hop.answer_alias)) for hop in _unedited_hops(case)
    ):
        return RULES[2]
    after = (case.new_answer, *case.new_answer_alias)
    asked = "chain" in known and case.questions
    if asked and not gives(case.questions, (case.answer, *case.answer_alias), rivals=after):
        return RULES[3]
    return None


def _without(response: str, subject: str) -> str:
    """A response without its subject's name, which may hold an answer's."""
    if not subject or normalise(subject) not in normalise(response):
        return response
    return re.sub(re.escape(subject), " ", response, flags=re.IGNORECASE)
