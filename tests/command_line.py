"""The command line in this process: the entry point that a shell starts, without the seconds of a new interpreter."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING
from unittest import mock

from causaledit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")  # of whoever runs the tests, not the tests'


@contextlib.contextmanager
def _logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("causaledit")
    handlers, levels = root.handlers[:], (root.level, own.level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`causaledit ARGUMENTS`, with further environment variables: its exit code and what it printed."""
    given = [str(argument) for argument in arguments]
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["causaledit", *given]),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        _logging_as_before(),
    ):
        for name in KEYS:
            os.environ.pop(name, None)
        os.environ.update(environment)
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(given, code, stdout.getvalue(), stderr.getvalue())
