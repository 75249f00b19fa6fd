"""Hyper-parameters of StoryDistill. Defaults are the paper's (arXiv 2602.02028) unless docs/story.md says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.hparams import QuestionHyperParams, TrainedAdapterHyperParams

ALG_NAME = "StoryDistill"

# An adapter on one of these changes every token's logits or embedding, and where they are tied, both.
_VOCABULARY_LAYERS = ("lm_head", "embed_tokens", "wte", "embed_out")


@dataclass
class StoryDistillHyperParams(TrainedAdapterHyperParams, QuestionHyperParams):
    """Configuration of one StoryDistill edit."""

    ALG_NAME: ClassVar[str] = ALG_NAME

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")

    # ---- what the teacher reads ------------------------------------------------------------------
    context: str = setting(
        "story",
        "What the teacher reads before a question: the edit's `story`, or the bare `fact` (the paper's atomic facts).",
        choices=("story", "fact"),
    )
    story_source: str = setting(
        "auto",
        "`given`: refuse an edit without a story in its request or in `narrative_file`; `auto`: write one.",
        choices=("auto", "given"),
    )
    narrative_file: str | None = setting(None, "JSON file with stories, looked up by subject and new answer.")
    narrative_max_new_tokens: int = setting(
        256, "Maximum length of a story that the model itself writes, in tokens.", integer_from=1
    )
    state_answer: bool = setting(
        False,
        "Close the story with the new and the old answer in a sentence of their own, for models too small to take them "
        "from the story.",
    )

    # ---- questions -------------------------------------------------------------------------------
    single_hop_questions: int = setting(0, "Number of ways to ask for the fact itself, per edit.", integer_from=0)
    composed_questions: int = setting(
        0,
        "At most so many of them have two hops, from the relation bank, where the unedited model knows the hop that is "
        "no edit; they come before those of `question_source`.",
        integer_from=0,
    )
    single_hop_ends: bool = setting(
        True,
        "Whether it is learnt that the answer to a single-hop question ends. False leaves what follows to the model: "
        "one that has learnt to stop behind the new fact stops there where another hop is asked for too.",
    )

    # ---- the teacher's answers -------------------------------------------------------------------
    mode: str = setting(
        "answer",
        "What is learnt: the `answer` alone, or `reasoning` and then the answer.",
        choices=("answer", "reasoning"),
    )
    answer_format: str = setting(
        "tags",
        "`tags`: questions ask for the answer between <answer> and </answer>; `plain`: questions as they are.",
        choices=("tags", "plain"),
    )
    target_source: str = setting(
        "sampled",
        "Where answers come from: `sampled` from the teacher, right or wrong; `filtered`: sampled, those left out that "
        "are wrong (what the model asked itself has no known answer, cannot be judged and is kept); `given`: written "
        "from the request.",
        choices=("sampled", "filtered", "given"),
    )
    answers_per_question: int = setting(2, "Number of answers sampled for each question.", integer_from=1)
    answer_temperature: float = setting(0.7, "Sampling temperature of the teacher's answers.", more_than=0)
    answer_top_p: float = setting(0.8, "Top-p (nucleus) of the teacher's answers.", more_than=0, fraction=True)
    answer_max_new_tokens: int = setting(1024, "Maximum length of a sampled answer, in tokens.", integer_from=1)

    # ---- distillation ----------------------------------------------------------------------------
    temperature: float = setting(2.0, "Temperature of both distributions in KL(teacher‖student).", more_than=0)
    context_dropout: float = setting(
        0.9, "Probability, drawn anew for each row and visit, that the student reads a question without the story.",
        fraction=True,
    )  # fmt: skip
    kl_weight: float = setting(1.0, "Weight of KL(teacher‖student); 0: no teacher, cross-entropy alone.", at_least=0)
    answer_weight: float = setting(0.0, "Weight of the cross-entropy of the answers' tokens beside it.", at_least=0)
    loss_mean: str = setting(
        "token",
        "`token`: every answer token weighs the same; `sequence`: every answer does.",
        choices=("token", "sequence"),
    )
    cache_targets: bool = setting(
        True, "Compute the teacher's distributions once, before training; False: anew in each step."
    )
    cache_limit_gb: float = setting(
        8.0, "Largest size of the stored distributions in host memory; beyond it they are computed anew.", at_least=0
    )
    conservative_questions: int = setting(
        0, "Number of neighbouring questions per edit, trained on with the unedited model's own answers.",
        integer_from=0,
    )  # fmt: skip
    conservative_weight: float = setting(0.3, "Weight of the cross-entropy of those answers.", at_least=0)

    # ---- training --------------------------------------------------------------------------------
    lora_rank: int = setting(128, "Rank of the LoRA adapter.", integer_from=1)
    learning_rate: float = setting(1e-4, "Peak learning rate; constant after the warm-up.", more_than=0)
    warmup_steps: int = setting(30, "Number of steps that warm up.", integer_from=0)
    lora_a_decay: float = setting(30.0, "Decoupled weight decay of the adapter's A matrices.", at_least=0)
    train_batch_size: int = setting(8, "Number of answers per optimiser step.", integer_from=1)
    micro_batch_tokens: int = setting(
        8192, "Maximum number of tokens, padding included, in one pass; a step's loss and gradient stay the same.",
        integer_from=1,
    )  # fmt: skip
    epochs: int = setting(10, "Maximum number of passes over the answers.", integer_from=1)
    max_steps: int | None = setting(
        None, "Maximum number of optimiser steps for one edit; None: limited by epochs alone.", integer_from=1
    )
    steps_per_extra_edit: int = setting(0, "Steps added to `max_steps` per further edit.", integer_from=0)
    max_grad_norm: float = setting(1.0, "Gradient clipping.", more_than=0)
    max_sequence_tokens: int = setting(
        2048, "An answer that is longer, story and question included, is dropped.", integer_from=1
    )

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if wrong := [name for name in self.lora_target_modules if name in _VOCABULARY_LAYERS]:
            raise HparamsError(
                f"`lora_target_modules` names {wrong[0]}: no adapter goes on embeddings or the output layer, which "
                "many models tie. Leave it out."
            )
        if not self.kl_weight and not self.answer_weight:
            raise HparamsError("`kl_weight` and `answer_weight` are both 0: there is nothing to train on.")
        if not self.single_hop_questions and not self.multi_hop_questions:
            raise HparamsError("`single_hop_questions` and `multi_hop_questions` are both 0: there is nothing to ask.")
        if self.composed_questions > self.multi_hop_questions:
            raise HparamsError(
                f"`composed_questions` is {self.composed_questions}, more than `multi_hop_questions` "
                f"({self.multi_hop_questions}), of which they are a part: lower it, or raise the other."
            )
        if self.mode == "reasoning" and self.target_source == "given" and self.context == "fact":
            raise HparamsError(
                "`mode: reasoning` with `target_source: given` writes the reasoning from a story, and `context: fact` "
                "has none: set `target_source: sampled`."
            )

    def step_limit(self, edits: int) -> int | None:
        """The maximum number of optimiser steps for a batch of edits."""
        return None if self.max_steps is None else self.max_steps + self.steps_per_extra_edit * (edits - 1)
