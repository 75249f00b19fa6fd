"""The single predictions that the page lets a reader browse, as plain data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeGuard

from causaledit.facts.answers import alias_match
from causaledit.judges.base import verdict_to_dict
from causaledit.metrics.published import read_prediction
from causaledit.metrics.wording import counted
from causaledit.probes.sets import CONFLICT, HOP, OLD_KNOWLEDGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import Item, JudgedCase
    from causaledit.report.runs import ReportedRun


LONGEST_RESPONSE = 20_000  # characters; anything beyond is cut, and the page says so


PROBES = {
    "hop_wise": "Hop-wise",
    "multi_hop": "Multi-hop",
    "conflict": "Conflict",
    "old_knowledge": "Old knowledge",
    "locality": "Locality",
    "portability": "Portability",
    "open_book_hop_wise": "Hop-wise, open-book",
    "open_book_conflict": "Conflict, open-book",
}


_FORMS = {"hop_wise": HOP, "open_book_hop_wise": HOP, "conflict": CONFLICT, "open_book_conflict": CONFLICT}


class Texts:
    """Texts and objects that records share, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """Where a value stands in `values`."""
        key = json.dumps(value, ensure_ascii=False)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def browser_data(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """What the page's browser of predictions works on."""
    texts = Texts()
    records = [record for number, run in enumerate(runs) for record in _records(number, run, texts)]
    present = {record["probe"] for record in records}
    return {
        "runs": [run.label for run in runs],
        "probes": {key: name for key, name in PROBES.items() if key in present},
        "texts": texts.values,
        "records": records,
    }


def _records(number: int, run: ReportedRun, texts: Texts) -> Iterator[dict[str, Any]]:
    for case, data in zip(run.source.cases, run.source.content, strict=True):
        edits = [
            texts.number(
                {
                    "subject": edit.subject, "question": edit.question, "old": edit.target_old,
                    "new": edit.target_new, "narrative": edit.narrative,
                }
            )
            for edit in case.edits
        ]  # fmt: skip
        together: dict[tuple[Any, ...], list[Item]] = {}
        for item in case.items:
            together.setdefault(item.path, []).append(item)
        for path, items in together.items():
            first = items[0]
            prediction: Any = run.source.content
            for step in path:
                prediction = prediction[step]
            yield _record(number, case, first.probe, _form(first) + _when(case), prediction, texts) | {
                "edits": list(dict.fromkeys(edits[i.edit] for i in items if _within(i.edit, edits))),
                "verdicts": [_verdict(item, run.verdicts, edits) for item in items],
            }
        yield from _old_knowledge(number, case, data, texts, edits)


def _record(number: int, case: JudgedCase, probe: str, form: str, prediction: Any, texts: Texts) -> dict[str, Any]:
    read = read_prediction(prediction)
    record = {
        "run": number,
        "case": str(case.case_id),
        "probe": probe,
        "form": form,
        "prompt": texts.number(read.prompt or read.question),
        "refs": texts.number(list(read.references)),
    }
    record |= _response("response", read.response)
    if probe == "locality":
        record |= _response("before", read_prediction(prediction, "pred_before").response)
    if isinstance(prediction, dict) and isinstance(prediction.get("forced_prefix"), str):
        record["forced"] = texts.number(prediction["forced_prefix"])
    return record


def _response(key: str, text: str | None) -> dict[str, Any]:
    if text is None or len(text) <= LONGEST_RESPONSE:
        return {key: text}
    return {key: text[:LONGEST_RESPONSE], f"{key}_cut": len(text) - LONGEST_RESPONSE}


def _form(item: Item) -> str:
    """Which of the probe's prompt forms it is."""
    forms = _FORMS.get(item.probe, ())
    name = forms[item.slot].name if item.slot < len(forms) else f"{item.slot + 1}"
    return name if item.hop is None else f"hop {item.hop + 1}, {name}"


def _when(case: JudgedCase) -> str:
    """When in a sequence of edits it was asked."""
    return "" if case.sequence is None else f", after {counted(case.sequence.checkpoint, 'edit')}"


def _within(index: int | None, edits: Sequence[int]) -> TypeGuard[int]:
    return isinstance(index, int) and 0 <= index < len(edits)


def _verdict(item: Item, verdicts: VerdictTable, edits: Sequence[int]) -> dict[str, Any]:
    """A verdict without its empty fields."""
    verdict = verdicts.get(item.task, item.response)
    found = {"error": item.problem or "not judged"} if verdict is None else verdict_to_dict(verdict)
    data = {key: value for key, value in found.items() if value not in (None, "")}
    data["task"] = item.task
    if item.before:
        data["before"] = True
    if item.task != "answer" and _within(item.edit, edits):
        data["edit"] = edits[item.edit]
    return data


def _old_knowledge(
    number: int, case: JudgedCase, data: Mapping[str, Any], texts: Texts, edits: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """No judge is asked about these: whether the old answer occurs is an alias match, as in res.json."""
    post = data.get("post")
    predictions = post.get("old_knowledge_probe") if isinstance(post, dict) else None
    for place, prediction in enumerate(predictions if isinstance(predictions, list) else ()):
        index, slot = divmod(place, len(OLD_KNOWLEDGE))
        read = read_prediction(prediction)
        grade = None
        if read.response is not None and read.references:
            grade = "PASS" if alias_match(read.response, read.references) else "FAIL"
        verdict = {"task": "answer", "by": "alias match", **({"grade": grade} if grade else {"error": "not judged"})}
        form = OLD_KNOWLEDGE[slot].name + _when(case)
        yield _record(number, case, "old_knowledge", form, prediction, texts) | {
            "edits": [edits[index]] if _within(index, edits) else [],
            "verdicts": [verdict],
        }
