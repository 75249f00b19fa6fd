"""The stages in order, each with a file of its own, so that a run that was stopped resumes where it was.

A failure concerns one item: it is listed at the end, and what is done is kept.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.errors import LLMError
from causaledit.narratives.cases import Problem
from causaledit.narratives.check import rule_failures
from causaledit.narratives.extras import Amounts, ExtrasWriter
from causaledit.narratives.generate import PROMPT_VERSION, entities_of, produce
from causaledit.narratives.ground import EntityInfo, Grounding, ground
from causaledit.narratives.merge import conflicts, merge, with_related_facts, write_merged
from causaledit.narratives.stories import story_failures
from causaledit.narratives.templates import TemplateBank
from causaledit.support.jsonl import JsonlStore
from causaledit.support.workers import GaveUpError, in_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from causaledit.narratives.cases import CaseFile, ScaffoldCase, ScaffoldEdit
    from causaledit.narratives.generate import Writer, Written
    from causaledit.narratives.verify import Verifier
    from causaledit.narratives.wikidata import Wikidata
    from causaledit.support.chat_endpoint import ChatClient
    from causaledit.support.progress import ProgressSink

# an endpoint that failed for this many consecutive edits is not called again
GIVE_UP_AFTER = 3


@dataclass(frozen=True)
class Files:
    """Where the stages write. `merged` alone has to be named; None keeps a stage in memory."""

    merged: Path
    grounding: Path | None = None
    articles: Path | None = None
    extras: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How the stages work.

    Attributes:
        source: `llm`, `hf` or `template`; written into the rows.
        workers: Edits that are written at the same time (chat endpoints).
        batch: Edits that a local model writes in one batch; 1 for the other sources.
        max_attempts: Tries per narrative.
        stories: Background stories instead of narratives (`narratives.stories`), and questions that need them.
    """

    source: str
    workers: int = 1
    batch: int = 1
    max_attempts: int = 3
    amounts: Amounts = Amounts()
    stories: bool = False


@dataclass
class Report:
    """What a run did, and what is missing."""

    cases: int = 0
    merged: int = 0
    edits: int = 0
    narratives: int = 0
    kept: int = 0
    attempts: int = 0
    problems: list[Problem] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "problems": [p._asdict() for p in self.problems]}


def run_scaffold(
    file: CaseFile,
    files: Files,
    settings: Settings,
    *,
    make_writer: Callable[[Grounding], Writer],
    verifier: Verifier | None = None,
    wikidata: Wikidata | None = None,
    extras_client: ChatClient | None = None,
    progress: ProgressSink,
    on_stop: Callable[[], None] = lambda: None,
) -> Report:
    """Run all stages.

    Args:
        file: The cases, and what was wrong with others.
        make_writer: Gives the writer, once the entities are grounded.
        verifier: None leaves checking to the rules.
        wikidata: None uses what the grounding file holds and asks for nothing.
        extras_client: Writes paraphrases and learning questions; None takes templates.
        on_stop: Called on Ctrl-C, so that waiting calls end.

    Returns:
        Counts and problems; it is complete where `problems` is empty.

    Raises:
        SaveError: A file cannot be written.
        ScaffoldError: A stage's file was not written by this command.
    """
    stores = {
        "grounding": JsonlStore(files.grounding, "--grounding_info_file"),
        "articles": JsonlStore(files.articles, "--generated_articles_file"),
        "extras": JsonlStore(files.extras, "the file of questions"),
    }
    bank = TemplateBank.bundled()
    cases = with_related_facts(file.cases, bank)
    report = Report(cases=len(file.cases) + len(file.problems), problems=list(file.problems))
    report.conflicts = conflicts(cases)
    report.edits = sum(len(c.edits) for c in cases)

    grounding = _ground(cases, stores["grounding"], wikidata, settings, report, progress)
    narratives = _generate(
        cases, stores["articles"], settings, make_writer(grounding), verifier, grounding, report, progress, on_stop
    )
    extras: dict[tuple[Any, int], dict[str, Any]] = {}
    if any(settings.amounts):
        writer = ExtrasWriter(
            cases, bank, settings.amounts, grounding=grounding, client=extras_client, stories=settings.stories
        )
        extras = _write_extras(cases, writer, stores["extras"], settings, report, progress)
    text, problems = merge(cases, narratives, extras)
    report.problems += problems
    report.merged = len(cases) - len(problems)
    write_merged(files.merged, text)
    return report


def _item(case: ScaffoldCase, index: int) -> str:
    return f"case {case.case_id}, edit {index + 1} ({case.edits[index].subject.name})"


def _ground(
    cases: Sequence[ScaffoldCase],
    store: JsonlStore,
    wikidata: Wikidata | None,
    settings: Settings,
    report: Report,
    progress: ProgressSink,
) -> Grounding:
    everything = any(settings.amounts)
    edits = [e for c in cases for e in c.edits if everything or not e.narrative]
    entities = {e.key: e for e in entities_of(edits)}
    if wikidata is None:
        return Grounding({key: EntityInfo.from_dict(row) for key, row in store.rows.items()})
    with _stage(progress, "ground", len(entities)):
        grounding = ground(entities.values(), wikidata, store, on_done=lambda n: _advance(progress, n))
    for entity in entities.values():
        if why := grounding.missing(entity):
            report.problems.append(Problem(entity.name, "ground", why))
    return grounding


@contextlib.contextmanager
def _stage(progress: ProgressSink, name: str, total: int) -> Iterator[None]:
    progress.start(name, total)
    try:
        yield
    finally:
        progress.finish()


def _advance(progress: ProgressSink, n: int = 1) -> None:
    for _ in range(n):
        progress.advance()


def _generate(
    cases: Sequence[ScaffoldCase],
    store: JsonlStore,
    settings: Settings,
    writer: Writer,
    verifier: Verifier | None,
    grounding: Grounding,
    report: Report,
    progress: ProgressSink,
    on_stop: Callable[[], None],
) -> dict[str, str]:
    """Narratives by edit; those the store holds already are kept."""
    where = {e.key: (c, i) for c in reversed(cases) for i, e in enumerate(c.edits)}
    wanted = {e.key: e for c in cases for e in c.edits if not e.narrative}
    done = {
        key: row
        for key, row in store.rows.items()
        if key in wanted and row.get("status") == "pass" and row.get("stories", False) is settings.stories
    }
    report.kept = len(done) + sum(bool(e.narrative) for c in cases for e in c.edits)
    todo = [edit for key, edit in wanted.items() if key not in done]
    found = {key: row["article"] for key, row in done.items()}

    def keep(edit: ScaffoldEdit, written: Written) -> None:
        case, index = where[edit.key]
        row = {
            "key": edit.key, "case_id": case.case_id, "edit": index + 1, "subject": edit.subject.name,
            "relation_id": edit.relation_id, "target_true": edit.old.name, "target_new": edit.new.name,
            "status": "pass" if written.check.passed else "fail", "reason": written.check.reason,
            "checked_by": written.check.by, "flags": written.check.flags, "attempts": written.attempts,
            "source": settings.source, "writer": writer.name, "prompt_version": PROMPT_VERSION,
            "article": written.text, **({"stories": True} if settings.stories else {}),
        }  # fmt: skip
        store.put(row)
        report.attempts += written.attempts
        if written.check.passed:
            found[edit.key] = written.text
            report.narratives += 1
        else:
            tries = f"{written.attempts} {'try' if written.attempts == 1 else 'tries'}"
            said = f"no narrative passed in {tries}: {written.check.reason}"
            report.problems.append(Problem(_item(case, index), "generate", said))

    def attempt(batch: Sequence[ScaffoldEdit]) -> list[Written] | LLMError:
        try:
            return produce(
                batch, writer, verifier, max_attempts=settings.max_attempts, grounding=grounding,
                failures_of=story_failures if settings.stories else rule_failures,
            )  # fmt: skip
        except LLMError as error:
            return error

    def lose(edits: Iterable[ScaffoldEdit], why: str) -> None:
        report.problems += [Problem(_item(*where[edit.key]), "generate", why) for edit in edits]

    batches = [todo[i : i + settings.batch] for i in range(0, len(todo), settings.batch)]
    left = {edit.key: edit for edit in todo}
    with _stage(progress, "generate and check", len(todo)):
        try:
            for batch, outcome in in_workers(
                attempt,
                batches,
                workers=settings.workers,
                failed=lambda outcome: isinstance(outcome, LLMError),
                give_up_after=GIVE_UP_AFTER,
                on_stop=on_stop,
            ):
                if isinstance(outcome, LLMError):
                    lose(batch, str(outcome))
                else:
                    for edit, written in zip(batch, outcome, strict=True):
                        keep(edit, written)
                for edit in batch:
                    del left[edit.key]
                _advance(progress, len(batch))
        except GaveUpError:
            lose(left.values(), "not tried: the endpoint failed for others before it")
            _advance(progress, len(left))
    return found


def _write_extras(
    cases: Sequence[ScaffoldCase],
    writer: ExtrasWriter,
    store: JsonlStore,
    settings: Settings,
    report: Report,
    progress: ProgressSink,
) -> dict[tuple[Any, int], dict[str, Any]]:
    jobs = [(case, i) for case in cases for i in range(len(case.edits))]
    amounts = "-".join(map(str, settings.amounts)) + ("-stories" if settings.stories else "")
    found: dict[tuple[Any, int], dict[str, Any]] = {}
    made: dict[str, list[str]] = {}  # in this run: what each lacks
    failed = 0
    with _stage(progress, "questions", len(jobs)):
        for case, index in jobs:
            key = f"{case.edits[index].key}:{amounts}"
            kept = store.rows.get(key, {}).get("members") or {}
            if key not in made and (failed < GIVE_UP_AFTER or not writer.would_ask(kept)):
                try:
                    members, problems = writer.write(case, index, kept)
                except LLMError as error:
                    failed += 1
                    report.problems.append(Problem(_item(case, index), "extras", str(error)))
                else:
                    made[key] = [p.reason for p in problems]
                    if members != kept:
                        store.put({"key": key, "members": members})
            found[case.case_id, index] = store.rows.get(key, {}).get("members") or {}
            report.problems += [Problem(_item(case, index), "extras", reason) for reason in made.get(key, ())]
            _advance(progress)
    if failed >= GIVE_UP_AFTER:
        report.problems.append(Problem("questions", "extras", "the endpoint kept failing; the rest was not tried"))
    return found
