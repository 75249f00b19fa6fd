"""Read a metrics file and say what is to be judged in it.

Data flow: metrics.json → **cases, edits, items** → judge → verdicts → metrics. The reader takes published files
as they are (keys missing, `None`, answers as a text or as an object); what it cannot attribute to an edit it
leaves out and says so, because a guess would be counted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from causaledit.errors import MetricsError
from causaledit.evaluation.answers import normalise
from causaledit.judges.base import JudgedResponse, Task
from causaledit.requests import load_json, strip_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

logger = logging.getLogger(__name__)

Probe = Literal["hop_wise", "multi_hop", "conflict", "open_book_hop_wise", "open_book_conflict", "locality"]

# where a probe's predictions lie under `post`
HOP_WISE_KEYS: dict[Probe, str] = {
    "hop_wise": "hop_wise_pred",
    "open_book_hop_wise": "causal_enhanced_hop_wise_pred",
}
CONFLICT_KEYS: dict[Probe, str] = {
    "conflict": "conflict_probe",
    "open_book_conflict": "causal_enhanced_conflict_probe",
}
WHY_SLOT = 2  # cloze, question, question with a "why"
CONFLICT_PROBES = 8  # per edit
DESCRIBED_FIRST = 4  # the first four of them describe the subject before they answer


@dataclass(frozen=True)
class Edit:
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
        """What makes two edits of two files the same one."""
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
        before: Locality only: the response of the model before the edit.
    """

    task: Task
    case: int
    case_id: Any
    probe: Probe
    path: tuple[int | str, ...]
    edit: int | None = None
    hop: int | None = None
    slot: int = 0
    response: JudgedResponse | None = None
    problem: str | None = None
    before: bool = False

    @property
    def described_first(self) -> bool:
        """A conflict probe that asks to describe the subject before answering."""
        return self.probe in CONFLICT_KEYS and self.slot < DESCRIBED_FIRST


@dataclass(frozen=True)
class Case:
    """One case of a metrics file.

    Attributes:
        position: In the file, from 0.
        case_id: As in the file; the position where there is none.
        error: Why the run has no predictions for it.
        hops: Length of the new chain (hops with predictions).
        edits: Its edits.
        items: Everything that can be judged.
    """

    position: int
    case_id: Any
    error: str | None
    hops: int
    edits: tuple[Edit, ...]
    items: tuple[Item, ...] = field(repr=False, default=())

    def of(self, task: Task, *probes: Probe, edit: int | None = None) -> list[Item]:
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
        RequestError: The file is missing, unreadable or cut.
        MetricsError: It holds something else than a list of cases.
    """
    data = _well_formed(load_json(path, what))
    if isinstance(data, Mapping) and "post" in data:
        data = [data]
    if not isinstance(data, list):
        raise MetricsError(f"{what}: {str(path)!r} holds {type(data).__name__}, not a list of cases.")
    if not data:
        raise MetricsError(f"{what}: {str(path)!r} holds no case.")
    for number, case in enumerate(data, start=1):
        if not isinstance(case, Mapping) or not ({"post", "requested_rewrite", "error"} & case.keys()):
            raise MetricsError(
                f"{what}: entry {number} of {str(path)!r} is no case of a metrics file (an object with `case_id`, "
                "`requested_rewrite` and `post`)."
            )
    return data


def read_cases(metrics: Sequence[Mapping[str, Any]]) -> list[Case]:
    """The cases of a metrics file, with their edits and everything to judge in them."""
    cases = [_case(position, data) for position, data in enumerate(metrics)]
    ids = [str(case.case_id) for case in cases]
    if twice := sorted({i for i in ids if ids.count(i) > 1}) if len(set(ids)) < len(ids) else []:
        logger.warning("case_id %s occurs more than once; each occurrence counts as a case", ", ".join(twice[:5]))
    return cases


def units_of(cases: Sequence[Case], tasks: Sequence[Task]) -> list[tuple[Task, JudgedResponse]]:
    """What a judge must be given for these tasks, in the file's order; repetitions are left in."""
    return [
        (item.task, item.response)
        for case in cases
        for item in case.items
        if item.task in tasks and item.response is not None
    ]


def _case(position: int, data: Mapping[str, Any]) -> Case:
    post = data.get("post")
    case_id = data.get("case_id")
    case_id = position if case_id is None else case_id
    if not isinstance(post, Mapping):
        return Case(position, case_id, str(data.get("error") or "no predictions (`post` is missing)"), 0, ())
    hops = _hop_lists(post.get(HOP_WISE_KEYS["hop_wise"]))
    reference_hops = hops or _hop_lists(post.get(HOP_WISE_KEYS["open_book_hop_wise"]))
    edits = tuple(
        _edit(position, case_id, index, rewrite if isinstance(rewrite, Mapping) else {}, reference_hops)
        for index, rewrite in enumerate(_list(data.get("requested_rewrite")))
    )
    items = tuple(_items(position, case_id, post, edits))
    return Case(position, case_id, None, len(hops), edits, items)


def _edit(case: int, case_id: Any, index: int, rewrite: Mapping[str, Any], hops: list[list[Any]]) -> Edit:
    subject, prompt = _text(rewrite.get("subject")), _text(rewrite.get("prompt"))
    cloze = prompt.replace("{}", subject)
    question = _text(rewrite.get("question")) or cloze
    new = _answer(rewrite.get("target_new"))
    own, aliases = [], {}
    for number, hop in enumerate(hops):
        references = {normalise(r): r for p in hop for r in _references(p)}
        named = bool(new) and normalise(new) in references
        if named or ({normalise(question), normalise(cloze)} - {""}) & {normalise(_question(p)) for p in hop}:
            own.append(number)
        if named:  # the references of another answer are no names of this one
            aliases |= {folded: name for folded, name in references.items() if folded != normalise(new)}
    article = rewrite.get("article") or rewrite.get("narrative")
    return Edit(
        case=case,
        case_id=case_id,
        index=index,
        subject=subject,
        relation=_text(rewrite.get("relation_id")) or prompt,
        question=question,
        target_new=new,
        target_old=_answer(rewrite.get("target_true") or rewrite.get("ground_truth")) or None,
        aliases=tuple(aliases.values()),
        narrative=(strip_html(article) or None) if isinstance(article, str) else None,
        hops=tuple(own),
    )


def _items(case: int, case_id: Any, post: Mapping[str, Any], edits: tuple[Edit, ...]) -> Iterator[Item]:
    for probe, key in HOP_WISE_KEYS.items():
        for hop, predictions in enumerate(_hop_lists(post.get(key))):
            owners = [edit for edit in edits if hop in edit.hops]
            for slot, prediction in _present(predictions):
                place = {"case": case, "case_id": case_id, "probe": probe, "hop": hop, "slot": slot}
                path = (case, "post", key, hop, slot)
                if probe == "hop_wise":
                    yield _answer_item(prediction, path, [[edit.target_old] for edit in owners], place)
                for edit in owners:
                    yield _edit_item("refutation", prediction, path, edit, place)
                    if probe == "hop_wise" and slot == WHY_SLOT and edit.narrative:
                        yield _edit_item("rationale", prediction, path, edit, place)
    for slot, prediction in _present(_list(post.get("accuracy_pred"))):
        place = {"case": case, "case_id": case_id, "probe": "multi_hop", "slot": slot}
        yield _answer_item(prediction, (case, "post", "accuracy_pred", slot), _chain_rival(prediction, edits), place)
    for probe, key in CONFLICT_KEYS.items():
        predictions = _list(post.get(key))
        if predictions and len(predictions) != CONFLICT_PROBES * len(edits):
            logger.warning(
                "case %s: `%s` holds %d predictions for %d edit(s), not %d each: they cannot be attributed and are "
                "left out", case_id, key, len(predictions), len(edits), CONFLICT_PROBES,
            )  # fmt: skip
            continue
        for number, prediction in _present(predictions):
            index, slot = divmod(number, CONFLICT_PROBES)
            place = {"case": case, "case_id": case_id, "probe": probe, "slot": slot}
            yield _edit_item("refutation", prediction, (case, "post", key, number), edits[index], place)
    for slot, prediction in _present(_list(post.get("locality_probe"))):
        index = prediction.get("edit") if isinstance(prediction, Mapping) else None
        place = {"case": case, "case_id": case_id, "probe": "locality", "slot": slot, "edit": index}
        path = (case, "post", "locality_probe", slot)
        rivals = [[edit.target_new, *edit.aliases] for edit in edits if edit.index == index]
        yield _answer_item(prediction, path, rivals, place)
        yield _answer_item(prediction, path, rivals, {**place, "before": True}, key="pred_before")


def _answer_item(
    prediction: Any,
    path: tuple[int | str, ...],
    rivals: Sequence[Sequence[str | None]],
    place: dict[str, Any],
    key: str = "pred",
) -> Item:
    """Is the answer one of the references, and not its rival?

    `rivals` holds the answers it may compete with, each with its aliases; the first that is no reference counts. For a
    hop it is the old answer of the edit that made it, for multi-hop the old chain's, for locality the edit's new one.
    """
    response, references = _response(prediction, key), _references(prediction)
    if response is None or not references:
        return Item("answer", path=path, **place, problem=_why_not(response, references))
    folded = {normalise(r) for r in references}
    distinct = (names for names in rivals if names and names[0] and normalise(names[0]) not in folded)
    rival = [name for name in next(distinct, []) if name and normalise(name) not in folded]
    judged = JudgedResponse(
        question=_question(prediction),
        prompt=_prompt(prediction),
        response=response,
        target_new=references[0],
        aliases=tuple(references[1:]),
        target_old=rival[0] if rival else None,
        old_aliases=tuple(rival[1:]),
    )
    return Item("answer", path=path, **place, response=judged)


def _chain_rival(prediction: Any, edits: Sequence[Edit]) -> list[Sequence[str | None]]:
    """The old chain's answer: as the run noted it or, in files without it, the old one of an edit of the last hop."""
    noted = prediction.get("rival") if isinstance(prediction, Mapping) else None
    rivals: list[Sequence[str | None]] = [[_answer(value) for value in _list(noted)]]
    references = {normalise(name) for name in _references(prediction)}
    return rivals + [[edit.target_old] for edit in edits if normalise(edit.target_new) in references]


def _edit_item(task: Task, prediction: Any, path: tuple[int | str, ...], edit: Edit, place: dict[str, Any]) -> Item:
    response = _response(prediction, "pred")
    place = {**place, "edit": edit.index}
    if response is None or not edit.target_new:
        return Item(task, path=path, **place, problem=_why_not(response, [edit.target_new] if edit.target_new else []))
    judged = JudgedResponse(
        question=_asked(prediction) or edit.question or _prompt(prediction),
        prompt=_prompt(prediction),
        response=response,
        target_new=edit.target_new,
        aliases=edit.aliases,
        target_old=edit.target_old,
        narrative=edit.narrative if task == "rationale" else None,
    )
    return Item(task, path=path, **place, response=judged)


def _why_not(response: str | None, references: Sequence[str]) -> str:
    return "there is no prediction" if response is None else f"there is no reference answer ({list(references)!r})"


def _well_formed(value: Any) -> Any:
    """Replace halves of surrogate pairs, which JSON can hold (a response cut within an emoji) and UTF-8 cannot."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_well_formed(v) for v in value]
    return {_well_formed(k): _well_formed(v) for k, v in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Prediction:
    """One prediction object of a metrics file, read as tolerantly as everything here.

    Attributes:
        question: The question behind the prompt, or the prompt.
        prompt: The user message.
        response: The model's whole turn; None where there is none.
        references: Reference answers.
    """

    question: str
    prompt: str
    response: str | None
    references: tuple[str, ...]


def read_prediction(prediction: Any, key: str = "pred") -> Prediction:
    """Read a prediction object, or the bare text that may stand in its place; `key` holds the response."""
    return Prediction(
        _question(prediction), _prompt(prediction), _response(prediction, key), tuple(_references(prediction))
    )


# ---- tolerant reading of single values ---------------------------------------------------------------------------
def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _present(predictions: list[Any]) -> Iterator[tuple[int, Any]]:
    """Predictions with their places; an empty place was not asked (an open-book twin without a narrative)."""
    return ((place, prediction) for place, prediction in enumerate(predictions) if prediction is not None)


def _hop_lists(value: Any) -> list[list[Any]]:
    return [_list(hop) for hop in _list(value)]


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _answer(value: Any) -> str:
    """A text, `{"str": …}`, or a list whose first element is one of them."""
    if isinstance(value, list):
        value = value[0] if value else None
    return _text(value.get("str")) if isinstance(value, Mapping) else _text(value)


def _references(prediction: Any) -> list[str]:
    """Reference answers without the empty ones and without repetitions."""
    value = prediction.get("ref") if isinstance(prediction, Mapping) else None
    values = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(answer for answer in map(_answer, values) if answer))


def _prompt(prediction: Any) -> str:
    return _text(prediction.get("prompt")) if isinstance(prediction, Mapping) else ""


def _asked(prediction: Any) -> str:
    """The question without cues, where the file has it."""
    if not isinstance(prediction, Mapping):
        return ""
    return _text(prediction.get("q")) or _text(prediction.get("question"))


def _question(prediction: Any) -> str:
    return _asked(prediction) or _prompt(prediction)


def _response(prediction: Any, key: str) -> str | None:
    """The model's whole turn: a forced opening belongs to it."""
    if not isinstance(prediction, Mapping):
        return prediction if isinstance(prediction, str) and key == "pred" else None
    value = prediction.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        return None
    prefix = prediction.get("forced_prefix")
    if key == "pred" and isinstance(prefix, str) and not value.lstrip().startswith(prefix.strip()):
        return f"{prefix.rstrip()} {value.lstrip()}"
    return value
