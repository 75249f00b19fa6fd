"""`transformers serve` in a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import tempfile
import time

import httpx
import pytest


def transformers_command() -> list[str]:
    """The `transformers` command, run by this interpreter: its script may lie in the folder of another environment."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="transformers")
    code = (
        f"import sys; from {entry.module} import {entry.attr} as main; sys.argv[0] = {entry.name!r}; sys.exit(main())"
    )
    return [sys.executable, "-c", code]


@contextlib.contextmanager
def serve(folder, *options):
    """`transformers serve` on a free port; gives its address.

    Args:
        folder: The model's.
        *options: Further ones of the command.
    """
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed, reason="`transformers serve` needs transformers[serving]")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            [*transformers_command(), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), *options],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_for(server, address, log)
            yield f"{address}/v1"
        finally:
            server.kill()  # on a polite signal it would first finish what it is generating
            server.wait(timeout=30)


def _wait_for(server, address, log):
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{address}/health", timeout=2).status_code == 200:
                return
        time.sleep(0.5)
    log.seek(0)
    pytest.fail(f"`transformers serve` did not come up (it ended with {server.poll()}):\n{log.read()}")
