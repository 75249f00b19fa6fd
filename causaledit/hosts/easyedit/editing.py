"""A method of EasyEdit called as a method of ours: on our requests, with everything about the model put back."""

from __future__ import annotations

import contextlib
import copy as copying
import importlib
import io
import logging
import math
from typing import TYPE_CHECKING, Any

from causaledit.errors import HostError
from causaledit.hosts.easyedit.module_state import module_state
from causaledit.hosts.easyedit.refusals import refuse_unusable
from causaledit.hosts.easyedit.requests import context_of, their_requests
from causaledit.hosts.easyedit.statistics import own_statistics
from causaledit.methods.hyperparams import model_label
from causaledit.methods.ike.model import InContextModel
from causaledit.models.adapters import forget_adapter, is_adapted
from causaledit.models.chat import in_context_prefix
from causaledit.models.edited import AdapterEdit, ContextEdit, ForeignEdit, WeightsEdit
from causaledit.models.weights import set_back

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.methods.call import Call
    from causaledit.models.edited import Edited

logger = logging.getLogger(__name__)

# by what its methods look for in a model's name, where that is not the architecture's own name
_FAMILIES = {"gpt2": "gpt2-xl", "gptj": "gpt-j-6b", "mistral": "mistral-7b", "qwen2": "qwen2.5"}


def edit_function(name: str) -> Callable[..., Edited]:
    """EasyEdit's function of a method, called as the `edit` of ours (see `methods.call`).

    Args:
        name: The `alg_name`.
    """
    from causaledit.models.loading import resolve_device

    function = importlib.import_module("easyeditor.util.alg_dict").ALG_DICT[name]

    def edit(model: Any, tokenizer: Any, edits: Any, hparams: Any, call: Call) -> Edited:
        """EasyEdit's method on our requests: the inputs left alone, the model restored after a fault."""
        refuse_unusable(name, hparams, call.extra)
        hparams = copying.copy(hparams)
        device = resolve_device(hparams.device)
        hparams.device = device.index or 0 if device.type == "cuda" else device.type
        hparams.model_name = _name_it_knows(model, hparams.model_name)
        _take_all(name, hparams, len(edits))
        if getattr(hparams, "lm_head_module", None):
            hparams.lm_head_module = _head_it_finds(model, hparams.lm_head_module)
        hparams.sequential_edit = call.sequence is not None  # WISE: go on with the side memory of the edit before
        tokenizer = copying.deepcopy(tokenizer)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        requests = their_requests(name, model, tokenizer, edits, call.requests)
        call.report.trained_prompts = list(dict.fromkeys(request["prompt"] for request in requests))
        parameters = dict(model.named_parameters())
        said = io.StringIO()
        with own_statistics(name, model, tokenizer, hparams, call), contextlib.redirect_stdout(said):
            model.requires_grad_(True)  # EasyEdit's methods freeze what they want frozen
            snapshot = call.rewriting(model, list(parameters))
            with call.report.tally.timed("edit"), module_state(name, call.sequence):
                result = function(
                    model,
                    tokenizer,
                    requests,
                    hparams,
                    copy=False,
                    return_orig_weights=True,
                    keep_original_weight=False,
                    train_ds=call.extra.get("train_ds"),
                )
        logger.debug("EasyEdit's %s: %s", name, said.getvalue())
        if isinstance(result, list):  # IKE gives texts to put before the prompt
            call.put_back()
            earlier, plain = (model.edits, model.plain) if isinstance(model, InContextModel) else ((), model)
            texts = [text for text in (in_context_prefix(model), context_of(requests, result)) if text]
            return ContextEdit(InContextModel(plain, [*earlier, *edits], "\n".join(texts)), model)
        edited, undo = _parts_of(name, result)
        changed = {key: value for key, value in snapshot.items() if not value.equal(parameters[key].detach().to("cpu"))}
        if edited is model and not callable(undo):  # exact, also where EasyEdit copied after a change
            call.put_back()
            return WeightsEdit(model, changed)

        def put_back() -> None:
            """The network as the caller had it, whatever was put into it or around it."""
            for key, value in changed.items():
                set_back(parameters[key], value)
            call.put_back()

        if is_adapted(edited):
            return _HostedAdapter(edited, model, put_back)
        return ForeignEdit(edited, model, put_back)

    return edit


def _take_all(name: str, hparams: Any, edits: int) -> None:
    """ULTRAEDIT refuses fewer edits than its `batch_size` and drops those beyond it, and what is no whole batch."""
    if name == "ULTRAEDIT":
        hparams.batch_size = edits
        hparams.batch_size_once = math.gcd(edits, hparams.batch_size_once)


def _head_it_finds(model: Any, path: str) -> str:
    """The path under which EasyEdit's methods find the output layer's weight: a tied one is that of the embeddings."""
    names = {id(value): name for name, value in model.named_parameters()}
    try:
        weight = model.get_parameter(f"{path}.weight")
    except AttributeError:  # its own error names the path
        return path
    return names[id(weight)].removesuffix(".weight")


def _parts_of(name: str, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise HostError(
            f"EasyEdit's {name} gave back a {type(result).__name__} instead of a model and what undoes the edit: it "
            "can't be used here."
        )
    return result


def _name_it_knows(model: Any, given: Any) -> str:
    """A `model_name` in which EasyEdit's methods find the architecture: they look for words in it."""
    label, kind = model_label(given), str(getattr(model.config, "model_type", ""))
    family = _FAMILIES.get(kind, kind)
    return label if family in label.lower() else f"{label}-{family}"


class _HostedAdapter(AdapterEdit):
    """An adapter of EasyEdit's, which leaves hooks on the network it trained."""

    def __init__(self, model: Any, plain: Any, put_back: Callable[[], None]) -> None:
        super().__init__(model, plain)
        self._put_back = put_back

    def settle(self) -> None:
        """EasyEdit's training hooks (input gradients, checkpoints) come off; the adapted model is ready to answer."""
        if getattr(self.plain, "is_gradient_checkpointing", False):
            self.plain.gradient_checkpointing_disable()
        if hasattr(self.plain, "_require_grads_hook"):
            self.plain.disable_input_require_grads()
        super().settle()

    def _take_back(self, handed_over: bool) -> Any:
        plain = super()._take_back(handed_over)
        if not handed_over:
            self._put_back()
            forget_adapter(self.plain)
        return plain
