"""What the benchmarks of edits take on the command line, and how they end on what is mistyped: with one line.

A value's form is checked by argparse, what it names by the package, whose errors name the field, the value and the fix;
both before a model is loaded.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from causaledit.errors import CausalEditError

if TYPE_CHECKING:
    from collections.abc import Callable


def setting(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`, the value as YAML reads it."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE, got {text!r}.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"takes KEY=VALUE with a value in YAML, got {text!r}.") from error


def case_slice(text: str) -> slice:
    """A Python slice such as `0::3`."""
    if not re.fullmatch(r"-?\d*(?::-?\d*){1,2}", text):
        raise argparse.ArgumentTypeError(f"takes a slice such as 0::3, got {text!r}.")
    try:
        found = slice(*(int(part) if part else None for part in text.split(":")))
        found.indices(0)  # a step of 0, or a lone minus
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"takes a slice such as 0::3, got {text!r}.") from error
    return found


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}.")
    return int(text)


def stage_numbers(text: str) -> list[int]:
    """`1`, `2` or `1,2`."""
    if not re.fullmatch(r"\d+(?:,\d+)*", text):
        raise argparse.ArgumentTypeError(f"takes 1, 2 or 1,2, got {text!r}.")
    return [int(stage) for stage in text.split(",")]


def add_settings(parser: argparse.ArgumentParser) -> None:
    """`--set KEY=VALUE`, as often as one likes: pairs in `args.set`."""
    parser.add_argument(
        "--set", action="append", type=setting, default=[], metavar="KEY=VALUE", help="override one hyper-parameter"
    )


def add_cases(parser: argparse.ArgumentParser) -> None:
    """`--data`, `--limit` and `--select`."""
    parser.add_argument("--data", required=True, help="MQuAKE-format JSON with narratives")
    parser.add_argument("--limit", type=positive, help="only the first N cases")
    parser.add_argument("--select", type=case_slice, help="a Python slice of the cases, such as 0::3")


def selected(cases: list[dict], args: argparse.Namespace) -> list[dict]:
    """The cases that `--select` takes, at most `--limit` of them.

    Raises:
        CausalEditError: None is left.
    """
    found = cases[args.select or slice(None)][: args.limit]
    if not found:
        raise CausalEditError(f"--data {args.data}: of its {len(cases)} cases --select takes none.")
    return found


def run_benchmark(main: Callable[[], None]) -> None:
    """A benchmark's `main`; an error of the package ends it with one line and its own code."""
    try:
        main()
    except CausalEditError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
