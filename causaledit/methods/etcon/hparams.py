"""Hyper-parameters of EtCon. Which defaults were published and which are ours is in docs/etcon.md, figure by figure.

`label_*` and `proximal_*` are stage 1 (targeted proximal SFT), `consolidate_*`, `rollout*` and `reward_*` are stage 2
(GRPO).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.hparams import TrainedAdapterHyperParams

ALG_NAME = "EtCon"
PARTS = ("correctness", "format", "cleanliness", "consistency")


@dataclass
class EtConHyperParams(TrainedAdapterHyperParams):
    """Configuration of one EtCon run."""

    ALG_NAME: ClassVar[str] = ALG_NAME

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    stages: list[int] = setting(
        [1, 2],
        "Which stages run: [1, 2], [1] for the edit alone, or [2], which consolidates an edit that the model already "
        "holds (another method's, earlier in a sequence).",
    )
    lora_dropout: float = setting(
        0.0, "LoRA dropout with `proximal: false`; what compares policies (the ratio, stage 2) has none.", fraction=True
    )
    lora_target_modules: list[str] = setting(
        ["gate_proj", "up_proj", "down_proj"], "Names of the FFN projections that get an adapter, or ['all-linear']."
    )
    answer_format: str = setting(
        "boxed",
        "How an answer ends: `boxed` is `<answer> \\boxed{…} </answer>`, as published; `line` is a last line "
        "`Answer: …`, for models that do not keep tags.",
        choices=("boxed", "line"),
    )
    prompt_forms: list[str] = setting(
        ["question"], "What the reasoning prompts of both stages are built on: `question`, `cloze` or both."
    )

    # ---- stage 1: targeted proximal SFT ------------------------------------------------------------
    label_source: str = setting(
        "self",
        "Where the reasoning that stage 1 learns comes from: `self`, the model's own closed-book answers with the "
        "answer replaced; `stated`, a few sentences made of the request, for models that write no usable reasoning.",
        choices=("self", "stated"),
    )
    labels: int = setting(4, "Maximum number of labels per edit with `label_source: self`.", integer_from=1)
    label_candidates: int = setting(16, "Number of answers sampled for them.", integer_from=1)
    label_max_new_tokens: int = setting(512, "Maximum length of such an answer, in tokens.", integer_from=1)
    label_temperature: float = setting(1.0, "Sampling temperature of such answers.", more_than=0)
    label_top_p: float = setting(0.99, "Top-p (nucleus) of their sampling.", more_than=0, fraction=True)
    direct_prompts: bool = setting(
        False, "Also train on the question, the cloze and paraphrases with the new fact as one sentence."
    )
    prompt_paraphrases: int = setting(
        0, "Number of paraphrases (data/relations.json) among the direct prompts.", integer_from=0
    )
    proximal: bool = setting(True, "The clipped ratio; False is plain SFT, the ablation.")
    ratio_low: float = setting(
        0.2, "ε below 1; without effect on labels, whose advantage is 1, and checked all the same.", more_than=0
    )
    ratio_high: float = setting(
        0.28, "ε above 1: a token that is 1 + ε times as likely as in the snapshot gives no gradient.", more_than=0
    )
    updates_per_snapshot: int = setting(
        8, "Number of optimiser steps between two snapshots of the policy.", integer_from=1
    )
    proximal_steps: int = setting(40, "Number of optimiser steps for one edit.", integer_from=1)
    proximal_steps_per_extra_edit: int = setting(20, "Number of steps added per further edit.", integer_from=0)
    proximal_learning_rate: float = setting(1e-4, "Learning rate of stage 1, constant.", more_than=0)
    proximal_warmup_steps: int = setting(10, "Steps of stage 1 before that rate is reached.", integer_from=0)
    proximal_batch_size: int = setting(8, "Number of labels per optimiser step.", integer_from=1)
    proximal_loss_mean: str = setting(
        "token",
        "`token`: every token of the labels weighs the same, as published; `sequence`: every label does.",
        choices=("token", "sequence"),
    )
    proximal_max_grad_norm: float = setting(1.0, "Gradient clipping of stage 1.", more_than=0)
    micro_batch_tokens: int = setting(
        4096, "Maximum number of tokens, padding included, in one pass of stage 1.", integer_from=1
    )

    # ---- stage 2: consolidation --------------------------------------------------------------------
    consolidate_steps: int = setting(20, "Number of optimiser steps for one edit.", integer_from=1)
    consolidate_steps_per_extra_edit: int = setting(5, "Number of steps added per further edit.", integer_from=0)
    consolidate_learning_rate: float = setting(1e-5, "Learning rate of stage 2, constant.", more_than=0)
    rollouts: int = setting(10, "Number of rollouts per prompt; they form one group.", integer_from=1)
    prompts_per_rollout: int = setting(4, "Number of prompts that are sampled from at a time.", integer_from=1)
    updates_per_rollout: int = setting(
        4, "Number of optimiser steps that share these rollouts, each with its part of them.", integer_from=1
    )
    rollout_max_new_tokens: int = setting(512, "Maximum length of a rollout, in tokens.", integer_from=1)
    rollout_temperature: float = setting(1.0, "Sampling temperature of the rollouts.", more_than=0)
    rollout_top_p: float = setting(0.99, "Top-p (nucleus) of the rollouts' sampling.", more_than=0, fraction=True)
    rollout_use_vllm: bool = setting(False, "Generate rollouts with vLLM (trl's own switch).")
    rollout_vllm_memory: float = setting(
        0.35, "Share of the GPU's memory that vLLM's engine takes.", more_than=0, fraction=True
    )
    rollout_vllm_server: str | None = setting(
        None, "Address of a running server (docs/scaling.md); None: an engine in this process."
    )
    consolidate_clip_low: float = setting(0.2, "ε below 1 of GRPO's ratio.", more_than=0)
    consolidate_clip_high: float = setting(0.3, "ε above 1 of GRPO's ratio.", more_than=0)
    reference_kl: float = setting(
        0.01, "Weight of the KL to the policy that stage 2 starts from, the edited model; 0: off.", at_least=0
    )
    consolidate_max_grad_norm: float = setting(1.0, "Gradient clipping of stage 2.", more_than=0)
    correctness: str = setting(
        "judge",
        "Who says whether an answer is right: `judge`, the project's offline reading of the answer and of the whole "
        "response; `match`, the publication's comparison of texts (without its sentence encoder).",
        choices=("judge", "match"),
    )
    reward_weights: dict[str, float] = setting(
        {"correctness": 0.7, "format": 0.05, "cleanliness": 0.15, "consistency": 0.1},
        "Weights of the reward's parts.",
    )

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.stages not in ([1], [2], [1, 2]):
            raise HparamsError(f"`stages` must be [1], [2] or [1, 2], got {self.stages!r}.")
        if self.rehearse_edits and self.stages == [2]:
            raise HparamsError(
                f"`rehearse_edits` is {self.rehearse_edits}, and `stages: [2]` trains on no given answer that could be "
                "rehearsed: leave one of them out."
            )
        forms = self.prompt_forms
        if not isinstance(forms, list) or not forms or not set(forms) <= {"question", "cloze"}:
            raise HparamsError(f"`prompt_forms` must be a list of `question` and `cloze`, got {forms!r}.")
        if 1 in self.stages:
            self._check_stage_1()
        if 2 in self.stages:
            self._check_stage_2()

    def _check_stage_1(self) -> None:
        if self.ratio_low >= 1:
            raise HparamsError(f"`ratio_low` is {self.ratio_low}: a ratio cannot fall below 0, give a value under 1.")
        if self.proximal and self.updates_per_snapshot < 2:
            raise HparamsError(
                "`updates_per_snapshot` is 1: the first step after a snapshot has the ratio 1, so that nothing is ever "
                "clipped. Give at least 2, or set `proximal: false` for plain SFT."
            )

    def _check_stage_2(self) -> None:
        if self.rollouts < 2:
            raise HparamsError("`rollouts` is 1: a reward is compared within its prompt's group, give at least 2.")
        if self.consolidate_clip_low >= 1:
            raise HparamsError(
                f"`consolidate_clip_low` is {self.consolidate_clip_low}: a ratio cannot fall below 0, give a value "
                "under 1."
            )
        sampled = self.rollouts * self.prompts_per_rollout
        if sampled % self.updates_per_rollout:
            raise HparamsError(
                f"`updates_per_rollout` ({self.updates_per_rollout}) must divide `rollouts` × `prompts_per_rollout` "
                f"({sampled})."
            )
        weights = self.reward_weights
        if not isinstance(weights, dict) or not set(weights) <= set(PARTS):
            raise HparamsError(f"`reward_weights` must give weights to {', '.join(PARTS)}, got {weights!r}.")
        values = list(weights.values())
        numbers = all(isinstance(v, int | float) and math.isfinite(v) and v >= 0 for v in values)
        if not numbers or not any(values):
            raise HparamsError(f"`reward_weights` must be at least 0 and not all 0, got {weights!r}.")

    # ---- derived values ----------------------------------------------------------------------------
    @property
    def rollouts_per_update(self) -> int:
        """Rollouts in one optimiser step of stage 2."""
        return self.rollouts * self.prompts_per_rollout // self.updates_per_rollout

    def steps_of_stage_1(self, edits: int) -> int:
        """Optimiser steps of stage 1 for `edits` edits trained together."""
        return self.proximal_steps + self.proximal_steps_per_extra_edit * (edits - 1)

    def steps_of_stage_2(self, edits: int) -> int:
        """Optimiser steps of stage 2 for `edits` edits trained together."""
        return self.consolidate_steps + self.consolidate_steps_per_extra_edit * (edits - 1)
