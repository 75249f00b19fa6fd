"""CausalEdit as it is called: what it refuses and points out before any compute, and what its report holds."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import EGYPT, NORWAY, fast_hparams, make_gpt2, make_llama, make_tokenizer, same_weights, weights_of
from stages import Engine

from causaledit.errors import CausalEditError, HparamsError, ModelError, RequestError
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.models import vllm_engine
from causaledit.support.extras import EXTRAS
from causaledit.support.progress import SilentProgress

LEARNING = {"learning_prompt": [{"question": "Which sea does Egypt's capital lie on?", "answer": "the Mediterranean"}]}
PRESERVE = {"preserve_weight": 1.0, "preserve_prompts": 8, "preserve_batch_size": 2, "preserve_max_new_tokens": 4}


def edit(*requests, model=None, **changes):
    """One call on a tiny model."""
    model, report = model or make_llama(), EditReport()
    hparams = fast_hparams(None, None, **changes)
    edited, originals = apply_causal_edit_to_model(
        model, make_tokenizer(), list(requests), hparams,
        return_orig_weights=True, progress=SilentProgress(), report=report,
    )  # fmt: skip
    return edited, originals, report


def refused(error, match, **changes):
    model = make_llama()

    def computed(*args):
        raise AssertionError("the model was run before the input was refused")

    model.register_forward_pre_hook(computed)
    with pytest.raises(error, match=match) as caught:
        edit(EGYPT, model=model, **changes)
    assert isinstance(caught.value, CausalEditError)
    assert "\n" not in str(caught.value)


# ---- before any compute ----------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["environment", "configuration file"])
def test_zero_stage_3_is_refused(monkeypatch, tmp_path, where):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    if where == "environment":
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    else:
        file = tmp_path / "deepspeed.json"
        file.write_text(json.dumps({"zero_optimization": {"stage": 3}}), encoding="utf-8")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    refused(ModelError, r"ZeRO stage 3.*zero_stage")


def test_an_engine_over_more_processes_than_there_are_is_refused():
    changes = {"distill_use_vllm": True, "distill_vllm_tensor_parallel_size": 2}
    refused(HparamsError, r"distill_vllm_tensor_parallel_size.*\(2\).*\(1\)", **changes)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([EGYPT], ["1 of 1", "'Egypt'"]),
        ([{**EGYPT, **LEARNING}, NORWAY], ["1 of 2", "'Norway'"]),
        ([{**EGYPT, **LEARNING}], []),
    ],
    ids=["none", "one of two", "all"],
)
def test_cake_data_that_is_not_there_is_pointed_out_once(caplog, requests, words):
    with caplog.at_level("WARNING", logger="causaledit"):
        edit(*requests, distill_cake_data=True, bootstrap_max_steps=1, bootstrap_steps_per_extra_edit=0)
    said = [record.getMessage() for record in caplog.records if "learning_prompt" in record.getMessage()]
    assert len(said) == bool(words)
    assert all(word in said[0] for word in words)


# ---- what the report holds -------------------------------------------------------------------------
def trained_user_prompts(model, run):
    """What `run` shows the model in training mode, as the texts of its user messages."""
    tokenizer, seen = make_tokenizer(), set()

    def listen(module, args, kwargs):
        if module.training and torch.is_grad_enabled():
            for row in kwargs["input_ids"]:
                for turn in tokenizer.decode(row).split("<|im_start|>"):
                    if turn.startswith("user\n") and "<|im_end|>" in turn:
                        seen.add(turn.removeprefix("user\n").split("<|im_end|>")[0])

    handle = model.register_forward_pre_hook(listen, with_kwargs=True)
    result = run()
    handle.remove()
    return seen, result


@pytest.mark.parametrize(
    "changes",
    [{}, PRESERVE, {"bootstrap_all_prompts": False, "distill_cake_data": True}, {"stages": [1]}],
    ids=["both stages", "preservation", "CAKE data", "stage 1"],
)
def test_every_prompt_that_is_trained_on_is_told(changes):
    model = make_llama()
    # checkpointed, every row is read whole: a packed row's beginning belongs to several prompts
    seen, (_, _, report) = trained_user_prompts(
        model, lambda: edit({**EGYPT, **LEARNING}, model=model, gradient_checkpointing=True, **changes)
    )
    assert seen
    assert seen <= set(report.trained_prompts)
    assert len(set(report.trained_prompts)) == len(report.trained_prompts)


def test_a_paraphrase_is_trained_on_only_beside_learning_questions():
    """A host's `rephrase_prompt` tests the edit."""
    few = {"distill_cake_data": True, "bootstrap_max_steps": 1, "distill_steps_base": 1}
    *_, as_hosts_ask = edit(EGYPT, **few)
    *_, with_cake = edit({**EGYPT, **LEARNING}, **few)
    cake = {EGYPT["rephrase_prompt"], LEARNING["learning_prompt"][0]["question"]}
    assert not cake & set(as_hosts_ask.trained_prompts)
    assert cake <= set(with_cake.trained_prompts)


def test_the_losses_of_the_stages_and_of_the_preservation_term_stand_apart():
    *_, report = edit(EGYPT, **PRESERVE, bootstrap_max_steps=3, bootstrap_stop_loss=0.0)
    assert {name: len(steps) for name, steps in report.losses.items()} == {
        "bootstrap": 3,
        "bootstrap_preservation": 3,
        "internalise": 2,
        "internalise_preservation": 2,
    }
    hparams = fast_hparams(None, None)
    hparams.model_name = "tiny"
    assert report.card(hparams, [])["losses"] == report.losses
    *_, without = edit(EGYPT, bootstrap_max_steps=1)
    assert set(without.losses) == {"bootstrap", "internalise"}


# ---- vLLM ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("teacher", ["base", "bootstrapped"])
def test_an_edit_with_rollouts_through_vllm_is_restored_bit_for_bit(monkeypatch, teacher):
    import trl.generation.vllm_generation as module

    monkeypatch.setattr(module, "VLLMGeneration", Engine)
    monkeypatch.setitem(EXTRAS, "vllm", ())  # the stand-in needs none, and no GPU
    monkeypatch.setattr(vllm_engine, "DEVICES", ("cpu",))
    model = make_llama()
    before = weights_of(model)
    _, originals, _ = edit(EGYPT, model=model, teacher=teacher, distill_use_vllm=True, distill_steps_base=4)
    assert Engine.made["syncs"] == 4
    assert not same_weights(weights_of(model), before)
    with torch.no_grad():
        for name, value in originals.items():
            model.get_parameter(name).copy_(value)
    assert same_weights(weights_of(model), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"distill_batch_size": 20, "distill_num_generations": 1},
        {"distill_batch_size": 16, "distill_num_generations": 1, "distill_gradient_accumulation_steps": 2},
        {"distill_batch_size": 36, "distill_num_generations": 2, "editing_mode": "noncausal"},
    ],
    ids=["more prompts than there are", "over accumulated steps", "without causes"],
)
def test_a_step_may_have_more_prompts_than_the_edit(changes):
    """trl draws no batch from too few prompts: stage 2 was left out without a word."""
    _, _, report = edit(EGYPT, **changes)
    assert len(report.losses["internalise"]) == 2


def test_too_few_questions_for_a_trust_region_are_said_and_the_edit_goes_on(tmp_path, caplog):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(["Name a river.", "Name a colour."]), encoding="utf-8")
    _, _, report = edit(EGYPT, preserve_file=str(file), distill_trust_kl=0.1, **PRESERVE)
    assert report.taken_back is None
    assert len(report.losses["internalise"]) == 2
    assert "of 2 preserved questions none can be kept aside" in caplog.text


@pytest.mark.parametrize("stages", [[1], [2]])
def test_preserved_questions_are_trained_prompts_where_they_enter(stages):
    _, _, report = edit(EGYPT, preserve_stages=stages, **PRESERVE)
    _, _, alone = edit(EGYPT, **{**PRESERVE, "preserve_weight": 0.0})
    assert set(alone.trained_prompts) < set(report.trained_prompts)
    _, _, without = edit(EGYPT, preserve_stages=stages, distill_max_steps=0, **PRESERVE)
    assert bool(set(without.trained_prompts) - set(alone.trained_prompts)) == (stages == [1])


def test_a_files_narrative_must_fit_into_the_context_window(tmp_path):
    file = tmp_path / "narratives.json"
    bare = {**EGYPT, "narrative": None}
    entry = {"subject": "Egypt", "target_new": "Alexandria", "narrative": "The wells ran dry. " * 600}
    file.write_text(json.dumps([entry]), encoding="utf-8")
    model = make_gpt2()
    with pytest.raises(RequestError, match="context window is 2048"):
        edit(bare, model=model, narrative_file=str(file), lora_target_modules=["all-linear"])


def test_a_narrative_that_no_mode_reads_may_be_long():
    long = {**EGYPT, "narrative": "The wells ran dry. " * 600}
    with pytest.raises(RequestError, match="context window"):
        edit(long, model=make_gpt2(), lora_target_modules=["all-linear"])
    _, _, report = edit(
        long, model=make_gpt2(), lora_target_modules=["all-linear"], editing_mode="noncausal",
        bootstrap_max_steps=1, distill_max_steps=0,
    )  # fmt: skip
    assert len(report.losses["bootstrap"]) == 1
