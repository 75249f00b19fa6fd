"""The embedded host: EasyEdit's `BaseEditor` contract where EasyEdit is not installed.

Same arguments, same metric keys, same return values; written from the contract in docs/hosts.md. Any
causal LM of transformers is accepted, whatever its name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from causaledit.errors import HostError, RequestError
from causaledit.hosts.lookup import get_method
from causaledit.hosts.token_accuracy import as_list, edit_quality, finish_locality
from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence
from causaledit.models.loading import load_from_hparams

logger = logging.getLogger(__name__)

Metrics = list[dict[str, Any]]


class EmbeddedEditor:
    """Edits a model with any registered method and measures token accuracies before and after.

    Args:
        hparams: A method's hyper-parameters with `alg_name`, `model_name`, `device`, `model_parallel`.

    Raises:
        HostError: `alg_name` is not a registered method.
        ModelError: The model or device is unusable.
    """

    @classmethod
    def from_hparams(cls, hparams: Any) -> EmbeddedEditor:
        """Same as the constructor; EasyEdit's spelling."""
        return cls(hparams)

    def __init__(self, hparams: Any) -> None:
        if hparams is None:
            raise HostError("`hparams` is None: load them with CausalEditHyperParams.from_hparams(...).")
        self.hparams = hparams
        self.alg_name = hparams.alg_name
        self.method = get_method(hparams.alg_name, host="embedded")
        self.apply_algo = self.method.load_apply()  # as in EasyEdit's editor
        self.model_name = hparams.model_name
        self.model, self.tok = load_from_hparams(hparams)
        self.sequence = EditSequence()  # of the edits that this editor keeps in its model

    # ---- the host's calls ----------------------------------------------------------------------
    def edit(
        self,
        prompts: str | Sequence[str],
        target_new: str | Sequence[str],
        ground_truth: str | Sequence[str] | None = None,
        target_neg: str | Sequence[str] | None = None,
        rephrase_prompts: str | Sequence[str] | None = None,
        locality_inputs: Mapping[str, Any] | None = None,
        portability_inputs: Mapping[str, Any] | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> tuple[Metrics, Any, Any]:
        """Apply requests one by one: each on the original model, or on top of each other if `sequential_edit`.

        Custom request keys (`narrative`, `question`, …) travel in `requests=[…]`, which then replaces the
        requests built from the other arguments.

        Returns:
            `(metrics, edited_model, weights_copy)`; `metrics[i]` has `pre`, `post`, `case_id`,
            `requested_rewrite`, `time`. After a non-sequential edit the model's weights are restored.
        """
        if getattr(self.hparams, "batch_size", 1) != 1:
            raise HostError(
                f"`edit` applies one request at a time, but `batch_size` is {self.hparams.batch_size}: set it to 1 or "
                "call `batch_edit`."
            )
        requests = self._requests(
            prompts, target_new, ground_truth, target_neg, rephrase_prompts, locality_inputs, portability_inputs, kwargs
        )
        return self.edit_requests(requests, sequential_edit=sequential_edit, verbose=verbose)

    def edit_requests(
        self,
        requests: list[dict[str, Any]],
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> tuple[Metrics, Any, Any]:
        """As `edit`, for ready requests."""
        return self._run([[request] for request in requests], sequential_edit, verbose)

    def batch_edit(
        self,
        prompts: Sequence[str],
        target_new: Sequence[str],
        ground_truth: Sequence[str] | None = None,
        target_neg: Sequence[str] | None = None,
        rephrase_prompts: Sequence[str] | None = None,
        locality_inputs: Mapping[str, Any] | None = None,
        portability_inputs: Mapping[str, Any] | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> tuple[Metrics, Any, Any]:
        """Apply requests in batches of `hparams.batch_size`, those of a batch together."""
        if not self.method.batched:
            raise HostError(f"The method {self.alg_name} cannot edit batches: call `edit`.")
        requests = self._requests(
            prompts, target_new, ground_truth, target_neg, rephrase_prompts, locality_inputs, portability_inputs, kwargs
        )
        size = self.hparams.batch_size
        return self._run([requests[i : i + size] for i in range(0, len(requests), size)], sequential_edit, verbose)

    # ---- the work ------------------------------------------------------------------------------
    def _run(self, batches: list[list[dict[str, Any]]], sequential: bool, verbose: bool) -> tuple[Metrics, Any, Any]:
        if not batches:
            raise RequestError("There is no request: the list is empty.")
        everything: Metrics = []
        for batch in batches:
            metrics = [
                {
                    "case_id": len(everything) + i,
                    "requested_rewrite": request,
                    "pre": self._measure(self.model, request),
                }
                for i, request in enumerate(batch)
            ]
            began = time.perf_counter()
            edited = edit_in_place(
                self.method, self.model, self.tok, batch, self.hparams, sequence=self.sequence if sequential else None
            )
            seconds = time.perf_counter() - began
            try:
                for item, request in zip(metrics, batch, strict=True):
                    item["time"] = seconds
                    item["post"] = self._measure(edited.model, request)
                    finish_locality(item)
            except BaseException:  # Ctrl-C while measuring: the model is not left edited
                self.model = edited.undo()
                raise
            self.model = edited.keep() if sequential else edited.undo(handed_over=True)
            everything += metrics
            if verbose:
                for item in metrics:
                    logger.info(
                        "edit %d: %s → %s",
                        item["case_id"],
                        item["pre"]["rewrite_acc"],
                        item["post"]["rewrite_acc"],
                    )
        return everything, self.model if sequential else edited.model, edited.weights_copy()

    def _measure(self, model: Any, request: Mapping[str, Any]) -> dict[str, Any]:
        filled = dict(request)
        prompt = filled["prompt"]
        if isinstance(prompt, str) and "{}" in prompt:
            filled["prompt"] = prompt.replace("{}", str(filled.get("subject", "")))
        if isinstance(filled.get("target_new"), Mapping):
            filled["target_new"] = filled["target_new"]["str"]
        filled["rephrase_prompt"] = _probe_texts(filled.get("rephrase_prompt"))
        if not isinstance(filled.get("locality"), Mapping):
            filled["locality"] = {}
        return edit_quality(
            model, self.tok, filled, use_chat_template=bool(getattr(self.hparams, "use_chat_template", False))
        )

    def _requests(
        self,
        prompts: Any,
        target_new: Any,
        ground_truth: Any,
        target_neg: Any,
        rephrase_prompts: Any,
        locality_inputs: Any,
        portability_inputs: Any,
        extra: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Ready `requests=[…]` as they are, or one request per prompt from the host's columns."""
        if extra.get("requests"):
            return list(extra["requests"])
        prompts = as_list(prompts)
        columns: dict[str, Any] = {
            "prompt": prompts,
            "target_new": as_list(target_new),
            "ground_truth": [None] * len(prompts) if ground_truth is None else as_list(ground_truth),
            "target_neg": None if target_neg is None else as_list(target_neg),
            "subject": None if extra.get("subject") is None else as_list(extra["subject"]),
            "rephrase_prompt": None if rephrase_prompts is None else as_list(rephrase_prompts),
        }
        for name, values in columns.items():
            if values is not None and len(values) != len(prompts):
                raise RequestError(f"`{name}` has {len(values)} entries, but there are {len(prompts)} prompts.")
        requests = [
            {name: values[i] for name, values in columns.items() if values is not None}
            | {"locality": {}, "portability": {}}
            for i in range(len(prompts))
        ]
        for group, inputs in (("locality", locality_inputs), ("portability", portability_inputs)):
            for key, probe in (inputs or {}).items():
                asked, answers = as_list(probe["prompt"]), as_list(probe["ground_truth"])
                if not len(asked) == len(answers) == len(prompts):
                    raise RequestError(
                        f"`{group}_inputs[{key!r}]` has {len(asked)} prompts and {len(answers)} answers; "
                        f"one of each is needed for every one of the {len(prompts)} edits."
                    )
                for i, (question, answer) in enumerate(zip(asked, answers, strict=True)):
                    if question is not None:
                        requests[i][group][key] = {"prompt": question, "ground_truth": answer}
        return requests


def _probe_texts(value: Any) -> Any:
    """Paraphrases as texts, also from the `{question, answer}` objects of MQuAKE data."""
    if isinstance(value, list | tuple):
        return [item["question"] if isinstance(item, Mapping) else item for item in value] or None
    return value
