"""The command line in this process: the entry point that a shell starts, without the seconds of a new interpreter."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

from conftest import logging_as_before

from causaledit.cli.app import main

KEYS = ("OPENAI_API_KEY", "OPENAI_BASE_URL")  # of whoever runs the tests, not the tests'


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`causaledit ARGUMENTS`, with further environment variables: its exit code and what it printed."""
    given = [str(argument) for argument in arguments]
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", ["causaledit", *given]),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        logging_as_before(),
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
