"""What every method's apply function does alike: checks, seeds, progress, snapshots, restoration."""

from __future__ import annotations

import contextlib
import copy as copying
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer

from causaledit.errors import ModelError
from causaledit.facts.requests import EditRequest, refuse_doubles, requests_from_data
from causaledit.models.weights import preserved_state
from causaledit.support.progress import ProgressSink, terminal_progress
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


def ready_edits(
    model: Any, requests: Iterable[Mapping[str, Any] | EditRequest], *, needs_subject: bool = True
) -> list[EditRequest]:
    """Read the requests, and refuse what no method can edit.

    Args:
        model: The network to edit.
        requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s.
        needs_subject: Whether a request without a subject is refused.

    Raises:
        RequestError: A request is unusable, or two change the same fact.
        ModelError: The model carries an adapter.
    """
    edits = requests_from_data(list(requests), needs_subject=needs_subject)
    if hasattr(model, "peft_config") or any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ModelError(
            "The model already carries a PEFT adapter: merge it (`model.merge_and_unload()`) before another edit."
        )
    refuse_doubles(edits)
    return edits


@contextlib.contextmanager
def editing(model: Any, *, copy: bool, seed: int, progress: ProgressSink | None) -> Iterator[tuple[Any, ProgressSink]]:
    """The model to edit (a copy if asked), seeded, with everything but weights preserved, and a progress sink.

    Inside, the model is in eval mode and no parameter asks for a gradient.
    """
    target = copying.deepcopy(model) if copy else model
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(seed))
        sink = progress if progress is not None else stack.enter_context(terminal_progress())
        stack.enter_context(preserved_state(target))
        target.eval()
        target.requires_grad_(False)
        yield target, sink
