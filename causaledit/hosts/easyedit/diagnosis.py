"""What stands between this environment and an EasyEdit that works, found without one failing import after another."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from causaledit.errors import HostError
from causaledit.hosts.easyedit.found import HOME_VARIABLE
from causaledit.hosts.easyedit.requirements import (
    PACKAGE,
    install_lines,
    missing_packages,
    outside_range,
    pin_clashes,
)
from causaledit.support.costs import versions
from causaledit.support.paths import expanded

# the whole of EasyEdit is imported, on a slow disk too
IMPORT_SECONDS = 600


class Diagnosis(NamedTuple):
    """The state of an environment.

    Attributes:
        python: Its version.
        torch: Its version.
        gpu: Whether torch is a GPU build.
        versions: Of what an edit depends on.
        problems: With this package itself.
        home: The EasyEdit checkout, or None where there is none.
        revision: Its commit, where it is a git checkout.
        missing: Packages its import would run into.
        install: The pip commands that bring them.
        easyedit_problems: Clashing pins, or why the import fails although nothing is missing.
    """

    python: str
    torch: str
    gpu: bool
    versions: dict[str, str]
    problems: tuple[str, ...]
    home: Path | None
    revision: str
    missing: tuple[str, ...]
    install: tuple[str, ...]
    easyedit_problems: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether an edit can run, and EasyEdit be used where there is one."""
        return not (self.problems or self.missing or self.easyedit_problems)


def diagnose(easyedit: str | None = None, *, really_import: bool = True) -> Diagnosis:
    """Look at versions, at torch, and at EasyEdit.

    Args:
        easyedit: A checkout's folder; None takes `EASYEDIT_HOME`, or the `easyeditor` that can be imported.
        really_import: Where nothing is missing, import EasyEdit in a process of its own to be sure.

    Raises:
        HostError: The folder holds no EasyEdit.
    """
    import torch

    gpu = torch.version.cuda is not None or torch.version.hip is not None
    home = _home(easyedit)
    missing = [needed.name for needed in missing_packages(home)] if home else []
    problems: list[str] = []
    if home:
        problems += [
            f"EasyEdit's requirements.txt pins {clash.package}{clash.pinned}, and causaledit needs {clash.wanted}: "
            "update the checkout, or install causaledit's version after its requirements"
            for clash in pin_clashes(home)
        ]
        if really_import and not missing and (reason := _import_failure(home)):
            problems.append(reason)
    return Diagnosis(
        python=platform.python_version(),
        torch=torch.__version__,
        gpu=gpu,
        versions={package: version for package, version in versions().items() if package != "torch"},
        problems=tuple(outside_range()),
        home=home,
        revision=_revision(home) if home else "",
        missing=tuple(missing),
        install=tuple(install_lines(missing, gpu=gpu)),
        easyedit_problems=tuple(problems),
    )


def _home(given: str | None) -> Path | None:
    named = given or os.environ.get(HOME_VARIABLE)
    if named:
        folder = expanded(named).resolve()
        if not (folder / PACKAGE / "__init__.py").is_file():
            raise HostError(
                f"{'--easyedit' if given else HOME_VARIABLE} is {named!r}, but there is no {PACKAGE}/ package in it: "
                "name the folder of an EasyEdit checkout."
            )
        return folder
    spec = find_spec(PACKAGE)
    return Path(spec.origin).parent.parent if spec and spec.origin else None


def _revision(home: Path) -> str:
    if not (home / ".git").exists():
        return _release(home)
    try:
        done = subprocess.run(
            ["git", "-C", str(home), "log", "-1", "--format=%h of %cs"], capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip()


def _release(home: Path) -> str:
    try:
        return f"release {metadata.version(PACKAGE)}" if "site-packages" in home.parts else ""
    except metadata.PackageNotFoundError:
        return ""


def _import_failure(home: Path) -> str:
    """Why `register()` fails in a process of its own, in one line; empty where it works."""
    code = "import causaledit; causaledit.register()"
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, HOME_VARIABLE: str(home), "PYTHONPATH": path}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"importing EasyEdit took longer than {IMPORT_SECONDS} s"
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines or ["its import ended without a word"])[-1]
