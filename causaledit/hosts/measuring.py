"""How an editor measures: the choices that EasyEdit gives, checked once, and a request measured by them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from causaledit.errors import HostError, RequestError
from causaledit.hosts.generated_answers import finish_generated, fluency, generated_quality, whole_answers
from causaledit.hosts.token_accuracy import edit_quality, finish_locality, perplexity, target_row
from causaledit.models.chat import prepare_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.hosts.reading import HostRequest

logger = logging.getLogger(__name__)

TOKEN_ACCURACY = ("exact match", "token_em")  # EasyEdit's two names of one thing
EVAL_METRICS = (*TOKEN_ACCURACY, "ppl")
Kind = Literal["accuracy", "ppl", "said", "matched", "whole"]
_BY_GENERATION: dict[str, Kind] = {"generate-text": "said", "LLM-judge": "matched"}
EVALUATION_TYPES = ("traditional", *_BY_GENERATION)


@dataclass(frozen=True)
class Measurement:
    """What is measured of a request, before and after its edit.

    Attributes:
        tok: The model's tokenizer.
        prepared: The same, ready for generation with a chat format; None where nothing asks through one.
        use_chat_template: Token accuracies ask through the chat template.
        kind: `accuracy` (teacher forcing), `ppl`, `said` and `matched` (free generation, without and with scores), or
            `whole` (whole answers).
        fluency: Also the fluency of a text that continues the prompt.
    """

    tok: Any
    prepared: Any = None
    use_chat_template: bool = False
    kind: Kind = "accuracy"
    fluency: bool = False

    def __call__(self, model: Any, request: HostRequest) -> dict[str, Any]:
        """The metrics of one request, with EasyEdit's keys."""
        if self.kind == "whole":
            result = whole_answers(model, self.prepared, request)
        elif self.kind in ("said", "matched"):
            result = generated_quality(model, self.prepared, request, scored=self.kind == "matched")
        else:
            asked = self.prepared if self.use_chat_template else self.tok
            result = edit_quality(model, asked, request, use_chat_template=self.use_chat_template)
            if self.kind == "ppl":  # in place of the two accuracies, as in EasyEdit
                for name in ("rewrite", "rephrase"):
                    if result.pop(f"{name}_acc", None) is not None:
                        result[f"{name}_ppl"] = perplexity(model, self.tok, getattr(request, name))
        if self.fluency:
            result["fluency"] = fluency(model, self.prepared, request.edit.cloze)
        return result

    def finish(self, item: dict[str, Any]) -> None:
        """Compare the locality outputs of `item["pre"]` and `item["post"]`."""
        if self.kind in ("said", "matched"):
            finish_generated(item)
        elif self.kind != "whole":
            finish_locality(item)

    def check_window(self, model: Any, requests: Sequence[HostRequest]) -> None:
        """Refuse probes that do not fit into the model's context window, before any is asked.

        Raises:
            RequestError: One is too long; the message gives the request's number, the key and the length.
        """
        window = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if not window:
            return
        for number, request in enumerate(requests, start=1):
            named = {"prompt": request.rewrite, "rephrase_prompt": request.rephrase}
            named |= {f"locality[{key!r}]": probes for key, probes in request.locality.items()}
            named |= {f"portability[{key!r}]": probes for key, probes in request.portability.items()}
            for name, probes in named.items():
                for probe in probes:
                    row = target_row(model, self.tok, probe.question, max(probe.answers, key=len))
                    if (length := len(row.prompt) + len(row.target)) > window:
                        raise RequestError(
                            f"Request {number}: `{name}` has {length} tokens with its answer, and the model's context "
                            f"window is {window}: shorten it."
                        )


def measurement(
    tok: Any,
    hparams: Any,
    *,
    eval_metric: Any = None,
    evaluation_type: Any = None,
    test_generation: bool = False,
    whole: bool = False,
) -> Measurement:
    """The measurement that a call and its hyper-parameters ask for.

    Args:
        tok: The model's tokenizer.
        hparams: `use_chat_template`, `chat_template_kwargs` and `evaluation_type` are read where they exist.
        eval_metric: `exact match` or `token_em` (token accuracy), or `ppl`.
        evaluation_type: None or `traditional`, `generate-text` or `LLM-judge`; before the hyper-parameters' own.
        test_generation: Also the fluency.
        whole: Whole answers instead, as `generate_edit` gives them.

    Raises:
        HostError: There is no such metric or evaluation here.
    """
    metric = "token_em" if eval_metric is None else eval_metric
    if metric not in EVAL_METRICS:
        raise HostError(f"`eval_metric` is {metric!r}: the embedded host measures {', '.join(EVAL_METRICS)}.")
    evaluation = evaluation_type or getattr(hparams, "evaluation_type", None) or "traditional"
    if evaluation not in EVALUATION_TYPES:
        raise HostError(
            f"`evaluation_type` is {evaluation!r}: it must be one of {', '.join(EVALUATION_TYPES)}, or None."
        )
    if evaluation == "LLM-judge" and getattr(hparams, "api_key", None):
        logger.warning(
            "no LLM is asked for `evaluation_type: LLM-judge`: answers count where they match exactly, as in EasyEdit "
            "without an `api_key` (`causaledit judge` asks an LLM)"
        )
    kind: Kind = _BY_GENERATION.get(evaluation, "ppl" if metric == "ppl" else "accuracy")
    chat = bool(getattr(hparams, "use_chat_template", False))
    prepared = None
    if whole or test_generation or chat or kind in ("said", "matched"):
        prepared = prepare_tokenizer(tok, getattr(hparams, "chat_template_kwargs", None))
    return Measurement(tok, prepared, chat, "whole" if whole else kind, bool(test_generation))
