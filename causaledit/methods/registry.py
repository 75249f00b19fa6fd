"""Methods by name: the folders beside this file, and those that installed packages provide.

A folder of `causaledit/methods/` (but `shared`) holds a method where its `__init__.py` names one:

    METHOD = Method(name="Shift", hparams="package.shift.hparams:ShiftHyperParams", edit="package.shift.apply:edit")

An installed package brings one through an entry point of the group `causaledit.methods`, whose name is the method's:

    [project.entry-points."causaledit.methods"]
    Shift = "package.shift:METHOD"

Looking a method up imports its `__init__.py` alone.
"""

from __future__ import annotations

import functools
import logging
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from typing import Any, NamedTuple

import causaledit.methods as package
from causaledit.errors import HostError, one_line
from causaledit.methods.method import Method

logger = logging.getLogger(__name__)

ENTRY_POINTS = "causaledit.methods"
_SHARED = "shared"


class _Found(NamedTuple):
    """What is registered: methods by name, and why the others of installed packages cannot be used."""

    methods: Mapping[str, Method]
    broken: Mapping[str, str]


@functools.cache
def _own_methods() -> Mapping[str, tuple[Method, str]]:
    """The methods of this package, each with the place it comes from.

    Raises:
        HostError: Two folders give one name.
    """
    found: dict[str, tuple[Method, str]] = {}
    for folder in pkgutil.iter_modules(package.__path__):
        if folder.ispkg and folder.name != _SHARED:
            place = f"{package.__name__}.{folder.name}"
            method = import_module(place).METHOD
            if method.name in found:
                raise _taken(method.name, found[method.name][1], place)
            found[method.name] = method, place
    return found


@functools.lru_cache(maxsize=1)
def _registered(path: tuple[str, ...]) -> _Found:
    """Own methods, and those of the packages installed on an import path.

    Raises:
        HostError: A name is taken, whether or not the method behind it can be used.
    """
    own = _own_methods()
    methods = {name: method for name, (method, _) in own.items()}
    places = {name: place for name, (_, place) in own.items()}
    points = list(metadata.entry_points(group=ENTRY_POINTS))
    for point in points:
        distribution = f" of {point.dist.name} {point.dist.version}" if point.dist is not None else ""
        place = f"the entry point {point.name} = {point.value!r}{distribution}"
        if point.name in places:
            raise _taken(point.name, places[point.name], place)
        places[point.name] = place
    broken = {}
    for point in points:
        try:
            methods[point.name] = _loaded(point)
        except Exception as error:  # whatever error another package raises
            broken[point.name] = (
                f"The method {point.name!r} cannot be loaded from {places[point.name]}: {one_line(error)}. Update or "
                "uninstall the package."
            )
            logger.warning("%s The other methods are not affected.", broken[point.name])
    return _Found(methods, broken)


def _loaded(point: metadata.EntryPoint) -> Method:
    method = point.load()
    if not isinstance(method, Method):
        raise TypeError(f"it is a {type(method).__name__}, not a causaledit.methods.method.Method")
    if method.name != point.name:
        raise ValueError(f"the method calls itself {method.name!r}; the two names must be the same")
    return method


def _taken(name: str, first: str, second: str) -> HostError:
    return HostError(f"There are two methods named {name!r}: {first} and {second}. Rename or uninstall one of them.")


class _Methods(Mapping[str, Method]):
    """The registered methods by name, read when they are first asked for (and again for another import path)."""

    def __getitem__(self, name: str) -> Method:
        return _registered(tuple(sys.path)).methods[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_registered(tuple(sys.path)).methods)

    def __len__(self) -> int:
        return len(_registered(tuple(sys.path)).methods)


METHODS: Mapping[str, Method] = _Methods()


def why_broken(name: str) -> str | None:
    """Why a method of that name, which an installed package brings, cannot be used; None for every other name."""
    return _registered(tuple(sys.path)).broken.get(name)


def method_of(hparams: Any) -> Method | None:
    """The method of ours whose hyper-parameters these are, or None."""
    method = METHODS.get(getattr(type(hparams), "ALG_NAME", ""))
    return method if method is not None and isinstance(hparams, method.load_hparams()) else None
