"""How `--datatype` finds a file, and how the public ones are fetched (`published` lists them).

A file is verified by what is on record of it. The SHA-256 of what was fetched is written beside it, in the form that
`sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import tenacity

from causaledit.errors import DatasetError, DownloadError, SaveError, did_you_mean
from causaledit.facts.twins import twin_file, twin_of
from causaledit.mquake.cases import read_cases
from causaledit.mquake.checks import check_cases
from causaledit.mquake.published import DATASETS, MQUAKE
from causaledit.support.files import write_text
from causaledit.support.paths import cache_dir, data_dir, expanded
from causaledit.support.retries import RETRIED_STATUS, wait_as_asked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from causaledit.mquake.checks import Flaw
    from causaledit.mquake.published import Dataset, Source

logger = logging.getLogger(__name__)

ATTEMPTS = 5
_CHUNK = 1 << 16
_PASSING = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)
# what an address is like where nothing answers: asking again at once would only make the user wait
_UNREACHABLE = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)
_WAIT = httpx.Timeout(8.0, connect=2.0)  # seconds for the next bytes, and for a connection


# narratives are not published at a fixed address: users put these files in place
CAUSAL_ENHANCED = tuple(f"{name}-causal" for name, spec in DATASETS.items() if spec.source is MQUAKE)
BUNDLED = "causaledit-mini"


# ---- by name or path -------------------------------------------------------------------------------
@dataclass(frozen=True)
class LocatedDataset:
    """A file with the name that stands for it in a run's folder."""

    name: str
    path: Path


def datasets_dir() -> Path:
    """Where fetched files are kept (`CAUSALEDIT_CACHE` moves it)."""
    return cache_dir() / "datasets"


def locate_dataset(datatype: str) -> LocatedDataset:
    """Find the file behind `--datatype`: a path, a name of the table, or a file put into the data folder.

    Raises:
        DatasetError: There is none; the nearest name, or the command that fetches it, is offered.
    """
    if not datatype.strip():
        raise DatasetError("--datatype is empty: give a data set's name or the path of an MQuAKE file.")
    given = expanded(datatype)
    kept = datasets_dir() / f"{datatype}.json"
    try:
        is_path, is_kept = given.is_file(), kept.is_file()
    except OSError as error:  # a name longer than a file's can be, a folder that is closed to us
        shown = datatype if len(datatype) < 80 else f"{datatype[:77]}..."
        raise DatasetError(f"--datatype: {shown!r} cannot be read ({error.strerror}).") from None
    if is_path:
        return LocatedDataset(given.stem, given)
    if given.suffix == ".json" or len(given.parts) > 1:
        raise DatasetError(f"--datatype: the file {datatype!r} does not exist.{twin_file(given)}")
    if datatype == BUNDLED:
        return LocatedDataset(BUNDLED, data_dir() / f"{BUNDLED}.json")
    if is_kept:
        return LocatedDataset(datatype, kept)
    if datatype in DATASETS:
        raise DatasetError(
            f"--datatype {datatype!r} has not been fetched yet: run `causaledit data fetch {datatype}` first."
        )
    if datatype in CAUSAL_ENHANCED:
        raise DatasetError(
            f"--datatype {datatype!r} is not here, and there is no public address to fetch it from: give the path of "
            f"your file, or put it at {str(kept)!r}."
        )
    known = [*DATASETS, *CAUSAL_ENHANCED, BUNDLED]
    near = twin_of(datatype, known) or did_you_mean(datatype, known)
    raise DatasetError(f"There is no data set {datatype!r}.{near} Known: {', '.join(known)}; or give a path.")


# ---- fetching --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FetchedDataset:
    """The result of a fetch.

    Attributes:
        path: The file.
        sha256: Of its content.
        cases: Number of cases in it.
        problems: What `check_cases` found in it.
        downloaded: False where an intact file was already there.
        verified: Whether it was compared with a checksum on record.
        source: Who publishes it.
    """

    path: Path
    sha256: str
    cases: int
    problems: list[Flaw]
    downloaded: bool
    verified: bool
    source: Source


def fetch_dataset(
    name: str,
    *,
    base_url: str | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    longest_wait: float = 30.0,
) -> FetchedDataset:
    """Download a public file, verify it and put it in place by one rename.

    What has arrived stays in a `.part` file beside the target, from which a later call resumes. No file is replaced
    before the new one is verified.

    Args:
        name: A key of `DATASETS`.
        base_url: The folder it is fetched from (a mirror, for example); by default its source's.
        folder: Where it is kept; by default `datasets_dir()`.
        progress: Called with the bytes so far and the total (None where the server does not give it).
        longest_wait: Longest pause before the next attempt, in seconds.

    Raises:
        DatasetError: The name is unknown.
        DownloadError: The server has no such file, cannot be reached, or sent something else.
        SaveError: The folder cannot be written.
    """
    spec = DATASETS.get(name)
    if spec is None:
        raise DatasetError(
            f"There is no public data set {name!r}.{twin_of(name, DATASETS) or did_you_mean(name, DATASETS)} Known: "
            f"{', '.join(DATASETS)}."
        )
    folder = expanded(folder or datasets_dir())
    path, part = folder / spec.file, folder / f"{spec.file}.part"
    url = f"{(base_url or spec.source.base_url).rstrip('/')}/{spec.remote or spec.file}"
    try:
        if path.is_file() and _fault(path, spec) is None:
            return _finish(path, spec, downloaded=False)
        folder.mkdir(parents=True, exist_ok=True)
        resumed = part.is_file() and part.stat().st_size > 0
        _download(url, part, progress, longest_wait)
        fault = _fault(part, spec)
        if fault and resumed:  # what an earlier call left may belong to another file
            logger.warning("%s does not match after resuming: fetching it whole", part)
            part.unlink()
            _download(url, part, progress, longest_wait)
            fault = _fault(part, spec)
        if fault:
            part.unlink()
            raise DownloadError(f"What {url} sent is not the published {name}: {fault}. Nothing was kept; try again.")
        part.replace(path)
        return _finish(path, spec, downloaded=True)
    except DownloadError:
        raise
    except OSError as error:
        raise SaveError(
            f"The data folder {str(folder)!r} cannot be written ({error.strerror or error}): point CAUSALEDIT_CACHE at "
            "another one."
        ) from None


def _finish(path: Path, spec: Dataset, *, downloaded: bool) -> FetchedDataset:
    digest = _digest(path, "sha256")
    write_text(path.with_name(f"{path.name}.sha256"), f"{digest}  {path.name}\n")
    data = read_cases(path, "the fetched file", keep_flawed=True)
    verified = spec.sha256 is not None or spec.git_blob is not None
    return FetchedDataset(path, digest, len(data), check_cases(data), downloaded, verified, spec.source)


def _digest(path: Path, kind: str, header: bytes = b"") -> str:
    state = hashlib.new(kind, header, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _fault(path: Path, spec: Dataset) -> str | None:
    """Why a file is not the published one, or None."""
    if spec.sha256 is not None and (found := _digest(path, "sha256")) != spec.sha256:
        return f"its SHA-256 is {found}, expected {spec.sha256}"
    if spec.git_blob is None:
        return None if spec.sha256 is not None else _unreadable(path)
    header = f"blob {path.stat().st_size}\0".encode()  # what git hashes in front of a file's content
    if (found := _digest(path, "sha1", header)) != spec.git_blob:
        return f"its git blob id is {found}, expected {spec.git_blob} ({path.stat().st_size} bytes)"
    return None


def _unreadable(path: Path) -> str | None:
    """Why a file without a checksum on record is no data set, or None."""
    try:
        read_cases(path, "what was sent", keep_flawed=True)
    except DatasetError as error:
        return str(error).rstrip(".")
    return None


class _ServerBusyError(Exception):
    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"status {response.status_code}")
        self.headers = response.headers


def _download(url: str, part: Path, progress: Callable[[int, int | None], None] | None, longest_wait: float) -> None:
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((*_PASSING, _ServerBusyError)),
        stop=_enough,
        wait=wait_as_asked(lambda error: getattr(error, "headers", None), longest=longest_wait),
        before_sleep=lambda state: logger.info("%s: %s; trying again", url, _reason(state)),
        reraise=True,
    )
    try:
        with httpx.Client(timeout=_WAIT, follow_redirects=True) as client:
            retrying(_attempt, client, url, part, progress)
    except (*_PASSING, _ServerBusyError) as error:
        kept = part.stat().st_size if part.is_file() else 0
        tries = retrying.statistics["attempt_number"]
        raise DownloadError(
            f"{url} could not be fetched{f' after {tries} attempts' if tries > 1 else ''}: "
            f"{str(error) or type(error).__name__}. Check the network"
            + (
                f"; the first {kept} bytes are kept, and the same command resumes the download."
                if kept
                else f", or put the file, fetched elsewhere, at {str(part.with_suffix(''))!r}."
            )
        ) from None
    except (httpx.InvalidURL, httpx.RequestError) as error:
        raise DownloadError(f"{url!r} is not an address that can be fetched: {error}.") from None


def _enough(state: tenacity.RetryCallState) -> bool:
    """Whether all attempts are used up, or the first of all found nothing that answers."""
    error = state.outcome.exception() if state.outcome else None
    silent = isinstance(error, httpx.ReadTimeout) and not state.args[2].exists()  # the part: nothing has arrived
    nothing = state.attempt_number == 1 and (silent or isinstance(error, _UNREACHABLE))
    return nothing or state.attempt_number >= ATTEMPTS


def _reason(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return str(error) or type(error).__name__


def _attempt(client: httpx.Client, url: str, part: Path, progress: Callable[[int, int | None], None] | None) -> None:
    have = part.stat().st_size if part.is_file() else 0
    # no compression: a range counts bytes of the file itself
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is missing; the check decides whether it is the right file
        if response.status_code in RETRIED_STATUS:
            raise _ServerBusyError(response)
        if response.is_error:
            raise DownloadError(
                f"{url} cannot be fetched: the server answers {response.status_code} {response.reason_phrase}."
            )
        partial = response.status_code == httpx.codes.PARTIAL_CONTENT
        done = have if partial else 0
        length = response.headers.get("content-length", "")
        total = done + int(length) if length.isdigit() else None
        with part.open("ab" if partial else "wb") as stream:
            for chunk in response.iter_raw():  # as it arrives, so that a break loses nothing
                stream.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
