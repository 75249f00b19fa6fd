"""What is mistyped for a benchmark: one line that names it, and no model is loaded."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import arguments

CASE = {
    "case_id": 1,
    "requested_rewrite": [
        {
            "prompt": "The capital of {} is",
            "question": "What is the capital of Egypt?",
            "subject": "Egypt",
            "target_true": {"str": "Cairo"},
            "target_new": {"str": "Alexandria"},
        }
    ],
}
EFFICACY = ["edit_efficacy", "--data", "cases.json", "--hparams", "smollm2-135m-instruct"]
PARTS = ["stage_2_parts", "--data", "cases.json"]
AGREEMENT = ["judge_agreement", "--data", str(REPOSITORY / "tests" / "data" / "judge_cases_2.json")]
METRIC = ["easyedit_metric", "--hparams", "smollm2-135m-instruct"]


@pytest.mark.parametrize("command", [EFFICACY, PARTS, METRIC], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--set", "preserve_explained=2"], "`preserve_explained` must lie between 0 and 1, got 2"),
        (["--set", "preserve_explaned=0.2"], "Did you mean 'preserve_explained'"),
        (["--set", "preserve_explained"], "--set: takes KEY=VALUE, got 'preserve_explained'"),
        (["--set", "=1"], "--set: takes KEY=VALUE, got '=1'"),
        (["--set", "stages=[1"], "--set: takes KEY=VALUE with a value in YAML, got 'stages=[1'"),
        (["--limit", "-1"], "--limit: must be at least 1, got -1"),
        (["--limit", "0"], "--limit: must be at least 1, got 0"),
        (["--limit", "two"], "--limit: must be at least 1, got two"),
        (["--data", "no-such.json"], "no-such.json"),
        (["--hparams", "no-such.yaml"], "no-such.yaml"),
    ],
)
def test_benchmarks_of_an_edit(command, typed, words, refusal):
    assert words in refusal([*command, "--json", "out.json", *typed])


@pytest.mark.parametrize("command", [EFFICACY, PARTS], ids=lambda command: command[0])
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--select", "0:x"], "--select: takes a slice such as 0::3, got '0:x'"),
        (["--select", "::0"], "--select: takes a slice such as 0::3, got '::0'"),
        (["--select", "5:6"], "of its 1 cases --select takes none"),
    ],
)
def test_benchmarks_of_some_cases(command, typed, words, refusal):
    assert words in refusal([*command, "--json", "out.json", *typed])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([*EFFICACY, "--json", "out.json", "--stages", "one"], "--stages: takes 1, 2 or 1,2, got 'one'"),
        ([*EFFICACY, "--json", "out.json", "--rationale-judge", "nobody"], "nobody"),
        (["batch_cost", "--data", "no-such.json", "--hparams", "smollm2-135m-instruct"], "no-such.json"),
        (["batch_cost", "--data", "cases.json", "--hparams", "no-such.yaml"], "no-such.yaml"),
        (["compare_results", "no-such.json", "out.json"], "no-such.json"),
        (["distil_step_cost", "--data", "cases.json", "--hparams", "no-such.yaml"], "no-such.yaml"),
        (["frozen_layers", "--data", "cases.json", "--hparams", "no-such.yaml"], "no-such.yaml"),
        (
            ["frozen_layers", "--data", "cases.json", "--hparams", "x.yaml", "--layers", "8-24"],
            "takes ranges [first, end)",
        ),
        (["judge_agreement", "--data", "no-such.json"], "no-such.json"),
        ([*AGREEMENT, "--select", "split=holdout-5"], "dev-9, holdout-3, holdout-4."),
        ([*AGREEMENT, "--select", "splt=holdout-4"], "splt has: none."),
        (["chain_answers", "--data", "no-such.json"], "no-such.json"),
        (["known_before", "--data", "no-such.json"], "no-such.json"),
        (["probe_cost", "--repeats", "0"], "--repeats: must be at least 1, got 0"),
        (["retention", "--data", "no-such.json"], "no-such.json"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else None,
)
def test_the_others(command, words, refusal):
    assert words in refusal(command)


@pytest.mark.parametrize(
    ("text", "taken"), [("0::3", [0, 3]), ("1:", [1, 2, 3, 4]), ("-2:", [3, 4]), (":", [0, 1, 2, 3, 4])]
)
def test_a_slice_is_pythons(text, taken):
    assert list(range(5))[arguments.case_slice(text)] == taken


def test_a_settings_value_is_read_as_yaml():
    assert arguments.setting("stages=[1, 2]") == ("stages", [1, 2])
    assert arguments.setting("text=a=b") == ("text", "a=b")
    with pytest.raises(argparse.ArgumentTypeError):
        arguments.setting("text")


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """The last line that a benchmark ends with, given what was typed; no model may be loaded before."""

    def call(typed):
        name, *given = typed
        benchmark = importlib.import_module(name)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "cases.json").write_text(json.dumps([CASE]))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *given])
        if hasattr(benchmark, "load_model"):
            monkeypatch.setattr(benchmark, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
        with pytest.raises(SystemExit) as ended:
            arguments.run_benchmark(benchmark.main)
        assert ended.value.code not in (0, None)
        return capsys.readouterr().err.splitlines()[-1]

    return call
