"""The notebooks: valid, without outputs or places of one machine, of names that exist; the laptop's runs."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, smollm2_folder

from causaledit.methods.causal_edit.hparams import CausalEditHyperParams

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")

FOLDER = REPOSITORY / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# `.ci/run` makes the whole edit by `causaledit demo`
FEWER = "hparams.bootstrap_max_steps, hparams.preserve_prompts, hparams.distill_steps_base = 24, 24, 1"


@pytest.fixture(params=NOTEBOOKS, ids=lambda file: file.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_both_are_there():
    assert [file.stem for file in NOTEBOOKS] == ["laptop", "qwen_gpu"]


def test_it_is_valid_and_holds_no_output(notebook):
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        # an absolute path, or one of somebody's home, is of one machine
        assert not re.search(r"""["'(\s](/|~/|[A-Z]:\\)\w""", cell.source), cell.source


def test_every_cell_compiles_and_every_imported_name_exists(notebook):
    tree = ast.parse("\n\n".join(code_of(notebook)))
    modules = [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module and not node.level
            module = importlib.import_module(node.module)
            for name in node.names:
                if not hasattr(module, name.name):  # a module in a package, or an error that names it
                    importlib.import_module(f"{node.module}.{name.name}")
    for module in modules:
        importlib.import_module(module)


def test_what_is_used_is_public(notebook):
    """What a user is told to import is exported, or documented as the Python API."""
    documented = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    for node in ast.walk(ast.parse("\n\n".join(code_of(notebook)))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("causaledit."):
            assert node.module in documented, node.module
        if isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_")


def test_hyper_parameters_that_a_notebook_sets_exist(notebook):
    known = vars(CausalEditHyperParams())
    text = "\n".join(code_of(notebook))
    assert set(re.findall(r"^hparams\.(\w+) =", text, re.MULTILINE)) <= known.keys()
    for name in re.findall(r"\"((?:qwen|smollm)[\w.-]+)\"", text):
        CausalEditHyperParams.from_hparams(name)


@pytest.mark.slow
def test_the_laptop_notebook_runs(tmp_path):
    smollm2_folder()
    pytest.importorskip("nbmake", reason="nbmake is not installed")
    notebook = nbformat.read(FOLDER / "laptop.ipynb", as_version=4)
    (settings,) = [n for n, cell in enumerate(notebook.cells) if "hparams = CausalEdit" in cell.source]
    notebook.cells.insert(settings + 1, nbformat.v4.new_code_cell(FEWER))
    nbformat.write(notebook, tmp_path / "laptop.ipynb")
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=1500"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), "--overwrite", "laptop.ipynb"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for saved in tmp_path.glob("*/edited-model"):
        shutil.rmtree(saved)  # half a gigabyte
    assert done.returncode == 0, done.stdout + done.stderr
    ran = nbformat.read(tmp_path / "laptop.ipynb", as_version=4)
    printed = "".join(out.get("text", "") for c in ran.cells if c.cell_type == "code" for out in c.outputs)
    assert re.search(r"^after:.*Denver", printed, re.MULTILINE), printed
    assert any("image/png" in out.get("data", {}) for c in ran.cells if c.cell_type == "code" for out in c.outputs)
