"""The model that a saved result was made from: where it loads from, its name on the Hub, its licence."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from causaledit.errors import one_line
from causaledit.models.embedded import EMBEDDED_MODELS, embedded_folder, embedded_name
from causaledit.support.paths import exists, expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_PATIENCE = 3.0  # seconds that the Hub gets to answer for a file that is useful, but not needed
# what a card says of its licence: one the Hub knows, or `other` with a name and a link
LICENSE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Origin:
    """The base model of an edit.

    Attributes:
        name: As the user named it.
        path: What `from_pretrained` loads on this machine: a folder or a Hub name; None for a GGUF file.
        hub_name: Its repository on the Hub, where known: `owner/name`.
        license: The licence's keys for a model card; empty where not known.
        weights: Where these weights are not bit for bit the Hub's: what they are.
        root: Of a folder that was edited before: the Hub model that its first edit was made on, where known.
    """

    name: str
    path: str | None
    hub_name: str | None
    license: Mapping[str, str]
    weights: str = ""
    root: str | None = None


def find_origin(name: str) -> Origin:
    """What is known of a base model, from its name and from files on this machine; nothing is downloaded.

    Args:
        name: A folder, a Hub name, a `.gguf` file, or an embedded model's name.
    """
    path = expanded(name)
    known = embedded_name(path) or (name if name in EMBEDDED_MODELS and not exists(path) else None)
    if known is not None:
        embedded, folder = EMBEDDED_MODELS[known], embedded_folder(known)
        # of a model that was never fetched here, the caller has a copy from elsewhere
        found = str(folder.absolute()) if folder.is_dir() else embedded.hub_name
        weights = f"its weights dequantised from {Path(embedded.member).name}"
        return Origin(known, found, embedded.hub_name, {"license": embedded.license}, weights)
    if path.suffix == ".gguf":
        return Origin(name, None, None, {})
    if exists(path):
        data = _card_data(path / "README.md")
        root = data.get("base_model") if "causaledit" in (data.get("tags") or ()) else None
        return Origin(name, str(path.absolute()), None, _license_in(data), root=root if isinstance(root, str) else None)
    if not is_hub_name(name):
        return Origin(name, name, None, {})
    cached = hub_file(name, "README.md")
    return Origin(name, name, name, _license_in(_card_data(cached)) if cached is not None else {})


def is_hub_name(name: str) -> bool:
    """Whether a name has the form of a model's on the Hub, `owner/name`."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def hub_file(name: str, file: str, *, fetch: bool = False) -> Path | None:
    """A small file of a model on the Hub, in the cache of this machine; None where it is not to be had.

    Args:
        name: `owner/name`.
        file: Its path there.
        fetch: Ask the Hub where the cache says nothing.
    """
    try:
        cached = try_to_load_from_cache(name, file)
        if cached is None and fetch:
            cached = hf_hub_download(name, file, etag_timeout=_PATIENCE)
    except Exception as error:  # no such file or repository, no network: loading the model says what matters
        logger.debug("%s of %s: %s", file, name, one_line(error))
        return None
    return Path(cached) if isinstance(cached, str) else None


def note_license(name: str) -> None:
    """Fetch the card of a model on the Hub, which names its licence: loading a model leaves its card behind.

    Args:
        name: As for `find_origin`, which then finds the licence in the cache.
    """
    if not exists(expanded(name)) and name not in EMBEDDED_MODELS and is_hub_name(name):
        hub_file(name, "README.md", fetch=True)


def _card_data(card: Path) -> dict[str, Any]:
    """The metadata of a model's own card; a card that cannot be read has none."""
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.to_dict() if card.is_file() else {}
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        return {}


def _license_in(data: Mapping[str, Any]) -> dict[str, str]:
    """The licence that a model's own card names."""
    return {key: data[key] for key in LICENSE_KEYS if isinstance(data.get(key), str)}
