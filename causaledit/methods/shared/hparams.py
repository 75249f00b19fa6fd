"""Hyper-parameters that methods share whose adapter is trained by one of trl's trainers, beside a preservation term."""

from __future__ import annotations

from dataclasses import dataclass

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import AdapterHyperParams, BaseHyperParams, setting
from causaledit.support.trackers import read_trackers


@dataclass
class TrackedHyperParams(BaseHyperParams):
    """Where the losses of training go besides the report."""

    report_to: str | list[str] = setting(
        "none",
        "Experiment trackers that get every step's losses and rewards, as in trl: `none`, `trackio` (local), "
        "`tensorboard`, `wandb`, or a list of them. Each stage is a run named after method, subjects and stage.",
    )

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers that `report_to` names."""
        return read_trackers(self.report_to)

    def check(self) -> None:
        """The trackers are known, installed, and need no login."""
        super().check()
        read_trackers(self.report_to)


@dataclass
class PreservationHyperParams(BaseHyperParams):
    """The preservation term, off by default."""

    # ---- preservation (not in the paper; off in its configurations) ----------------------------
    preserve_weight: float = setting(
        0.0, "Weight of KL(base‖student) on questions the edit must not change; 0: off.", at_least=0
    )
    preserve_prompts: int = setting(32, "Number of such questions, of all edits of a batch together.", integer_from=1)
    preserve_batch_size: int = setting(8, "Number of them that enter one optimiser step.", integer_from=1)
    preserve_max_new_tokens: int = setting(
        24, "Maximum length of the base model's own answers to them, in tokens.", integer_from=1
    )
    preserve_top_k: int = setting(
        64, "Number of tokens of the base distribution kept per position; the rest form one bucket.", integer_from=1
    )
    preserve_file: str | None = setting(None, "JSON list of questions to use instead of the built-in ones.")
    preserve_same_subject: float = setting(
        0.06, "Share of these questions that ask other things about an edit's subject.", fraction=True
    )
    preserve_composed: float = setting(
        0.0,
        "Share of these questions that have two hops: the edit's relation about other subjects, and on from there.",
        fraction=True,
    )
    preserve_completed: float = setting(
        0.0,
        "Share of these questions that ask the edit's relation about other subjects and hold the base model to what it "
        "says behind the edit's own wording for them, which is where an edit spreads.",
        fraction=True,
    )
    preserve_explained: float = setting(
        0.0,
        "Share of these questions that ask the edit's relation about other subjects and for the reason too: where an "
        "edit teaches a reason, what keeps it from being given for others.",
        fraction=True,
    )
    preserve_old_answer: float = setting(
        0.0,
        "Share of the other subjects that are asked about which are those for which the base model most expects the "
        "edit's old answer: where an edit spreads first. The others are drawn.",
        fraction=True,
    )
    preserve_texts: int = setting(
        0,
        "Number of short texts, written by the model before the edit, that it must go on to expect as it did: beside "
        "the questions, what keeps it from drifting where nothing is asked. Needs `preserve_weight`.",
        integer_from=0,
    )
    preserve_text_weight: float = setting(1.0, "Weight of KL(base‖student) on these texts.", more_than=0)
    preserve_hard: bool = setting(
        False, "Half of each step's questions are those on which the student was last farthest from the base model."
    )
    rehearse_edits: int = setting(
        0,
        "Number of a sequence's earlier edits that each new one rehearses: their own prompts are preserved too, with "
        "the model before the new edit as the base model; needs `preserve_weight`. 0: off.",
        integer_from=0,
    )

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.preserve_texts and not self.preserve_weight:
            raise HparamsError(
                f"`preserve_texts` is {self.preserve_texts}, and `preserve_weight` is 0: texts are held beside the "
                "preserved questions. Set `preserve_weight` above 0, or leave out `preserve_texts`."
            )
        if self.rehearse_edits and not self.preserve_weight:
            raise HparamsError(
                f"`rehearse_edits` is {self.rehearse_edits}, and `preserve_weight` is 0: the preservation term is what "
                "rehearses earlier edits. Set `preserve_weight` above 0, or leave out `rehearse_edits`."
            )


@dataclass
class QuestionHyperParams(BaseHyperParams):
    """Where an edit's questions come from."""

    multi_hop_questions: int = setting(
        30, "Number of questions per edit that need the fact and something beside it.", integer_from=0
    )
    question_source: str = setting(
        "self",
        "Where the latter come from, after a request's own `learning_prompt`: `given` (nowhere else), `templates` "
        "(scenes that need no knowledge of the world), `file`, or `self` (the unedited model writes them).",
        choices=("given", "templates", "file", "self"),
    )
    question_file: str | None = setting(
        None, "JSON list of {subject, target_new, questions}, where a question is a text or {question, answer}."
    )
    min_questions: int = setting(
        4, "Where fewer of them are left, templates fill up to this number, at most to `multi_hop_questions`, with "
        "a warning.", integer_from=1,
    )  # fmt: skip
    question_filter: bool = setting(
        True, "Ask the model whether a written question needs the fact, and drop those that do not."
    )
    question_temperature: float = setting(0.6, "Sampling temperature of written questions.", more_than=0)
    question_top_p: float = setting(0.95, "Top-p (nucleus) of written questions.", more_than=0, fraction=True)
    question_max_new_tokens: int = setting(1024, "Maximum length of a list of written questions.", integer_from=1)

    @property
    def writes_questions(self) -> bool:
        """Whether the unedited model writes questions."""
        return self.question_source == "self" and self.multi_hop_questions > 0

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if (self.question_source == "file") != (self.question_file is not None):
            raise HparamsError(
                f"`question_source` is {self.question_source!r} and `question_file` is {self.question_file!r}: "
                "`file` needs a file, and nothing else reads one."
            )


@dataclass
class TrainedAdapterHyperParams(AdapterHyperParams, PreservationHyperParams, TrackedHyperParams):
    """An adapter, its optimiser, the preservation term, and trackers."""

    optimizer: str = setting(
        "auto",
        "`auto`: 8-bit paged AdamW on a GPU with bitsandbytes, AdamW otherwise; or a name of transformers' `optim`.",
    )
    adam_epsilon: float = setting(
        1e-8,
        "Adam's ε. At about the size of a gradient, weights with smaller gradients move less, which protects locality.",
        more_than=0,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Recompute activations in the backward passes instead of keeping them: the same losses, "
        "far less memory, one more forward pass. For models of billions of parameters; off for small ones.",
    )
