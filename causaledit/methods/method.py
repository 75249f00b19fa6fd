"""What a method is: its entry in the registry, its report, and what the edits of a sequence share."""

from __future__ import annotations

import contextlib
import datetime
import logging
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, runtime_checkable

from causaledit.facts.same_fact import same_fact
from causaledit.facts.text import normalise
from causaledit.support.costs import EditTally, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from causaledit.facts.requests import EditRequest
    from causaledit.models.edited import Edited


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """One editing method: where its parts are. None of them is imported before it is used.

    Attributes:
        name: The `alg_name`.
        hparams: `"module:attribute"` of the hyper-parameter class, a dataclass on `BaseHyperParams`.
        edit: `"module:attribute"` of `edit(model, tokenizer, edits, hparams, call) -> Edited` (see `methods.call`).
        report: `"module:attribute"` of the report's class.
        batched: Whether several requests may be applied together.
        changes_weights: False for a method whose edit lives in the prompt (IKE).
        needs_subject: False for a method that edits a whole prompt, with or without a subject in it.
        distributed: Whether one edit can be trained by several processes (`accelerate launch`).
        check: `"module:attribute"` of `check(requests)`, which refuses requests (as given) that only this method cannot
            take; a host calls it for every request before the first edit.
        footprint: `"module:attribute"` of `footprint(planner) -> [StageFootprint]` (see `methods.footprint`), for
            `causaledit plan`.
        remedies: `"module:attribute"` of `remedies(hparams) -> [Remedy]`, what makes an edit smaller, mildest first.
    """

    host: ClassVar[str] = "embedded"  # whose method it is: ours, or a host's own

    name: str
    hparams: str
    edit: str
    report: str = "causaledit.methods.method:MethodReport"
    batched: bool = True
    changes_weights: bool = True
    needs_subject: bool = True
    distributed: bool = False
    check: str | None = None
    footprint: str | None = None
    remedies: str | None = None

    def load_hparams(self) -> type[Any]:
        """The hyper-parameter class."""
        found: type[Any] = load_reference(self.hparams)
        return found

    def load_edit(self) -> Callable[..., Edited]:
        """`edit(model, tokenizer, edits, hparams, call) -> Edited`."""
        found: Callable[..., Edited] = load_reference(self.edit)
        return found

    def load_report(self) -> type[MethodReport]:
        """The report's class."""
        found: type[MethodReport] = load_reference(self.report)
        return found

    def load_apply(self) -> Callable[..., Any]:
        """The function a host calls: `apply(model, tok, requests, hparams, …) -> (model, weights_copy)`."""
        from causaledit.methods.call import host_call

        return host_call(self)

    def load_check(self) -> Callable[..., Any] | None:
        """`check(requests)`, where the method has one."""
        return load_reference(self.check) if self.check else None

    def load_footprint(self) -> Callable[..., Any]:
        """`footprint(planner)`; no stages where the method has none."""
        return load_reference(self.footprint) if self.footprint else lambda planner: []

    def load_remedies(self) -> Callable[..., Any]:
        """`remedies(hparams)`; none where the method has none."""
        return load_reference(self.remedies) if self.remedies else lambda hparams: []


def load_reference(reference: str) -> Any:
    """What a `"module:attribute"` names."""
    module, attribute = reference.split(":")
    return getattr(import_module(module), attribute)


@dataclass
class MethodReport:
    """What one call did, for the model card and the tables.

    Attributes:
        requests: The edits as the method applied them.
        losses: Per stage, the loss of each optimiser step.
        trained_prompts: Every user prompt that the edit was trained on: such a question does not test generalisation.
        tally: Seconds per stage and tokens.
        merge_error: What merging an adapter into other weights than it was trained on changed
            (`models.merged_elsewhere`); None where that was not done.
    """

    requests: list[EditRequest] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    trained_prompts: list[str] = field(default_factory=list)
    tally: EditTally = field(default_factory=EditTally)
    merge_error: dict[str, Any] | None = None

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """What `causaledit.json` says about an edit: requests, hyper-parameters, versions, metrics, cost.

        Args:
            hparams: The method's hyper-parameters.
            metrics: What the host measured, one entry per edit.
        """
        return {
            "method": hparams.alg_name,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "requests": [request.to_dict() for request in self.requests],
            "losses": self.losses,
            "hparams": hparams.to_dict(),
            "versions": versions(),
            "metrics": metrics,
            "seconds": self.tally.seconds,
            "tokens": vars(self.tally.tokens),
            **({"merge_error": self.merge_error} if self.merge_error else {}),
        }


Memory = TypeVar("Memory")


@runtime_checkable
class StoredMemory(Protocol):
    """A memory that can be written to disk, so that a sequence of edits goes on in another process.

    All three take and give nested dictionaries, lists and tuples of tensors, numbers and texts.
    """

    def constants(self) -> dict[str, Any]:
        """What the first edit computed and later ones only read; written once."""
        ...

    def state(self) -> dict[str, Any]:
        """What edits add to, in containers that later edits leave alone; written after every step."""
        ...

    def load(self, constants: dict[str, Any], state: dict[str, Any]) -> None:
        """Take back what the other two gave."""
        ...


class EditSequence:
    """The methods' memories of one sequence of edits, by method name, and which edits an editor keeps."""

    def __init__(self) -> None:
        self._memories: dict[str, Any] = {}
        self._stored: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._kept: list[EditRequest] = []
        self._ways_back: list[dict[str, Callable[[], None]]] = []  # one by method name per open `undone_on_error`

    def keep(self, edits: Iterable[EditRequest]) -> None:
        """Note edits that an editor leaves in its model; an earlier one that they contradict is said, once.

        The later one wins, as it was written last. A sequence that was planned says so before it begins.
        """
        for edit in edits:
            for earlier in [kept for kept in self._kept if same_fact(kept, edit)]:
                self._kept.remove(earlier)
                if normalise(earlier.target_new) != normalise(edit.target_new):
                    logger.warning(
                        "two kept edits contradict each other (%s: %s, then %s): the later one wins",
                        edit.cloze, earlier.target_new, edit.target_new,
                    )  # fmt: skip
            self._kept.append(edit)

    def memory(self, method: str, make: Callable[[], Memory]) -> Memory:
        """The method's memory, made by `make` at its first edit; written to by edits that succeeded."""
        if method not in self._memories:
            made = self._memories[method] = make()
            if method in self._stored and isinstance(made, StoredMemory):
                made.load(*self._stored.pop(method))
            for ways_back in self._ways_back:
                ways_back[method] = _way_back(made)
        memory: Memory = self._memories[method]
        return memory

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """For a block whose edits are undone if it fails: the memories then forget them too.

        What the edits computed once, and what a memory holds that is neither a `StoredMemory` nor a dictionary, stays.
        """
        ways_back = {name: _way_back(memory) for name, memory in self._memories.items()}
        kept = list(self._kept)
        self._ways_back.append(ways_back)
        try:
            yield
        except BaseException:
            for way_back in ways_back.values():
                way_back()
            self._kept = kept
            raise
        finally:
            self._ways_back.pop()

    def stored(self) -> dict[str, tuple[dict[str, Any], dict[str, Any]]] | None:
        """Each memory's constants and state by method name; None where a memory cannot be written."""
        if not all(isinstance(memory, StoredMemory) for memory in self._memories.values()):
            return None
        written = {name: (memory.constants(), memory.state()) for name, memory in self._memories.items()}
        return {**self._stored, **written}

    def go_on(self, stored: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> None:
        """Begin where another process stopped, with what `stored` gave there."""
        self._stored = dict(stored)


def _way_back(memory: Any) -> Callable[[], None]:
    """What puts a memory back to how it is now."""
    if isinstance(memory, StoredMemory):
        state = memory.state()
        return lambda: memory.load(memory.constants(), state)
    content = dict(memory) if isinstance(memory, dict) else None

    def refill() -> None:
        if content is not None:
            memory.clear()
            memory.update(content)

    return refill
