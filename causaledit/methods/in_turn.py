"""Several edits with a method that makes one at a time: one after another, as in an editor's sequential edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence
from causaledit.models.edited import AdapterEdit, EditsInTurn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.method import Method, MethodReport
    from causaledit.models.edited import Edited
    from causaledit.support.progress import ProgressSink


def edit_all(
    method: Method,
    model: Any,
    tok: Any,
    requests: Sequence[Any],
    hparams: Any,
    *,
    progress: ProgressSink | None = None,
    report: MethodReport | None = None,
    sequence: EditSequence | None = None,
) -> Edited:
    """Make all edits of a list: together where the method can, else in their order, each on the one before.

    Args:
        method, model, tok, requests, hparams, progress, report, sequence: As in `edit_in_place`.

    Returns:
        The edits in place, undone together.

    Raises:
        RequestError, HparamsError, ModelError, HostError, EditFailedError: As `edit_in_place`. After any exception the
            model is as it was before the first edit, and so are the sequence's memories.
    """
    if method.batched or len(requests) < 2:
        return edit_in_place(method, model, tok, requests, hparams, progress=progress, report=report, sequence=sequence)
    report = report if report is not None else method.load_report()()
    sequence = EditSequence() if sequence is None else sequence
    done: list[Edited] = []
    edits: list[EditRequest] = []
    trained: list[str] = []
    with sequence.undone_on_error():
        try:
            for request in requests:
                current: Any = model
                if done:
                    last = done[-1]
                    done[-1] = last.merged() if isinstance(last, AdapterEdit) else last
                    current = done[-1].keep()
                done.append(
                    edit_in_place(
                        method, current, tok, [request], hparams, progress=progress, report=report, sequence=sequence
                    )
                )
                edits += report.requests
                trained += [prompt for prompt in report.trained_prompts if prompt not in trained]
        except BaseException:
            for edit in reversed(done):
                edit.undo()
            raise
    report.requests, report.trained_prompts = edits, trained
    return EditsInTurn(done)
