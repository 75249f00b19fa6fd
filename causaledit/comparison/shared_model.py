"""One model for several methods of a comparison, loaded once and checked between them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from causaledit.errors import RunError
from causaledit.methods.hyperparams import model_label
from causaledit.models.batches import free_memory
from causaledit.models.loading import load_from_hparams, resolve_device
from causaledit.models.weights import revision_of, state_of, what_changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from causaledit.models.loading import LoadedModel

logger = logging.getLogger(__name__)


class SharedModel:
    """The model of the methods' runs: loaded when it is needed, and again only for another device or after harm.

    The plan has seen to it that all methods name the same model; which of its names one uses does not matter.

    Args:
        known: What an earlier call noted of the model (see `description`), or nothing.
    """

    def __init__(self, known: Mapping[str, Any] | None = None) -> None:
        self.description: dict[str, Any] = dict(known or {})
        self._loaded: LoadedModel | None = None
        self._key: tuple[Any, ...] | None = None
        self._state: Any = None

    def get(self, hparams: Any) -> LoadedModel:
        """The model that these hyper-parameters name.

        Raises:
            RunError: It is not the one with which the comparison began.
        """
        device = resolve_device(hparams.device)
        key = (str(device), bool(hparams.model_parallel))
        if self._loaded is None or key != self._key:
            self._drop()
            logger.info("loading %s", hparams.model_name)
            loaded = load_from_hparams(hparams)
            self.describe(
                {
                    "name": model_label(hparams.model_name),
                    "revision": revision_of(loaded.model),
                    "dtype": str(loaded.model.dtype).removeprefix("torch."),
                }
            )
            self._loaded, self._key = loaded, key
            self._state = state_of(loaded.model)
        return self._loaded

    def describe(self, now: Mapping[str, Any]) -> None:
        """Note the model that is loaded, here or by workers: `name`, `revision` of its weights, `dtype`.

        Raises:
            RunError: It is not the one with which the comparison began.
        """
        before = self.description or dict(now)
        if any(before.get(part) != now[part] for part in ("revision", "dtype")):
            raise RunError(
                f"the model is now {now['name']!r} ({now['dtype']}, revision {now['revision'][:12]}); the comparison "
                f"began with {before.get('name')!r} ({before.get('dtype')}, revision "
                f"{str(before.get('revision'))[:12]}): begin another one."
            )
        self.description = before

    def check(self) -> str | None:
        """What is not as it was when the model was loaded; the model is then given up."""
        if self._loaded is None:
            return None
        if changed := what_changed(self._loaded.model, self._state):
            self._drop()
        else:
            free_memory()
        return changed

    def _drop(self) -> None:
        self._loaded = self._key = self._state = None
        free_memory()
