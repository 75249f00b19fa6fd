"""What the tests of the contract share: which methods and hosts a test is over, and what they compare."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer, weights_of
from easyedit_files import FIGURES, file_for, needs_easyedit

from causaledit.methods.registry import METHODS
from causaledit.models.chat import in_context_prefix
from causaledit.support.progress import SilentProgress

every_host = pytest.mark.parametrize("host", ["embedded", pytest.param("easyedit", marks=needs_easyedit)])


def methods(keep=lambda method: True) -> Any:
    """A test over the registry's methods, or those a condition keeps."""
    return pytest.mark.parametrize("method", [m for m in METHODS.values() if keep(m)], ids=lambda m: m.name)


def has(field):
    """Whether a method has a hyper-parameter."""
    return lambda method: field in {spec.name for spec in dataclasses.fields(method.load_hparams())}


def everywhere(keep=lambda method: True, *, but=()) -> Any:
    """As `methods`, and over EasyEdit's own but those named."""
    ours = [pytest.param(m, id=m.name) for m in METHODS.values() if keep(m)]
    theirs = [f"easyedit:{name}" for name in FIGURES if name not in but]
    theirs = [pytest.param(name, id=name, marks=needs_easyedit) for name in theirs]
    return pytest.mark.parametrize("method", [*ours, *theirs], indirect=True)


every_method = methods()
every_method_everywhere = everywhere()
# EasyEdit's GRACE and WISE put modules of their own into the network, its LoRA and DPO an adapter around it
weight_methods_everywhere = everywhere(lambda method: method.changes_weights, but=("GRACE", "WISE", "LoRA", "DPO"))
weight_methods = methods(lambda method: method.changes_weights)
adapter_methods = methods(has("merge_adapter"))
SEED_MATTERS = [
    METHODS[name] for name in ("CaKE", "CausalEdit", "EtCon", "ICE", "LoRA", "StoryDistill")
]  # these draw: another seed, another edit
causal_edit = methods(lambda method: method.name == "CausalEdit")

# What a test looks at that is not about what a model learns is there after few steps: weights that changed, an
# optimiser with a state, the third step for `Fault` to stop at.
STEPS = ("bootstrap_max_steps", "proximal_steps", "max_steps", "steps", "v_num_grad_steps")
FEW_STEPS = 5


def hparams_for(method, model, tokenizer, *, learns: bool = False, **changes) -> Any:
    """A method's figures on a tiny model: few steps, or those at which it `learns` an answer."""
    if method.host == "easyedit":
        changes.pop("lora_target_modules", None)
        return method.load_hparams().from_dict(file_for(method.name, **changes))
    if changes.get("lora_target_modules") and not has("lora_target_modules")(method):
        del changes["lora_target_modules"]  # asked for so that an architecture's own names do not matter
    figures = dict(FAST[method.name])
    if not learns:
        figures |= {name: FEW_STEPS for name in STEPS if name in figures}
    return method.load_hparams()(model_name=(model, tokenizer), alg_name=method.name, **{**figures, **changes})


def state_of(model) -> dict[str, Any]:
    """All an edit may change: weights, and what a model carries in context."""
    return {**weights_of(model), "in context": torch.tensor(list(in_context_prefix(model).encode()))}


def editor_for(host, hparams) -> Any:
    if host == "easyedit":
        from causaledit.hosts.easyedit.patches import register

        return register().from_hparams(hparams)
    from causaledit.hosts.embedded import EmbeddedEditor

    return EmbeddedEditor.from_hparams(hparams)


def run(editor, *requests, sequential_edit=False) -> tuple:
    """Edit with ready requests (EasyEdit's `edit` fails on its own `requests=`, so this is the call for both)."""
    return editor.edit_requests(copy.deepcopy(list(requests)), sequential_edit=sequential_edit, verbose=False)


def columns(*requests) -> dict[str, Any]:
    """The same requests as EasyEdit's parallel lists (which carry no narrative)."""
    return {
        "prompts": [r["prompt"] for r in requests],
        "target_new": [r["target_new"] for r in requests],
        "ground_truth": [r["ground_truth"] for r in requests],
        "subject": [r["subject"] for r in requests],
        "rephrase_prompts": [r["rephrase_prompt"] for r in requests],
        "locality_inputs": {
            "neighbour": {
                key: [r["locality"]["neighbour"][key] for r in requests] for key in ("prompt", "ground_truth")
            }
        },
        "verbose": False,
    }


def edited_weights(host, method, *requests, model=None, **changes) -> dict[str, Any]:
    """Weights after a sequential (that is: kept) edit of a fresh model."""
    editor = editor_for(host, hparams_for(method, model or make_llama(), make_tokenizer(), **changes))
    run(editor, *requests, sequential_edit=True)
    return state_of(editor.model)


@functools.cache
def edited_once(host, name, *subjects) -> dict[str, Any]:
    """`edited_weights` of a method and of edits by their subjects: made once for all tests that compare with it."""
    requests = {request["subject"]: request for request in (EGYPT, NORWAY)}
    return edited_weights(host, METHODS[name], *(requests[subject] for subject in subjects))


def surroundings(model) -> dict[str, Any]:
    """Everything about a model but its weights."""
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "types": {name: type(module) for name, module in model.named_modules()},
        "dropout": {name: m.p for name, m in model.named_modules() if isinstance(m, torch.nn.Dropout)},
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "gradients": {name: p.grad is None for name, p in model.named_parameters()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "config": model.config.to_dict(),
        "generation_config": model.generation_config.to_dict(),
    }


def unusual(model) -> Any:
    """A model in a state that a careless restoration would lose."""
    model.train()
    model.get_input_embeddings().eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    model.generation_config.max_length = 77
    model.config.use_cache = True
    model.remark = "mine"
    return model


class Stop(SilentProgress):
    """Progress that raises at the n-th step of a stage: the middle of real training."""

    def __init__(self, stage: str, step: int, error: BaseException) -> None:
        self.wanted, self.step, self.error, self.stage, self.seen = stage, step, error, "", 0

    def start(self, stage, total):
        self.stage, self.seen = stage, 0

    def advance(self, *, loss=None, tokens=0):
        self.seen += 1
        if self.wanted in self.stage and self.seen == self.step:
            raise self.error


class Fault:
    """Raises in the n-th forward pass with gradients: the middle of any method's training, in any host."""

    def __init__(self, model, error: BaseException, number: int = 3) -> None:
        self.error, self.left, self.model = error, number, model

    def __enter__(self):
        self.handle = self.model.get_input_embeddings().register_forward_pre_hook(self.look)
        return self

    def __exit__(self, *exc):
        self.handle.remove()

    def look(self, *args):
        self.left -= torch.is_grad_enabled()
        if self.left == 0:
            raise self.error
