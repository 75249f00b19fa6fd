"""Hyper-parameters of CausalEdit: every hyper-parameter of the paper under our names, with the published aliases.

Source: arXiv 2605.28303 and its published configurations. `bootstrap_*` is stage 1 (causal
bootstrapping), `distill_*` is stage 2 (causal internalisation), `preserve_*` is our addition and off
by default.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import BaseHyperParams, setting
from causaledit.methods.published_keys import Converted, PublishedKey
from causaledit.methods.shared.hparams import QuestionHyperParams, TrainedAdapterHyperParams
from causaledit.support.launch import launched

logger = logging.getLogger(__name__)

ALG_NAME = "CausalEdit"
# how many further wordings that ask for the reason there are (`prompts.REASON_CUES`)
REASON_PROMPTS = 6
# the settings that are of the rows of `bootstrap_all_prompts`, as they must be where that is false
WITHOUT_ALL_PROMPTS: dict[str, Any] = {
    "bootstrap_trace_rows": None,
    "bootstrap_explain_repeats": 1,
    "bootstrap_reason_prompts": 0,
    "bootstrap_direct_repeats": 1,
    "bootstrap_direct_ends": True,
}


def _teacher(use_sft: Any) -> str:
    """The published switch is a boolean where we have three choices."""
    if not isinstance(use_sft, bool):
        raise HparamsError(f"`teacher_use_sft` must be true or false, got {use_sft!r}.")
    return "bootstrapped" if use_sft else "base"


# The published configuration's keys. Files that use them load here unchanged.
PUBLISHED_KEYS: dict[str, PublishedKey] = {
    **BaseHyperParams.PUBLISHED_KEYS,
    "teacher_use_sft": Converted("teacher", _teacher, "true is `bootstrapped`, false is `base`"),
    "stage2_lora_rank": "lora_rank",
    "stage2_num_train_epochs": "bootstrap_epochs",
    "stage2_learning_rate": "bootstrap_learning_rate",
    "stage2_batch_size": "bootstrap_batch_size",
    "stage2_num_samples": "bootstrap_candidates_per_trace",
    "stage2_max_new_tokens": "bootstrap_max_new_tokens",
    "stage2_data_replica_times": "bootstrap_traces",
    "stage3_max_steps": "distill_max_steps",
    "stage3_max_steps_base": "distill_steps_base",
    "stage3_max_steps_per_extra_edit": "distill_steps_per_extra_edit",
    "stage3_cake_data": "distill_cake_data",
    "stage3_learning_rate": "distill_learning_rate",
    "stage3_per_device_train_batch_size": "distill_batch_size",
    "stage3_gradient_accumulation_steps": "distill_gradient_accumulation_steps",
    "stage3_num_generations": "distill_num_generations",
    "stage3_temperature": "distill_temperature",
    "stage3_top_p": "distill_top_p",
    "stage3_max_completion_length": "distill_max_new_tokens",
    "stage3_use_forward_kl": "distill_forward_kl",
    "stage3_kd_temperature": "distill_kd_temperature",
    "stage3_repetition_ngram_n": "distill_repetition_ngram",
    "stage3_repetition_tail_window_size": "distill_repetition_window",
    "stage3_repetition_ngram_ratio_threshold": "distill_repetition_threshold",
    "stage3_rkl_top_k": "distill_top_k",
}


@dataclass
class CausalEditHyperParams(TrainedAdapterHyperParams, QuestionHyperParams):
    """Configuration of one CausalEdit run. Defaults are the paper's for 7–8B models.

    The dataclass has the fields an EasyEdit host reads (`alg_name`, `model_name`, `device`,
    `model_parallel`, `batch_size`, `max_length`) and its constructor `from_hparams`.
    """

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = PUBLISHED_KEYS

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")

    # ---- the method ----------------------------------------------------------------------------
    editing_mode: str = setting(
        "causal", "`causal`, or `noncausal`: old and new answer only, no narrative.", choices=("causal", "noncausal")
    )
    stages: list[int] = setting([1, 2], "Which stages run: [1, 2], or [1] for bootstrapping alone.")
    teacher: str = setting(
        "base",
        "Stage 2's teacher: `base` (no adapter), `bootstrapped` (a frozen snapshot of the stage-1 adapter), "
        "or `auto` (`base` where it is right often enough on the edit's own prompts).",
        choices=("base", "bootstrapped", "auto"),
    )
    teacher_min_accuracy: float = setting(
        0.75, "`auto` chooses `base` if at least this share of its answers is right.", fraction=True
    )
    student_use_sft: bool = setting(True, "Stage 2's student starts from the stage-1 adapter.")
    context_role: str = setting(
        "system", "Message that carries the privileged context: `system` or `user`.", choices=("system", "user")
    )
    narrative_file: str | None = setting(None, "JSON file with narratives, looked up by subject and new answer.")
    narrative_max_new_tokens: int = setting(
        256, "Maximum length of a narrative that the model itself writes, in tokens.", integer_from=1
    )

    prompt_paraphrases: int = setting(
        0, "Number of further wordings of the question (data/relations.json) to add to the prompts.", integer_from=0
    )

    prompt_reasons: int = setting(
        0,
        "Number of further wordings that ask for the reason of the change (at most 6) among stage 2's prompts.",
        integer_from=0,
    )
    compositions_onward: int = setting(
        0,
        "Number of prompts of two hops per edit that go on from its new object; the unedited model supplies the "
        "second hop. They join stage 2's prompts.",
        integer_from=0,
    )
    compositions_leading: int = setting(
        0,
        "Number of prompts of two hops per edit that lead to its subject; the unedited model supplies the first hop. "
        "They join stage 2's prompts.",
        integer_from=0,
    )
    multi_hop_questions: int = setting(
        0,
        "Number of questions per edit that need the fact and something beside it (`question_source`); they join stage "
        "2's prompts.",
        integer_from=0,
    )

    # ---- stage 1: causal bootstrapping ---------------------------------------------------------
    bootstrap_traces: int = setting(25, "Number of traces kept per edit.", integer_from=1)
    bootstrap_candidates_per_trace: int = setting(
        48, "Number of candidates sampled for each kept trace.", integer_from=1
    )
    bootstrap_early_stop: bool = setting(
        True, "Stop sampling once `bootstrap_oversample` × `bootstrap_traces` candidates have passed the checks."
    )
    bootstrap_oversample: float = setting(
        4.0, "Number of candidates per kept trace that must pass before sampling stops.", more_than=0
    )
    bootstrap_temperature: float = setting(0.9, "Sampling temperature of the traces.", more_than=0)
    bootstrap_top_p: float = setting(0.95, "Top-p (nucleus) of the traces' sampling.", more_than=0, fraction=True)
    bootstrap_max_new_tokens: int = setting(2048, "Maximum length of a trace, in tokens.", integer_from=1)
    bootstrap_sample_batch_size: int = setting(
        48, "Number of candidates generated at a time (their prompt is prefilled once).", integer_from=1
    )
    bootstrap_use_vllm: bool = setting(
        False,
        "Sample the traces with vLLM, whose mode, memory and server are those of the rollouts (`distill_vllm_…`); in "
        "one process alone.",
    )
    bootstrap_guided: bool = setting(
        False,
        "Write the trace's labels and the two facts, which the request states, into the teacher's turn; "
        "it samples the reason alone. For models too small to keep the format.",
    )
    bootstrap_all_prompts: bool = setting(
        False,
        "Train on every stage-2 prompt form (with the kept traces' reasons), not on the stage-1 form alone.",
    )
    bootstrap_reasons: str = setting(
        "sampled",
        "Where the reasons come from: `sampled` from the open-book teacher, the `narrative`'s own sentences that "
        "carry the cause, or `both`. Without causes always `sampled`.",
        choices=("sampled", "narrative", "both"),
    )
    bootstrap_require_cause: bool = setting(
        False,
        "Keep only traces whose reason agrees with the narrative's cause and contradicts nothing (read by rules).",
    )
    bootstrap_score: str = setting(
        "published",
        "What ranks the traces: `published` is the likelihood of the answer line behind the trace; `gain` is what the "
        "reason adds to the log-probability of the answer's own tokens, against an empty reason.",
        choices=("published", "gain"),
    )
    bootstrap_min_traces: int = setting(
        1, "Warn where fewer different traces than these are kept for an edit.", integer_from=1
    )
    bootstrap_explanation: str = setting(
        "full",
        "Completions of explaining cues with `bootstrap_all_prompts`: `full` is the new fact, the old one, the reason "
        "and the answer again; `short` is the new fact and the reason.",
        choices=("full", "short"),
    )
    bootstrap_explain_repeats: int = setting(
        1,
        "How often each prompt that asks what changed, and why, stands among the rows of `bootstrap_all_prompts`, "
        "each time with the next reason.",
        integer_from=1,
    )
    bootstrap_reason_prompts: int = setting(
        0,
        "Number of further wordings that ask for the reason of the change (at most 6) among the rows of "
        "`bootstrap_all_prompts`: a reason learnt behind many wordings is given behind others too.",
        integer_from=0,
    )
    bootstrap_trace_rows: int | None = setting(
        None,
        "How many of the kept traces stand among the rows in the stage-1 form, the longest of all; the reasons of the "
        "others stand in the answers alone. None: all of them.",
        integer_from=1,
    )
    bootstrap_direct_repeats: int = setting(
        1, "How often each prompt that asks for the answer alone stands among those rows.", integer_from=1
    )
    bootstrap_direct_ends: bool = setting(
        True,
        "Whether stage 1 teaches that an answer ends behind the bare new fact. Where not, the model decides: one of "
        "two hops, which begins in the same way, goes on.",
    )
    bootstrap_compositions: int = setting(
        0, "How many prompts of two hops stand among the rows of stage 1, per edit.", integer_from=0
    )
    bootstrap_composed_cues: bool = setting(
        False,
        "Every second one of them is asked step by step: where every cue to reason stands behind the fact alone, the "
        "reason is given in place of the second hop.",
    )
    bootstrap_raw_prompts: int = setting(
        0,
        "How often the request's `prompt` stands among the rows of stage 1 as raw text, without the chat template, as "
        "it is and as `Question: … Answer:`, with the new answer behind it: what EasyEdit's own metric asks.",
        integer_from=0,
    )
    bootstrap_stop_log_probability: float | None = setting(
        None,
        "Stage 1 stops once the new fact's mean log-probability per token, over the prompts that ask for the answer "
        "alone, is at least this; looked at every four steps. None: it is not looked at.",
    )
    bootstrap_learning_rate: float = setting(3e-5, "Peak learning rate of stage 1.", more_than=0)
    bootstrap_warmup_ratio: float = setting(
        0.1, "Share of stage 1's steps that warm up; a cosine schedule follows.", fraction=True
    )
    bootstrap_batch_size: int = setting(12, "Number of traces per optimiser step of stage 1.", integer_from=1)
    bootstrap_micro_batch_tokens: int = setting(
        4096,
        "Maximum number of tokens, padding included, in one pass of stage 1. A step's traces are split by "
        "length; its loss and gradient stay those of the whole batch.",
        integer_from=1,
    )
    bootstrap_epochs: int = setting(125, "Maximum number of passes over the traces.", integer_from=1)
    bootstrap_max_steps: int | None = setting(
        None, "Maximum number of optimiser steps for one edit; None: limited by epochs alone.", integer_from=1
    )
    bootstrap_steps_per_extra_edit: int = setting(
        0, "Steps added to `bootstrap_max_steps` per further edit.", integer_from=0
    )
    bootstrap_max_grad_norm: float = setting(0.1, "Gradient clipping of stage 1.", more_than=0)
    bootstrap_loss_mean: str = setting(
        "token",
        "`token`: every completion token weighs the same; `sequence`: every completion does.",
        choices=("token", "sequence"),
    )
    bootstrap_stop_loss: float = setting(0.35, "Stage 1 stops once its own loss stays below this value.", at_least=0)
    bootstrap_stop_patience: int = setting(
        2, "Number of consecutive logs for which the loss must stay below `bootstrap_stop_loss`.", integer_from=1
    )

    # ---- stage 2: causal internalisation -------------------------------------------------------
    distill_steps_base: int = setting(20, "Number of optimiser steps for one edit.", integer_from=0)
    distill_steps_per_extra_edit: int = setting(
        5, "Number of steps added for each further edit in the batch.", integer_from=0
    )
    distill_max_steps: int | None = setting(
        None, "Exact number of steps, whatever the number of edits.", integer_from=0
    )
    distill_cake_data: bool = setting(
        False,
        "CAKE data: add a request's learning questions (`learning_prompt`), and with them its paraphrases "
        "(`rephrase_prompt`), to the prompts. A request without learning questions adds nothing.",
    )
    distill_learning_rate: float = setting(9e-5, "Peak learning rate of stage 2.", more_than=0)
    distill_warmup_ratio: float = setting(
        0.2, "Share of stage 2's steps that warm up; the rate is then constant.", fraction=True
    )
    distill_batch_size: int = setting(18, "Number of rollouts per device and accumulation step.", integer_from=1)
    distill_gradient_accumulation_steps: int = setting(
        2, "Number of accumulation steps per optimiser step.", integer_from=1
    )
    distill_num_generations: int = setting(
        9, "Number of rollouts per prompt; they form one weight group.", integer_from=1
    )
    distill_temperature: float = setting(1.0, "Sampling temperature of the rollouts.", more_than=0)
    distill_top_p: float = setting(0.9, "Top-p (nucleus) of the rollouts' sampling.", more_than=0, fraction=True)
    distill_max_new_tokens: int = setting(180, "Maximum length of a rollout, in tokens.", integer_from=1)
    distill_max_grad_norm: float = setting(0.5, "Gradient clipping of stage 2.", more_than=0)
    distill_forward_kl: bool = setting(True, "Forward KL(teacher‖student); False: reverse KL.")
    distill_kd_temperature: float = setting(1.0, "Temperature of both distributions in the loss.", more_than=0)
    distill_top_k: int = setting(
        24, "Size of each side's top-k set; the loss is computed on their union.", integer_from=1
    )
    distill_repetition_ngram: int = setting(3, "n of the repetition filter's n-grams.", integer_from=1)
    distill_repetition_window: int = setting(
        48, "Number of a rollout's last tokens that the filter looks at.", integer_from=1
    )
    distill_repetition_threshold: float = setting(
        0.15, "Share of repeated n-grams above which a rollout is dropped.", fraction=True
    )
    distill_use_vllm: bool = setting(False, "Generate rollouts with vLLM (trl's own switch).")
    distill_vllm_mode: str = setting(
        "colocate",
        "trl's vllm_mode: `colocate` (an engine in this process, on the same GPU) or `server` (one that is running; "
        "docs/scaling.md has the command).",
        choices=("colocate", "server"),
    )
    distill_vllm_gpu_memory_utilization: float = setting(
        0.35,
        "Share of the GPU's memory that a colocated engine takes: 28 of 80 GB, of which an 8B model's bfloat16 "
        "weights are 16.",
        more_than=0,
        fraction=True,
    )
    distill_vllm_max_model_length: int | None = setting(
        None,
        "Maximum length of prompt and rollout together, in tokens; None: the longest prompt plus a rollout.",
        integer_from=1,
    )
    distill_vllm_sleep_mode: bool = setting(
        True, "A colocated engine gives its memory back while the student is trained."
    )
    distill_vllm_tensor_parallel_size: int = setting(
        1,
        "Number of processes that a colocated engine is spread over; it must divide the number of all processes.",
        integer_from=1,
    )
    distill_vllm_server_base_url: str | None = setting(
        None, "Address of the server, such as http://localhost:8000; used instead of host and port."
    )
    distill_vllm_server_host: str = setting("127.0.0.1", "Host of the server.")
    distill_vllm_server_port: int = setting(8000, "Port of the server.", integer_from=1)

    # ---- stage 2, not in the paper: prompts with a lead, on-policy preservation, a trust region ----
    distill_prompts: str = setting(
        "all",
        "Stage 2's prompts: `all`, or those where the teacher `leads`, that is gives the answer that is wanted more "
        "probability than the student does; with `teacher: auto` each then has the teacher with the larger lead.",
        choices=("all", "leads"),
    )
    distill_min_lead: float = setting(
        0.05, "Lead, in nats a token, below which a prompt is dropped with `distill_prompts: leads`.", at_least=0
    )
    distill_epochs: int | None = setting(
        None,
        "Maximum number of passes over stage 2's prompts, preserved questions apart: where few are left, fewer steps "
        "are taken than are set. None: the number of steps alone counts.",
        integer_from=1,
    )
    distill_weight: float = setting(
        1.0, "Weight of stage 2's own loss; 0 leaves the preservation term alone, to measure it.", at_least=0
    )
    preserve_stages: list[int] = setting([1, 2], "Which stages the preservation term enters: [1], [2] or [1, 2].")
    distill_preserve_share: float = setting(
        0.0,
        "Share of stage 2's prompts that are preserved questions, with the unedited model as teacher of the student's "
        "own samples; needs `preserve_weight`.",
        fraction=True,
    )
    distill_preserve_weight: float = setting(
        1.0, "Weight of the KL(unedited‖student) on those samples, beside the method's own loss.", at_least=0
    )
    distill_trust_kl: float | None = setting(
        None,
        "Trust region: a step of stage 2 after which the mean KL(unedited‖student) on preserved questions that are "
        "kept aside has risen by more than this is taken back. None: no step is.",
        more_than=0,
    )

    # ---- loading and checks ------------------------------------------------------------------------
    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """As the base class; also warn where a fixed number of steps overrides settings by the number of edits."""
        hparams = super().from_dict(data)
        named = {str(key): cls.PUBLISHED_KEYS.get(str(key), str(key)) for key in data}
        by_edits = [
            key for key, name in named.items() if name in ("distill_steps_base", "distill_steps_per_extra_edit")
        ]
        fixed = [key for key, name in named.items() if name == "distill_max_steps"]
        if hparams.distill_max_steps is not None and fixed and by_edits:
            logger.warning(
                "`%s: %d` fixes the number of stage 2 steps, whatever the number of edits; ignored: %s",
                fixed[0], hparams.distill_max_steps, ", ".join(f"`{key}`" for key in by_edits),
            )  # fmt: skip
        return hparams

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.stages not in ([1], [2], [1, 2]):
            raise HparamsError(f"`stages` must be [1], [2] or [1, 2], got {self.stages!r}.")
        if 1 not in self.stages and (self.teacher == "bootstrapped" or self.student_use_sft):
            raise HparamsError(
                "`stages: [2]` leaves out the bootstrapping that `teacher: bootstrapped` and "
                "`student_use_sft: true` need: set `teacher: base` and `student_use_sft: false`."
            )
        if self.preserve_stages not in ([1], [2], [1, 2]):
            raise HparamsError(f"`preserve_stages` must be [1], [2] or [1, 2], got {self.preserve_stages!r}.")
        if not self.preserve_weight and (self.distill_preserve_share or self.distill_trust_kl is not None):
            name = "distill_preserve_share" if self.distill_preserve_share else "distill_trust_kl"
            raise HparamsError(f"`{name}` needs preserved questions: set `preserve_weight` above 0, or leave it out.")
        for name in ("prompt_reasons", "bootstrap_reason_prompts"):
            if getattr(self, name) > REASON_PROMPTS:
                raise HparamsError(
                    f"`{name}` is {getattr(self, name)}, and there are {REASON_PROMPTS} further wordings that ask for "
                    f"the reason: set it to at most {REASON_PROMPTS}."
                )
        self._check_what_would_do_nothing()
        if self.distill_batch_size % self.distill_num_generations:
            raise HparamsError(
                f"`distill_batch_size` ({self.distill_batch_size}) must be a multiple of "
                f"`distill_num_generations` ({self.distill_num_generations}), so that no weight group is split."
            )

    def _check_what_would_do_nothing(self) -> None:
        """Refuse a setting that another one leaves without effect."""
        share, per_step = self.distill_preserve_share, self.distill_prompts_per_step(launched())
        if share and 2 not in self.preserve_stages:
            raise HparamsError(
                f"`distill_preserve_share` is {share:g}, and `preserve_stages` ({self.preserve_stages}) leaves stage 2 "
                "out: add 2, or set `distill_preserve_share: 0`."
            )
        if share and not self.distill_preserved_per_step(launched()):
            raise HparamsError(
                f"`distill_preserve_share` ({share:g}) is no whole one of a step's prompts, of which there are "
                f"{per_step} (`distill_batch_size` × `distill_gradient_accumulation_steps` / "
                "`distill_num_generations`): raise it, or have more prompts in a step."
            )
        if self.distill_trust_kl is not None and not self.preserve_file and self.preserve_prompts < 4:
            raise HparamsError(
                f"`distill_trust_kl` keeps a quarter of the preserved questions aside, and `preserve_prompts` is "
                f"{self.preserve_prompts}: set it to 4 or more, or leave `distill_trust_kl` out."
            )
        if self.distill_cake_data and self.distill_prompts == "leads":
            raise HparamsError(
                "`distill_cake_data: true` adds questions whose wanted answers no teacher is asked for, and "
                "`distill_prompts: leads` would leave them all out: set `distill_prompts: all`, or "
                "`distill_cake_data: false`."
            )
        if self.lora_init == "contrast" and (1 not in self.stages or not self.student_use_sft):
            raise HparamsError(
                "`lora_init: contrast` points the adapter at stage 1's rows, and the student does not start from "
                "stage 1: set `stages: [1, 2]` and `student_use_sft: true`, or leave it out."
            )
        if self.question_file and not self.multi_hop_questions:
            raise HparamsError(
                f"`question_file` is {self.question_file!r}, and `multi_hop_questions` is 0: set it above 0, or leave "
                "the file out."
            )
        if self.bootstrap_compositions and not (self.compositions_onward or self.compositions_leading):
            raise HparamsError(
                f"`bootstrap_compositions` is {self.bootstrap_compositions}, and there are no prompts of two hops: set "
                "`compositions_onward` or `compositions_leading` above 0, or `bootstrap_compositions: 0`."
            )
        if self.bootstrap_composed_cues and not self.bootstrap_compositions:
            raise HparamsError(
                "`bootstrap_composed_cues: true` is of stage 1's prompts of two hops, and `bootstrap_compositions` is "
                "0: set it above 0, or leave `bootstrap_composed_cues` out."
            )
        if not self.bootstrap_all_prompts:
            for name, without in WITHOUT_ALL_PROMPTS.items():
                if getattr(self, name) != without:
                    raise HparamsError(
                        f"`{name}` ({getattr(self, name)}) is of the rows of `bootstrap_all_prompts`, which is false: "
                        f"set `bootstrap_all_prompts: true`, or leave `{name}` out."
                    )

    # ---- derived values ----------------------------------------------------------------------------
    def distill_steps(self, edits: int) -> int:
        """Stage-2 optimiser steps for `edits` edits trained together (in the paper 20, +5 for each further one)."""
        if self.distill_max_steps is not None:
            return self.distill_max_steps
        return self.distill_steps_base + self.distill_steps_per_extra_edit * (edits - 1)

    def distill_step_limit(self, edits: int, prompts: int, per_step: int) -> int:
        """Stage-2 steps for `edits` edits: no more than `distill_epochs` need for `prompts`, `per_step` at a time."""
        steps = self.distill_steps(edits)
        return steps if self.distill_epochs is None else min(steps, math.ceil(self.distill_epochs * prompts / per_step))

    def distill_preserved_per_step(self, processes: int = 1) -> int:
        """How many of a step's prompts are preserved questions; one at least is the edits' own."""
        per_step = self.distill_prompts_per_step(processes)
        return min(round(self.distill_preserve_share * per_step), per_step - 1)

    def distill_prompts_per_step(self, processes: int = 1) -> int:
        """How many prompts one optimiser step of stage 2 has, of all processes together."""
        rollouts = self.distill_batch_size * self.distill_gradient_accumulation_steps * processes
        return rollouts // self.distill_num_generations

    def bootstrap_step_limit(self, edits: int) -> int | None:
        """Maximum number of stage-1 optimiser steps for `edits` edits, or None where epochs alone decide."""
        if self.bootstrap_max_steps is None:
            return None
        return self.bootstrap_max_steps + self.bootstrap_steps_per_extra_edit * (edits - 1)
