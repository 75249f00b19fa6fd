"""Serve the page to this machine alone, without asking anything of any other."""

from __future__ import annotations

import socket
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from causaledit.errors import PageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HOST = "127.0.0.1"

# no address but the page's own, whatever gradio's script would like to fetch
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; "
    "base-uri 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


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
        opened.listen()  # from now on nobody else can
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
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    theme = gr.themes.Default(
        primary_hue="blue",
        # names alone: a stylesheet of a font service would be asked for
        font=["system-ui", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    app = gr.mount_gradio_app(
        FastAPI(), page, path="/",
        server_name=HOST, css=files("causaledit.ui").joinpath("page.css").read_text(encoding="utf-8"),
        theme=theme, footer_links=[], run_history=False, ssr_mode=False, show_error=True,
    )  # fmt: skip
    app.add_middleware(_Confined)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no name of another site leads here
    # an open tab listens for ever, and is not waited for
    return uvicorn.Server(
        uvicorn.Config(app, log_config=None, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    )


class _Confined:
    """Adds the headers that keep a browser on this machine."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        from starlette.datastructures import MutableHeaders

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)
