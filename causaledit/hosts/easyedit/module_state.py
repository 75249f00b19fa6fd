"""What EasyEdit's methods keep in their modules from edit to edit: put aside, so that edits are independent.

WISE keeps a history of edits, AlphaEdit and SPHERE a sum of keys and a projection, several the contexts that they once
sampled. Each edit begins as after the import; the edits of a sequence go on from each other; what the process had
before is there again afterwards. Statistics of a model (covariances) depend on no edit and stay.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.method import EditSequence

_STATISTICS = ("COV_CACHE", "inv_mom2_cache")
_ABSENT = object()  # a variable that only a `global` statement makes

_State = dict[tuple[str, str], Any]  # by module and variable


@contextlib.contextmanager
def module_state(name: str, sequence: EditSequence | None) -> Iterator[None]:
    """Run an edit with the module variables of EasyEdit's methods as after their import.

    Args:
        name: The `alg_name`.
        sequence: Where the variables of a sequence of edits are kept; None for an edit of its own.
    """
    initial = {
        (module, variable): value
        for module in sorted(name for name in sys.modules if name.startswith("easyeditor.models."))
        for variable, value in _variables(getattr(sys.modules[module], "__file__", None) or "").items()
    }
    before = {key: _get(key) for key in initial}
    kept: dict[str, _State] = {} if sequence is None else sequence.memory(f"easyedit:{name}", dict)
    _set({**initial, **kept.get("state", {})})
    try:
        yield
        kept["state"] = {key: _get(key) for key in initial}
    finally:
        _set(before)


@functools.cache
def _variables(file: str) -> dict[str, Any]:
    """The variables of a module that its functions can change, with the values that the source gives them."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8", errors="replace"))
    except (OSError, SyntaxError):
        return {}
    declared = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    found: dict[str, Any] = {}
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        with contextlib.suppress(ValueError):  # no literal: a table, a logger
            value = ast.literal_eval(node.value)
            if node.targets[0].id in declared or (isinstance(value, list | dict) and not value):
                found[node.targets[0].id] = value
    defined = {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
               if isinstance(target, ast.Name)}  # fmt: skip
    found |= dict.fromkeys(declared - defined - imported, _ABSENT)
    return {name: value for name, value in found.items() if name not in _STATISTICS}


def _get(key: tuple[str, str]) -> Any:
    """A variable's value; a container that changes in place is copied, what is in it is not."""
    value = vars(sys.modules[key[0]]).get(key[1], _ABSENT)
    return copy.copy(value) if isinstance(value, list | dict) else value


def _set(state: _State) -> None:
    for (module, variable), value in state.items():
        if value is _ABSENT:
            vars(sys.modules[module]).pop(variable, None)
        else:
            vars(sys.modules[module])[variable] = copy.copy(value) if isinstance(value, list | dict) else value
