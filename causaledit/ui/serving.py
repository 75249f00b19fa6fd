"""Serve the page to this machine alone, without asking anything of any other."""

from __future__ import annotations

import logging
import re
import socket
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from causaledit.errors import PageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"

# the browser is forbidden what the server does not give: gradio's own page names fonts and scripts of other hosts
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self'; form-action 'self'; "
    "base-uri 'self'; frame-ancestors 'none'"
)
_ELSEWHERE = re.compile(
    rb"<script\b[^>]*\bsrc=[\"']https?://[^>]*>\s*</script>|<link\b[^>]*\bhref=[\"']https?://[^>]*>", re.IGNORECASE
)


def open_port(port: int) -> socket.socket:
    """A socket on the loopback interface, held from now on.

    Args:
        port: Which port; 0 for any that is free.

    Raises:
        PageError: Another program has it.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((HOST, port))
    except OSError as error:
        opened.close()
        raise PageError(
            f"--port {port} cannot be used ({error.strerror}): give another one, or 0 for any that is free."
        ) from None
    return opened


def address_of(opened: socket.socket) -> str:
    """Where a browser finds the page."""
    return f"http://{HOST}:{opened.getsockname()[1]}/"


def server_of(page: Any) -> Any:
    """A `uvicorn.Server` for the page: `server.run(sockets=[…])` serves until Ctrl-C.

    Args:
        page: A `gradio.Blocks`.
    """
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # names alone: a stylesheet of a font service would be asked for
    fonts = {
        "font": ["system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"],
        "font_mono": ["ui-monospace", "Consolas", "monospace"],
    }
    app = gr.mount_gradio_app(
        FastAPI(), page, path="/",
        server_name=HOST, css=files("causaledit.ui").joinpath("page.css").read_text(encoding="utf-8"),
        theme=gr.themes.Default(**fonts), footer_links=[], ssr_mode=False,
    )  # fmt: skip
    app.add_middleware(BaseHTTPMiddleware, dispatch=_stay_here)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no name of another site leads here
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False))


async def _stay_here(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Leave out what a page would fetch from elsewhere, and forbid the rest."""
    from starlette.responses import Response

    answer = await call_next(request)
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Referrer-Policy"] = "no-referrer"
    if not answer.headers.get("content-type", "").startswith("text/html"):
        return answer
    body = b"".join([chunk async for chunk in answer.body_iterator])
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return Response(_ELSEWHERE.sub(b"", body), answer.status_code, headers)
