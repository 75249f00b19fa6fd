"""Whose method of a name runs: of a name alone, and of a name with the hyper-parameter file that was chosen for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from causaledit.errors import HostError, HparamsError, did_you_mean
from causaledit.methods.hyperparams import read_hparams_file, resolve_hparams_file
from causaledit.methods.registry import METHODS, why_broken
from causaledit.support.paths import is_file

if TYPE_CHECKING:
    from causaledit.methods.method import Method

logger = logging.getLogger(__name__)

Host = Literal["auto", "embedded", "easyedit"]
HOSTS: tuple[str, ...] = get_args(Host)


def split_host(name: str, host: str = "auto") -> tuple[str, str]:
    """The host and the method's name in `easyedit:ROME`, `embedded:ROME` or `ROME`.

    Args:
        name: As a user writes it.
        host: What holds where the name says nothing.

    Raises:
        HostError: What stands before the colon is no host.
    """
    prefix, colon, rest = name.partition(":")
    if not colon:
        return host, name
    if prefix not in HOSTS:
        raise HostError(
            f"{name!r}: before the colon stands a host, one of {', '.join(HOSTS)}, not {prefix!r}."
            f"{did_you_mean(prefix, HOSTS)}"
        )
    return prefix, rest


def split_variant(name: str) -> tuple[str, str | None]:
    """The method's name and the variant in `METHOD@VARIANT`; None where no variant is named.

    Raises:
        HostError: Nothing stands on one side of the `@`.
    """
    plain, at, variant = name.partition("@")
    if at and not (plain and variant):
        raise HostError(f"{name!r}: a variant is written METHOD@VARIANT, for the file MODEL_VARIANT.yaml.")
    return plain, variant or None


def get_method(name: str, *, host: str = "auto") -> Method:
    """Look a method up.

    Args:
        name: The `alg_name`, or the name of EasyEdit's folder of its files; `easyedit:NAME` and `embedded:NAME` choose
            the host.
        host: `auto`: EasyEdit's own method of that name where EasyEdit can be imported and has one, ours
            otherwise (CausalEdit is always ours); `embedded`: ours; `easyedit`: EasyEdit's own.

    Raises:
        HostError: There is none of that name; the nearest is offered. Or EasyEdit is asked for and unusable, or the
            installed package that brings the method is.
    """
    known = list(METHODS)
    if isinstance(name, str):
        host, name = split_host(name, host)
    if host != "embedded" and isinstance(name, str) and name != "CausalEdit":
        from causaledit.hosts import easyedit

        if host == "easyedit" or easyedit.is_available():
            theirs = easyedit.own_methods()
            if found := easyedit.spelled(name, theirs):
                return theirs[found]
            known = list(theirs) if host == "easyedit" else sorted({*known, *theirs})
    if host != "easyedit" and isinstance(name, str) and name in METHODS:
        return METHODS[name]
    if isinstance(name, str) and (reason := why_broken(name)):
        raise HostError(reason)
    raise HostError(
        f"There is no method `alg_name` {name!r} here.{did_you_mean(str(name), known)} Known: {', '.join(known)}."
    )


def choose_method(name: str, *, model_type: str, path: str | None = None, host: str = "auto") -> tuple[Method, Any]:
    """A method with its hyper-parameters; the file decides whose method it is.

    A file in our format, and every bundled one of ours, runs ours; a file in EasyEdit's format runs EasyEdit's where
    EasyEdit can be imported. Files are looked for in `hparams/NAME/` of the current folder, among ours, among the
    bundled ones in EasyEdit's format (`hparams/easyedit/NAME/`), and in EasyEdit's checkout.

    Args:
        name: The method's, with or without a host before it (`easyedit:ROME`), and with or without a variant behind it
            (`CausalEdit@noncausal`: the file `MODEL_TYPE_noncausal.yaml`).
        model_type: Name of the file.
        path: A file to take instead.
        host: `auto`, `embedded` or `easyedit`; what stands in the name goes first.

    Raises:
        HostError: There is no such method, or EasyEdit is asked for and unusable.
        HparamsError: There is no such file, or it is unusable.
    """
    host, plain = split_host(name, host)
    plain, variant = split_variant(plain)
    if variant is not None:
        model_type = f"{model_type}_{variant}"
    if host == "easyedit":
        return _easyedits(plain, model_type, path)
    if plain not in METHODS:
        method = get_method(plain, host=host)  # an unknown name, or a method that EasyEdit alone has
        return _easyedits(method.name, model_type, path)
    ours = METHODS[plain]
    file = _own_file(plain, model_type, path)
    if host == "auto" and plain != "CausalEdit" and (chosen := _if_easyedits(ours, file, model_type)):
        return chosen
    kind = ours.load_hparams()
    return ours, kind.from_hparams(str(file or path or model_type))


def _own_file(name: str, model_type: str, path: str | None) -> Path | None:
    """The file that was given, one in the current folder's `hparams/` (as the published tool looks it up), a bundled
    one of ours; None where there is none.
    """
    own = Path("hparams") / name / f"{model_type}.yaml"
    try:
        return resolve_hparams_file(path or (own if is_file(own) else model_type), name)
    except HparamsError:
        if path is not None:
            raise
        return None


def _if_easyedits(ours: Method, file: Path | None, model_type: str) -> tuple[Method, Any] | None:
    """EasyEdit's method of that name, where the file is EasyEdit's: it is written for it, and EasyEdit takes it."""
    from causaledit.hosts import easyedit

    if file is None:  # not ours: EasyEdit's own, where it has one of that name
        if easyedit.is_available() and next(easyedit.files_of(ours.name, model_type), None):
            return _easyedits(ours.name, model_type, None)
        return None
    data = read_hparams_file(file)
    if not easyedit.may_be_easyedits(data, ours) or not easyedit.is_available():
        return None
    theirs = easyedit.own_methods().get(ours.name)
    if theirs is None:
        return None
    try:
        hparams = theirs.load_hparams().from_hparams(file)
    except HparamsError as error:
        logger.debug("%s is no file of EasyEdit's: %s", file, error)
        return None
    logger.info("%s: %s is in EasyEdit's format: EasyEdit's method runs", ours.name, file)
    return theirs, hparams


def _easyedits(name: str, model_type: str, path: str | None) -> tuple[Method, Any]:
    """EasyEdit's method with the first file of that name in its format."""
    from causaledit.hosts import easyedit

    method = get_method(name, host="easyedit")
    kind = method.load_hparams()
    if path is not None:
        return method, kind.from_hparams(path)
    own = [Path("hparams") / folder / f"{model_type}.yaml" for folder in dict.fromkeys((name, method.name))]
    for file in own:
        if not is_file(file):
            continue
        ours = METHODS.get(method.name)
        if ours is None or easyedit.may_be_easyedits(read_hparams_file(file), ours):
            return method, kind.from_hparams(file)
        logger.debug("%s is in our format: EasyEdit's %s takes another", file, method.name)
    return method, kind.from_hparams(model_type)
