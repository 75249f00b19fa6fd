"""What EtCon's stages need in memory: their heaviest passes, on a model without weights (`methods.footprint`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from causaledit.methods.etcon.prompts import REASONING_CUES
from causaledit.methods.etcon.proximal import proximal_loss
from causaledit.methods.footprint import Remedy, StageFootprint, adapter_stages, adapter_terms, with_adapter
from causaledit.methods.shared.footprints import (
    adapter_remedies,
    contrast_peak,
    preserve_stages,
    preserving_peak,
    prompts_of,
    shares,
    supervised_peak,
)
from causaledit.methods.shared.trainers import checkpointing_paused
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.scoring import (
    completion_cross_entropy,
    completion_logits,
    logits_in_one_pass,
    token_log_probabilities,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.etcon.hparams import EtConHyperParams
    from causaledit.methods.footprint import Planner
    from causaledit.models.footprint import PlannedModel

STATED_TOKENS = 64  # of a label that is made of the request


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    hparams, lengths = planner.hparams, planner.lengths
    own = hparams.label_source == "self"
    label = lengths.trace or (hparams.label_max_new_tokens if own else STATED_TOKENS)
    with planner.model() as plain:
        stages = preserve_stages(plain, planner)
        if 1 in hparams.stages and own:
            peak = generation_peak(
                plain, rows=hparams.label_candidates, prompt=lengths.prompt, new=hparams.label_max_new_tokens,
                shared=True,
            )  # fmt: skip
            made = hparams.label_candidates * hparams.label_max_new_tokens
            stages.append(StageFootprint("labels", peak, generated=made))
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        terms = adapter_terms(adapted, planner)
        preserving = preserving_peak(adapted, planner)  # of both stages
        if 1 in hparams.stages:
            stages.append(_proximal(adapted, hparams, planner, label, preserving, terms))
        if 2 in hparams.stages:
            stages += _consolidate(adapted, hparams, planner, preserving, terms)
        return [*stages, *adapter_stages(adapted, planner)]


def remedies(hparams: EtConHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    common = list(adapter_remedies(hparams, trained=("proximal", "consolidate"), micro="micro_batch_tokens"))
    kept_apart = [remedy for remedy in common if "quantization" in remedy.changes]
    yield from (remedy for remedy in common if remedy not in kept_apart)
    sampled = hparams.rollouts * hparams.prompts_per_rollout
    for updates in range(hparams.updates_per_rollout + 1, sampled + 1):
        if sampled % updates == 0:
            yield Remedy({"updates_per_rollout": updates}, "smaller optimiser steps of stage 2", ("consolidate",))
    yield from kept_apart


def _proximal(
    adapted: PlannedModel,
    hparams: EtConHyperParams,
    planner: Planner,
    label: int,
    preserving: Peak,
    terms: dict[str, int],
) -> StageFootprint:
    """The snapshot over all labels, and a micro-batch of the longest rows."""
    row = planner.lengths.prompt + label
    cues = len(REASONING_CUES[hparams.answer_format]) * len(hparams.prompt_forms)
    pairs = cues * (hparams.labels if hparams.label_source == "self" else 1)
    if hparams.direct_prompts:  # the question, the cloze and paraphrases, whose labels are shorter
        pairs += 2 + hparams.prompt_paraphrases
    peak = Peak()
    if hparams.proximal:
        with checkpointing_paused(adapted.model), adapted.tracked(training=False) as tracker:
            contexts = prompts_of(planner.lengths, planner.lengths.prompt, pairs)
            rows = completion_logits(adapted.model, contexts, [[0] * label] * pairs)
            _ = [token_log_probabilities(one, [0] * label) for one in rows]
            del rows
        peak = tracker.peak
    together = min(hparams.proximal_batch_size, pairs, max(1, hparams.micro_batch_tokens // row))
    trained = supervised_peak(
        adapted, planner, prompts_of(planner.lengths, planner.lengths.prompt, together), [[0] * label] * together,
        _clipped if hparams.proximal else completion_cross_entropy,
    )  # fmt: skip
    tokens = hparams.steps_of_stage_1(1) * min(hparams.proximal_batch_size, pairs) * row
    return StageFootprint(
        "proximal",
        larger(peak, trained, preserving, contrast_peak(adapted, planner)),
        trained=tokens,
        **terms,
    )


def _clipped(logits: torch.Tensor, completion: list[int]) -> torch.Tensor:
    log_p = token_log_probabilities(logits, completion)
    return proximal_loss(log_p, torch.zeros_like(log_p), low=0.2, high=0.3).sum()


def _consolidate(
    adapted: PlannedModel, hparams: EtConHyperParams, planner: Planner, preserving: Peak, terms: dict[str, int]
) -> list[StageFootprint]:
    """Rollouts that several steps share, and one step over its part of them."""
    lengths, new = planner.lengths, hparams.rollout_max_new_tokens
    rows = hparams.rollouts * hparams.prompts_per_rollout
    steps = hparams.steps_of_stage_2(1)
    if hparams.reference_kl:  # a frozen copy of the adapter
        terms = {**terms, "adapter": 2 * terms["adapter"]}
    stages = []
    made = -(-steps // hparams.updates_per_rollout) * rows * new
    if hparams.rollout_use_vllm:  # asleep while the student is trained
        engine = 0 if hparams.rollout_vllm_server else planner.engine(hparams.rollout_vllm_memory)
        stages.append(StageFootprint("rollouts", Peak(), generated=made, engine=engine, **terms))
    else:
        with checkpointing_paused(adapted.model):
            peak = generation_peak(adapted, rows=rows, prompt=lengths.prompt, new=new, shared=False)
        copies = 0 if planner.gpu else planner.adapted_bytes(adapted)
        stages.append(StageFootprint("rollouts", peak, copies=copies, generated=made, **terms))
    part = hparams.rollouts_per_update
    contexts, completions = prompts_of(lengths, lengths.prompt, part, hparams.rollouts), [[0] * new] * part
    with adapted.tracked(training=True) as tracker:
        logits = logits_in_one_pass(adapted.model, contexts, completions, share=shares(hparams))
        scaled = [row / hparams.rollout_temperature for row in logits]
        log_p = torch.stack([token_log_probabilities(row, [0] * new) for row in scaled])
        _ = [torch.distributions.Categorical(logits=row.detach(), validate_args=False).entropy() for row in scaled]
        del logits, scaled
        log_p.exp().mean().backward()
    trained = steps * part * (lengths.prompt + new)
    peak = larger(tracker.peak, preserving)
    return [*stages, StageFootprint("consolidate", peak, trained=trained, **terms)]
