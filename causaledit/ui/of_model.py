"""What the page shows of a saved model or adapter: read from the card beside it, judged now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError
from causaledit.judges.base import JudgedResponse, verdict_to_dict
from causaledit.models.history import cards_of
from causaledit.models.origin import find_origin
from causaledit.models.saving import CARD_NAME
from causaledit.support.files import read_object
from causaledit.support.paths import exists
from causaledit.ui.shown import HistoryEntry, Part, Response, Shown, ShownEdit, ShownProbe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from causaledit.judges.base import Judge

CONFIGURATIONS = ("config.json", "adapter_config.json")


def show_model(folder: Path, judge: Judge, *, base: str = "") -> Shown:
    """A saved model or adapter.

    Args:
        folder: Its folder.
        judge: Gives the verdicts.
        base: The model before the edit; empty for the one that the folder's card names.

    Raises:
        ModelError: The folder's card names no base model, and `base` is empty.
    """
    card = read_object(folder / CARD_NAME)
    parts = tuple(_parts(card, judge))
    return Shown(
        title=folder.resolve().name,
        about=tuple(_about(card, folder)),
        part_label="edit",
        parts=parts or (Part("", (), (), f"Nothing is known of this edit: there is no {CARD_NAME} in the folder."),),
        history=tuple(_history(card)),
        judge=judge,
        base=base or _base_of(folder, card),
        edited=str(folder),
    )


def _base_of(folder: Path, card: Mapping[str, Any]) -> str:
    noted = card.get("origin")
    path = noted.get("path") if isinstance(noted, dict) else None
    if path and exists(Path(path)):  # the name itself may be a path from another working folder
        return str(path)
    name = _hparams(card).get("model_name")
    if not name:
        raise ModelError(
            f"The model {str(folder)!r} does not say what it was edited from (there is no {CARD_NAME} in it): give the "
            "model before the edit with --base."
        )
    return find_origin(str(name)).path or str(name)  # a GGUF file loads by its name, and only here


def _hparams(card: Mapping[str, Any]) -> Mapping[str, Any]:
    found = card.get("hparams")
    return found if isinstance(found, dict) else {}


def _about(card: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, str]]:
    if card.get("method"):
        yield "Method", str(card["method"])
    if name := _hparams(card).get("model_name"):
        yield "Edited from", str(name)
    yield "Folder", str(folder)


# ---- edits and probes ----------------------------------------------------------------------------------------------
def _edits(card: Mapping[str, Any]) -> list[ShownEdit]:
    sources = card.get("narrative_source") or []
    return [
        ShownEdit(
            subject=request.get("subject") or "",
            question=request.get("question") or str(request["prompt"]).replace("{}", request.get("subject") or ""),
            old=request.get("ground_truth"),
            new=request["target_new"],
            narrative=request.get("narrative"),
            source=sources[number] if number < len(sources) else "",
            aliases=tuple(request.get("target_aliases") or ()),
            old_aliases=tuple(request.get("ground_truth_aliases") or ()),
        )
        for number, request in enumerate(card.get("requests") or [])
    ]


def _parts(card: Mapping[str, Any], judge: Judge) -> Iterator[Part]:
    metrics = card.get("metrics") or []
    for number, edit in enumerate(_edits(card)):
        measured = metrics[number] if number < len(metrics) else {}
        probes = tuple(_probes(edit, measured, judge))
        name = f"{number + 1}. {edit.subject or edit.question}: {edit.old or '?'} → {edit.new}"
        yield Part(name, (edit,), probes, "" if probes else "No answers were kept with this edit.")


def _probes(edit: ShownEdit, measured: Mapping[str, Any], judge: Judge) -> Iterator[ShownProbe]:
    before = _answers(measured.get("pre"))
    for prompt, answer in _answers(measured.get("post")).items():
        told = [("before", before.get(prompt)), ("after", answer)]
        yield ShownProbe(
            kind=str(answer.get("kind", "")),
            prompt=prompt,
            references=(edit.new, *edit.aliases),
            responses=tuple(
                Response(when, said["response"], verdicts_on(edit, prompt, said["response"], judge))
                for when, said in told
                if said
            ),
        )


def _answers(phase: Any) -> dict[str, Mapping[str, Any]]:
    answers = phase.get("answers", []) if isinstance(phase, dict) else []
    return {answer["prompt"]: answer for answer in answers}


def verdicts_on(edit: ShownEdit, prompt: str, response: str, judge: Judge) -> tuple[dict[str, Any], ...]:
    """Whether a response gives an edit's new answer, and whether it takes it back.

    Args:
        edit: The edit.
        prompt: The user message.
        response: What a model said to it.
        judge: The judge.
    """
    item = JudgedResponse(
        question=edit.question,
        prompt=prompt,
        response=response,
        target_new=edit.new,
        aliases=edit.aliases,
        target_old=edit.old,
        old_aliases=edit.old_aliases,
        narrative=edit.narrative,
    )
    return (
        {"task": "answer", **verdict_to_dict(judge.judge_answer(item))},
        {"task": "refutation", **verdict_to_dict(judge.judge_refutation(item))},
    )


# ---- history -------------------------------------------------------------------------------------------------------
def _history(card: Mapping[str, Any]) -> Iterator[HistoryEntry]:
    """The edits that were made on the model before, and then its own."""
    for one in cards_of(card):
        for edit in _edits(one):
            created = str(one.get("created", ""))[:16].replace("T", " ")  # to the minute
            yield HistoryEntry(created, str(one.get("method", "")), edit, _note(one))


def _note(card: Mapping[str, Any]) -> str:
    """How long the edit took, and how its losses went."""
    losses: Mapping[str, Sequence[float]] = card.get("losses") or {}
    said = [
        f"{name.replace('_', ' ')}: {values[0]:z.2f} → {values[-1]:z.2f} in {len(values)} steps"
        for name, values in losses.items()
        if values
    ]
    if seconds := sum((card.get("seconds") or {}).values()):
        said.append(f"{seconds:.0f} s")
    if (count := len(card.get("requests") or [])) > 1:
        said.append(f"{count} edits together")
    return "; ".join(said)
