"""Waiting between attempts at an HTTP service: what the server asks for, else exponential back-off."""

from __future__ import annotations

import email.utils
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tenacity import wait_exponential_jitter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenacity import RetryCallState

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """What `Retry-After` asks for, in seconds: a number or an HTTP date (RFC 9110, section 10.2.3).

    `retry-after-ms`, which some chat endpoints send, is read first. None where there is neither.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            return max(0.0, float(value) / scale)
        except ValueError:
            pass
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except (TypeError, ValueError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def wait_as_asked(
    headers_of: Callable[[BaseException], Mapping[str, str] | None], *, initial: float = 1.0, longest: float = 60.0
) -> Callable[[RetryCallState], float]:
    """A tenacity wait: the server's `Retry-After` where the error carries one, else exponential with jitter.

    Args:
        headers_of: The response headers behind an error, or None.
        initial: First wait without a `Retry-After`, in seconds; it doubles.
        longest: No wait is longer than this.
    """
    backoff = wait_exponential_jitter(initial=initial, max=longest, jitter=initial)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        headers = headers_of(error) if error else None
        asked = retry_after_seconds(headers) if headers else None
        return min(longest, backoff(state) if asked is None else asked)

    return wait


class Pace:
    """Spaces the calls of several threads evenly, and pauses all of them when the server says so.

    Args:
        interval: Least time between two calls, in seconds.
    """

    def __init__(self, interval: float = 0.0) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._next = 0.0
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Wait for this caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._interval
        if turn > now:
            self.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no thread call for this many seconds."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def sleep(self, seconds: float) -> None:
        """Sleep, or return at once after `stop`."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """End every wait, now and later: the program is being interrupted."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stopped.is_set()
