"""What the method overrides in trl: that it is still there, and that overriding keeps the mathematics of stage 2.

`trl.experimental` moves between releases. These tests, and those of `test_stages.py`, are the ones to run after an
update of trl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

import pytest
import torch
from conftest import NORWAY, fast_hparams, make_gpt2, make_llama, make_qwen3, make_tokenizer, same_weights, weights_of
from stages import REQUEST, Engine, Listener, Plainly, internalise, with_adapter
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder, DistillationLogits

from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit import losses
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit.internalise import STUDENT_ADAPTER, TEACHER_ADAPTER
from causaledit.models.chat import prepare_tokenizer, render, user

LONG = " ".join(f"In year {i} the wells of Cairo sank by one more yard." for i in range(1900, 1990))


# ---- the hooks are there ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_compute_self_distillation_loss", ["model", "inputs", "distillation_logits"]),
        ("_compute_teacher_student_logits", ["model", "teacher_model", "inputs"]),
        ("_generate", ["prompt_ids"]),
        ("_generate_transformers", ["prompt_ids"]),
        ("_get_teacher_context_for_self_distillation", []),
        ("_forward_logits", ["model", "input_ids", "attention_mask", "logits_to_keep"]),
        ("_log_self_distillation_metric", ["mode", "value"]),
        ("training_step", ["model", "inputs", "num_items_in_batch"]),
    ],
)
def test_sdft_trainer_still_has(name, arguments):
    signature = inspect.signature(getattr(SDFTTrainer, name))
    assert [p for p in signature.parameters if p != "self"] == arguments


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_generate_single_turn", ["prompt_ids", "images", "multimodal_fields", "num_generations", "has_tool_images"]),
        (
            "_get_per_token_logps_and_entropies",
            ["model", "input_ids", "attention_mask", "logits_to_keep", "batch_size", "compute_entropy"],
        ),
        ("training_step", ["model", "inputs", "num_items_in_batch"]),
    ],
)
def test_grpo_trainer_still_has(name, arguments):
    signature = inspect.signature(getattr(GRPOTrainer, name))
    assert [p for p in signature.parameters if p != "self"][: len(arguments)] == arguments


def test_grpos_defaults_that_the_method_overrides():
    # where trl's own become these, setting them can go
    defaults = {name: GRPOConfig.__dataclass_fields__[name].default for name in ("beta", "epsilon_high")}
    assert defaults["beta"] == 0.0
    assert defaults["epsilon_high"] is None


def test_teacher_prompts_and_logits_still_have_the_form_that_is_overridden():
    compose = inspect.signature(DemonstrationTeacherContextBuilder._compose_teacher_prompt)
    assert list(compose.parameters) == ["self", "prompt", "privileged_context"]
    assert [f.name for f in dataclasses.fields(DistillationLogits)] == [
        "completion_ids",
        "loss_mask",
        "student_logits",
        "teacher_logits",
    ]


def test_sdft_config_still_cuts_prompts_by_default():
    # if trl stops doing that, our lifting of it can go
    assert SDFTConfig.__dataclass_fields__["max_prompt_length"].default == 512


# ---- stage 2 on a tiny model -----------------------------------------------------------------------
@pytest.mark.parametrize("role", ["system", "user"])
def test_the_teachers_prompt_holds_the_whole_long_narrative(role):
    tokenizer = make_tokenizer()
    assert len(tokenizer(LONG)["input_ids"]) > 512  # trl's default would cut it
    request = dataclasses.replace(REQUEST, narrative=LONG)
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=1)
    listener = Listener()
    internalise(hparams, with_adapter(make_llama(), hparams), [request], callback=listener, role=role)
    [batch] = listener.batches
    assert len(batch["teacher_input_ids"]) == hparams.distill_batch_size
    context = P.privileged_context(request, causal=True)
    prompts = {p.text for p in P.student_prompts(request, causal=True)}
    for row, mask, student in zip(
        batch["teacher_input_ids"], batch["teacher_attention_mask"], batch["prompt_ids"], strict=True
    ):
        text = tokenizer.decode(row[mask.bool()])
        assert context in text
        assert any(prompt in text for prompt in prompts)
        assert LONG[:40] not in tokenizer.decode(student)  # the student stays closed-book


def test_each_rollouts_teacher_sees_its_own_edits_narrative():
    requests = [REQUEST, request_from_dict(NORWAY)]
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=6)
    listener = Listener()
    internalise(hparams, with_adapter(make_llama(), hparams), requests, callback=listener)
    tokenizer = make_tokenizer()
    seen = set()
    for batch in listener.batches:
        teacher_prompts = batch["teacher_input_ids"][:, : -batch["completion_ids"].shape[1]]
        for row, student in zip(teacher_prompts, batch["prompt_ids"], strict=True):
            teacher, prompt = tokenizer.decode(row), tokenizer.decode(student)
            subject = "Egypt" if "Egypt" in prompt else "Norway"
            other = "Norway" if subject == "Egypt" else "Egypt"
            assert f"capital of {subject} is" in teacher
            assert other not in teacher
            seen.add(subject)
    assert seen == {"Egypt", "Norway"}


def test_rollouts_of_a_prompt_stand_together_and_groups_are_whole():
    # the weights are a softmax within groups of neighbouring rows: a split group would be silent nonsense
    hparams = fast_hparams(
        None,
        None,
        teacher="base",
        distill_batch_size=4,
        distill_num_generations=4,
        distill_gradient_accumulation_steps=2,
    )
    listener = Listener()
    internalise(hparams, with_adapter(make_llama(), hparams), callback=listener)
    assert listener.steps == hparams.distill_steps_base
    for batch in listener.batches:
        rows = [tuple(row.tolist()) for row in batch["prompt_ids"]]
        assert len(rows) == 8
        assert all(len(set(rows[i : i + 4])) == 1 for i in (0, 4))
        assert len({tuple(row.tolist()) for row in batch["completion_ids"][:4]}) > 1  # and they are samples


@pytest.mark.parametrize(
    ("make", "teacher", "checkpointing"),
    [
        *(
            (make, teacher, False)
            for make in (make_llama, make_gpt2, make_qwen3)
            for teacher in ("base", "bootstrapped")
        ),
        (make_llama, "base", True),
        (make_qwen3, "bootstrapped", True),
    ],
)
def test_logits_are_the_models_own_whatever_temperature_and_padding(make, teacher, checkpointing):
    """trl divides by the sampling temperature, prompts are padded, beginnings are shared: none shows in the logits."""
    hparams = fast_hparams(
        None, None, teacher=teacher, distill_temperature=0.5, distill_batch_size=8, distill_steps_base=1,
        lora_target_modules=["all-linear"], gradient_checkpointing=checkpointing,
    )  # fmt: skip
    listener = Plainly(teacher)
    internalise(hparams, with_adapter(make(), hparams), callback=listener)
    assert len(listener.compared) == 16
    for found, alone in listener.compared:
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
    for _, logits, _ in listener.scored:
        assert not logits.teacher_logits.requires_grad
        assert logits.student_logits.requires_grad
        # a teacher behind its context is another distribution than the student: nothing was mixed up
        assert (logits.teacher_logits - logits.student_logits)[logits.loss_mask.bool()].abs().max() > 0.05


def test_the_loss_is_the_papers_formula():
    hparams = fast_hparams(
        None, None, teacher="base", distill_num_generations=2, distill_batch_size=4, distill_top_k=5,
        distill_forward_kl=False, distill_kd_temperature=1.7, distill_repetition_ngram=1,
        distill_repetition_threshold=0.2, distill_max_new_tokens=10, distill_steps_base=8, distill_temperature=0.25,
    )  # fmt: skip
    listener = Listener()
    found = internalise(hparams, with_adapter(make_llama(), hparams), callback=listener)
    dropped = 0
    for _, logits, loss in listener.scored:
        mask, tokens = logits.loss_mask, logits.completion_ids
        keep = losses.repetition_keep(tokens, mask, ngram=1, window=48, threshold=0.2)
        log_p = logits.teacher_logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        scores = (log_p * mask).sum(-1) / mask.sum(-1)
        kl = losses.token_divergence(
            logits.teacher_logits, logits.student_logits.detach(), top_k=5, forward=False, temperature=1.7
        )
        weights = []
        for group in (slice(0, 2), slice(2, 4)):
            raw = scores[group].exp() * keep[group]
            weights += (raw / raw.sum()).tolist() if raw.sum() > 0 else [0.0, 0.0]
        share = torch.tensor(weights)[:, None] * mask
        expected = float((kl * share).sum() / share.sum()) if share.sum() > 0 else 0.0
        assert loss == pytest.approx(expected, abs=1e-5)
        dropped += int((~keep).sum())
    assert 0 < dropped < 4 * len(listener.scored)  # the filter took part
    assert found.own == pytest.approx([loss for _, _, loss in listener.scored], abs=1e-5)
    assert found.preservation == []


@pytest.mark.parametrize("teacher", ["base", "bootstrapped"])
def test_stage_2_changes_the_student_and_nothing_else(teacher):
    hparams = fast_hparams(None, None, teacher=teacher, lora_dropout=0.3)
    peft_model = with_adapter(make_llama(), hparams)
    before = weights_of(peft_model)
    internalise(hparams, peft_model)
    after = weights_of(peft_model)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    student = {name for name in before if f".{STUDENT_ADAPTER}." in name}
    assert changed
    assert changed <= student
    if teacher == "bootstrapped":
        frozen = {
            name.replace(f".{TEACHER_ADAPTER}.", f".{STUDENT_ADAPTER}."): before[name]
            for name in before
            if f".{TEACHER_ADAPTER}." in name
        }
        assert same_weights(frozen, {name: before[name] for name in student})  # it was a copy of the student


def test_the_bootstrapped_teacher_scores_without_dropout():
    """Its logits are those of a plain forward in evaluation mode, though the student is trained with dropout."""
    hparams = fast_hparams(None, None, teacher="bootstrapped", lora_dropout=0.5, distill_steps_base=1)
    peft_model = with_adapter(make_llama(), hparams)

    class InEvaluation(Plainly):
        def on_rollouts_scored(self, *, model, **payload):
            model.eval()
            super().on_rollouts_scored(model=model, **payload)
            model.train()

    listener = InEvaluation("bootstrapped")
    internalise(hparams, peft_model, callback=listener)
    for found, alone in listener.compared:
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_rollouts_come_from_the_student_with_its_adapter():
    """At a temperature near 0 a rollout is the student's greedy answer, by a plain forward with its adapter."""
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=1, distill_temperature=1e-6)
    peft_model = with_adapter(make_llama(), hparams)
    listener = Listener()
    internalise(hparams, peft_model, callback=listener)
    fresh = with_adapter(make_llama(), hparams).eval()  # the student before its step
    [(inputs, _, _)] = listener.scored
    greedy, base = [], []
    for row in range(len(inputs["prompt_ids"])):
        head = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
        tail = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
        for found, off in ((greedy, False), (base, True)):
            with torch.no_grad(), fresh.disable_adapter() if off else contextlib.nullcontext():
                logits = fresh(input_ids=torch.cat([head, tail])[None]).logits[0, len(head) - 1 : -1]
            found.append(torch.equal(logits.argmax(-1), tail))
    assert all(greedy)
    assert not all(base)


@pytest.mark.parametrize("steps", [0, 3])
def test_stage_2_takes_the_steps_it_is_told(steps):
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=steps)
    peft_model = with_adapter(make_llama(), hparams)
    before = weights_of(peft_model)
    assert len(internalise(hparams, peft_model).own) == steps
    assert same_weights(before, weights_of(peft_model)) is (steps == 0)


# ---- exactness under vLLM --------------------------------------------------------------------------
class Syncing(Listener):
    """Does to the live model, before each generation, what trl does to hand its weights to vLLM."""

    def on_generation_prompts_selected(self, *, model, **payload):
        self.steps += 1
        model.merge_adapter()
        model.unmerge_adapter()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_no_hand_over_of_the_weights_changes_the_base_model(dtype):
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=5)
    peft_model = with_adapter(make_llama().to(dtype), hparams)
    before = {name: value for name, value in weights_of(peft_model).items() if "lora_" not in name}
    syncing = Syncing()
    internalise(hparams, peft_model, callback=syncing)
    after = weights_of(peft_model)
    assert syncing.batches
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


def test_the_base_teacher_does_not_drift_with_the_hand_overs():
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=4)
    syncing, plain = Syncing(), Listener()
    internalise(hparams, with_adapter(make_llama(), hparams), callback=syncing)
    internalise(hparams, with_adapter(make_llama(), hparams), callback=plain)
    for (_, a, _), (_, b, _) in zip(syncing.scored, plain.scored, strict=True):
        assert torch.equal(a.completion_ids, b.completion_ids)
        assert torch.equal(a.teacher_logits, b.teacher_logits)


def test_rollouts_through_vllm(monkeypatch):
    import trl.generation.vllm_generation as module

    monkeypatch.setattr(module, "VLLMGeneration", Engine)  # the one thing here that no test can run without a GPU
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=3, distill_use_vllm=True)
    peft_model = with_adapter(make_llama(), hparams)
    before = {name: value for name, value in weights_of(peft_model).items() if "lora_" not in name}
    assert len(internalise(hparams, peft_model).own) == 3
    after = weights_of(peft_model)
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []
    made = Engine.made
    assert made["syncs"] == 3
    tokenizer = prepare_tokenizer(make_tokenizer())
    texts = [render(tokenizer, user(prompt.text)) for prompt in P.student_prompts(REQUEST, causal=True)]
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert made["max_model_length"] == longest + hparams.distill_max_new_tokens
    assert (made["mode"], made["enable_sleep_mode"], made["tensor_parallel_size"]) == ("colocate", True, 1)
    assert made["gpu_memory_utilization"] == 0.35


def test_vllms_own_settings_reach_it(monkeypatch):
    import trl.generation.vllm_generation as module

    monkeypatch.setattr(module, "VLLMGeneration", Engine)
    hparams = fast_hparams(
        None, None, teacher="base", distill_steps_base=1, distill_use_vllm=True, distill_vllm_mode="server",
        distill_vllm_server_base_url="http://rollouts:9000", distill_vllm_server_host="elsewhere",
        distill_vllm_server_port=9001, distill_vllm_max_model_length=777, distill_vllm_gpu_memory_utilization=0.5,
        distill_vllm_sleep_mode=False,
    )  # fmt: skip
    internalise(hparams, with_adapter(make_llama(), hparams))
    found = Engine.made
    assert (found["mode"], found["max_model_length"], found["gpu_memory_utilization"]) == ("server", 777, 0.5)
    assert (found["server_base_url"], found["server_host"], found["server_port"]) == (
        "http://rollouts:9000",
        "elsewhere",
        9001,
    )
    assert found["enable_sleep_mode"] is False
