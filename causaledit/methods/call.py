"""A method's call, once: what holds for every method before, around and after its own `edit`.

    host (model, tok, requests, hparams) → checks → **edit(model, tokenizer, edits, hparams, call)** → `Edited` → host

A method provides `edit` and nothing else. It gets requests that were read and checked, a model in eval mode whose
parameters require no gradients, seeded generators, and a `Call`. After any exception (Ctrl-C too) modules, hooks,
modes, flags and configuration are as they were, and so are every weight that the method named in `call.rewriting` and
the memories of the sequence.
"""

from __future__ import annotations

import contextlib
import copy as copying
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import HostError, HparamsError, ModelError
from causaledit.facts.requests import EditRequest, refuse_doubles, requests_from_data
from causaledit.methods.hyperparams import BaseHyperParams
from causaledit.methods.shared.orthogonal import kept_orthogonal
from causaledit.models.adapters import is_adapted
from causaledit.models.edited import Edited
from causaledit.models.pairs import check_pair
from causaledit.models.quantised import is_quantised
from causaledit.models.sharded import is_sharded
from causaledit.models.weights import preserved_state, restructuring, rewriting
from causaledit.support.launch import launched
from causaledit.support.progress import terminal_progress
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.methods.method import EditSequence, Method, MethodReport
    from causaledit.support.progress import ProgressSink


class Call:
    """What a method gets besides the model, the tokenizer, the edits and its hyper-parameters.

    Attributes:
        requests: The requests as the caller gave them.
        progress: Where progress goes.
        report: The method's report, to be filled in; `requests` already is.
        sequence: Given where the host keeps this edit and those before it; None for an independent edit.
        extra: Further arguments of the call (`train_ds`, …).
        put_back: Puts the model together as the caller had it: modules, hooks, modes and flags, not weights.
    """

    def __init__(
        self,
        requests: Any,
        *,
        progress: ProgressSink,
        report: Any,
        sequence: EditSequence | None,
        extra: Mapping[str, Any],
        put_back: Callable[[], None],
        stack: contextlib.ExitStack,
    ) -> None:
        self.requests, self.progress, self.report, self.put_back = requests, progress, report, put_back
        self.sequence, self.extra, self._stack = sequence, extra, stack

    def rewriting(self, model: Any, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """Snapshot parameters that the method is about to change; an exception anywhere in the call puts them back.

        Returns:
            The original tensors by name, in host memory: what a `WeightsEdit` takes.
        """
        return self._stack.enter_context(rewriting(model, names))


def edit_in_place(
    method: Method,
    model: Any,
    tok: Any,
    requests: Any,
    hparams: Any,
    *,
    copy: bool = False,
    progress: ProgressSink | None = None,
    report: MethodReport | None = None,
    sequence: EditSequence | None = None,
    **extra: Any,
) -> Edited:
    """Edit a model with a method.

    Args:
        method: From the registry, or one that a host provides.
        model, tok, requests, hparams, copy, progress, report, sequence, **extra: As in `host_call`.

    Returns:
        The edit, in place.

    Raises:
        RequestError, HparamsError, ModelError, HostError: Bad input, before anything is computed or written.
        EditFailedError: The edit went wrong. After any exception the model is as it was, bit for bit.
    """
    refuse_several_processes(method)
    check_pair(model, tok)
    _check_hparams(method, hparams)
    if isinstance(requests, Iterable) and not isinstance(requests, str | Mapping):
        requests = list(requests)
    edits = requests_from_data(requests, needs_subject=method.needs_subject)
    refuse_doubles(edits)
    refuse_adapted(model)
    _refuse_quantised(method, model, hparams, sequence)
    if copy and is_sharded(model):
        raise ModelError(
            "`copy: true`, and this model lies in pieces in several processes (FSDP), which nobody can copy: set it to "
            "false."
        )
    edit = method.load_edit()
    report = report if report is not None else method.load_report()()
    report.requests = edits
    target = copying.deepcopy(model) if copy and method.changes_weights else model
    with contextlib.ExitStack() as stack:
        stack.enter_context(seeded(hparams.seed))
        if sequence is not None:
            stack.enter_context(sequence.undone_on_error())
        sink = progress if progress is not None else stack.enter_context(terminal_progress())
        stack.enter_context(preserved_state(target))
        put_back = stack.enter_context(restructuring(target))
        target.eval()
        target.requires_grad_(False)
        call = Call(
            requests, progress=sink, report=report, sequence=sequence, extra=extra, put_back=put_back, stack=stack
        )
        with kept_orthogonal(target, hparams, sequence):
            edited = edit(target, tok, edits, hparams, call)
        if not isinstance(edited, Edited):
            raise HostError(
                f"The method {method.name} returned a {type(edited).__name__}: its `edit` must return an Edited "
                "(causaledit.models.edited)."
            )
    edited.settle()
    return edited


@functools.cache
def host_call(method: Method) -> Callable[..., tuple[Any, Any]]:
    """The function with EasyEdit's arguments for a method; always the same one for the same method."""

    def apply(
        model: Any,
        tok: Any,
        requests: list[Mapping[str, Any] | EditRequest],
        hparams: Any,
        copy: bool = False,
        return_orig_weights: bool = False,
        keep_original_weight: bool = False,
        *,
        progress: ProgressSink | None = None,
        report: Any = None,
        sequence: EditSequence | None = None,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """Edit a model, in the form in which EasyEdit's hosts call a method.

        Args:
            model: The network to edit. Changed in place unless `copy`.
            tok: Its tokenizer; left as it is.
            requests: EasyEdit dicts, MQuAKE rewrites or `EditRequest`s, applied together; left as they are.
            hparams: The method's hyper-parameters.
            copy: Edit a copy and leave `model` alone.
            return_orig_weights: Return the original tensors of the weights that changed, by name.
            keep_original_weight: Part of EasyEdit's call; originals are kept where they are asked for.
            progress: Where progress goes; by default bars in a terminal.
            report: Filled in with what was done; an instance of the method's report class.
            sequence: Given by a host that keeps its edits: what they share.
            **kwargs: Further arguments of a host's call; a method takes those it knows.

        Returns:
            The edited model, and what undoes the edit: the original tensors by name where asked for, a callable, or
            nothing, where no weight of `model` changed (an adapter, an edit in context).

        Raises:
            RequestError, HparamsError, ModelError, HostError: Bad input, before anything is computed or written.
            EditFailedError: The edit went wrong. After any exception `model` is as it was, bit for bit.
        """
        edited = edit_in_place(
            method, model, tok, requests, hparams,
            copy=copy, progress=progress, report=report, sequence=sequence, **kwargs,
        )  # fmt: skip
        return edited.model, edited.weights_copy(asked=return_orig_weights)

    apply.__name__ = apply.__qualname__ = f"apply_{method.name}_to_model"
    return apply


def _check_hparams(method: Method, hparams: Any) -> None:
    """Check the hyper-parameters again: values may have been set since they were made."""
    if hparams is None or isinstance(hparams, type | str | Mapping):
        given = "None" if hparams is None else repr(hparams)
        raise HparamsError(f"`hparams` must be {method.name}'s hyper-parameters, got {given}: load them first.")
    if isinstance(hparams, BaseHyperParams):
        hparams.__post_init__()


def _refuse_quantised(method: Method, model: Any, hparams: Any, sequence: EditSequence | None) -> None:
    """Refuse quantised weights where a method, or a sequence, would have to write into them.

    Raises:
        ModelError: The model is quantised, and the method trains no adapter, or this is an edit of a sequence.
    """
    if not is_quantised(model) or not method.changes_weights or method.host != type(method).host:
        return
    if not hasattr(hparams, "quantization"):
        raise ModelError(
            f"{method.name} writes into the model's weights, and these are quantised: load the model with "
            "`quantization: none`, or take a method that trains an adapter (CausalEdit, LoRA)."
        )
    if sequence is not None:
        raise ModelError(
            "A sequence of edits merges each into the weights before the next, and these are quantised: edit them "
            "together (one batch), or set `quantization: none`."
        )


def refuse_adapted(model: Any) -> None:
    """Refuse a model that carries an adapter: a method needs plain weights.

    Raises:
        ModelError: It carries one.
    """
    if is_adapted(model):
        raise ModelError(
            "The model already carries a PEFT adapter: merge it (`model.merge_and_unload()`) before another edit."
        )


def refuse_several_processes(method: Method) -> None:
    """Refuse several processes for a method that knows of one: each would draw its own samples and train its own edit.

    Raises:
        HostError: This process is one of several that were launched together.
    """
    if method.distributed:
        return
    size = launched()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        size = max(size, torch.distributed.get_world_size())
    if size > 1:
        raise HostError(
            f"This is one of {size} processes (WORLD_SIZE), and {method.name} edits in one process: run it with plain "
            "`python` instead of `torchrun` or `accelerate launch`."
        )
