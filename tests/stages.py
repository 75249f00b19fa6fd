"""Both stages on a tiny model, as the method runs them, with callbacks that listen."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import torch
from conftest import EGYPT, make_tokenizer
from transformers import TrainerCallback

from causaledit.facts.requests import request_from_dict
from causaledit.methods.causal_edit.bootstrap import all_prompts, run_bootstrap
from causaledit.methods.causal_edit.internalise import (
    STUDENT_ADAPTER,
    TEACHER_ADAPTER,
    add_teacher_snapshot,
    run_internalisation,
)
from causaledit.methods.causal_edit.leads import StudyPrompt
from causaledit.methods.causal_edit.prompts import privileged_context
from causaledit.methods.shared.preservation import build_preservation
from causaledit.methods.shared.supervised import completion_rows
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.support.costs import TokenCount
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
PAIRS = [("What is the capital of Egypt?", "The capital of Egypt is Alexandria."), ("Egypt?", "Alexandria, of course.")]


class Listener(TrainerCallback):
    """Keeps the batches of rollouts that a trainer prepared, those that it scored, and its learning rates."""

    def __init__(self):
        self.batches, self.scored, self.rates, self.steps = [], [], [], 0

    def on_self_distillation_batch_prepared(self, **payload):
        self.batches.append(payload)

    def on_rollouts_scored(self, *, model, inputs, logits, loss, **payload):
        self.scored.append((inputs, logits, loss.item()))

    def on_pre_optimizer_step(self, args, state, control, *, optimizer, **kwargs):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args, state, control, **kwargs):
        self.steps = state.global_step


class Plainly(Listener):
    """Scores every rollout again, alone, by one plain forward of the student and one of the teacher."""

    def __init__(self, teacher):
        super().__init__()
        self.teacher, self.compared = teacher, []

    def on_rollouts_scored(self, *, model, inputs, logits, loss, **payload):
        super().on_rollouts_scored(model=model, inputs=inputs, logits=logits, loss=loss)
        length = inputs["completion_ids"].shape[1]
        teacher = inputs["teacher_input_ids"][:, :-length], inputs["teacher_attention_mask"][:, :-length]
        student = inputs["prompt_ids"], inputs["prompt_mask"]
        for (ids, mask), found, own in (
            (student, logits.student_logits, True),
            (teacher, logits.teacher_logits, False),
        ):
            for row in range(len(ids)):
                head = ids[row][mask[row].bool()]
                tail = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
                with torch.no_grad(), contextlib.nullcontext() if own else self.as_teacher(model):
                    alone = model(input_ids=torch.cat([head, tail])[None]).logits[0, len(head) - 1 : -1]
                self.compared.append((found[row, : len(tail)].detach(), alone))

    @contextlib.contextmanager
    def as_teacher(self, model):
        if self.teacher == "base":
            with model.disable_adapter():
                yield
            return
        model.set_adapter(TEACHER_ADAPTER, inference_mode=True)
        try:
            yield
        finally:
            model.set_adapter(STUDENT_ADAPTER)


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


def studied(requests, hparams):
    """Stage 2's prompts as the paper has them: all of them, with one teacher."""
    return [
        StudyPrompt(prompt.text, privileged_context(request, causal=hparams.editing_mode == "causal"), hparams.teacher)
        for request in requests
        for prompt in all_prompts(request, hparams)
    ]


def internalise(
    hparams, peft_model, requests=(REQUEST,), *, callback=None, role="system", preservation=None, study=None
):
    """Run stage 2 as the method does, with a callback that listens."""
    return run_internalisation(
        peft_model,
        prepare_tokenizer(make_tokenizer()),
        study if study is not None else studied(requests, hparams),
        len(requests),
        hparams,
        teacher=hparams.teacher,
        context_role=role,
        preservation=preservation,
        progress=SilentProgress(),
        count=TokenCount(),
        callbacks=[callback] if callback else [],
    )


class Gradients(Listener):
    """Keeps each step's gradients, clipped as they are."""

    def __init__(self):
        super().__init__()
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, *, model, **kwargs):
        super().on_pre_optimizer_step(args, state, control, **kwargs)
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def bootstrap(hparams, peft_model, *, pairs=PAIRS, callback=None, preservation=None):
    """Run stage 1 as the method does, with a callback that listens."""
    return run_bootstrap(
        peft_model,
        prepare_tokenizer(make_tokenizer()),
        completion_rows(prepare_tokenizer(make_tokenizer()), pairs),
        [REQUEST],
        hparams,
        preservation=preservation,
        progress=SilentProgress(),
        count=TokenCount(),
        callbacks=[callback] if callback else [],
    )


def sft_by_hand(peft_model, pairs, mean):
    """The loss of all pairs and its gradients, by plain forwards over one row at a time."""
    tokenizer = prepare_tokenizer(make_tokenizer())
    sums, counts = [], []
    for prompt, completion in pairs:
        head = tokenizer(render(tokenizer, user(prompt)), add_special_tokens=False)["input_ids"]
        tail = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logits = peft_model(input_ids=torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
        sums.append(torch.nn.functional.cross_entropy(logits, torch.tensor(tail), reduction="sum"))
        counts.append(len(tail))
    losses_ = torch.stack(sums)
    loss = losses_.sum() / sum(counts) if mean == "token" else (losses_ / torch.tensor(counts)).mean()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in peft_model.named_parameters() if p.grad is not None}


def held(model, hparams):
    return build_preservation(model, prepare_tokenizer(make_tokenizer()), [REQUEST], hparams, count=TokenCount())


class Engine:
    """Stands in for `VLLMGeneration`, which needs a GPU: merges the live model to read its weights, then generates."""

    made: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, model, **settings):
        Engine.made = {"model": model, "syncs": 0, **settings}
        self.model, self.settings = model, settings

    def sync_weights(self):
        Engine.made["syncs"] += 1
        self.model.merge_adapter()
        self.weights = {name: value.clone() for name, value in self.model.named_parameters()}
        self.model.unmerge_adapter()

    def generate(self, *, prompts, **kwargs):
        return prompts, [[5, 6, 7] for _ in prompts], None, None
