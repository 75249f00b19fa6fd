"""Whether the Hugging Face Hub can be asked: found out once and at once, before a library tries again and again."""

from __future__ import annotations

import os
import threading

import httpx

CONNECT_WAIT = 2.0  # seconds for a connection
ANSWER_WAIT = 5.0  # seconds for an answer, in all; HF_HUB_ETAG_TIMEOUT sets another


def is_offline() -> bool:
    """Whether the user keeps the libraries of the hub from the network."""
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.upper() in ("1", "ON", "YES", "TRUE") for value in values)


def hub_fault(path: str = "") -> str | None:
    """Why the hub cannot be asked now; None if it answers.

    Args:
        path: What will be asked for (`owner/name/resolve/main/config.json`); any answer but a server's fault counts.

    Returns:
        A part of a sentence: `HF_HUB_OFFLINE is set`, or `https://… cannot be reached (…)`.
    """
    if is_offline():
        return "HF_HUB_OFFLINE is set"
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    longest = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or ANSWER_WAIT)
    reasons = [f"no answer within {longest:g} s"]
    # in a thread of its own: no timeout of a client bounds how long a name is looked up
    asking = threading.Thread(target=_ask, args=(f"{address}/{path}", longest, reasons), daemon=True)
    asking.start()
    asking.join(longest)
    reason = reasons[-1]
    return f"{address} cannot be reached ({reason})" if reason else None


def _ask(url: str, longest: float, reasons: list[str]) -> None:
    """Ask once, and add why that failed, or an empty text."""
    try:
        wait = httpx.Timeout(longest, connect=min(CONNECT_WAIT, longest))
        response = httpx.head(url, timeout=wait)
        reasons.append(f"it answers {response.status_code}" if response.is_server_error else "")
    except httpx.ConnectTimeout:
        reasons.append(f"no connection within {CONNECT_WAIT:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        if not isinstance(error, httpx.TimeoutException):
            reasons.append(str(error) or type(error).__name__)
