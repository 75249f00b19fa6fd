"""EasyEdit's own methods in the form of ours, for the commands: same look-up, same calls, same return values.

`get_method("WISE")` gives one of these where EasyEdit is importable. Its hyper-parameters are EasyEdit's own
dataclass, filled from a file in EasyEdit's format by EasyEdit's own loader.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from causaledit.hosts.easyedit.found import _MARK, _import_parts
from causaledit.methods.method import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.models.edited import Edited


@dataclasses.dataclass(frozen=True)
class EasyEditMethod(Method):
    """A method that EasyEdit brings."""

    host: ClassVar[str] = "easyedit"

    hparams: str = ""
    edit: str = ""
    batched: bool = False

    def load_hparams(self) -> type[Any]:
        """EasyEdit's hyper-parameter class of this method, with our look-up and errors."""
        from causaledit.hosts.easyedit.hyperparams import hparams_class

        return hparams_class(self.name)

    def load_edit(self) -> Callable[..., Edited]:
        """EasyEdit's apply function, called as the `edit` of ours."""
        from causaledit.hosts.easyedit.editing import edit_function

        return edit_function(self.name)


def own_methods() -> dict[str, Method]:
    """EasyEdit's own methods by name, in the form of ours.

    Raises:
        HostError: There is no usable EasyEdit.
    """
    parts = _import_parts()
    return {
        name: EasyEditMethod(name=name, batched=bool(parts.batches.BatchEditor.is_batchable_method(name)))
        for name, function in parts.algorithms.ALG_DICT.items()
        if not hasattr(function, _MARK)
    }
