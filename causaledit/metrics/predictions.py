"""Read a metrics file and find what is to be judged in it.

Data flow: metrics.json → **cases, edits, items** → judge → verdicts → metrics. The reader takes published files
as they are (keys missing, `None`, answers as a text or as an object); what it cannot attribute to an edit it
leaves out with a warning, because a guess would be counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from causaledit.errors import MetricsError
from causaledit.facts.rewrites import read_rewrite
from causaledit.facts.text import normalise
from causaledit.judges.base import JudgedResponse, Task
from causaledit.metrics.attribution import hops_by_edit, names_in
from causaledit.metrics.published import (
    as_list,
    asked_or_prompt,
    hop_lists,
    present,
    prompt_of,
    question_of,
    references_of,
    response_of,
    rivals_of,
)
from causaledit.probes.portability import without_tags
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from causaledit.facts.rewrites import Rewrite

logger = logging.getLogger(__name__)

ProbeGroup = Literal[
    "hop_wise", "multi_hop", "conflict", "open_book_hop_wise", "open_book_conflict", "locality", "portability"
]

# where a probe's predictions lie under `post`
HOP_WISE_KEYS: dict[ProbeGroup, str] = {
    "hop_wise": "hop_wise_pred",
    "open_book_hop_wise": "causal_enhanced_hop_wise_pred",
}
CONFLICT_KEYS: dict[ProbeGroup, str] = {
    "conflict": "conflict_probe",
    "open_book_conflict": "causal_enhanced_conflict_probe",
}
WHY_SLOT = 2  # cloze, question, question with a "why"
CONFLICT_PROBES = 8  # per edit
DESCRIBED_FIRST = 4  # the first four of them describe the subject before they answer


@dataclass(frozen=True)
class JudgedEdit:
    """One edit of a case, with what the case's hops add to it.

    Attributes:
        case: Position of the case in the file, from 0.
        case_id: Its id.
        index: Position in `requested_rewrite`, from 0.
        subject: As in the file; with `relation` and `target_new` it pairs the edit across files.
        relation: `relation_id`, or the prompt where there is none.
        question: The fact as a question, or the cloze with the subject filled in.
        target_new: The new answer.
        target_old: The old one, where the file has it.
        aliases: Further names of the new answer, from the reference answers of the edit's hops.
        narrative: The narrative without HTML tags, where the file has one.
        hops: Which hops of the new chain belong to it.
    """

    case: int
    case_id: Any
    index: int
    subject: str
    relation: str
    question: str
    target_new: str
    target_old: str | None
    aliases: tuple[str, ...]
    narrative: str | None
    hops: tuple[int, ...]

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """What makes edits of two files the same."""
        return (str(self.case_id), normalise(self.subject), self.relation, normalise(self.target_new))


@dataclass(frozen=True)
class Item:
    """One response with one question about it.

    Attributes:
        task: What is asked of the judge.
        case: Position of the case in the file.
        case_id: Its id.
        probe: Which probe the response belongs to.
        edit: Position of the edit in the case (refutation, rationale, locality); None for answers of the chain.
        hop: Hop of the new chain, for hop-wise probes.
        slot: Which of the hop's prompts, of the case's questions, or of the edit's conflict probes.
        path: Where the prediction object lies in the file: keys and positions.
        response: What the judge is given; None where `problem` says why there is nothing to judge.
        problem: No prediction, or nothing to compare it with.
        said: Answers only: what the model said, also where there is nothing to compare it with.
        asked: Answers only: the question, or the prompt.
        before: Locality only: the response of the model before the edit.
        kind: Portability only: which score it counts in (`Kind.key`).
        hit: Portability only: the paper's match, as the run noted it.
        trained: The method trained on this prompt, so that the answer shows no generalisation.
    """

    task: Task
    case: int
    case_id: Any
    probe: ProbeGroup
    path: tuple[int | str, ...]
    edit: int | None = None
    hop: int | None = None
    slot: int = 0
    response: JudgedResponse | None = None
    problem: str | None = None
    said: str | None = None
    asked: str = ""
    before: bool = False
    kind: str = ""
    hit: bool | None = None
    trained: bool = False

    @property
    def described_first(self) -> bool:
        """A conflict probe that asks to describe the subject before answering."""
        return self.probe in CONFLICT_KEYS and self.slot < DESCRIBED_FIRST


@dataclass(frozen=True)
class SequencePlace:
    """Where an entry belongs in a sequence of edits.

    Attributes:
        checkpoint: How many edits had been made when it was asked.
        edit: The number of its edit in the sequence, from 1.
        step: The step that made that edit, from 1.
    """

    checkpoint: int
    edit: int
    step: int


@dataclass(frozen=True)
class JudgedCase:
    """One case of a metrics file.

    Attributes:
        position: In the file, from 0.
        case_id: As in the file; the position where there is none.
        error: Why the run has no predictions for it.
        hops: Length of the new chain (hops with predictions).
        edits: Its edits.
        items: Everything that can be judged.
        sequence: Where it belongs in a run over a sequence of edits; None elsewhere.
    """

    position: int
    case_id: Any
    error: str | None
    hops: int
    edits: tuple[JudgedEdit, ...]
    items: tuple[Item, ...] = field(repr=False, default=())
    sequence: SequencePlace | None = None

    @property
    def unseen(self) -> JudgedCase:
        """The case without the predictions whose prompts the method trained on."""
        return replace(self, items=tuple(item for item in self.items if not item.trained))

    def of(self, task: Task, *probes: ProbeGroup, edit: int | None = None) -> list[Item]:
        """Items of a task and of these probes, of one edit where it is given."""
        return [
            item
            for item in self.items
            if item.task == task and item.probe in probes and (edit is None or item.edit == edit)
        ]


def read_metrics(path: str | Path, what: str = "--input") -> list[dict[str, Any]]:
    """Read a metrics file.

    Args:
        path: The file: a list of cases.
        what: The argument it was named by, for messages.

    Raises:
        RequestError: The file is missing, unreadable or truncated.
        MetricsError: It holds something other than a list of cases.
    """
    data = load_json(path, what)
    if isinstance(data, Mapping) and "post" in data:
        data = [data]
    if not isinstance(data, list):
        raise MetricsError(f"{what}: {str(path)!r} holds {type(data).__name__}, not a list of cases.")
    if not data:
        raise MetricsError(f"{what}: {str(path)!r} holds no case.")
    for number, case in enumerate(data, start=1):
        if not isinstance(case, Mapping) or not ({"post", "requested_rewrite", "error"} & case.keys()):
            raise MetricsError(
                f"{what}: entry {number} of {str(path)!r} is not a case of a metrics file (an object with `case_id`, "
                "`requested_rewrite` and `post`)."
            )
    return data


def cases_of(metrics: Sequence[Mapping[str, Any]]) -> list[JudgedCase]:
    """The cases of a metrics file, with their edits and everything to judge in them."""
    cases = [_case(position, data) for position, data in enumerate(metrics)]
    ids = [(str(case.case_id), case.sequence) for case in cases]
    if twice := sorted({i[0] for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []:
        logger.warning("case_id %s occurs more than once; each occurrence counts as a case", ", ".join(twice[:5]))
    return cases


def last_checkpoint(cases: Sequence[JudgedCase]) -> list[JudgedCase]:
    """The cases that a run's metrics are about: of a sequence of edits, those asked when all edits had been made."""
    last = max((case.sequence.checkpoint for case in cases if case.sequence is not None), default=None)
    return [case for case in cases if last is None or (case.sequence is not None and case.sequence.checkpoint == last)]


def units_of(cases: Sequence[JudgedCase], tasks: Sequence[Task]) -> list[tuple[Task, JudgedResponse]]:
    """What a judge must be given for these tasks, in the file's order, repetitions included."""
    return [
        (item.task, item.response)
        for case in cases
        for item in case.items
        if item.task in tasks and item.response is not None
    ]


def _case(position: int, data: Mapping[str, Any]) -> JudgedCase:
    post = data.get("post")
    case_id = data.get("case_id")
    case_id = position if case_id is None else case_id
    place = _place(data.get("sequence"))
    if not isinstance(post, Mapping):
        error = str(data.get("error") or "no predictions (`post` is missing)")
        return JudgedCase(position, case_id, error, 0, (), sequence=place)
    hops = hop_lists(post.get(HOP_WISE_KEYS["hop_wise"]))
    reference_hops = hops or hop_lists(post.get(HOP_WISE_KEYS["open_book_hop_wise"]))
    rewrites = [read_rewrite(rewrite) for rewrite in as_list(data.get("requested_rewrite"))]
    edits = tuple(
        _edit(position, case_id, index, rewrite, reference_hops, hops_of_edit)
        for index, (rewrite, hops_of_edit) in enumerate(
            zip(rewrites, hops_by_edit(rewrites, reference_hops), strict=True)
        )
    )
    items = tuple(_items(position, case_id, post, edits))
    return JudgedCase(position, case_id, None, len(hops), edits, items, place)


def _place(data: Any) -> SequencePlace | None:
    names = ("checkpoint", "edit", "step")
    if not isinstance(data, Mapping) or not all(isinstance(data.get(name), int) for name in names):
        return None
    return SequencePlace(*(data[name] for name in names))


def _edit(case: int, case_id: Any, index: int, read: Rewrite, hops: list[list[Any]], own: Sequence[int]) -> JudgedEdit:
    new = read.target_new
    aliases: dict[str, str] = {}
    for number in own:  # the references of another answer are not names of this one
        aliases |= {folded: name for folded, name in names_in(read, hops[number]).items() if folded != normalise(new)}
    return JudgedEdit(
        case=case,
        case_id=case_id,
        index=index,
        subject=read.subject,
        relation=read.relation or read.prompt,
        question=read.question or read.prompt.replace("{}", read.subject),
        target_new=new,
        target_old=read.target_old or None,
        aliases=tuple(aliases.values()),
        narrative=read.narrative or None,
        hops=tuple(own),
    )


def _items(case: int, case_id: Any, post: Mapping[str, Any], edits: tuple[JudgedEdit, ...]) -> Iterator[Item]:
    def at(
        prediction: Any, probe: ProbeGroup, *steps: int | str, slot: int, hop: int | None = None, edit: Any = None
    ) -> Item:
        trained = isinstance(prediction, Mapping) and prediction.get("trained") is True
        return Item("answer", case, case_id, probe, (case, "post", *steps), edit, hop, slot, trained=trained)

    for probe, key in HOP_WISE_KEYS.items():
        for hop, predictions in enumerate(hop_lists(post.get(key))):
            owners = [edit for edit in edits if hop in edit.hops]
            for slot, prediction in present(predictions):
                place = at(prediction, probe, key, hop, slot, hop=hop, slot=slot)
                if probe == "hop_wise":
                    yield _answer_item(place, prediction, [(e.target_old,) for e in owners if e.target_old])
                for edit in owners:
                    yield _edit_item(place, "refutation", prediction, edit)
                    if probe == "hop_wise" and slot == WHY_SLOT and edit.narrative:
                        yield _edit_item(place, "rationale", prediction, edit)
    for slot, prediction in present(as_list(post.get("accuracy_pred"))):
        place = at(prediction, "multi_hop", "accuracy_pred", slot, slot=slot)
        # noted by the run, or the old answer of the edit that made the last hop
        made = {normalise(name) for name in references_of(prediction)}
        last = [(e.target_old,) for e in edits if e.target_old and normalise(e.target_new) in made]
        yield _answer_item(place, prediction, [rivals_of(prediction), *last])
    for probe, key in CONFLICT_KEYS.items():
        predictions = as_list(post.get(key))
        if predictions and len(predictions) != CONFLICT_PROBES * len(edits):
            logger.warning(
                "case %s: `%s` holds %d predictions for %d edit(s), not %d each: they cannot be attributed and are "
                "left out", case_id, key, len(predictions), len(edits), CONFLICT_PROBES,
            )  # fmt: skip
            continue
        for number, prediction in present(predictions):
            index, slot = divmod(number, CONFLICT_PROBES)
            place = at(prediction, probe, key, number, slot=slot)
            yield _edit_item(place, "refutation", prediction, edits[index])
    for slot, prediction in present(as_list(post.get("locality_probe"))):
        place = at(
            prediction, "locality", "locality_probe", slot, slot=slot,
            edit=prediction.get("edit") if isinstance(prediction, Mapping) else None,
        )  # fmt: skip
        # the edit's new answer is what the response must not fall for
        rivals = [(e.target_new, *e.aliases) for e in edits if e.target_new and e.index == place.edit]
        yield _answer_item(place, prediction, rivals)
        yield _answer_item(replace(place, before=True), prediction, rivals, key="pred_before")
    yield from _portability_items(case, case_id, post)


def _portability_items(case: int, case_id: Any, post: Mapping[str, Any]) -> Iterator[Item]:
    """Answers of the portability protocol; one with several parts is judged part by part."""
    for slot, prediction in present(as_list(post.get("portability_probe"))):
        if not isinstance(prediction, Mapping) or not isinstance(prediction.get("kind"), str):
            continue
        place = Item(
            "answer", case, case_id, "portability", (case, "post", "portability_probe", slot),
            prediction.get("edit"), slot=slot, trained=prediction.get("trained") is True,
            kind=prediction["kind"], hit=prediction.get("hit") is True,
        )  # fmt: skip
        read = {**prediction, "pred": without_tags(response_of(prediction, "pred") or "")}
        for names in as_list(prediction.get("parts")) or [references_of(prediction)]:
            yield _answer_item(place, {**read, "ref": names}, [rivals_of(prediction)])


def _answer_item(place: Item, prediction: Any, rivals: Sequence[tuple[str, ...]], key: str = "pred") -> Item:
    """Is the answer one of the references?

    Args:
        place: Which prediction it is.
        prediction: As in the file.
        rivals: Answers that it might be instead, each with its aliases; one that is a reference is none.
        key: What holds the response.
    """
    response, references = response_of(prediction, key), references_of(prediction)
    place = replace(place, said=response, asked=asked_or_prompt(prediction))
    if response is None or not references:
        return replace(place, problem=_why_not(response, references))
    folded = {normalise(r) for r in references}
    rival = next((names for names in rivals if names and not folded & set(map(normalise, names))), ())
    judged = JudgedResponse(
        question=place.asked,
        prompt=prompt_of(prediction),
        response=response,
        target_new=references[0],
        aliases=tuple(references[1:]),
        target_old=rival[0] if rival else None,
        old_aliases=rival[1:],
    )
    return replace(place, response=judged)


def _edit_item(place: Item, task: Task, prediction: Any, edit: JudgedEdit) -> Item:
    """What is asked about the response as one to a probe of this edit."""
    response = response_of(prediction, "pred")
    place = replace(place, task=task, edit=edit.index)
    if response is None or not edit.target_new:
        return replace(place, problem=_why_not(response, [edit.target_new] if edit.target_new else []))
    judged = JudgedResponse(
        question=question_of(prediction) or edit.question or prompt_of(prediction),
        prompt=prompt_of(prediction),
        response=response,
        target_new=edit.target_new,
        aliases=edit.aliases,
        target_old=edit.target_old,
        narrative=edit.narrative if task == "rationale" else None,
    )
    return replace(place, response=judged)


def _why_not(response: str | None, references: Sequence[str]) -> str:
    return "there is no prediction" if response is None else f"there is no reference answer ({list(references)!r})"
