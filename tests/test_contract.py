"""One contract for every method in every host: what an edit changes, and all that it must leave alone.

The methods are those of the registry; a new one needs its fast hyper-parameters in conftest.FAST. The hosts
are the embedded one and, where EASYEDIT_HOME names a checkout, EasyEdit itself; what holds for an edit in place and for
the apply function holds for EasyEdit's own methods too, as `get_method` gives them. A test of what not every method has
(weights that change, an adapter, draws) names those it is about.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from conftest import (
    EGYPT,
    FAST,
    MODELS,
    NORWAY,
    answer_log_probability,
    make_gpt2,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)
from easyedit_files import FIGURES, file_for, needs_easyedit

from causaledit.errors import CausalEditError, EditFailedError, HparamsError, ModelError, RequestError
from causaledit.hosts.lookup import get_method
from causaledit.hosts.token_accuracy import predicted_tokens, token_accuracy
from causaledit.methods.call import edit_in_place
from causaledit.methods.ike.prompts import FACT
from causaledit.methods.registry import METHODS
from causaledit.models.adapters import is_adapted
from causaledit.models.chat import in_context_prefix
from causaledit.models.edited import AdapterEdit, ForeignEdit
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


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def method(request):
    return get_method(request.param) if isinstance(request.param, str) else request.param


# ---- helpers ---------------------------------------------------------------------------------------
def hparams_for(method, model, tokenizer, **changes) -> Any:
    if method.host == "easyedit":
        changes.pop("lora_target_modules", None)
        return method.load_hparams().from_dict(file_for(method.name, **changes))
    if changes.get("lora_target_modules") and not has("lora_target_modules")(method):
        del changes["lora_target_modules"]  # asked for so that an architecture's own names do not matter
    return method.load_hparams()(
        model_name=(model, tokenizer), alg_name=method.name, **{**FAST[method.name], **changes}
    )


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


# ---- what an edit does -----------------------------------------------------------------------------
@weight_methods
@every_host
@pytest.mark.parametrize("architecture", MODELS)
def test_the_new_answers_probability_rises(method, host, architecture):
    model, tokenizer = MODELS[architecture](), make_tokenizer()
    before = answer_log_probability(model, tokenizer, EGYPT)
    editor = editor_for(host, hparams_for(method, model, tokenizer, lora_target_modules=["all-linear"]))
    _, edited, _ = run(editor, EGYPT, sequential_edit=True)
    assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.5  # nats per token
    assert type(edited) is type(model)  # a plain model again, no adapter around it


@every_method
@every_host
def test_metrics(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    metrics, _, _ = run(editor, EGYPT, NORWAY)
    assert [item["case_id"] for item in metrics] == [0, 1]
    for item, request in zip(metrics, (EGYPT, NORWAY), strict=True):
        assert item["requested_rewrite"] == request
        for phase in ("pre", "post"):
            for key in ("rewrite_acc", "rephrase_acc"):
                assert all(0 <= value <= 1 for value in item[phase][key])
                assert len(item[phase][key]) == 1
            assert len(item[phase]["portability"]["hop_acc"]) == 1
        assert len(item["post"]["locality"]["neighbour_acc"]) == 1


@every_method
@every_host
def test_the_hosts_own_arguments(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    metrics, _, _ = editor.edit(**columns(EGYPT, NORWAY))
    assert len(metrics) == 2
    assert metrics[1]["requested_rewrite"]["subject"] == "Norway"
    assert 0 <= metrics[1]["post"]["locality"]["neighbour_acc"][0] <= 1


@every_method
@every_host
def test_sequential_edits_accumulate(method, host):
    both = edited_weights(host, method, EGYPT, NORWAY)
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    run(editor, EGYPT, sequential_edit=True)
    first = state_of(editor.model)
    run(editor, NORWAY, sequential_edit=True)
    assert same_weights(state_of(editor.model), both)  # one call of two edits is two calls of one
    assert not same_weights(first, both)
    assert not same_weights(both, edited_weights(host, method, NORWAY))  # the first edit is still in there


@every_method
@every_host
def test_a_batch_of_one_is_an_edit(method, host):
    if not method.batched:
        pytest.skip(f"{method.name} does not edit batches")
    found = []
    for call in ("edit", "batch_edit"):
        editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
        metrics, _, _ = getattr(editor, call)(**columns(EGYPT), sequential_edit=True)
        found.append((state_of(editor.model), metrics[0]["post"]["rewrite_acc"], metrics[0]["post"]["locality"]))
    assert same_weights(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert found[0][2]["neighbour_acc"] == found[1][2]["neighbour_acc"]


@every_method
@every_host
def test_a_batch_holds_all_its_edits(method, host):
    if not method.batched:
        pytest.skip(f"{method.name} does not edit batches")
    model, tokenizer = make_llama(), make_tokenizer()
    before = [answer_log_probability(model, tokenizer, r) for r in (EGYPT, NORWAY)]
    weights = weights_of(model)
    editor = editor_for(host, hparams_for(method, model, tokenizer, batch_size=2))
    metrics, _, _ = editor.batch_edit(**columns(EGYPT, NORWAY))
    assert len(metrics) == 2
    assert same_weights(weights_of(editor.model), weights)
    _, edited, _ = editor.batch_edit(**columns(EGYPT, NORWAY), sequential_edit=True)
    if not method.changes_weights:
        assert all(r["target_new"] in in_context_prefix(edited) for r in (EGYPT, NORWAY))
        return
    after = [answer_log_probability(edited, tokenizer, r) for r in (EGYPT, NORWAY)]
    assert after[0] > before[0] + 0.3
    assert after[1] > before[1] + 0.3


@every_method
@every_host
def test_same_seed_same_edit(method, host):
    first = edited_weights(host, method, EGYPT, seed=1)
    torch.rand(3)  # the caller's own draws must not matter
    assert same_weights(first, edited_weights(host, method, EGYPT, seed=1))
    if method in SEED_MATTERS:
        assert not same_weights(first, edited_weights(host, method, EGYPT, seed=2))


# ---- what an edit leaves alone ---------------------------------------------------------------------
@every_method
@every_host
@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_after_an_edit_the_model_is_as_it_was(method, host, make):
    editor = editor_for(
        host, hparams_for(method, unusual(make()), make_tokenizer(), lora_target_modules=["all-linear"])
    )
    weights, around = weights_of(editor.model), surroundings(editor.model)
    run(editor, EGYPT, NORWAY)
    assert same_weights(weights_of(editor.model), weights)
    assert surroundings(editor.model) == around


@weight_methods
@every_host
@pytest.mark.parametrize("error", [RuntimeError("fault"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_after_a_fault_the_model_is_as_it_was(method, host, error):
    editor = editor_for(host, hparams_for(method, unusual(make_llama()), make_tokenizer()))
    weights, around = weights_of(editor.model), surroundings(editor.model)
    with Fault(editor.model, error), pytest.raises(type(error)):
        run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)
    assert surroundings(editor.model) == around
    run(editor, EGYPT)  # and it can go on
    assert same_weights(weights_of(editor.model), weights)


@every_method
@every_host
def test_independent_edits_are_independent(method, host):
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
    run(editor, EGYPT)
    run(editor, NORWAY, sequential_edit=True)
    assert same_weights(state_of(editor.model), edited_weights(host, method, NORWAY))


@every_method
@every_host
def test_inputs_are_not_changed(method, host):
    tokenizer = make_tokenizer()
    tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token = "right", "right", None
    model = make_llama()
    hparams = hparams_for(method, model, tokenizer, device="auto")
    fields = {f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams)}
    plain = copy.deepcopy({name: value for name, value in fields.items() if name != "model_name"})
    requests = [copy.deepcopy(EGYPT)]
    editor = editor_for(host, hparams)
    editor.edit_requests(requests, verbose=False)
    assert requests == [EGYPT]
    assert {f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams) if f.name != "model_name"} == plain
    assert hparams.model_name == (model, tokenizer)
    assert (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token) == ("right", "right", None)


@adapter_methods
@every_host
def test_an_adapter_instead_of_merged_weights(method, host):
    from peft import PeftModel

    tokenizer = make_tokenizer()
    before = answer_log_probability(make_llama(), tokenizer, NORWAY)
    editor = editor_for(host, hparams_for(method, make_llama(), tokenizer, merge_adapter=False))
    weights = weights_of(editor.model)
    run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)  # the host goes on with a plain model
    _, edited, copied = run(editor, NORWAY)
    assert isinstance(edited, PeftModel)
    assert not copied
    assert same_weights(weights_of(editor.model), weights)
    assert answer_log_probability(edited, tokenizer, NORWAY) > before + 0.5
    alone = editor_for(host, hparams_for(method, make_llama(), tokenizer, merge_adapter=False))
    _, expected, _ = run(alone, NORWAY)
    assert same_weights(weights_of(edited), weights_of(expected))  # nothing of the first edit is in it


@adapter_methods
@every_host
def test_sequential_adapters_accumulate(method, host):
    merged = edited_weights(host, method, EGYPT, NORWAY)
    editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer(), merge_adapter=False))
    _, edited, _ = run(editor, EGYPT, NORWAY, sequential_edit=True)
    found = edited.merge_and_unload() if hasattr(edited, "peft_config") else edited
    assert same_weights(state_of(found), merged)


# ---- an edit in place ------------------------------------------------------------------------------
def edited_in_place(method, model, tokenizer, *requests, **changes):
    hparams = hparams_for(method, model, tokenizer, **changes)
    return edit_in_place(method, model, tokenizer, list(requests), hparams, progress=SilentProgress())


@every_method_everywhere
@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_an_edit_in_place_says_what_it_changed_and_undoes_itself(method, make):
    if method.host == "easyedit" and make is make_gpt2:
        pytest.skip("its file names the modules of a Llama")
    model, tokenizer = unusual(make()), make_tokenizer()
    weights, around = weights_of(model), surroundings(model)
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    edited = edited_in_place(method, model, tokenizer, EGYPT, lora_target_modules=["all-linear"])
    assert edited.plain is model
    if isinstance(edited, AdapterEdit):
        assert edited.parameters_changed() > 0
    elif isinstance(edited, ForeignEdit):
        assert edited.parameters_changed() is None
        assert callable(edited.weights_copy(asked=False))
    else:
        changed = sum(int((parameter != values[name]).sum()) for name, parameter in model.named_parameters())
        assert edited.parameters_changed() == changed
        assert (changed > 0) is method.changes_weights
        assert not edited.own_generate
        assert edited.weights_copy(asked=False) == {}
    assert edited.undo() is model
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    after = weights_of(model)
    assert edited.undo() is model  # once is enough: what came later is not overwritten
    assert same_weights(weights_of(model), after)


@every_method_everywhere
def test_the_same_seed_gives_the_same_edit_in_place(method):
    tokenizer, found = make_tokenizer(), []
    tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token = "right", "right", None
    for _ in range(2):
        model, requests = make_llama(), [copy.deepcopy(EGYPT)]
        hparams = hparams_for(method, model, tokenizer, seed=1)
        before = {key: value for key, value in vars(hparams).items() if key != "model_name"}
        torch.rand(3)  # the caller's own draws must not matter
        edited = edit_in_place(method, model, tokenizer, requests, hparams, progress=SilentProgress())
        found.append(state_of(edited.model))
        assert requests == [EGYPT]
        assert {key: value for key, value in vars(hparams).items() if key != "model_name"} == before
        edited.undo()
        edit_in_place(method, model, tokenizer, [copy.deepcopy(NORWAY)], hparams, progress=SilentProgress()).undo()
    assert same_weights(*found)  # nor what was edited and undone in between
    assert (tokenizer.padding_side, tokenizer.truncation_side, tokenizer.pad_token) == ("right", "right", None)


@adapter_methods
@pytest.mark.parametrize("handed_over", [False, True], ids=["ours", "handed over"])
def test_an_adapter_in_place_is_undone(method, handed_over):
    model, tokenizer = unusual(make_llama()), make_tokenizer()
    weights, around = weights_of(model), surroundings(model)
    edited = edited_in_place(method, model, tokenizer, EGYPT, merge_adapter=False)
    own = sum(p.numel() for name, p in edited.model.named_parameters() if "lora_" in name)
    assert edited.parameters_changed() == own > 0
    assert not any(module.training for module in edited.model.modules())
    said = answer_log_probability(edited.model, tokenizer, EGYPT)
    plain = edited.undo(handed_over=handed_over)
    assert (plain is model) is not handed_over
    assert same_weights(weights_of(plain), weights)
    assert surroundings(plain) == around
    assert not is_adapted(plain)
    if handed_over:  # whoever has it can go on with it
        assert answer_log_probability(edited.model, tokenizer, EGYPT) == said


@adapter_methods
def test_an_adapter_that_is_kept_is_the_merged_edit(method):
    tokenizer = make_tokenizer()
    model, other = make_llama(), make_llama()
    kept = edited_in_place(method, model, tokenizer, EGYPT, merge_adapter=False).keep()
    assert kept is model
    assert not is_adapted(kept)
    assert same_weights(weights_of(kept), weights_of(edited_in_place(method, other, tokenizer, EGYPT).keep()))


# ---- the apply function, as a host calls it --------------------------------------------------------
def apply(method, model, tokenizer, *requests, progress=None, report=None, copy=False, orig=True, **changes) -> tuple:
    return method.load_apply()(
        model,
        tokenizer,
        list(requests),
        hparams_for(method, model, tokenizer, **changes),
        copy=copy,
        return_orig_weights=orig,
        keep_original_weight=False,
        train_ds=None,  # EasyEdit passes it to every method
        progress=progress or SilentProgress(),
        report=report,
    )


@weight_methods_everywhere
def test_the_original_tensors_come_back_by_name(method):
    model, tokenizer = make_llama(), make_tokenizer()
    before = weights_of(model)
    edited, originals = apply(method, model, tokenizer, EGYPT)
    assert edited is model
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed
    assert changed <= originals.keys()
    assert all(torch.equal(value, before[name]) for name, value in originals.items())
    with torch.no_grad():
        for name, value in originals.items():  # what a host does
            model.get_parameter(name).copy_(value)
    assert same_weights(weights_of(model), before)


@everywhere(but=("GRACE", "WISE"))  # these are undone by a callable, asked for or not
def test_no_tensors_are_copied_where_none_are_asked_for(method):
    _, originals = apply(method, make_llama(), make_tokenizer(), EGYPT, orig=False)
    assert originals == {}


@everywhere(lambda method: method.changes_weights)
def test_copy_leaves_the_input_alone(method):
    model, tokenizer = unusual(make_llama()), make_tokenizer()
    weights, around = weights_of(model), surroundings(model)
    edited, _ = apply(method, model, tokenizer, EGYPT, copy=True)
    assert edited is not model
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around
    assert not same_weights(weights_of(edited), weights)


@adapter_methods
def test_an_adapter_leaves_the_base_weights_alone(method):
    from peft import PeftModel

    model, tokenizer = make_llama(), make_tokenizer()
    weights = weights_of(model)
    edited, originals = apply(method, model, tokenizer, EGYPT, merge_adapter=False)
    assert isinstance(edited, PeftModel)
    assert originals == {}
    assert list(edited.peft_config) == ["default"]  # no teacher snapshot is handed over
    base = {
        n.replace(".base_layer", ""): v for n, v in edited.get_base_model().state_dict().items() if "lora_" not in n
    }
    assert same_weights(base, weights)
    merged, _ = apply(method, make_llama(), tokenizer, EGYPT)
    assert same_weights(weights_of(edited.merge_and_unload()), weights_of(merged))


@causal_edit
@pytest.mark.parametrize("stage", ["traces", "bootstrap", "internalise"])
@pytest.mark.parametrize("error", [RuntimeError("fault"), KeyboardInterrupt()], ids=lambda e: type(e).__name__)
def test_a_fault_in_the_middle_of_a_stage(method, stage, error):
    model, tokenizer = unusual(make_llama()), make_tokenizer()
    weights, around = weights_of(model), surroundings(model)
    step = 1 if stage == "traces" else 2
    with pytest.raises(type(error)):
        apply(method, model, tokenizer, EGYPT, progress=Stop(stage, step, error))
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around


@causal_edit
def test_training_that_diverges_is_an_error_and_the_model_is_restored(method):
    model, tokenizer = make_llama(), make_tokenizer()
    weights = weights_of(model)
    with pytest.raises(EditFailedError, match="learning rate"):
        apply(method, model, tokenizer, EGYPT, bootstrap_learning_rate=1e30, bootstrap_max_grad_norm=1e30)
    assert same_weights(weights_of(model), weights)


@methods(lambda method: method.name in ("ICE", "LoRA", "FT"))
def test_a_loss_that_is_not_finite_is_an_error_and_the_model_is_restored(method):
    # the normalisation of a model this small survives any learning rate: its last norm overflows instead
    model, tokenizer = make_llama(), make_tokenizer()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.inf
    weights = weights_of(model)
    with pytest.raises(EditFailedError, match="learning rate"):
        apply(method, model, tokenizer, EGYPT)
    assert same_weights(weights_of(model), weights)


@every_method_everywhere
def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(method):
    import random

    import numpy as np

    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    apply(method, make_llama_quietly(), make_tokenizer(), EGYPT)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def make_llama_quietly() -> Any:
    with torch.random.fork_rng():
        return make_llama()


@every_method_everywhere
def test_an_edit_prints_nothing(method, capfd):
    apply(method, make_llama(), make_tokenizer(), EGYPT)
    assert capfd.readouterr().out == ""


@weight_methods_everywhere
def test_half_precision_weights_are_restored_bit_for_bit(method):
    model, tokenizer = make_llama().to(torch.bfloat16), make_tokenizer()
    before = weights_of(model)
    _, originals = apply(method, model, tokenizer, EGYPT)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not same_weights(weights_of(model), before)
    with torch.no_grad():
        for name, value in originals.items():
            model.get_parameter(name).copy_(value)
    assert same_weights(weights_of(model), before)


VARIANTS = {
    "noncausal": {"editing_mode": "noncausal"},
    "reverse KL": {"distill_forward_kl": False},
    "cake": {"distill_cake_data": True},
    "stage 1 alone": {"stages": [1]},
    "stage 2 alone": {"stages": [2], "student_use_sft": False, "teacher": "base"},
    "base teacher": {"teacher": "base"},
    "auto teacher": {"teacher": "auto"},
    "fresh student": {"student_use_sft": False},
    "base teacher, fresh student": {"student_use_sft": False, "teacher": "base"},
    "context before the user": {"context_role": "user"},
    "free traces": {"bootstrap_guided": False, "bootstrap_max_new_tokens": 40},
    "one pair form": {"bootstrap_all_prompts": False},
    "paraphrases": {"prompt_paraphrases": 2},
    "preservation": {
        "preserve_weight": 1.0,
        "preserve_prompts": 4,
        "preserve_batch_size": 2,
        "preserve_max_new_tokens": 4,
    },
    "some layers": {"lora_layers": [1, 2]},
    "accumulation": {"distill_gradient_accumulation_steps": 2},
}


@causal_edit
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_edits_and_restores(method, variant):
    from causaledit.methods.causal_edit.apply import EditReport

    model, tokenizer, report = make_llama(), make_tokenizer(), EditReport()
    before = weights_of(model)
    changes = VARIANTS[variant]
    _, originals = apply(method, model, tokenizer, EGYPT, report=report, **changes)
    after = weights_of(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    if variant == "some layers":
        assert all(".layers.1." in name for name in changed)
    hparams = hparams_for(method, model, tokenizer, **changes)
    runs_stage_1 = variant not in ("stage 2 alone", "base teacher, fresh student")
    assert ("bootstrap" in report.losses) is runs_stage_1
    assert ("internalise" in report.losses) is (2 in hparams.stages)
    assert len(report.traces) == (1 if runs_stage_1 else 0)
    assert report.teacher in {"auto": ("base", "bootstrapped")}.get(hparams.teacher, (hparams.teacher, "none"))
    assert (report.teacher_accuracy is not None) is (hparams.teacher == "auto")
    assert report.narrative_source == ["none" if variant == "noncausal" else "request"]
    assert report.tally.tokens.generated > 0
    with torch.no_grad():
        for name, value in originals.items():
            model.get_parameter(name).copy_(value)
    assert same_weights(weights_of(model), before)


@causal_edit
def test_without_narrative_and_old_answer_the_model_is_asked(method):
    from causaledit.methods.causal_edit.apply import EditReport

    report = EditReport()
    request = {key: EGYPT[key] for key in ("prompt", "subject", "target_new")}
    apply(method, make_llama(), make_tokenizer(), request, report=report)
    [found] = report.requests
    assert found.ground_truth
    assert found.narrative
    assert report.narrative_source in (["model"], ["template"])


# ---- refusals, before any compute ------------------------------------------------------------------
def refused(method, error, match, *requests, model=None, **changes):
    model = model or make_llama()

    def computed(*args):
        raise AssertionError("the model was run before the input was refused")

    handle = model.register_forward_pre_hook(computed)
    weights, around = weights_of(model), surroundings(model)
    with pytest.raises(error, match=match) as caught:
        apply(method, model, make_tokenizer(), *requests, **changes)
    assert isinstance(caught.value, CausalEditError)
    assert same_weights(weights_of(model), weights)
    assert surroundings(model) == around
    handle.remove()


@every_method_everywhere
def test_unusable_input_is_refused(method):
    refused(method, RequestError, "empty")
    unusable = {"subject": ""} if method.needs_subject else {"subject": 3}
    refused(method, RequestError, "Request 2.*subject", EGYPT, {**NORWAY, **unusable})
    refused(method, RequestError, "same fact", EGYPT, {**EGYPT, "target_new": "Luxor"})


@causal_edit
def test_unusable_files_narratives_and_modules_are_refused(method):
    bare = {key: EGYPT[key] for key in ("prompt", "subject", "target_new")}  # the model would be asked for the rest
    refused(method, RequestError, "does not exist", bare, narrative_file="/no/such/file.json")
    refused(method, HparamsError, "preserve_file", bare, preserve_weight=1.0, preserve_file="/no/such/file.json")
    refused(method, RequestError, "context window", {**EGYPT, "narrative": EGYPT["narrative"] * 200})


@adapter_methods
def test_modules_and_layers_that_are_not_there_are_refused(method):
    refused(method, ModelError, "c_attn.*all-linear", EGYPT, lora_target_modules=["c_attn"])
    refused(method, ModelError, r"\[1, 9\].*2 layers", EGYPT, lora_layers=[1, 9])


@every_method_everywhere
def test_a_model_with_an_adapter_is_refused(method):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(make_llama(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    refused(method, ModelError, "adapter.*merge", EGYPT, model=model)


@adapter_methods
def test_a_model_inside_a_returned_adapter_is_refused(method):
    # its layers are the adapter's: a second edit on it would silently replace the first
    model, tokenizer = make_llama(), make_tokenizer()
    edited, _ = apply(method, model, tokenizer, EGYPT, merge_adapter=False)
    first = weights_of(edited)
    with pytest.raises(ModelError, match=r"adapter.*merge"):
        apply(method, model, tokenizer, NORWAY, merge_adapter=False)
    assert same_weights(weights_of(edited), first)


# ---- edits in context ------------------------------------------------------------------------------
@every_host
@methods(lambda method: not method.changes_weights)
def test_an_edit_in_context_is_heard_by_every_prompt(method, host):
    model, tokenizer = make_llama(), make_tokenizer()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    editor = editor_for(host, hparams_for(method, model, tokenizer))
    metrics, edited, originals = run(editor, EGYPT)
    assert not originals
    assert same_weights(weights_of(edited), weights)
    assert EGYPT["target_new"] in in_context_prefix(edited)
    assert not in_context_prefix(editor.model)  # the host goes on with the plain model
    assert answer_log_probability(edited, tokenizer, EGYPT) != before
    assert answer_log_probability(editor.model, tokenizer, EGYPT) == before
    said = FACT.format(cloze=EGYPT["prompt"], new=EGYPT["target_new"])
    [(choices, target)] = predicted_tokens(model, tokenizer, [f"{said}\n{EGYPT['prompt']}"], [EGYPT["target_new"]])
    assert metrics[0]["post"]["rewrite_acc"] == token_accuracy([(choices, target)])


# ---- a GPU -----------------------------------------------------------------------------------------
@every_method
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu(method):
    model, tokenizer = make_llama().cuda(), make_tokenizer()
    weights, before = weights_of(model), answer_log_probability(model, tokenizer, EGYPT)
    editor = editor_for("embedded", hparams_for(method, model, tokenizer, device="cuda"))
    run(editor, EGYPT)
    assert same_weights(weights_of(editor.model), weights)
    _, edited, _ = run(editor, EGYPT, sequential_edit=True)
    assert next(edited.parameters()).device.type == "cuda"
    if method.changes_weights:
        assert answer_log_probability(edited, tokenizer, EGYPT) > before + 0.5


# ---- EasyEdit alone --------------------------------------------------------------------------------
@every_method
@needs_easyedit
def test_registering_twice_is_harmless(method):
    from causaledit.hosts import find_base_editor
    from causaledit.hosts.easyedit.patches import register

    editor = register()
    import easyeditor
    from easyeditor.editors.batch_editor import BatchEditor
    from easyeditor.util.alg_dict import ALG_DICT

    names, init, calls = set(ALG_DICT), editor.__init__, (editor.edit_requests, editor.batch_edit)
    assert register() is editor is find_base_editor() is easyeditor.BaseEditor
    assert set(ALG_DICT) == names
    assert method.name in names
    assert editor.__init__ is init  # not wrapped a second time
    assert (editor.edit_requests, editor.batch_edit) == calls
    ours = method.name in (
        "CausalEdit",
        "ICE",
        "StoryDistill",
    )  # what EasyEdit lacks is added, what it has stays its own
    assert (ALG_DICT[method.name].__module__ == "causaledit.hosts.easyedit.patches") is ours
    if ours:
        assert BatchEditor.is_batchable_method(method.name) is method.batched
        assert getattr(easyeditor, method.load_hparams().__name__) is method.load_hparams()
    assert BatchEditor.is_batchable_method("MEMIT")
    assert not BatchEditor.is_batchable_method("ROME")
    edited_weights("easyedit", method, EGYPT)


@needs_easyedit
def test_easyedits_own_methods_stay_as_they_were():
    from causaledit.hosts.easyedit.patches import register

    register()
    from easyeditor.models.ft import apply_ft_to_model
    from easyeditor.models.ike import apply_ike_to_model
    from easyeditor.models.lora import apply_lora_to_model
    from easyeditor.models.rome import apply_rome_to_model
    from easyeditor.util.alg_dict import ALG_DICT

    theirs = {"ROME": apply_rome_to_model, "FT": apply_ft_to_model, "LoRA": apply_lora_to_model}
    for name, function in {**theirs, "IKE": apply_ike_to_model}.items():
        assert ALG_DICT[name] is function


@every_method
@needs_easyedit
def test_both_hosts_make_the_same_edit(method):
    found = [edited_weights(host, method, EGYPT, NORWAY) for host in ("embedded", "easyedit")]
    assert same_weights(*found)


@every_method
@needs_easyedit
def test_both_hosts_measure_alike(method):
    found = []
    for host in ("embedded", "easyedit"):
        editor = editor_for(host, hparams_for(method, make_llama(), make_tokenizer()))
        metrics, _, _ = run(editor, EGYPT, NORWAY)
        found.append(
            [
                (m[phase]["rewrite_acc"], m[phase]["rephrase_acc"], m[phase]["portability"]["hop_acc"])
                for m in metrics
                for phase in ("pre", "post")
            ]
            + [m["post"]["locality"]["neighbour_acc"] for m in metrics]
        )
    assert found[0] == found[1]
