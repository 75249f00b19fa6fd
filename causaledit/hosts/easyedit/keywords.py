"""What an EasyEdit editor drops of a call's keywords (`narrative`, `question`, `requests`), carried to our methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from causaledit.errors import RequestError
from causaledit.hosts.arguments import KNOWN, NAMED, warn_of_unknown
from causaledit.hosts.easyedit.found import _MARK

if TYPE_CHECKING:
    from collections.abc import Callable

_CARRIED = ("question", "narrative")  # one value per prompt, under that key of a request


def carry_columns(editors: Any) -> None:
    """Let EasyEdit's `_prepare_requests` put `question` and `narrative` into the requests, and take ready ones."""
    original = editors._prepare_requests
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def prepare(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        if kwargs.get("requests") is not None:
            return ready_requests(kwargs["requests"])
        columns = {name: kwargs.pop(name) for name in _CARRIED if kwargs.get(name) is not None}
        requests: list[dict[str, Any]] = original(*args, **kwargs)
        for name, values in columns.items():
            listed = [values] if isinstance(values, str) else list(values)
            if len(listed) != len(requests):
                raise RequestError(
                    f"`{name}` has {len(listed)} entries, but there are {len(requests)} prompts: give one for each "
                    "(None where an edit has none)."
                )
            for request, value in zip(requests, listed, strict=True):
                if value is not None:
                    request[name] = value
        return requests

    setattr(prepare, _MARK, True)
    editors._prepare_requests = prepare


def ready_requests(requests: Any) -> list[dict[str, Any]]:
    """Requests as EasyEdit's metrics read them: with probes, be it none.

    Raises:
        RequestError: They are no list of objects.
    """
    listed = list(requests) if isinstance(requests, list | tuple) else None
    if not listed or not all(isinstance(request, Mapping) for request in listed):
        raise RequestError(f"`requests` must be a list of request objects, got {requests!r}.")
    return [{"ground_truth": None, "locality": {}, "portability": {}, **request} for request in listed]


def taking_requests(name: str, call: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """An editor's call that takes `requests=` and drops no keyword in silence, where the editor runs a method of ours.

    Args:
        name: Of the call.
        call: EasyEdit's.
        kind: What such an editor's `apply_algo` is.
    """
    signature = inspect.signature(call)

    @functools.wraps(call)
    def taking(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(getattr(self, "apply_algo", None), kind):
            return call(self, *args, **kwargs)
        further = [key for key in kwargs if key not in signature.parameters]
        warn_of_unknown(name, further, {*NAMED, *KNOWN}, allowed=KNOWN)
        if kwargs.get("requests") is None:
            return call(self, *args, **kwargs)
        requests = ready_requests(kwargs["requests"])
        if name == "edit":  # EasyEdit's passes them on twice
            dropped = ("requests", "prompts", "target_new", *_CARRIED)
            rest = {key: value for key, value in kwargs.items() if key in ("sequential_edit", "verbose", *KNOWN)}
            return self.edit_requests(requests, **{k: v for k, v in rest.items() if k not in dropped})
        columns = {
            "prompts": [r.get("prompt") for r in requests],
            "target_new": [r.get("target_new") for r in requests],
        }
        return call(self, *args, **{**columns, **kwargs, "requests": requests})

    return taking
