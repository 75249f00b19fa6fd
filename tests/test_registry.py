"""Finding methods: own folders, installed packages, names that are taken, packages that are broken."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EGYPT, FAST, NORWAY, REPOSITORY, make_llama, make_tokenizer, same_weights, weights_of

import causaledit.methods
from causaledit.errors import HostError
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.hosts.lookup import get_method
from causaledit.methods.ft.hparams import FTHyperParams
from causaledit.methods.method import Method
from causaledit.methods.registry import METHODS, method_of

TESTS = Path(__file__).parent
FT = METHODS["FT"]
COPY_OF_FT = f"from causaledit.methods.method import Method\nMETHOD = Method({{name!r}}, {FT.hparams!r}, {FT.edit!r})\n"


def python(code, *, path=()):
    """Run code in a process of its own, with folders on its import path."""
    folders = os.pathsep.join(map(str, [*path, REPOSITORY, TESTS]))
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folders},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


# ---- own methods -----------------------------------------------------------------------------------
def test_every_folder_is_a_method_and_every_method_has_fast_figures():
    folders = {m.name for m in pkgutil.iter_modules(causaledit.methods.__path__) if m.ispkg} - {"shared"}
    assert {method.hparams.split(".")[2] for method in METHODS.values()} == folders
    assert set(METHODS) == set(FAST)
    assert all(METHODS[name].name == name for name in METHODS)


def test_looking_methods_up_imports_nothing_heavy():
    done = python(
        "import sys\nfrom causaledit.methods.registry import METHODS\nprint(len(METHODS))\n"
        "print([name for name in ('torch', 'transformers', 'peft', 'trl', 'easyeditor') if name in sys.modules])"
    )
    assert done.stdout.split("\n")[:2] == [str(len(METHODS)), "[]"], done.stderr


def test_nobody_can_write_a_method_into_the_registry():
    with pytest.raises(TypeError):
        METHODS["Mine"] = FT


# ---- entry points ----------------------------------------------------------------------------------
def test_an_entry_point_is_found_and_gone_with_its_package(install_method, monkeypatch):
    with monkeypatch.context() as inside:
        folder = install_method("Mine", COPY_OF_FT.format(name="Mine"))
        assert get_method("Mine", host="embedded") == METHODS["Mine"] == Method("Mine", FT.hparams, FT.edit)
        assert method_of(FTHyperParams()) is FT
        inside.setattr(sys, "path", [entry for entry in sys.path if entry != str(folder)])
        assert "Mine" not in METHODS
    assert get_method("FT", host="embedded") is METHODS["FT"]


@pytest.mark.parametrize("source", [COPY_OF_FT.format(name="ROME"), "raise ImportError('no such library')\n"])
def test_a_name_that_is_taken_is_refused_with_both_places(install_method, source):
    install_method("ROME", source)
    with pytest.raises(HostError, match=r"'ROME'.*causaledit\.methods\.rome.*rome_method:METHOD.*rome_method 1\.0"):
        get_method("ROME", host="embedded")


def test_two_packages_with_one_name(install_method, tmp_path, monkeypatch):
    install_method("Mine", COPY_OF_FT.format(name="Mine"))
    other = tmp_path / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    (other / "entry_points.txt").write_text("[causaledit.methods]\nMine = other_module:METHOD\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(HostError, match=r"two methods named 'Mine'.*(mine_method 1\.0.*other 2\.0|other 2\.0.*mine_m)"):
        get_method("Mine", host="embedded")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise RuntimeError('the driver is too old')\n", "the driver is too old"),
        ("import no_such_library\n", "no_such_library"),
        ("METHOD = 'a text'\n", "str, not a causaledit"),
        ("", "METHOD"),
        (COPY_OF_FT.format(name="Other"), "'Other'.*the same"),
        ("def METHOD(:\n", "SyntaxError"),
    ],
)
def test_a_broken_package_is_named_and_the_others_go_on(install_method, caplog, source, reason):
    caplog.set_level(logging.WARNING, "causaledit")
    install_method("Broken", source)
    assert get_method("FT", host="embedded") is FT
    assert "Broken" not in METHODS and len(METHODS) == len(FAST)
    assert caplog.text.count("'Broken'") == 1 and "broken_method 1.0" in caplog.text
    with pytest.raises(HostError, match=f"'Broken'.*broken_method 1.0.*{reason}"):
        get_method("Broken", host="embedded")


# ---- an edit of a kind of its own ------------------------------------------------------------------
ROUTER = f"""
import torch
from causaledit.methods.method import Method
from causaledit.models.edited import Edited

METHOD = Method("Router", {FT.hparams!r}, f"{{__name__}}:edit")


class Routed(torch.nn.Module):
    def __init__(self, inside, memory):
        super().__init__()
        self.inside, self.memory = inside, memory

    def forward(self, hidden):
        return self.inside(hidden) + self.memory


class RouterEdit(Edited):
    own_generate = True

    def _take_back(self, handed_over):
        mlp = self.plain.model.layers[1].mlp
        mlp.down_proj = mlp.down_proj.inside
        return self.plain

    def parameters_changed(self):
        return self.plain.model.layers[1].mlp.down_proj.memory.numel()


def edit(model, tokenizer, edits, hparams, call):
    mlp = model.model.layers[1].mlp
    mlp.down_proj = Routed(mlp.down_proj, torch.full((mlp.down_proj.out_features,), 3.0))
    if hparams.steps == 13:
        raise KeyboardInterrupt
    return RouterEdit(model, model)
"""
HOSTS = ["embedded", pytest.param("easyedit", marks=pytest.mark.skipif(
    not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout"))]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_an_edit_in_wrapped_modules_is_undone_by_its_own_kind(install_method, host, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    install_method("Router", ROUTER)
    model, tokenizer = make_llama(), make_tokenizer()
    modules, weights = [type(m) for m in model.modules()], weights_of(model)
    hparams = FTHyperParams(model_name=(model, tokenizer), device="cpu")
    if host == "easyedit":
        from causaledit.hosts.easyedit.patches import _OwnMethod, register

        editor = register().from_hparams(hparams)
        editor.apply_algo = _OwnMethod(METHODS["Router"], editor)  # the class is FT's, the method is not
    else:
        editor = EmbeddedEditor(hparams)
        editor.method = METHODS["Router"]
    metrics, _, _ = editor.edit_requests([dict(EGYPT), dict(NORWAY)], verbose=False)
    assert len(metrics) == 2
    assert [type(m) for m in editor.model.modules()] == modules
    assert same_weights(weights_of(editor.model), weights)
    hparams.steps = 13
    editor.hparams.steps = 13
    with pytest.raises(KeyboardInterrupt):
        editor.edit_requests([dict(EGYPT)], verbose=False)
    assert [type(m) for m in model.modules()] == modules
    assert same_weights(weights_of(model), weights)


# ---- a package, built and installed ----------------------------------------------------------------
EDIT = """
import json, torch
from importlib import resources
from conftest import EGYPT, make_llama, make_tokenizer, same_weights, weights_of
import causaledit
from causaledit.hosts.lookup import get_method

torch.set_num_threads(1)
hparams = get_method("Nudge").load_hparams().from_hparams(resources.files("causaledit_nudge") / "tiny.yaml")
model, tokenizer = make_llama(), make_tokenizer()
before = weights_of(model)
hparams.model_name = (model, tokenizer)

def probability(model):
    head = tokenizer(EGYPT["prompt"])["input_ids"]
    row = tokenizer(EGYPT["prompt"] + " " + EGYPT["target_new"])["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([row])).logits[0, len(head) - 1 : -1].log_softmax(-1)
    return float(logits.gather(-1, torch.tensor(row[len(head):])[:, None]).mean())

start = probability(model)
editor = getattr(causaledit, HOST).from_hparams(hparams)
metrics, _, _ = editor.edit_requests([dict(EGYPT)], verbose=False)
restored = same_weights(weights_of(editor.model), before)
editor.edit_requests([dict(EGYPT)], sequential_edit=True, verbose=False)
print(json.dumps({
    "host": type(editor).__module__, "restored": restored, "start": start, "end": probability(editor.model),
    "changed": [name for name, value in weights_of(editor.model).items() if not torch.equal(value, before[name])],
    "metrics": [sorted(item) for item in metrics],
}))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which the package in tests/plugin_package was built and installed with pip."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(TESTS / "plugin_package", folder / "source")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *isolation]
    done = subprocess.run(
        [*pip, "--target", folder / "site", source],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "site"


def nudged(site, folder, host):
    done = python(f"import os\nos.chdir({str(folder)!r})\nHOST = {host!r}\n{EDIT}", path=[site])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(found):
    assert found["restored"]
    assert found["end"] > found["start"] + 0.5  # nats per token
    assert found["changed"] == ["model.layers.1.mlp.down_proj.weight"]
    assert len(found["metrics"]) == 1 and {"pre", "post", "case_id"} <= set(found["metrics"][0])


def test_an_installed_package_edits_on_the_embedded_host(site, tmp_path):
    found = nudged(site, tmp_path, "EmbeddedEditor")
    assert found["host"] == "causaledit.hosts.embedded"
    check(found)


@pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout")
def test_an_installed_package_edits_through_easyedit(site, tmp_path):
    found = nudged(site, tmp_path, "BaseEditor")
    assert found["host"].startswith("easyeditor.")
    check(found)
