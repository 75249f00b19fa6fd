"""Names that users hold on to stay: exports, apply functions, flags, YAML keys, the files and keys of a run.

`data/public_names.json` lists them. A name may be added there, not taken out.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
import yaml
from conftest import FAST, REPOSITORY, make_llama, make_tokenizer

NAMES = json.loads((Path(__file__).parent / "data" / "public_names.json").read_text(encoding="utf-8"))
HOST_ARGUMENTS = ["model", "tok", "requests", "hparams", "copy", "return_orig_weights", "keep_original_weight"]


def flags_by_command() -> dict[str, set[str]]:
    from causaledit.cli.app import app

    found: dict[str, set[str]] = {}

    def walk(command, name):
        for part, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {part}".strip())
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        found[name or "causaledit"] = {option for option in options if option.startswith("-")}

    walk(typer.main.get_command(app), "")
    return found


def test_exports():
    import causaledit

    assert set(NAMES["exports"]) <= set(causaledit.__all__)
    for name in set(NAMES["exports"]) - {"BaseEditor", "register"}:  # those look for EasyEdit (test_hosts)
        assert getattr(causaledit, name) is not None
    assert find_spec("causaledit.hosts.easyedit") is not None and callable(causaledit.register)


@pytest.mark.parametrize("reference", NAMES["apply"])
def test_apply_functions(reference):
    module, name = reference.split(":")
    function = getattr(importlib.import_module(module), name)
    assert list(inspect.signature(function).parameters)[: len(HOST_ARGUMENTS)] == HOST_ARGUMENTS


def test_console_script():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, name = project["scripts"]["causaledit"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_the_citation_is_of_this_version():
    import causaledit

    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == causaledit.__version__


@pytest.mark.parametrize("command", NAMES["flags"])
def test_flags(command):
    assert set(NAMES["flags"][command]) <= flags_by_command()[command]


@pytest.mark.parametrize("method", NAMES["hparams"])
def test_yaml_keys(method):
    from causaledit.methods.registry import METHODS

    hparams = METHODS[method].load_hparams()
    known = {field.name for field in dataclasses.fields(hparams)} | set(hparams.PUBLISHED_KEYS)
    assert set(NAMES["hparams"][method]) <= known


def test_files_and_keys_of_a_run(tmp_path):
    from causaledit.runs.arguments import RunArguments
    from causaledit.runs.execution import execute
    from causaledit.runs.plan import make_plan

    cases = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))[:1]
    (tmp_path / "one.json").write_text(json.dumps(cases), encoding="utf-8")
    model, tokenizer = make_llama(), make_tokenizer()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    lines = {"alg_name": "FT", **FAST["FT"], "steps": 1, "model_name": str(tmp_path / "model")}
    (tmp_path / "ft.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))
    plan = make_plan(
        RunArguments(
            editing_method="FT", datatype=str(tmp_path / "one.json"), model_type="tiny",
            hparams_path=str(tmp_path / "ft.yaml"), output_root=str(tmp_path / "out"), run_id="r", device="cpu",
            max_new_tokens=2,
        )
    )  # fmt: skip
    folder = execute(plan, model=model, tokenizer=tokenizer).folder
    wanted = NAMES["run_folder"]
    assert all((folder / name).exists() for name in wanted["files"])

    def read(name):
        return json.loads((folder / name).read_text(encoding="utf-8"))

    item, info = read("metrics.json")[0], read("meta/run_info.json")
    for part, data in {
        "metrics_item": item,
        "post": item["post"],
        "prediction": item["post"]["accuracy_pred"][0],
        "res": read("res.json"),
        "run_info": info,
        "costs": info["costs"],
        "run_args": read("meta/run_args.json"),
        "requests_item": read("requests.json")[0],
    }.items():
        assert set(wanted[part]) <= set(data), part
