"""One model for several methods of a comparison, loaded once and checked between them."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import one_line
from causaledit.models.loading import load_from_hparams, resolve_device, resolve_dtype
from causaledit.models.weights import fingerprint

if TYPE_CHECKING:
    from causaledit.models.loading import LoadedModel

logger = logging.getLogger(__name__)


class SharedModel:
    """The model of the methods' runs: loaded when it is needed, and again only for another model or after harm."""

    def __init__(self) -> None:
        self._loaded: LoadedModel | None = None
        self._key: tuple[Any, ...] | None = None
        self._state: Any = None

    def get(self, hparams: Any) -> LoadedModel:
        """The model that these hyper-parameters name."""
        device = resolve_device(hparams.device)
        dtype = resolve_dtype(getattr(hparams, "dtype", "auto"), device, fp16=getattr(hparams, "fp16", False))
        key = (hparams.model_name, str(device), str(dtype), bool(hparams.model_parallel))
        if self._loaded is None or key != self._key:
            self._drop()
            logger.info("loading %s", hparams.model_name)
            self._loaded, self._key = load_from_hparams(hparams), key
            self._state = _state(self._loaded.model)
        return self._loaded

    def check(self) -> str | None:
        """What is not as it was when the model was loaded; the model is then given up."""
        if self._loaded is None:
            return None
        try:
            now = _state(self._loaded.model)
        except RuntimeError as error:  # a device that has gone wrong
            self._drop()
            return one_line(error)
        changed = [name for name, value in now.items() if value != self._state[name]]
        if changed:
            self._drop()
        else:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return ", ".join(changed) or None

    def _drop(self) -> None:
        self._loaded = self._key = self._state = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _state(model: Any) -> dict[str, Any]:
    """What every method has to leave as it was."""
    return {
        "weights": fingerprint(model),
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    }
