"""`causaledit doctor`: everything EasyEdit's import lacks at once, from files that are read and not run."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from command_line import run
from conftest import REPOSITORY

from causaledit.errors import HostError
from causaledit.hosts.easyedit.diagnosis import diagnose
from causaledit.hosts.easyedit.requirements import (
    Clash,
    install_lines,
    missing_packages,
    needed_packages,
    pin_clashes,
)

if TYPE_CHECKING:
    from pathlib import Path

CHECKOUT = {
    "easyeditor/__init__.py": "from .editors import *\nfrom . import util\nraise RuntimeError('this is never run')\n",
    "easyeditor/editors/__init__.py": "from .editor import BaseEditor\n",
    "easyeditor/editors/editor.py": (
        "import os, torch\nimport no_such_package_one.part as one\nfrom ..models.deep import x\n"
        "class BaseEditor: pass\ndef late():\n    import no_such_package_inside\n"
    ),
    "easyeditor/editors/batch_editor.py": "import yaml\n",
    "easyeditor/models/__init__.py": "",
    "easyeditor/models/deep.py": (
        "import no_such_package_two\nimport cv2_no_such as cv2\ntry:\n    import no_such_package_tried\n"
        "except ImportError:\n    pass\nif False:\n    import no_such_package_never\n"
        "class C:\n    import no_such_in_class\n"
    ),
    "easyeditor/util/__init__.py": "",
    "easyeditor/util/alg_dict.py": "from ..models import deep\nfrom easyeditor.models.deep import x\n",
    "easyeditor/unused.py": "import no_such_package_unused\n",
}


@pytest.fixture
def checkout(tmp_path) -> Path:
    for name, text in CHECKOUT.items():
        file = tmp_path / "easyedit" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "easyedit"


@pytest.fixture
def doctor(monkeypatch):
    """`causaledit doctor`, without this machine's EasyEdit."""
    monkeypatch.delenv("EASYEDIT_HOME", raising=False)
    return lambda *arguments: run("doctor", *arguments)


def test_what_the_import_runs_into_and_nothing_else(checkout):
    needed = {item.name: item.module for item in needed_packages(checkout)}
    assert needed == {
        "cv2_no_such": "easyeditor.models.deep",
        "no_such_in_class": "easyeditor.models.deep",
        "no_such_package_one": "easyeditor.editors.editor",
        "no_such_package_two": "easyeditor.models.deep",
        "torch": "easyeditor.editors.editor",
        "yaml": "easyeditor.editors.batch_editor",
    }
    missing = [item.name for item in missing_packages(checkout)]
    assert missing == ["cv2_no_such", "no_such_in_class", "no_such_package_one", "no_such_package_two"]


@pytest.mark.parametrize(
    "missing, gpu, lines",
    [
        (["cv2", "sklearn", "nltk"], False, ["pip install opencv-python-headless scikit-learn nltk"]),
        (["timm"], False, ["pip install --no-deps timm"]),
        (["torchvision", "timm"], False, ["pip install --no-deps timm torchvision==0.24.1"]),
        (["qwen_vl_utils"], True, ["pip install qwen-vl-utils"]),
        ([], True, []),
    ],
)
def test_the_lines_bring_what_is_missing_and_leave_torch_alone(missing, gpu, lines):
    assert install_lines(missing, gpu=gpu) == lines


def test_on_a_gpu_torchvision_is_the_users_choice():
    [line] = install_lines(["torchvision"], gpu=True)
    assert line.startswith("pip install torchvision") and "your torch" in line


def test_pins_outside_our_ranges(checkout):
    (checkout / "requirements.txt").write_text(
        "# a comment\ntransformers==4.30.1\npeft==0.18.0  # fine\n-r other.txt\n???\ntorch>=1.0\nunrelated==1\n"
    )
    declared = ["transformers>=5.5,<6", "peft>=0.18,<0.30", "torch>=2.9", "extra>=1; extra == 'test'"]
    assert pin_clashes(checkout, declared) == [Clash("transformers", "==4.30.1", "<6,>=5.5")]


def test_the_command_says_it_all_at_once(checkout, doctor):
    done = doctor("--easyedit", checkout)
    assert done.returncode == 1
    for name in ("no_such_package_one", "no_such_package_two", "cv2_no_such", "pip install", str(checkout)):
        assert name in done.stdout
    assert "no_such_package_tried" not in done.stdout and "Traceback" not in done.stderr


def test_registering_says_the_same(checkout):
    code = "import causaledit; causaledit.register()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False,
        env={**os.environ, "EASYEDIT_HOME": str(checkout)},
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert "HostError" in last and "no_such_package_one" in last and "no_such_package_two" in last
    assert "pip install" in last


def test_without_easyedit_all_is_well(doctor):
    done = doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "EASYEDIT_HOME" in done.stdout and "torch" in done.stdout


def test_a_folder_without_easyedit(tmp_path):
    with pytest.raises(HostError, match=r"--easyedit.*no easyeditor/ package"):
        diagnose(str(tmp_path))


@pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout")
def test_a_real_checkout():
    found = diagnose(os.environ["EASYEDIT_HOME"])
    assert found.usable, found
