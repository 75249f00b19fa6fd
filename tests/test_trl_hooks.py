"""What the method overrides in trl: that it is still there, and that overriding keeps the mathematics.

`trl.experimental` moves between releases. These tests are the ones to run after an update of trl.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

import pytest
import torch
from conftest import (
    EGYPT,
    NORWAY,
    fast_hparams,
    make_gpt2,
    make_llama,
    make_qwen3,
    make_tokenizer,
    same_weights,
    weights_of,
)
from transformers import TrainerCallback
from trl import SFTTrainer
from trl.experimental.sdft import SDFTConfig, SDFTTrainer
from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder, DistillationLogits

from causaledit.errors import EditFailedError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit import bootstrap, internalise, losses
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit.internalise import STUDENT_ADAPTER, TEACHER_ADAPTER, add_teacher_snapshot
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
LONG = " ".join(f"In year {i} the wells of Cairo sank by one more yard." for i in range(1900, 1990))


# ---- the hooks are there ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_compute_self_distillation_loss", ["model", "inputs", "distillation_logits"]),
        ("_compute_teacher_student_logits", ["model", "teacher_model", "inputs"]),
        ("_generate_transformers", ["prompt_ids"]),
        ("_get_teacher_context_for_self_distillation", []),
        ("_forward_logits", ["model", "input_ids", "attention_mask", "logits_to_keep"]),
        ("_log_self_distillation_metric", ["mode", "value"]),
    ],
)
def test_sdft_trainer_still_has(name, arguments):
    signature = inspect.signature(getattr(SDFTTrainer, name))
    assert [p for p in signature.parameters if p != "self"] == arguments


def test_sdft_trainer_still_builds_teacher_prompts_where_we_do():
    assert "teacher_context_builder" in inspect.getsource(SDFTTrainer.__init__)
    assert "teacher_context_builder.build" in inspect.getsource(SDFTTrainer._prepare_training_batch)
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
class Capture(TrainerCallback):
    """Keeps what the trainer prepared for each batch of rollouts."""

    def __init__(self):
        self.batches = []

    def on_self_distillation_batch_prepared(self, **payload):
        self.batches.append(payload)


def with_adapter(model, hparams, *, trained=True):
    """A PeftModel, its adapter moved away from zero as stage 1 would, with a snapshot for a bootstrapped teacher."""
    peft_model = add_adapter(model, hparams)
    if trained:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, parameter in peft_model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if hparams.teacher == "bootstrapped":
        add_teacher_snapshot(peft_model)
    return peft_model


def internalise_with(
    monkeypatch, hparams, peft_model, requests=(REQUEST,), *, trainer=None, callback=None, role="system"
):
    """Run stage 2 as the method does, with a callback or a subclass of its trainer put in."""
    base = trainer or internalise.InternalisationTrainer
    made = []

    class Spy(base):
        def __init__(self, *args, callbacks=(), **kwargs):
            super().__init__(*args, callbacks=[*callbacks, *([callback] if callback else [])], **kwargs)
            made.append(self)

    monkeypatch.setattr(internalise, "InternalisationTrainer", Spy)
    found = internalise.run_internalisation(
        peft_model,
        prepare_tokenizer(make_tokenizer()),
        list(requests),
        hparams,
        teacher=hparams.teacher,
        context_role=role,
        preservation=None,
        progress=SilentProgress(),
        count=TokenCount(),
    )
    return found, made[0] if made else None


@pytest.mark.parametrize("role", ["system", "user"])
def test_the_teachers_prompt_holds_the_whole_long_narrative(monkeypatch, role):
    tokenizer = make_tokenizer()
    assert len(tokenizer(LONG)["input_ids"]) > 512  # trl's default would cut it
    request = dataclasses.replace(REQUEST, narrative=LONG)
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=1)
    capture = Capture()
    internalise_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), [request], callback=capture, role=role)
    [batch] = capture.batches
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


def test_each_rollouts_teacher_sees_its_own_edits_narrative(monkeypatch):
    requests = [REQUEST, request_from_dict(NORWAY)]
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=6)
    capture = Capture()
    internalise_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), requests, callback=capture)
    tokenizer = make_tokenizer()
    seen = set()
    for batch in capture.batches:
        teacher_prompts = batch["teacher_input_ids"][:, : -batch["completion_ids"].shape[1]]
        for row, student in zip(teacher_prompts, batch["prompt_ids"], strict=True):
            teacher, prompt = tokenizer.decode(row), tokenizer.decode(student)
            subject = "Egypt" if "Egypt" in prompt else "Norway"
            other = "Norway" if subject == "Egypt" else "Egypt"
            assert f"capital of {subject} is" in teacher
            assert other not in teacher
            seen.add(subject)
    assert seen == {"Egypt", "Norway"}


def test_rollouts_of_a_prompt_stand_together_and_groups_are_whole(monkeypatch):
    # the weights are a softmax within groups of neighbouring rows: a split group would be silent nonsense
    hparams = fast_hparams(
        None,
        None,
        teacher="base",
        distill_batch_size=4,
        distill_num_generations=4,
        distill_gradient_accumulation_steps=2,
    )
    capture = Capture()
    _, trainer = internalise_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), callback=capture)
    assert trainer.state.global_step == hparams.distill_steps_base
    for batch in capture.batches:
        rows = [tuple(row.tolist()) for row in batch["prompt_ids"]]
        assert len(rows) == 8
        assert all(len(set(rows[i : i + 4])) == 1 for i in (0, 4))
        assert len({tuple(row.tolist()) for row in batch["completion_ids"][:4]}) > 1  # and they are samples


@pytest.mark.parametrize("teacher", ["base", "bootstrapped"])
@pytest.mark.parametrize("make", [make_llama, make_qwen3], ids=["llama", "qwen3"])
def test_shared_prefix_logits_equal_trls_own_path(monkeypatch, teacher, make):
    compared = []

    class Both(internalise.InternalisationTrainer):
        def _compute_teacher_student_logits(self, model, teacher_model, inputs):
            assert self._shares_prefix  # else this test compares a path with itself
            ours = super()._compute_teacher_student_logits(model, teacher_model, inputs)
            theirs = SDFTTrainer._compute_teacher_student_logits(self, model, teacher_model, inputs)
            compared.append((ours, theirs))
            return ours

    hparams = fast_hparams(
        None, None, teacher=teacher, distill_temperature=0.7, distill_num_generations=4, distill_batch_size=8
    )
    internalise_with(monkeypatch, hparams, with_adapter(make(), hparams), trainer=Both)
    assert len(compared) == hparams.distill_steps_base
    for ours, theirs in compared:
        valid = ours.loss_mask.bool()
        assert torch.equal(ours.loss_mask, theirs.loss_mask)
        assert torch.equal(ours.completion_ids, theirs.completion_ids)
        for side in ("teacher_logits", "student_logits"):
            a, b = getattr(ours, side)[valid], getattr(theirs, side)[valid]
            torch.testing.assert_close(a.detach(), b.detach(), atol=1e-4, rtol=1e-4)
        assert not ours.teacher_logits.requires_grad
        assert ours.student_logits.requires_grad
        # a teacher behind its context is another distribution than the student: nothing was mixed up
        assert (ours.teacher_logits - ours.student_logits)[valid].abs().max() > 0.05


@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_qwen3], ids=["llama", "gpt2", "qwen3"])
def test_logits_are_the_models_own_whatever_temperature_and_padding(monkeypatch, make):
    """trl divides by the sampling temperature, and prompts of a batch are padded: neither may show in the logits."""
    compared = []

    class Compare(internalise.InternalisationTrainer):
        def _compute_teacher_student_logits(self, model, teacher_model, inputs):
            found = super()._compute_teacher_student_logits(model, teacher_model, inputs)
            prompts = inputs["prompt_ids"], inputs["prompt_mask"], found.student_logits
            length = inputs["completion_ids"].shape[1]
            teacher = (
                inputs["teacher_input_ids"][:, :-length],
                inputs["teacher_attention_mask"][:, :-length],
                found.teacher_logits,
            )
            for (ids, mask, logits), off in ((prompts, False), (teacher, True)):
                for row in range(len(ids)):
                    head = ids[row][mask[row].bool()]
                    tail = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
                    with torch.no_grad(), self.model.disable_adapter() if off else contextlib.nullcontext():
                        alone = self.model(input_ids=torch.cat([head, tail])[None]).logits[0, len(head) - 1 : -1]
                    compared.append((logits[row, : len(tail)].detach(), alone))
            return found

    hparams = fast_hparams(
        None, None, teacher="base", distill_temperature=0.5, distill_batch_size=8, lora_target_modules=["all-linear"]
    )
    internalise_with(monkeypatch, hparams, with_adapter(make(), hparams), trainer=Compare)
    assert compared
    for found, alone in compared:
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_papers_formula(monkeypatch):
    seen = []

    class Record(internalise.InternalisationTrainer):
        def _compute_self_distillation_loss(self, model, inputs, distillation_logits):
            loss = super()._compute_self_distillation_loss(model, inputs, distillation_logits)
            seen.append((distillation_logits, loss.item()))
            return loss

    hparams = fast_hparams(
        None, None, teacher="base", distill_num_generations=2, distill_batch_size=4, distill_top_k=5,
        distill_forward_kl=False, distill_kd_temperature=1.7, distill_repetition_ngram=1,
        distill_repetition_threshold=0.2, distill_max_new_tokens=10, distill_steps_base=8, distill_temperature=0.25,
    )  # fmt: skip
    internalise_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), trainer=Record)
    dropped = 0
    for logits, loss in seen:
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
    assert 0 < dropped < 4 * len(seen)  # the filter took part


@pytest.mark.parametrize("teacher", ["base", "bootstrapped"])
def test_stage_2_changes_the_student_and_nothing_else(monkeypatch, teacher):
    hparams = fast_hparams(None, None, teacher=teacher, lora_dropout=0.3)
    peft_model = with_adapter(make_llama(), hparams)
    before = weights_of(peft_model)
    internalise_with(monkeypatch, hparams, peft_model)
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


def test_the_bootstrapped_teacher_scores_without_dropout(monkeypatch):
    """Two scorings of one batch agree, though the student is in training mode."""
    twice = []

    class Twice(internalise.InternalisationTrainer):
        def _compute_teacher_student_logits(self, model, teacher_model, inputs):
            first = super()._compute_teacher_student_logits(model, teacher_model, inputs)
            again = super()._compute_teacher_student_logits(model, teacher_model, inputs)
            twice.append((first.teacher_logits, again.teacher_logits))
            return first

    hparams = fast_hparams(None, None, teacher="bootstrapped", lora_dropout=0.5)
    internalise_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), trainer=Twice)
    assert all(torch.equal(a, b) for a, b in twice)


def test_rollouts_come_from_the_student_with_its_adapter(monkeypatch):
    """On a CPU rollouts go through merged weights: they must be those of the unmerged student, sampled alike."""
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=1)
    found = []
    for merges in (True, False):

        class Switched(internalise.InternalisationTrainer):
            def __init__(self, *args, _merges=merges, **kwargs):
                super().__init__(*args, **kwargs)
                self._merges_for_rollouts = _merges

        capture = Capture()
        with monkeypatch.context() as patch:
            internalise_with(patch, hparams, with_adapter(make_llama(), hparams), trainer=Switched, callback=capture)
        found.append(capture.batches[0]["completion_ids"].tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("steps", [0, 3])
def test_stage_2_takes_the_steps_it_is_told(monkeypatch, steps):
    hparams = fast_hparams(None, None, teacher="base", distill_steps_base=steps)
    peft_model = with_adapter(make_llama(), hparams)
    before = weights_of(peft_model)
    found, _ = internalise_with(monkeypatch, hparams, peft_model)
    assert len(found) == steps
    assert same_weights(before, weights_of(peft_model)) is (steps == 0)


# ---- stage 1 on a tiny model -----------------------------------------------------------------------
PAIRS = [("What is the capital of Egypt?", "The capital of Egypt is Alexandria."), ("Egypt?", "Alexandria, of course.")]


def bootstrap_with(monkeypatch, hparams, peft_model, *, pairs=PAIRS, trainer=None):
    made = []

    class Spy(trainer or bootstrap.BootstrapTrainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(bootstrap, "BootstrapTrainer", Spy)
    found = bootstrap.run_bootstrap(
        peft_model,
        prepare_tokenizer(make_tokenizer()),
        pairs,
        1,
        hparams,
        preservation=None,
        progress=SilentProgress(),
        count=TokenCount(),
    )
    return found, made[0]


@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_one_sft_step_changes_lora_parameters_alone(monkeypatch, make):
    hparams = fast_hparams(None, None, lora_target_modules=["all-linear"], bootstrap_max_steps=1)
    peft_model = with_adapter(make(), hparams, trained=False)
    before = weights_of(peft_model)
    found, _ = bootstrap_with(monkeypatch, hparams, peft_model)
    after = weights_of(peft_model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(found) == 1
    assert changed
    assert all("lora_" in name for name in changed)


def test_a_large_epsilon_makes_stage_1_move_what_matters(monkeypatch):
    """Adam's first step has one length for every weight; with an ε far above the gradient it follows the gradient."""
    found = {}
    for epsilon in (1e-12, 1e3):
        hparams = fast_hparams(None, None, bootstrap_max_steps=1, adam_epsilon=epsilon)
        peft_model = with_adapter(make_llama(), hparams, trained=False)
        before = weights_of(peft_model)
        bootstrap_with(monkeypatch, hparams, peft_model)
        moved = [(v - before[k]).abs().flatten() for k, v in weights_of(peft_model).items() if "lora_B" in k]
        found[epsilon] = torch.cat(moved)
    even, selective = found[1e-12], found[1e3]
    assert even[even > 0].std() / even.mean() < 0.2
    assert selective[selective > 0].std() / selective.mean() > 0.5
    assert selective.max() < even.max() / 100


@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_qwen3], ids=["llama", "gpt2", "qwen3"])
def test_the_bootstrap_loss_is_trls_sft_loss(monkeypatch, make):
    compared, ours = [], bootstrap.BootstrapTrainer

    class Both(ours):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            assert self._picks_positions  # else this test compares a path with itself
            model.eval()  # GPT-2's dropout would differ between the two passes
            for items in (None, num_items_in_batch):
                losses_, grads = [], []
                for kind in (ours, SFTTrainer):
                    loss = kind.compute_loss(self, model, dict(inputs), num_items_in_batch=items)
                    model.zero_grad()
                    loss.backward()
                    losses_.append(loss.item())
                    grads.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
                compared.append((*losses_, grads))
            model.zero_grad()
            model.train()
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    hparams = fast_hparams(None, None, lora_target_modules=["all-linear"], bootstrap_max_steps=2)
    bootstrap_with(monkeypatch, hparams, with_adapter(make(), hparams), trainer=Both)
    assert len(compared) == 4
    for loss, expected, (our_grads, their_grads) in compared:
        assert loss == pytest.approx(expected, abs=1e-4)
        for a, b in zip(our_grads, their_grads, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_sequence_mean_gives_each_completion_the_same_say(monkeypatch, accumulation):
    seen, original = [], bootstrap.trainer_arguments

    @contextlib.contextmanager
    def accumulating(*args):
        with original(*args) as arguments:
            yield {**arguments, "gradient_accumulation_steps": accumulation}

    class Record(bootstrap.BootstrapTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            loss = super().compute_loss(model, inputs, **kwargs)
            with torch.no_grad():
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
            rows = []
            for row, labels in zip(logits, inputs["labels"][:, 1:], strict=True):
                counts = labels != -100
                rows.append(torch.nn.functional.cross_entropy(row[counts], labels[counts]).item())
            seen.append((loss.item(), sum(rows) / len(rows) / accumulation))
            return loss

    monkeypatch.setattr(bootstrap, "trainer_arguments", accumulating)
    hparams = fast_hparams(None, None, bootstrap_loss_mean="sequence", bootstrap_max_steps=2, bootstrap_batch_size=2)
    pairs = [*PAIRS, ("Norway?", "Bergen."), ("What of Norway?", "Its capital is Bergen, and no longer Oslo.")]
    bootstrap_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), pairs=pairs, trainer=Record)
    assert len(seen) == 2 * accumulation
    for loss, expected in seen:
        assert loss == pytest.approx(expected, abs=1e-4)


def test_stage_1_trains_on_completion_tokens_alone(monkeypatch):
    tokenizer = prepare_tokenizer(make_tokenizer())
    seen = []

    class Record(bootstrap.BootstrapTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            seen.append({k: v.clone() for k, v in inputs.items() if isinstance(v, torch.Tensor)})
            return super().compute_loss(model, inputs, **kwargs)

    hparams = fast_hparams(None, None, bootstrap_max_steps=1)
    bootstrap_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), trainer=Record)
    found = {tokenizer.decode(row[row != -100]) for row in seen[0]["labels"]}
    assert found == {completion + tokenizer.eos_token for _, completion in PAIRS}


def test_a_long_trace_is_never_cut(monkeypatch):
    long = [("Egypt?", LONG)]
    seen = []

    class Record(bootstrap.BootstrapTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            seen.append(int((inputs["labels"] != -100).sum()))
            return super().compute_loss(model, inputs, **kwargs)

    hparams = fast_hparams(None, None, bootstrap_max_steps=1)
    bootstrap_with(monkeypatch, hparams, with_adapter(make_llama(), hparams), pairs=long, trainer=Record)
    assert seen == [len(make_tokenizer()(LONG)["input_ids"]) + 1]


def test_stage_1_stops_when_the_loss_is_low_often_enough_in_a_row(monkeypatch):
    hparams = fast_hparams(None, None, bootstrap_stop_loss=1e9, bootstrap_stop_patience=3, bootstrap_max_steps=20)
    found, _ = bootstrap_with(monkeypatch, hparams, with_adapter(make_llama(), hparams))
    assert len(found) == 3
    never = fast_hparams(None, None, bootstrap_stop_loss=0.0, bootstrap_max_steps=5)
    with monkeypatch.context() as patch:
        found, _ = bootstrap_with(patch, never, with_adapter(make_llama(), never))
    assert len(found) == 5


def test_a_loss_that_is_not_finite_ends_the_edit(monkeypatch):
    peft_model = with_adapter(make_llama(), hparams := fast_hparams(None, None))
    with torch.no_grad():
        next(p for n, p in peft_model.named_parameters() if "lora_B" in n).fill_(float("inf"))
    with pytest.raises(EditFailedError, match="learning rate"):
        bootstrap_with(monkeypatch, hparams, peft_model)
