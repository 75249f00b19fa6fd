"""The further keyword arguments of an editor's calls: what EasyEdit takes, and nothing swallowed without a word."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.errors import HostError, RequestError, did_you_mean
from causaledit.support.files import check_writable
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

# of every call: what the signature names
NAMED = (
    "prompts", "target_new", "ground_truth", "target_neg", "rephrase_prompts", "locality_inputs", "portability_inputs",
    "sequential_edit", "verbose",
)  # fmt: skip
# one value per prompt, under the key that a request has for it
_COLUMNS = {"subject": "subject", "question": "question", "narrative": "narrative", "loc_prompts": "loc_prompt"}
_CHOICES = ("eval_metric", "evaluation_type", "test_generation", "pre_file", "pre_edit")
_FOR_METHODS = ("train_ds",)
# EasyEdit's arguments that change nothing here, and why
_WITHOUT_EFFECT = {
    "keep_original_weight": "`sequential_edit` alone decides whether an edit is kept",
    "metric_kwargs": "sentence metrics are not measured by the embedded host",
    "loc_prompts": "no method here reads `loc_prompt` (EasyEdit's WISE does)",
}

KNOWN = frozenset({"requests", *_COLUMNS, *_CHOICES, *_FOR_METHODS, *_WITHOUT_EFFECT})


@dataclass(frozen=True)
class Options:
    """What a call's further keyword arguments say.

    Attributes:
        requests: Ready requests, instead of the parallel lists.
        columns: Further lists with one value per prompt, by their key in a request.
        eval_metric, evaluation_type, test_generation: See `measuring.measurement`.
        pre_file: Where the metrics before the edits are written to.
        pre_edit: Metrics from before, such as `pre_file` holds, instead of measuring.
        for_method: What the method's apply function gets.
    """

    requests: Any = None
    columns: dict[str, Any] = field(default_factory=dict)
    eval_metric: Any = None
    evaluation_type: Any = None
    test_generation: bool = False
    pre_file: str | Path | None = None
    pre_edit: Any = None
    for_method: dict[str, Any] = field(default_factory=dict)

    def earlier(self, count: int) -> list[dict[str, Any]] | None:
        """A copy of the metrics in `pre_edit`, for `count` requests; None where there are none.

        Raises:
            RequestError: They are not of that form.
        """
        if self.pre_edit is None:
            return None
        known = isinstance(self.pre_edit, list) and all(
            isinstance(item, Mapping) and isinstance(item.get("pre"), Mapping) for item in self.pre_edit
        )
        if not known or len(self.pre_edit) != count:
            raise RequestError(
                f"`pre_edit` must be a list of {count} objects with `pre`, one per request, as `pre_file` holds them."
            )
        return [copy.deepcopy(dict(item["pre"])) for item in self.pre_edit]


def read_options(call: str, kwargs: Mapping[str, Any], said: set[str]) -> Options:
    """Sort the further keyword arguments of a call.

    Unknown ones give one warning with the nearest names; those of EasyEdit's that change nothing here give one the
    first time.

    Args:
        call: The call's name.
        said: Names of arguments that an editor has already spoken of; added to.

    Raises:
        SaveError: `pre_file` cannot be written.
    """
    warn_of_unknown(call, kwargs, {*NAMED, *KNOWN}, allowed=KNOWN)
    for name, reason in _WITHOUT_EFFECT.items():
        if kwargs.get(name) is not None and name not in said:
            said.add(name)
            logger.warning("`%s` of `%s` has no effect: %s", name, call, reason)
    if (file := kwargs.get("pre_file")) is not None:
        check_writable(expanded(file).parent, "`pre_file`:")
    return Options(
        requests=kwargs.get("requests"),
        columns={key: kwargs[name] for name, key in _COLUMNS.items() if kwargs.get(name) is not None},
        for_method={name: kwargs[name] for name in _FOR_METHODS if kwargs.get(name) is not None},
        **{name: kwargs[name] for name in _CHOICES if kwargs.get(name) is not None},
    )


def warn_of_unknown(call: str, kwargs: Iterable[str], names: Iterable[str], allowed: Iterable[str] = ()) -> None:
    """One warning for every keyword argument that a call does not have, with the nearest of its names."""
    unknown = [name for name in kwargs if name not in set(allowed)]
    if unknown:
        listed = "; ".join(f"`{name}`.{did_you_mean(name, names)}" for name in unknown)
        logger.warning("`%s` ignores arguments that it does not have: %s", call, listed)


def refuse_missing_hparams(hparams: Any, kwargs: Mapping[str, Any]) -> None:
    """An editor needs hyper-parameters, and nothing else.

    Raises:
        HostError: They are missing.
    """
    if hparams is None:
        hint = "".join(did_you_mean(name, ["hparams"]) for name in kwargs)
        raise HostError(f"`hparams` is None: load them with CausalEditHyperParams.from_hparams(...).{hint}")
    warn_of_unknown("EmbeddedEditor", kwargs, ["hparams"])
