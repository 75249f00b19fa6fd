"""The contract's other half: an edit in place, and a method's function as a host calls it.

What holds here holds for EasyEdit's own methods too, as `get_method` gives them, where EASYEDIT_HOME names a checkout.
"""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from conftest import (
    EGYPT,
    NORWAY,
    answer_log_probability,
    make_gpt2,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)
from contract import (
    Stop,
    adapter_methods,
    causal_edit,
    every_method_everywhere,
    everywhere,
    has,
    hparams_for,
    methods,
    state_of,
    surroundings,
    unusual,
    weight_methods_everywhere,
)

from causaledit.errors import (
    CausalEditError,
    EditFailedError,
    HparamsError,
    MissingExtraError,
    ModelError,
    RequestError,
)
from causaledit.hosts.lookup import get_method
from causaledit.methods.call import edit_in_place
from causaledit.models.adapters import is_adapted
from causaledit.models.edited import AdapterEdit, ForeignEdit
from causaledit.support.progress import SilentProgress


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def method(request):
    return get_method(request.param) if isinstance(request.param, str) else request.param


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


@methods(has("optimizer"))
def test_an_optimiser_that_is_not_there_is_refused(method):
    refused(method, HparamsError, "`optimizer` is 'adamw_torchh'.*'adamw_torch'", EGYPT, optimizer="adamw_torchh")
    if not importlib.util.find_spec("bitsandbytes"):
        refused(method, MissingExtraError, "paged_adamw_8bit.*bitsandbytes", EGYPT, optimizer="paged_adamw_8bit")


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
