"""The embedded host: EasyEdit's `BaseEditor` contract where EasyEdit is not installed.

Same arguments, same metric keys, same return values; written from the contract in docs/hosts.md. Any
causal LM of transformers is accepted, whatever its name.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from causaledit.errors import HostError, RequestError
from causaledit.hosts.arguments import Options, read_options, refuse_missing_hparams
from causaledit.hosts.lookup import get_method
from causaledit.hosts.measuring import Measurement, measurement
from causaledit.hosts.reading import HostRequest, read_batches, requests_from_columns
from causaledit.methods.call import edit_in_place
from causaledit.methods.method import EditSequence
from causaledit.models.loading import load_from_hparams
from causaledit.support.files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

logger = logging.getLogger(__name__)

Metrics = list[dict[str, Any]]


class EmbeddedEditor:
    """Edits a model with any registered method and measures it before and after.

    Args:
        hparams: A method's hyper-parameters with `alg_name`, `model_name`, `device`, `model_parallel`.

    Raises:
        HostError: `alg_name` is not a registered method.
        ModelError: The model or device is unusable.
    """

    @classmethod
    def from_hparams(cls, hparams: Any = None, **kwargs: Any) -> EmbeddedEditor:
        """Same as the constructor; EasyEdit's spelling."""
        return cls(hparams, **kwargs)

    def __init__(self, hparams: Any = None, **kwargs: Any) -> None:
        refuse_missing_hparams(hparams, kwargs)
        self.hparams = hparams
        self.alg_name = hparams.alg_name
        self.method = get_method(hparams.alg_name, host="embedded")
        self.apply_algo = self.method.load_apply()  # as in EasyEdit's editor
        name = hparams.model_name
        self.model_name = os.fspath(name) if isinstance(name, os.PathLike) else name
        self.model, self.tok = load_from_hparams(hparams)
        self.sequence = EditSequence()  # of the edits that this editor keeps in its model
        self._said: set[str] = set()  # what is worth one line in the log, and had it

    # ---- the host's calls ----------------------------------------------------------------------
    def edit(
        self,
        prompts: str | Sequence[str] | None = None,
        target_new: str | Sequence[Any] | None = None,
        ground_truth: str | Sequence[Any] | None = None,
        target_neg: str | Sequence[str] | None = None,
        rephrase_prompts: str | Sequence[Any] | None = None,
        locality_inputs: Mapping[str, Any] | None = None,
        portability_inputs: Mapping[str, Any] | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> tuple[Metrics, Any, Any]:
        """Apply requests one by one: each on the original model, or on top of each other if `sequential_edit`.

        Everything is read and checked before the first measurement; the texts are left as they are.

        Args:
            prompts: One per edit, with the subject in it; a text for one edit. The other lists go with it.
            target_new: New answers; an entry may be a list of an answer and its aliases.
            ground_truth: Old answers, likewise.
            target_neg: Carried along for methods that read it.
            rephrase_prompts: Paraphrases; an entry may be a list.
            locality_inputs: `{key: {"prompt": […], "ground_truth": […]}}` with one entry per edit: a text, a list, or
                None.
            portability_inputs: Likewise.
            sequential_edit: Keep the edits in the model. Of kept edits of one fact the later one wins, with a warning.
            verbose: Log each edit.
            **kwargs: `subject`, `question` and `narrative` (one per edit); `requests=[…]`, which replaces the requests
                built from the lists; `eval_metric`, `evaluation_type`, `test_generation`, `pre_file`, `pre_edit` and
                `train_ds` as in EasyEdit (docs/hosts.md). Others give a warning.

        Returns:
            `(metrics, edited_model, weights_copy)`; `metrics[i]` has `pre`, `post`, `case_id`,
            `requested_rewrite`, `time`. After a non-sequential edit the model's weights are restored.

        Raises:
            RequestError: A request or probe is unusable; the message has its number. Nothing was measured or edited.
            HostError: An option is unknown, or `batch_size` is not 1.
        """
        return self._edit(
            "edit", prompts, target_new, ground_truth, target_neg, rephrase_prompts, locality_inputs,
            portability_inputs, sequential_edit, verbose, kwargs,
        )  # fmt: skip

    def edit_requests(
        self, requests: Sequence[Any], sequential_edit: bool = False, verbose: bool = True, **kwargs: Any
    ) -> tuple[Metrics, Any, Any]:
        """As `edit`, for ready requests."""
        return self._edit(
            "edit_requests", None, None, None, None, None, None, None, sequential_edit, verbose,
            {**kwargs, "requests": requests},
        )  # fmt: skip

    def batch_edit(
        self,
        prompts: Sequence[str] | None = None,
        target_new: Sequence[Any] | None = None,
        ground_truth: Sequence[Any] | None = None,
        target_neg: Sequence[str] | None = None,
        rephrase_prompts: Sequence[Any] | None = None,
        locality_inputs: Mapping[str, Any] | None = None,
        portability_inputs: Mapping[str, Any] | None = None,
        sequential_edit: bool = False,
        verbose: bool = True,
        **kwargs: Any,
    ) -> tuple[Metrics, Any, Any]:
        """As `edit`, in batches of `hparams.batch_size`, whose requests are applied together."""
        return self._edit(
            "batch_edit", prompts, target_new, ground_truth, target_neg, rephrase_prompts, locality_inputs,
            portability_inputs, sequential_edit, verbose, kwargs,
        )  # fmt: skip

    def generate_edit(self, *args: Any, **kwargs: Any) -> tuple[Metrics, Any, Any]:
        """As `edit`, with the same arguments, but `pre` and `post` hold what the model answers, in full.

        Returns:
            As `edit`; the keys are `rewrite_ans`, `rephrase_ans`, `portability_ans` and `locality_ans`.
        """
        given = inspect.signature(self.edit).bind(*args, **kwargs)
        given.apply_defaults()
        return self._edit("generate_edit", **given.arguments)

    def normal_edit(
        self,
        prompts: Sequence[str] | None = None,
        target_new: Sequence[Any] | None = None,
        sequential_edit: bool = False,
        **kwargs: Any,
    ) -> tuple[None, Any, Any]:
        """Apply all requests together, without measuring anything; further arguments as in `edit`.

        Returns:
            `(None, edited_model, weights_copy)`.
        """
        _, edited, weights_copy = self._edit(
            "normal_edit", prompts, target_new, None, None, None, None, None, sequential_edit, False, kwargs
        )
        return None, edited, weights_copy

    # ---- the work ------------------------------------------------------------------------------
    def _edit(
        self,
        call: str,
        prompts: Any,
        target_new: Any,
        ground_truth: Any,
        target_neg: Any,
        rephrase_prompts: Any,
        locality_inputs: Any,
        portability_inputs: Any,
        sequential_edit: bool,
        verbose: bool,
        kwargs: Mapping[str, Any],
    ) -> tuple[Metrics, Any, Any]:
        """Read everything that a call was given, then run it."""
        together = call in ("batch_edit", "normal_edit")
        if together and not self.method.batched:
            raise HostError(f"The method {self.alg_name} cannot edit batches: call `edit`.")
        if not together and getattr(self.hparams, "batch_size", 1) != 1:
            raise HostError(
                f"`{call}` applies one request at a time, but `batch_size` is {self.hparams.batch_size}: set it to 1 "
                "or call `batch_edit`."
            )
        options = read_options(call, kwargs, self._said)
        requests = options.requests
        if requests is None and call != "edit_requests":
            columns = {
                "prompt": prompts, "target_new": target_new, "ground_truth": ground_truth, "target_neg": target_neg,
                "rephrase_prompt": rephrase_prompts, **options.columns,
            }  # fmt: skip
            requests = requests_from_columns(columns, {"locality": locality_inputs, "portability": portability_inputs})
        measure = measurement(
            self.tok,
            self.hparams,
            eval_metric=options.eval_metric,
            evaluation_type=options.evaluation_type,
            test_generation=options.test_generation,
            whole=call == "generate_edit",
        )
        size = self.hparams.batch_size if call == "batch_edit" else None if call == "normal_edit" else 1
        batches = read_batches(requests, size, needs_subject=self.method.needs_subject)
        self._check(measure, [request for batch in batches for request in batch])
        if call == "normal_edit":
            return self._run(batches, None, None, options, sequential_edit, verbose)
        before = options.earlier(sum(map(len, batches)))
        if before is None and call != "batch_edit":  # as in EasyEdit: all of them on the model as the call finds it
            before = [measure(self.model, request) for [request] in batches]
            if options.pre_file is not None:
                write_json(options.pre_file, [{"pre": metrics} for metrics in before])
        return self._run(batches, measure, before, options, sequential_edit, verbose)

    def _check(self, measure: Measurement, requests: list[HostRequest]) -> None:
        """What can be refused about each request before the model is run."""
        measure.check_window(self.model, requests)
        if (check := self.method.load_check()) is None:
            return
        for number, request in enumerate(requests, start=1):
            try:
                check([request.given])
            except RequestError as error:
                raise RequestError(f"Request {number}: {error}") from None

    def _run(
        self,
        batches: list[list[HostRequest]],
        measure: Measurement | None,
        before: list[dict[str, Any]] | None,
        options: Options,
        sequential: bool,
        verbose: bool,
    ) -> tuple[Metrics, Any, Any]:
        """Apply batches in turn, and measure each around its edit, unless it is known how it was `before`."""
        everything: Metrics = []
        for requests in batches:
            batch = [request.given for request in requests]
            metrics: Metrics = [
                {"case_id": len(everything) + i, "requested_rewrite": given} for i, given in enumerate(batch)
            ]
            for item, request in zip(metrics, requests, strict=True):
                if measure is not None:
                    item["pre"] = before[item["case_id"]] if before is not None else measure(self.model, request)
            with self.sequence.undone_on_error():
                began = time.perf_counter()
                edited = edit_in_place(
                    self.method, self.model, self.tok, batch, self.hparams,
                    sequence=self.sequence if sequential else None, **options.for_method,
                )  # fmt: skip
                seconds = time.perf_counter() - began
                try:
                    for item, request in zip(metrics, requests, strict=True):
                        item["time"] = seconds
                        if measure is not None:
                            item["post"] = measure(edited.model, request)
                            measure.finish(item)
                except BaseException:  # Ctrl-C while measuring: the model is not left edited
                    self.model = edited.undo()
                    raise
            self.model = edited.keep() if sequential else edited.undo(handed_over=True)
            if sequential:
                self.sequence.keep(request.edit for request in requests)
            everything += metrics
            if verbose:
                for item in metrics:
                    _log_edit(item)
        returned = self.model if sequential else edited.model
        if not sequential and returned is self.model and "unedited" not in self._said:
            self._said.add("unedited")
            logger.warning(
                "the returned model is the unedited one again, as in EasyEdit: edits are undone once they have been "
                "measured. To keep them in the model, use `sequential_edit=True`"
            )
        return everything, returned, edited.weights_copy()


def _log_edit(item: Mapping[str, Any]) -> None:
    first = next((name for name in item["post"] if name.startswith("rewrite")), "")
    logger.info("edit %d, %s: %s → %s", item["case_id"], first, item["pre"].get(first), item["post"].get(first))
