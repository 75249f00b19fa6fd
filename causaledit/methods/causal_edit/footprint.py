"""What CausalEdit's stages need in memory: their heaviest passes, on a model without weights (`methods.footprint`)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from causaledit.facts.requests import EditRequest
from causaledit.methods.causal_edit import losses
from causaledit.methods.causal_edit.bootstrap import raw_pairs, training_pairs
from causaledit.methods.causal_edit.prompts import CUES
from causaledit.methods.causal_edit.sampling import wants_engine
from causaledit.methods.causal_edit.teacher import ANSWER_TOKENS
from causaledit.methods.causal_edit.traces import fallback_trace
from causaledit.methods.footprint import Remedy, StageFootprint, adapter_stages, adapter_terms, with_adapter
from causaledit.methods.shared.compositions import Composition
from causaledit.methods.shared.footprints import (
    TEXTS_TOGETHER,
    contrast_peak,
    preserve_stages,
    preserving_peak,
    prompts_of,
    quantising_remedies,
    question_stages,
    shares,
    supervised_peak,
)
from causaledit.methods.shared.trainers import checkpointing_paused
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.scoring import completion_logits, logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.footprint import Planner
    from causaledit.models.footprint import PlannedModel

SCORED_TOGETHER = 16  # `score_traces`
_TRAINED = ("bootstrap", "internalise")
_ANY_EDIT = EditRequest(
    prompt="The capital of {} is", subject="Egypt", target_new="Luxor", ground_truth="Cairo", narrative="It moved.",
    question="What is the capital of Egypt?",
)  # fmt: skip


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    hparams, lengths = planner.hparams, planner.lengths
    stages = []
    trace = lengths.trace or hparams.bootstrap_max_new_tokens
    with planner.model() as plain:
        stages += preserve_stages(plain, planner)
        if hparams.teacher == "auto":
            peak = generation_peak(
                plain, rows=TEXTS_TOGETHER, prompt=lengths.context, new=ANSWER_TOKENS, shared=False, sampled=False
            )
            stages.append(StageFootprint("teacher", peak, generated=_prompts() * ANSWER_TOKENS))
        if 2 in hparams.stages:
            stages += question_stages(plain, planner)
        if 1 in hparams.stages:
            stages.append(_traces(plain, hparams, planner, trace))
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        terms = adapter_terms(adapted, planner)
        preserving = preserving_peak(adapted, planner)  # of both stages
        if 1 in hparams.stages:
            stages.append(_bootstrap(adapted, hparams, planner, trace, preserving, terms))
        if 2 in hparams.stages and hparams.distill_steps(1):
            stages += _internalise(adapted, hparams, planner, preserving, terms)
        stages += adapter_stages(adapted, planner)
    return stages


def remedies(hparams: CausalEditHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first: settings that leave the edit as it is come before others."""
    if not hparams.gradient_checkpointing:
        yield Remedy({"gradient_checkpointing": True}, "the same losses, one more forward pass", _TRAINED)
    group, rows = hparams.distill_num_generations, hparams.distill_batch_size
    if rows > group:
        parts = rows // group
        yield Remedy(
            {
                "distill_batch_size": group,
                "distill_gradient_accumulation_steps": hparams.distill_gradient_accumulation_steps * parts,
            },
            "as many rollouts a step, fewer at a time",
            ("internalise",),
        )
    for batch in (24, 12, 6):
        if batch < hparams.bootstrap_sample_batch_size:
            yield Remedy({"bootstrap_sample_batch_size": batch}, "as many candidates, fewer at a time", ("traces",))
    if hparams.bootstrap_max_new_tokens > 512:
        yield Remedy(
            {"bootstrap_max_new_tokens": 512}, "longer traces are cut off and rejected", ("traces", "bootstrap")
        )
    for tokens in (2048, 1024):
        if tokens < hparams.bootstrap_micro_batch_tokens:
            yield Remedy(
                {"bootstrap_micro_batch_tokens": tokens}, "the same losses, fewer rows at a time", ("bootstrap",)
            )
    yield from quantising_remedies(hparams)


def _engine(planner: Planner) -> int:
    """A colocated engine while it is awake; a server is elsewhere."""
    hparams = planner.hparams
    colocated = hparams.distill_vllm_mode == "colocate"
    return planner.engine(hparams.distill_vllm_gpu_memory_utilization) if colocated else 0


def _prompts() -> int:
    return 2 * sum(len(cues) for cues in CUES.values())


# ---- stage 1 ---------------------------------------------------------------------------------------
def _traces(plain: PlannedModel, hparams: CausalEditHyperParams, planner: Planner, trace: int) -> StageFootprint:
    """Sampling, and then scoring what passed."""
    lengths = planner.lengths
    budget = hparams.bootstrap_traces * hparams.bootstrap_candidates_per_trace
    new, peak, engine = hparams.bootstrap_max_new_tokens, Peak(), 0
    if hparams.bootstrap_reasons == "narrative" and hparams.editing_mode == "causal":
        budget = 0  # the reasons are the narrative's own sentences
    else:
        rows = min(hparams.bootstrap_sample_batch_size, budget)
        if wants_engine(hparams):
            engine = _engine(planner)
        else:
            peak = generation_peak(plain, rows=rows, prompt=lengths.context, new=new, shared=True)
    contexts = [[0] * lengths.prompt + [row + 1] * trace for row in range(SCORED_TOGETHER)]
    with plain.tracked(training=False) as tracker:
        completion_logits(plain.model, contexts, [[0] * lengths.answer] * SCORED_TOGETHER)
    return StageFootprint("traces", larger(peak, tracker.peak), generated=budget * new, engine=engine)


def _stage_1_rows(hparams: CausalEditHyperParams) -> int:
    """How many rows stage 1 makes of an edit that has all that the settings ask for.

    They are made, of an edit that stands for any other; only paraphrases, whose number depends on its relation, are
    counted: each is asked as any other direct prompt.
    """
    plain = replace(hparams, prompt_paraphrases=0)
    traces = [fallback_trace(_ANY_EDIT, causal=hparams.editing_mode == "causal")] * hparams.bootstrap_traces
    compositions = [Composition("", "", "", "")] * hparams.bootstrap_compositions
    rows = len(training_pairs(_ANY_EDIT, traces, plain, compositions)) + len(raw_pairs(_ANY_EDIT, plain))
    paraphrased = hparams.prompt_paraphrases * hparams.bootstrap_direct_repeats
    return rows + (paraphrased if hparams.bootstrap_all_prompts else 0)


def _bootstrap(
    adapted: PlannedModel,
    hparams: CausalEditHyperParams,
    planner: Planner,
    trace: int,
    preserving: Peak,
    terms: dict[str, int],
) -> StageFootprint:
    """A micro-batch of the longest rows."""
    row = planner.lengths.prompt + trace
    rows = min(hparams.bootstrap_batch_size, max(1, hparams.bootstrap_micro_batch_tokens // row))
    trained = supervised_peak(
        adapted, planner, prompts_of(planner.lengths, planner.lengths.prompt, rows), [[0] * trace] * rows
    )
    pairs = _stage_1_rows(hparams)
    steps = math.ceil(pairs / hparams.bootstrap_batch_size) * hparams.bootstrap_epochs
    limit = hparams.bootstrap_step_limit(1)
    steps = steps if limit is None else min(steps, limit)
    tokens = steps * min(pairs, hparams.bootstrap_batch_size) * row
    peak = larger(trained, preserving, contrast_peak(adapted, planner))
    return StageFootprint("bootstrap", peak, trained=tokens, **terms)


# ---- stage 2 ---------------------------------------------------------------------------------------
def _internalise(
    adapted: PlannedModel, hparams: CausalEditHyperParams, planner: Planner, preserving: Peak, terms: dict[str, int]
) -> list[StageFootprint]:
    """Rollouts of all accumulation steps together, then a training pass over those of one."""
    lengths, new = planner.lengths, hparams.distill_max_new_tokens
    if hparams.teacher in ("auto", "bootstrapped"):  # a frozen copy of the adapter
        terms = {**terms, "adapter": 2 * terms["adapter"]}
    rows = hparams.distill_batch_size * hparams.distill_gradient_accumulation_steps
    steps = hparams.distill_steps(1)
    stages = []
    awake = 0
    if hparams.distill_use_vllm:
        engine = _engine(planner)
        awake = 0 if hparams.distill_vllm_sleep_mode else engine
        stages.append(StageFootprint("rollouts", Peak(), generated=steps * rows * new, engine=engine, **terms))
    else:
        with checkpointing_paused(adapted.model):
            peak = generation_peak(adapted, rows=rows, prompt=lengths.prompt, new=new, shared=False)
        # on a CPU the adapter is merged for them, and the weights it is merged into are copied
        copies = 0 if planner.gpu else planner.adapted_bytes(adapted)
        stages.append(StageFootprint("rollouts", peak, copies=copies, generated=steps * rows * new, **terms))
    peak = larger(_training_pass(adapted, hparams, planner), preserving)
    trained = steps * rows * (lengths.prompt + new)
    return [*stages, StageFootprint("internalise", peak, trained=trained, engine=awake, **terms)]


def _training_pass(adapted: PlannedModel, hparams: CausalEditHyperParams, planner: Planner) -> Peak:
    """As `InternalisationTrainer`: student and teacher read the rollouts, and the loss goes back."""
    lengths, rows, new = planner.lengths, hparams.distill_batch_size, hparams.distill_max_new_tokens
    model = adapted.model
    prompts = prompts_of(lengths, lengths.prompt, rows, hparams.distill_num_generations)
    opening = [0] * max(0, lengths.context - lengths.prompt)
    completions = [[0] * new] * rows
    tokens, mask = torch.zeros(rows, new, dtype=torch.long), torch.ones(rows, new, dtype=torch.long)

    def padded(logits: list[torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.pad(pad_sequence(logits, batch_first=True), (0, 0, 0, 0))

    with adapted.tracked(training=True) as tracker:
        student_rows = logits_in_one_pass(model, prompts, completions, share=shares(hparams))
        with torch.no_grad(), model.disable_adapter(), checkpointing_paused(model):
            teacher_rows = completion_logits(model, [opening + prompt for prompt in prompts], completions)
        student, teacher = padded(student_rows), padded(teacher_rows)
        del student_rows, teacher_rows
        scores = losses.sequence_log_probability(teacher, tokens, mask)
        weights = losses.sequence_weights(scores, group_size=hparams.distill_num_generations)
        divergence = losses.token_divergence(
            teacher, student, top_k=hparams.distill_top_k, forward=hparams.distill_forward_kl,
            temperature=hparams.distill_kd_temperature,
        )  # fmt: skip
        losses.weighted_token_mean(divergence, weights, mask).backward()
    return tracker.peak
