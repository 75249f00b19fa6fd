"""A client of Wikidata: entities and their statements, cached on disk.

It follows the rules of the public API: 50 ids a call, calls spaced in time, a user agent with a contact, `maxlag`, and
waits that respect `Retry-After`. Replies are kept on disk with their age.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

from causaledit.errors import ScaffoldError
from causaledit.facts.text import normalise
from causaledit.support.files import write_json
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded
from causaledit.support.retries import RETRIED_STATUS, Pace, wait_as_asked
from causaledit.support.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

logger = logging.getLogger(__name__)

API_URL = "https://www.wikidata.org/w/api.php"
BATCH = 50  # the API's own limit for one call
MAX_VALUES = 3
CACHE_DAYS = 30.0
# plain properties only: nothing about health, belief or private life beyond what MQuAKE itself edits
PROPERTIES = {
    "P31": "instance of", "P106": "occupation", "P569": "date of birth", "P570": "date of death",
    "P19": "place of birth", "P20": "place of death", "P27": "country of citizenship", "P69": "educated at",
    "P108": "employer", "P39": "position held", "P54": "member of sports team", "P641": "sport",
    "P413": "position played", "P136": "genre", "P264": "record label", "P800": "notable work",
    "P571": "inception", "P576": "dissolved", "P577": "publication date", "P17": "country", "P30": "continent",
    "P36": "capital", "P37": "official language", "P38": "currency", "P131": "located in", "P159": "headquarters",
    "P112": "founded by", "P169": "chief executive officer", "P127": "owned by", "P452": "industry",
    "P495": "country of origin", "P50": "author", "P57": "director", "P170": "creator", "P175": "performer",
    "P176": "manufacturer", "P178": "developer", "P407": "language of work", "P364": "original language",
    "P449": "original broadcaster",
}  # fmt: skip
_ID = re.compile(r"Q[1-9]\d*")
_TRANSIENT_CODES = {"maxlag", "ratelimited", "readonly", "unresolvable-redirect-loop"}


class GroundingError(ScaffoldError):
    """Wikidata cannot be used now."""

    exit_code = 1


class _Transient(Exception):
    def __init__(self, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers


@dataclass
class GroundUsage:
    """What grounding cost."""

    requests: int = 0
    retries: int = 0
    from_cache: int = 0


class Wikidata:
    """A small client of the Wikidata API with a cache on disk.

    Args:
        url: The API's address (another one for a mirror).
        contact: Mail address or web page, put into the user agent, as Wikimedia asks for.
        cache: Folder for replies; None keeps nothing.
        max_age_days: Older cached answers are asked for again (not when offline).
        offline: Use the cache alone.
        interval: Shortest time between two calls, in seconds.
        timeout: Longest wait for one reply, in seconds.
        attempts: Attempts per call.
        initial_wait, longest_wait: First wait where there is no `Retry-After`, and the longest wait, in seconds.
    """

    def __init__(
        self,
        *,
        url: str = API_URL,
        contact: str = "",
        cache: str | Path | None = None,
        max_age_days: float = CACHE_DAYS,
        offline: bool = False,
        interval: float = 0.25,
        timeout: float = 20.0,
        attempts: int = 5,
        initial_wait: float = 1.0,
        longest_wait: float = 60.0,
    ) -> None:
        self.offline = offline
        self.usage = GroundUsage()
        self._url = url
        self._cache = expanded(cache) if cache else None
        self._max_age = max_age_days * 86400
        self._pace = Pace(interval)
        self._attempts = max(1, attempts)
        self._wait = wait_as_asked(lambda e: getattr(e, "headers", None), initial=initial_wait, longest=longest_wait)
        agent = f"causaledit/{__version__} (knowledge-editing research; contact: {contact or 'not given'})"
        self._client = httpx.Client(
            headers={"User-Agent": agent, "Accept": "application/json"}, timeout=timeout, follow_redirects=True
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def entities(self, ids: Sequence[str], *, labels_only: bool = False) -> dict[str, dict[str, Any] | None]:
        """The API's entity objects by the id asked for; None for one that does not exist.

        Args:
            labels_only: Fetch labels only.

        Raises:
            GroundingError: The API cannot be reached or keeps failing. With `offline`, ids that are not in
                the cache are simply left out.
        """
        kind = "label" if labels_only else "entity"
        found: dict[str, dict[str, Any] | None] = {}
        wanted = []
        for id_ in dict.fromkeys(ids):
            hit = self._cached(kind, id_)
            if hit is not None:
                found[id_] = hit["data"]
            elif not _ID.fullmatch(id_):
                found[id_] = None
            else:
                wanted.append(id_)
        if self.offline:
            return found
        props = "labels" if labels_only else "labels|descriptions|aliases|claims"
        while wanted:
            batch, wanted = wanted[:BATCH], wanted[BATCH:]
            reply = self._get({"action": "wbgetentities", "ids": "|".join(batch), "props": props, "languages": "en",
                               "languagefallback": "1", "redirects": "yes"})  # fmt: skip
            if error := reply.get("error"):
                bad = str(error.get("id", ""))
                if error.get("code") in ("no-such-entity", "invalid-entity-id") and bad in batch:
                    # one bad id spoils the whole call: note it and ask again for the others
                    found[bad] = self._keep(kind, bad, None)
                    wanted = [id_ for id_ in batch if id_ != bad] + wanted
                    continue
                raise GroundingError(f"Wikidata refused the call: {error.get('info') or error.get('code')}.")
            for id_, entity in _by_asked_id(reply.get("entities") or {}, batch).items():
                found[id_] = self._keep(kind, id_, entity)
        return found

    def search(self, name: str) -> str | None:
        """The id of the entity that is called `name` (its label or an alias), or None.

        Raises:
            GroundingError: As in `entities`.
        """
        hit = self._cached("search", name)
        if hit is not None:
            return hit["data"]
        if self.offline:
            return None
        reply = self._get({"action": "wbsearchentities", "search": name, "language": "en", "uselang": "en",
                           "type": "item", "limit": "7"})  # fmt: skip
        if error := reply.get("error"):
            raise GroundingError(f"Wikidata refused the search: {error.get('info') or error.get('code')}.")
        for result in filter(_is_object, reply.get("search") or ()):
            names = [result.get("label"), *(result.get("aliases") or ()), (result.get("match") or {}).get("text")]
            if normalise(name) in {normalise(n) for n in names if isinstance(n, str)}:
                return self._keep("search", name, result.get("id"))
        return self._keep("search", name, None)

    # ---- calls ----
    def _get(self, parameters: dict[str, str]) -> dict[str, Any]:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Transient),
            wait=self._wait,
            stop=tenacity.stop_after_attempt(self._attempts),
            sleep=self._pace.sleep,
            before_sleep=self._note_retry,
            reraise=True,
        )
        try:
            return retrying(self._get_once, {**parameters, "format": "json", "maxlag": "5"})
        except _Transient as error:
            raise GroundingError(
                f"Wikidata ({self._url}) gave no usable answer in {self._attempts} tries: {error}. "
                "Try again later, or use --offline."
            ) from None

    def _get_once(self, parameters: dict[str, str]) -> dict[str, Any]:
        self._pace.wait()
        self.usage.requests += 1
        try:
            response = self._client.get(self._url, params=parameters)
        except httpx.TimeoutException:
            raise _Transient("no reply in time") from None
        except httpx.HTTPError as error:
            raise _Transient(f"no connection ({error})") from None
        if response.status_code in RETRIED_STATUS:
            raise _Transient(f"HTTP {response.status_code}", response.headers)
        try:
            reply = read_json_text(response.text)
        except ValueError:
            kind = response.headers.get("content-type", "unknown type").split(";")[0]
            raise _Transient(f"HTTP {response.status_code} with a page of {kind}", response.headers) from None
        if response.status_code >= 400 or not isinstance(reply, dict):
            raise GroundingError(f"Wikidata ({self._url}) answered HTTP {response.status_code}.")
        fault = reply.get("error") or {}
        if not isinstance(fault, dict):  # a proxy's or a mirror's
            raise GroundingError(f"Wikidata ({self._url}) answered with an error: {fault!r:.200}.")
        code = str(fault.get("code", ""))
        if code in _TRANSIENT_CODES or code.startswith("internal_api_error"):
            raise _Transient(f"{code}: {fault.get('info', '')}", response.headers)
        return reply

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        self.usage.retries += 1
        error = state.outcome.exception() if state.outcome else None
        logger.debug("Wikidata: %s; trying again in %.1f s", error, state.next_action.sleep if state.next_action else 0)

    # ---- cache ----
    def _file(self, kind: str, name: str) -> Path | None:
        if self._cache is None:
            return None
        safe = name if _ID.fullmatch(name) else hashlib.sha256(name.encode()).hexdigest()[:24]
        return self._cache / kind / f"{safe}.json"

    def _cached(self, kind: str, name: str) -> dict[str, Any] | None:
        file = self._file(kind, name)
        if file is None or not file.is_file():
            return None
        try:
            hit = read_json_text(file.read_text(encoding="utf-8"))
            kept = {"fetched": float(hit["fetched"]), "data": hit["data"]}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not self.offline and time.time() - kept["fetched"] >= self._max_age:
            return None
        self.usage.from_cache += 1
        return kept

    def _keep(self, kind: str, name: str, data: Any) -> Any:
        file = self._file(kind, name)
        if file is not None:
            write_json(file, {"fetched": time.time(), "data": data})
        return data


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _by_asked_id(entities: Mapping[str, Any], asked: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """Entities by the ids asked for: a redirect comes under the old or the new id, a missing one is marked."""
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(asked)
    for key, entity in entities.items():
        if not isinstance(entity, dict) or "missing" in entity:
            continue
        redirect = entity.get("redirects") or {}
        for id_ in (key, entity.get("id"), redirect.get("from")):
            if id_ in found:
                found[id_] = entity
    return found


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip


def read_time(value: Mapping[str, Any]) -> str | None:
    """A Wikidata time as text, as precise as it is known (day, month or year)."""
    match = re.match(r"([+-])0*(\d+)-(\d\d)-(\d\d)", str(value.get("time", "")))
    precision = value.get("precision", 0)
    if match is None or precision < 9:
        return None
    year = match[2] + (" BC" if match[1] == "-" else "")
    month, day = int(match[3]), int(match[4])
    if precision >= 11 and 1 <= month <= 12 and day:
        return f"{day} {_MONTHS[month - 1]} {year}"
    if precision == 10 and 1 <= month <= 12:
        return f"{_MONTHS[month - 1]} {year}"
    return year


def _best_statements(statements: Any) -> list[Any]:
    """Preferred statements before normal ones; deprecated ones and those with an end date are dropped."""
    listed = statements if isinstance(statements, list) else ()
    kept = [s for s in filter(_is_object, listed) if s.get("rank") != "deprecated"]
    current = [s for s in kept if "P582" not in (s.get("qualifiers") or {})] or kept
    return sorted(current, key=lambda s: s.get("rank") != "preferred")


def read_claims(entity: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values of the whitelisted properties: texts, or `{"id": …}` for items whose label is still needed."""
    facts: dict[str, list[Any]] = {}
    claims = entity.get("claims")
    for pid in PROPERTIES:
        statements = claims.get(pid, ()) if isinstance(claims, dict) else ()
        for statement in _best_statements(statements):
            snak = statement.get("mainsnak")
            known = _is_object(snak) and snak.get("snaktype") == "value"
            read = _value_of(snak.get("datavalue")) if known else None
            if read and read not in facts.setdefault(pid, []) and len(facts[pid]) < MAX_VALUES:
                facts[pid].append(read)
    return {pid: values for pid, values in facts.items() if values}


def _value_of(datavalue: Any) -> Any:
    """A statement's value: a text, `{"id": …}` for an item, or None for kinds that are not read."""
    if not isinstance(datavalue, dict):
        return None
    kind, value = datavalue.get("type"), datavalue.get("value")
    if kind == "string":
        return value
    if not isinstance(value, dict):
        return None
    if kind == "wikibase-entityid":
        return {"id": value.get("id") or f"Q{value.get('numeric-id')}"}
    if kind == "time":
        return read_time(value)
    return value.get("text") if kind == "monolingualtext" else None


def english_text(entity: Mapping[str, Any], part: str) -> str:
    """The English label or description of an entity; empty where there is none."""
    return str(((entity.get(part) or {}).get("en") or {}).get("value", ""))
