"""causaledit: causal on-policy distillation for knowledge editing, as an EasyEdit-compatible plugin.

Importing this package imports neither torch nor EasyEdit and registers nothing; names below are loaded
when they are first used.

    import causaledit; causaledit.register()                   # put CausalEdit into an importable EasyEdit
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from causaledit.support.version import __version__

_EXPORTS = {
    "BaseEditor": "causaledit.hosts:find_base_editor",
    "CausalEditHyperParams": "causaledit.methods.causal_edit.hparams:CausalEditHyperParams",
    "EditReport": "causaledit.methods.causal_edit.apply:EditReport",
    "EditRequest": "causaledit.facts.requests:EditRequest",
    "EmbeddedEditor": "causaledit.hosts.embedded:EmbeddedEditor",
    "apply_causal_edit_to_model": "causaledit.methods.causal_edit.apply:apply_causal_edit_to_model",
    "load_model": "causaledit.models.loading:load_model",
    "register": "causaledit.hosts.easyedit:register",
}
__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest
    from causaledit.hosts.easyedit import register
    from causaledit.hosts.embedded import EmbeddedEditor
    from causaledit.hosts.embedded import EmbeddedEditor as BaseEditor
    from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.models.loading import load_model


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'causaledit' has no attribute {name!r}")
    module, attribute = _EXPORTS[name].split(":")
    value = getattr(import_module(module), attribute)
    if name == "BaseEditor":  # which editor it is depends on where EasyEdit is, so it is looked up, not fixed
        value = value()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
