"""`transformers serve` in a process of its own, on loopback."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [*transformers_command(), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                if httpx.get(f"{address}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if server.poll() is not None:
                pytest.skip(f"`transformers serve` ended with {server.returncode} (is transformers[serving] there?)")
            assert time.monotonic() < deadline, "`transformers serve` did not come up"
            time.sleep(0.5)
        yield f"{address}/v1"
    finally:
        server.kill()  # on a polite signal it would first finish what it is generating
        server.wait(timeout=30)
