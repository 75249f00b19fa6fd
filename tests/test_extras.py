"""A package that only some users need is asked for before any work, by the extra's name."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib

import pytest
from conftest import REPOSITORY

from causaledit.errors import MissingExtraError
from causaledit.support.extras import EXTRAS, require_extra

# a package that is not installed, as far as the process can tell
HIDE = """
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {names} else real(name, package)
"""


def without(names, code):
    source = HIDE.format(names=set(names)) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_extras_are_those_of_the_project():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert {spec.partition(">")[0].strip().replace("-", "_") for spec in declared[extra]} == set(packages)


def test_an_installed_extra_is_fine():
    require_extra("report", "the report page")


@pytest.mark.parametrize(
    ("arguments", "package", "extra"),
    [
        (["report", "RUN", "--html", "page.html"], "matplotlib", "report"),
        (
            ["compare", "--methods", "FT", "--datatype", "x.json", "--model_type", "y", "--html", "page.html"],
            "matplotlib",
            "report",
        ),
        (["show", "MODEL"], "gradio", "ui"),
        (
            ["run", "--editing_method", "PreEdited", "--datatype", "x.json", "--model_type", "y", "--vllm", "colocate"],
            "vllm",
            "vllm",
        ),
    ],
)
def test_a_missing_extra_ends_a_command_before_any_work(arguments, package, extra):
    done = without(
        [package],
        f"""
        from causaledit.cli.app import main
        sys.argv = ["causaledit", *{arguments!r}]
        main()
        """,
    )
    assert done.returncode == 2, done.stderr
    assert package in done.stderr and f"causaledit[{extra}]" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr


def test_what_the_core_does_needs_no_extra():
    done = without(
        [name for names in EXTRAS.values() for name in names],
        """
        import causaledit, causaledit.cli.analyze, causaledit.cli.judge, causaledit.cli.run, causaledit.cli.demo
        from causaledit.judges.registry import get_judge
        from causaledit.metrics.judged import judge_file
        from causaledit.runs.execution import execute
        from causaledit.methods.causal_edit.apply import apply_causal_edit_to_model
        get_judge("rule")
        """,
    )
    assert done.returncode == 0, done.stderr


def test_an_error_names_purpose_packages_and_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "report", ("no_such_package_a", "no_such_package_b"))
    with pytest.raises(MissingExtraError, match=r"--html needs no_such_package_a and no_such_package_b.*\[report\]"):
        require_extra("report", "--html")
