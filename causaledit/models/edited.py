"""An edit in place: the model that knows the new facts, and the way back.

Whoever edits gives an `Edited`, and whoever probes, keeps or undoes an edit asks it alone. A method whose edit lives
elsewhere than in the kinds below (a router, wrapped modules) writes a class of its own; no caller changes for it.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any

import torch

from causaledit.models.adapters import adapter_state, forget_adapter, is_adapted, merge_adapter, without_adapter
from causaledit.models.weights import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Edited(abc.ABC):
    """An edit in place.

    Attributes:
        model: What answers with the new facts: the network itself, or something around it.
        plain: The network that was edited.
        own_generate: Whether `model` answers through its own `generate` alone. A pass over several answers behind one
            shared prompt then says nothing about it.
    """

    own_generate: bool = False

    def __init__(self, model: Any, plain: Any) -> None:
        self.model, self.plain = model, plain
        self._undone: Any = None

    def undo(self, *, handed_over: bool = False) -> Any:
        """Take the edit back, to the bit. A second call does nothing.

        Args:
            handed_over: Somebody keeps `model`. What can live without the network (an adapter) then stays on it.

        Returns:
            The unedited network: `plain`, or a plain copy of it where `model` was handed over with `plain` inside.
        """
        if self._undone is None:
            self._undone = self._take_back(handed_over)
        return self._undone

    @abc.abstractmethod
    def _take_back(self, handed_over: bool) -> Any:
        """Undo the edit once; see `undo`."""

    @abc.abstractmethod
    def parameters_changed(self) -> int | None:
        """How many parameters the edit changed or added, while it is in place; None where nobody can say."""

    def weights_copy(self, *, asked: bool = True) -> Any:
        """What undoes the edit in the form that EasyEdit's hosts take: tensors by name, a callable, or nothing.

        Args:
            asked: Whether the caller wants tensors (`return_orig_weights`).
        """
        return {}

    def settle(self) -> None:
        """Called once, when the network's modes, flags and configuration are the caller's again."""
        return

    def keep(self) -> Any:
        """The model on which the next edit of a sequence goes on."""
        return self.model


class WeightsEdit(Edited):
    """Parameters of the network have other values.

    Args:
        model: The network.
        originals: The original tensors by parameter name.
    """

    def __init__(self, model: Any, originals: Mapping[str, torch.Tensor]) -> None:
        super().__init__(model, model)
        self.originals = dict(originals)

    def _take_back(self, handed_over: bool) -> Any:
        restore(self.plain, self.originals)
        return self.plain

    @torch.no_grad()
    def parameters_changed(self) -> int:
        """Those that differ from their originals; tied ones count once."""
        pairs = {id(p): (p, value) for name, value in self.originals.items() for p in [self.plain.get_parameter(name)]}
        return sum(int((p != value.to(p.device)).sum()) for p, value in pairs.values())

    def weights_copy(self, *, asked: bool = True) -> dict[str, torch.Tensor]:
        """The original tensors by name."""
        return self.originals if asked else {}


class AdapterEdit(Edited):
    """An adapter around the network, whose own weights nobody touched.

    Args:
        model: The PeftModel.
        plain: The network inside it.
    """

    def __init__(self, model: Any, plain: Any) -> None:
        super().__init__(model, plain)
        self._modes: list[tuple[Any, bool]] = []

    def settle(self) -> None:
        """The adapted model is handed out ready to answer."""
        for name in ("forward", "_original_forward"):  # accelerate's mixed-precision wrapper
            vars(self.model).pop(name, None)
        self._modes = [(module, module.training) for module in self.plain.modules()]
        self.model.eval()

    def _take_back(self, handed_over: bool) -> Any:
        for module, mode in self._modes:
            module.training = mode
        if handed_over:
            plain = without_adapter(self.model)
            self.model.eval()
            return plain
        self.model.unload()
        forget_adapter(self.plain)
        return self.plain

    def parameters_changed(self) -> int:
        """The adapter's."""
        return sum(value.numel() for value in adapter_state(self.model).values())

    def keep(self) -> Any:
        """The network with the adapter merged into it: the next edit needs plain weights to put its own on."""
        return self.merged().model

    def merged(self) -> WeightsEdit:
        """The same edit in the network's weights."""
        for module, mode in self._modes:
            module.training = mode
        return WeightsEdit(self.plain, merge_adapter(self.model, self.plain))


class ContextEdit(Edited):
    """New facts in the prompts; the network is as it was.

    Args:
        model: What puts the facts before prompts.
        plain: The network inside it.
    """

    def _take_back(self, handed_over: bool) -> Any:
        return self.plain

    def parameters_changed(self) -> int:
        """None of them."""
        return 0


class ForeignEdit(Edited):
    """An edit of another library, of which only the way back is known (EasyEdit's WISE, GRACE).

    Args:
        model: What that library gave back.
        plain: The network that it edited.
        restore: Undoes the edit.
    """

    own_generate = True

    def __init__(self, model: Any, plain: Any, restore: Callable[[], Any]) -> None:
        super().__init__(model, plain)
        self._restore = restore

    def _take_back(self, handed_over: bool) -> Any:
        with torch.no_grad():
            self._restore()
        return self.plain

    def parameters_changed(self) -> int | None:
        """None: nothing says what it touched."""
        return None

    def keep(self) -> Any:
        """The network, with what that library put into it: it finds its own modules there."""
        return self.plain

    def weights_copy(self, *, asked: bool = True) -> Callable[[], Any]:
        """The callable, asked for or not: there is no other way back."""
        return self._restore


class EditsInTurn(Edited):
    """Edits that were made one after another, each on the model that the one before it left.

    Args:
        edits: In their order; at least one.
    """

    def __init__(self, edits: Sequence[Edited]) -> None:
        super().__init__(edits[-1].model, edits[0].plain)
        self.edits = tuple(edits)
        self.own_generate = any(edit.own_generate for edit in edits)

    def _take_back(self, handed_over: bool) -> Any:
        plain = self.plain
        for edit in reversed(self.edits):
            plain = edit.undo(handed_over=handed_over)
        return plain

    def parameters_changed(self) -> int | None:
        """Those that differ from what they were before the first edit, where every edit is one of weights."""
        if not all(isinstance(edit, WeightsEdit) for edit in self.edits):
            return 0 if all(isinstance(edit, ContextEdit) for edit in self.edits) else None
        return WeightsEdit(self.plain, self._first_originals()).parameters_changed()

    def _first_originals(self) -> dict[str, torch.Tensor]:
        known: dict[str, torch.Tensor] = {}
        for edit in reversed(self.edits):
            known |= edit.originals if isinstance(edit, WeightsEdit) else {}
        return known

    def weights_copy(self, *, asked: bool = True) -> Any:
        """The originals by name where every edit is one of weights; else a callable."""
        if all(isinstance(edit, WeightsEdit) for edit in self.edits):
            return self._first_originals() if asked else {}
        return self.undo


def deliver_adapter(peft_model: Any, model: Any, *, merge: bool) -> Edited:
    """A trained adapter as an edit: merged into the weights, or as it is.

    Args:
        peft_model: The trained adapter around `model`.
        model: The plain model; restored if merging fails.
        merge: False leaves the adapter around the model.
    """
    if not merge:
        return AdapterEdit(peft_model, model)
    return WeightsEdit(model, merge_adapter(peft_model, model))


def read_edited(plain: Any, model: Any, weights_copy: Any) -> Edited:
    """What a function of EasyEdit's contract gave back, as an edit in place.

    Args:
        plain: The network that was given to it.
        model: The edited model that it returned.
        weights_copy: Original tensors by name, a callable that undoes the edit, or nothing.
    """
    if callable(weights_copy):
        return ForeignEdit(model, plain, weights_copy)
    if weights_copy or model is plain:
        edited = WeightsEdit(plain, weights_copy or {})
        edited.model = model
        return edited
    if is_adapted(model):
        return AdapterEdit(model, plain)
    return ContextEdit(model, plain)


def undo_edit(model: Any, edited: Any, weights_copy: Any) -> Any:
    """The unedited model again, from what a function of EasyEdit's contract gave back.

    Args:
        model, edited, weights_copy: As `plain`, `model` and `weights_copy` of `read_edited`.

    Returns:
        `model` with its weights restored; with an adapter, a plain copy, as the caller keeps the adapter.
    """
    return read_edited(model, edited, weights_copy).undo(handed_over=True)
