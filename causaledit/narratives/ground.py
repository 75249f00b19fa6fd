"""The ground stage: what Wikidata says about the entities of an edit."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.narratives.wikidata import BATCH, GroundingError, Wikidata, english_text, read_claims

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from causaledit.narratives.cases import Entity
    from causaledit.support.jsonl import JsonlStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EntityInfo:
    """What is known about one entity.

    Attributes:
        key: As in `Entity.key`: the id or name it was asked by.
        id: Its present id (different from the one asked for after a redirect).
        facts: Up to three values per property id, as readable text, current ones first.
        missing: Why there is nothing; empty where there is something.
    """

    key: str
    id: str | None = None
    label: str = ""
    description: str = ""
    aliases: tuple[str, ...] = ()
    facts: dict[str, list[str]] = field(default_factory=dict)
    missing: str = ""

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EntityInfo:
        """Read a row of the grounding file."""
        known = {k: data[k] for k in cls.__dataclass_fields__ if k in data}
        return cls(**{**known, "aliases": tuple(known.get("aliases") or ())})


class Grounding:
    """What is known of the entities, by `Entity.key`."""

    def __init__(self, found: Mapping[str, EntityInfo]) -> None:
        self._found = found

    def of(self, entity: Entity) -> EntityInfo | None:
        """What is known of an entity; None where nothing is."""
        info = self._found.get(entity.key)
        return info if info is not None and not info.missing else None

    def missing(self, entity: Entity) -> str:
        """Why nothing is known of an entity; empty where something is."""
        info = self._found.get(entity.key)
        return "it was not looked up" if info is None else info.missing


def ground(
    entities: Iterable[Entity],
    wikidata: Wikidata,
    store: JsonlStore,
    *,
    on_done: Callable[[int], None] | None = None,
) -> Grounding:
    """Look the entities up, in batches, each batch written to the store before the next one is asked for.

    What the store already has is not asked for again, unless it was missing. An entity without an id is
    searched by its name.

    Args:
        store: Holds the rows of `EntityInfo`.
        on_done: Called with the number of entities that are finished.

    Returns:
        What is known; where the network fails, the rest is marked as missing with the reason.
    """
    found = {key: EntityInfo.from_dict(row) for key, row in store.rows.items()}
    todo = [e for e in {e.key: e for e in entities}.values() if e.key not in found or found[e.key].missing]
    trouble = ""
    for start in range(0, len(todo), BATCH):
        batch = todo[start : start + BATCH]
        if not trouble:
            try:
                infos = _look_up(batch, wikidata)
            except GroundingError as error:
                trouble = str(error)
                logger.warning("%s", trouble)
        if trouble:
            infos = [EntityInfo(e.key, e.id, e.name, missing=trouble) for e in batch]
        for info in infos:
            found[info.key] = info
            if not trouble:
                store.put(asdict(info))
        if on_done is not None:
            on_done(len(batch))
    return Grounding(found)


def _look_up(batch: Sequence[Entity], wikidata: Wikidata) -> list[EntityInfo]:
    ids = {e.key: e.id or wikidata.search(e.name) for e in batch}
    entities = wikidata.entities([id_ for id_ in ids.values() if id_])
    claims = {id_: read_claims(entity) for id_, entity in entities.items() if entity}
    values = {v["id"] for facts in claims.values() for vs in facts.values() for v in vs if isinstance(v, dict)}
    named = wikidata.entities(sorted(values), labels_only=True)
    labels = {id_: english_text(entity, "labels") for id_, entity in named.items() if entity}
    infos = []
    for asked in batch:
        id_ = ids[asked.key]
        entity = entities.get(id_) if id_ else None
        if id_ is None or entity is None:
            why = f"Wikidata has no entity {asked.id}" if asked.id else f"no entity is called {asked.name!r}"
            if wikidata.offline and (id_ is None or id_ not in entities):
                why = "it is not in the cache, and --offline was given"
            infos.append(EntityInfo(asked.key, asked.id, asked.name, missing=why))
            continue
        facts = {
            pid: texts
            for pid, vs in claims[id_].items()
            if (texts := [labels.get(v["id"], "") if isinstance(v, dict) else v for v in vs])
            and (texts := [*filter(None, texts)])
        }
        aliases = tuple(a["value"] for a in (entity.get("aliases") or {}).get("en", ()) if isinstance(a, dict))
        infos.append(
            EntityInfo(
                asked.key, entity.get("id") or id_, english_text(entity, "labels") or asked.name,
                english_text(entity, "descriptions"), aliases, facts,
            )
        )  # fmt: skip
    return infos
