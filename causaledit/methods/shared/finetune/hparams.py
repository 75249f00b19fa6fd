"""The hyper-parameters that FT, LoRA and ICE share (they need no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import are_layers, setting
from causaledit.methods.published_keys import Converted, Ignored, OnlyAt
from causaledit.methods.shared.hparams import TrackedHyperParams

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

_MODULES = "`rewrite_module_tmp` (`modules`) names everything that is trained"
PROMPT_FORMS = ("plain", "cloze", "question", "paraphrases")
ANSWER_FORMS = ("answer", "sentence")


class Answers(TypedDict):
    """How a user's message is answered: with the fact's sentence or the answer alone, and whether it ends there."""

    sentence: bool
    ends: bool


@dataclass
class FineTuneHyperParams(TrackedHyperParams):
    """Gradient descent on target tokens. EasyEdit's names for these settings are accepted too."""

    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **TrackedHyperParams.PUBLISHED_KEYS,
        "num_steps": "steps",
        "lr": "learning_rate",
        "kl_factor": OnlyAt(
            (0, None), "the loss has no divergence term (EasyEdit reads this key and has none either); set it to 0"
        ),
    }

    prompt_forms: list[str] = setting(
        ["plain"],
        "Prompts to train on: `plain` (the cloze as bare text), `cloze` and `question` (as a user's message), "
        "`paraphrases` (other wordings of the question from the relation bank, as a user's message).",
    )
    answer_form: str = setting(
        "answer",
        "What a user's message is answered with: the new `answer` alone, or the fact's `sentence`, which is the cloze "
        "completed. Bare text is completed by the answer either way.",
        choices=ANSWER_FORMS,
    )
    answer_ends: bool = setting(
        True, "Whether it is learnt that the answer to a user's message ends. False leaves what follows to the model."
    )
    steps: int = setting(25, "Maximum number of optimiser steps.", integer_from=1)
    learning_rate: float = setting(5e-4, "Learning rate of AdamW, constant.", more_than=0)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", at_least=0)
    stop_loss: float = setting(1e-2, "Stop once the loss of a step is below this.", at_least=0)
    micro_batch_size: int = setting(
        8, "Number of rows whose graph is in memory at a time; a step uses all rows.", integer_from=1
    )

    @property
    def answers(self) -> Answers:
        """How a user's message is answered, as `target_rows` takes it."""
        return {"sentence": self.answer_form == "sentence", "ends": self.answer_ends}

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        forms = self.prompt_forms
        if not isinstance(forms, list) or not forms or any(form not in PROMPT_FORMS for form in forms):
            raise HparamsError(f"`prompt_forms` must be a list of {', '.join(PROMPT_FORMS)}, got {forms!r}.")


@dataclass
class WeightTuneHyperParams(FineTuneHyperParams):
    """Gradient descent on the weights of chosen modules, which stay within ±ε of where they started."""

    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **FineTuneHyperParams.PUBLISHED_KEYS,
        "rewrite_module_tmp": "modules",
        "norm_constraint": Converted(
            "norm_constraint", lambda value: None if value is False else value, "false means null: no bound"
        ),
        "layer_module_tmp": Ignored(_MODULES),
        "mlp_module_tmp": Ignored(_MODULES),
        "attn_module_tmp": Ignored(_MODULES),
        "ln_f_module": Ignored(_MODULES),
        "lm_head_module": Ignored(_MODULES),
    }

    layers: list[int] | None = setting(None, "Numbers of the layers whose weights change; None means all.")
    modules: list[str] = setting(
        ["auto"],
        "Modules within a layer (`mlp.down_proj`), whole paths with {} for the layer, or `auto`: the MLP's output "
        "projection.",
    )
    norm_constraint: float | None = setting(None, "ε: how far any single weight may move; None: no bound.", more_than=0)

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.layers is not None and not are_layers(self.layers):
            raise HparamsError(f"`layers` must be None or a list of different layer numbers, got {self.layers!r}.")
        if isinstance(self.modules, str):
            self.modules = [self.modules]
        if (
            not isinstance(self.modules, list)
            or not self.modules
            or not all(isinstance(m, str) and m for m in self.modules)
        ):
            raise HparamsError(f"`modules` must be a list of module names or ['auto'], got {self.modules!r}.")

    def edited_weights(self, model: Any) -> list[str] | None:
        """Those of the chosen modules."""
        from causaledit.models.layout import select_weights

        return select_weights(model, self.layers, self.modules)
