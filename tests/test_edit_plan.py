"""`causaledit edit --plan`, and the subject that is suggested for a request without one."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest
from conftest import EGYPT, FAST, REPOSITORY
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import RequestError
from causaledit.facts.subjects import suggest_subject
from causaledit.methods.registry import METHODS


@pytest.fixture(scope="module")
def bare_model(tmp_path_factory, tiny_model_folder):
    """A model's folder without its weights: nothing can load them."""
    folder = shutil.copytree(tiny_model_folder, tmp_path_factory.mktemp("bare") / "tiny")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """`file_of(method)` is a YAML file with its fast hyper-parameters."""
    folder = tmp_path_factory.mktemp("hparams")

    def write(method, **changes):
        file = folder / f"{method}.yaml"
        lines = {"alg_name": method, **FAST[method], **changes}
        file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items()))
        return file

    return write


def invoke(*arguments, **options):
    return CliRunner().invoke(app, ["edit", *(str(argument) for argument in arguments)], **options)


def words_of(text):
    return " ".join(text.split())


FACT = ("--subject", "France", "--prompt", "The capital of {} is", "--old", "Paris", "--new", "Lyon")
NO_SUBJECT = ("--prompt", "The capital of France is", "--old", "Paris", "--new", "Lyon")


# ---- the plan --------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", sorted(name for name in FAST if METHODS[name].changes_weights))
def test_a_plan_needs_no_weights(method, bare_model, file_of, tmp_path):
    file = file_of(method)
    done = invoke(*FACT, "--model", bare_model, "--method", method, "--hparams", file, "--device", "cpu",
                  "--save", tmp_path / "out", "--plan")  # fmt: skip
    assert done.exit_code == 0, done.output
    said = words_of(done.stdout)
    assert f"method {method}" in said
    assert str(file) in "".join(done.stdout.split())
    assert "The capital of France is: Paris → Lyon" in said
    assert "France, found at character 16 of the prompt" in said
    assert "weight" in said
    assert "nothing was changed" in said
    assert not (tmp_path / "out").exists()


def test_a_plan_says_what_is_touched_and_what_it_costs(bare_model, file_of):
    common = ("--model", bare_model, "--device", "cpu", "--plan")
    said = words_of(invoke(*FACT, *common, "--method", "FT", "--hparams", file_of("FT"), "--keep-originals").stdout)
    assert "2 weights: mlp.down_proj of layers 0–1" in said
    assert f"originals 2 weights, {2 * 32 * 64 * 4 / 2**20:.2f} MiB" in said
    story = ("--narrative", "The ministries moved to Lyon in spring, by law.")
    causal = invoke(*FACT, *common, *story, "--hparams", file_of("CausalEdit"), "--adapter-only").stdout
    said = words_of(causal)
    assert "from the request, 9 words" in said
    assert "adapter of rank 8, kept apart" in said
    assert {"bootstrap", "internalise"} <= set(causal.split())
    assert "one edit generates at most" in said
    longer = words_of(invoke(*FACT, *common, *story, "--hparams", file_of("CausalEdit", bootstrap_max_steps=40)).stdout)

    def trained(text):
        return int(text.partition("trains on at most ")[2].split()[0].replace(",", ""))

    assert trained(longer) > trained(said)
    written = words_of(invoke(*FACT, *common, "--hparams", file_of("CausalEdit")).stdout)
    assert "the model writes one of at most 8 tokens" in written


@pytest.mark.parametrize("kind", ["8bit", "4bit"])
@pytest.mark.parametrize("planned", [True, False])
def test_originals_that_a_quantised_edit_cannot_keep_are_refused(kind, planned, bare_model, file_of, tmp_path):
    """An adapter on quantised weights is merged into another model than that in memory: nothing would be kept."""
    what = ("--plan",) if planned else ("--save", tmp_path / "out")
    common = (*FACT, "--model", bare_model, "--method", "LoRA", "--hparams", file_of("LoRA", quantization=kind))
    result = invoke(*common, *what, "--keep-originals")
    assert result.exit_code == 1
    said = words_of(result.output + str(result.exception or ""))
    assert "--keep-originals" in said and f"quantization: {kind}" in said and "--adapter-only" in said
    kept_apart = words_of(invoke(*common, "--plan", "--keep-originals", "--adapter-only").output)
    assert "an adapter changes no weights" in kept_apart


def test_a_plan_refuses_what_the_edit_would_refuse(bare_model, file_of, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    file = file_of("FT", layers=[7])
    for options, words in (
        ((*FACT, "--save", tmp_path / "full"), "not empty"),
        ((*FACT, "--method", "FT", "--hparams", file), "layer 7"),
    ):
        hparams = () if "--hparams" in options else ("--hparams", file_of("CausalEdit"))
        done = invoke(*options, *hparams, "--model", bare_model, "--device", "cpu", "--plan")
        assert words in str(done.exception)


# ---- a subject is suggested ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of France is", "France"),
        ("the capital of france is", "france"),
        ("What is the capital of Egypt?", "Egypt"),
        ("Norway's capital is", "Norway"),
        ("The mother tongue of Danielle Darrieux is", "Danielle Darrieux"),
        ("Currently, France is governed from", "France"),
        ("Bank of America was founded by", "Bank of America"),
        ("The Beatles were formed in the city of", "The Beatles"),
        ("association football was created in the country of", "association football"),
        ("The headquarters of People's Daily is located in the city of", "People's Daily"),
        ('The author of "The Old Man and the Sea" is', "The Old Man and the Sea"),
        ("iPhone 5 is developed by", "iPhone 5"),
        ("埃及的首都是", "埃及"),
        ("the sky is", None),
    ],
)
def test_suggestions(prompt, subject):
    assert suggest_subject(prompt) == subject


def test_suggestions_are_the_subjects_of_the_bundled_cases():
    cases = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
    edits = {(r["prompt"], r["subject"]) for case in cases for r in case["requested_rewrite"]}
    right = [suggest_subject(prompt.replace("{}", subject)) == subject for prompt, subject in edits]
    assert sum(right) / len(right) > 0.9


def test_a_script_gets_the_suggestion_in_one_line(bare_model, file_of, tmp_path):
    options = ("--model", bare_model, "--method", "ROME", "--hparams", file_of("ROME"), "--device", "cpu")
    done = invoke(*NO_SUBJECT, *options, "--save", tmp_path / "out")
    assert isinstance(done.exception, RequestError)
    assert "--subject 'France'" in str(done.exception)
    assert "--yes" in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1
    nothing = ("--prompt", "the sky is", "--new", "green")
    assert "--subject is missing" in str(invoke(*nothing, *options, "--plan").exception)
    planned = words_of(invoke(*NO_SUBJECT, *options, "--plan").stdout)
    assert "France, found at character 16 of the prompt (suggested: give it with --subject" in planned
    taken = invoke(*NO_SUBJECT, *options, "--plan", "--yes")
    assert "France, found at character 16 of the prompt" in words_of(taken.stdout)
    assert "subject: France (suggested)" in taken.stderr


def test_requests_of_a_file_get_theirs(bare_model, file_of, tmp_path):
    first = {key: EGYPT[key] for key in ("prompt", "subject", "target_new", "ground_truth")}
    second = {"prompt": "The capital of Norway is", "target_new": "Bergen", "ground_truth": "Oslo"}
    file = tmp_path / "requests.json"
    file.write_text(json.dumps([first, second]))
    options = ("--requests", file, "--model", bare_model, "--hparams", file_of("CausalEdit"), "--device", "cpu")
    done = invoke(*options, "--save", tmp_path / "out")
    assert "Request 2: " in str(done.exception)
    assert "--subject 'Norway'" in str(done.exception)
    said = words_of(invoke(*options, "--plan", "--yes").stdout)
    assert "Egypt, found at character 16" in said
    assert "Norway, found at character 16" in said


def test_a_method_without_subjects_asks_for_none(bare_model, file_of):
    options = ("--model", bare_model, "--method", "FT", "--hparams", file_of("FT"), "--device", "cpu", "--plan")
    done = invoke(*NO_SUBJECT, *options)
    assert done.exit_code == 0, done.output
    assert "this method needs none" in words_of(done.stdout)


def test_a_terminal_is_asked(bare_model, file_of):
    """A real terminal: the suggestion is shown, and Enter takes it."""
    here, there = pty.openpty()
    command = [sys.executable, "-m", "causaledit", "edit", *NO_SUBJECT, "--model", bare_model, "--method", "ROME",
               "--hparams", file_of("ROME"), "--device", "cpu", "--plan"]  # fmt: skip
    process = subprocess.Popen(
        [str(part) for part in command], cwd=REPOSITORY, stdin=there, stderr=there, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(there)
    shown, end = b"", time.monotonic() + 120
    while b"(France)" not in shown and time.monotonic() < end:
        if select.select([here], [], [], 1)[0]:
            shown += os.read(here, 4096)
    os.write(here, b"\n")
    stdout, _ = process.communicate(timeout=120)
    os.close(here)
    assert b"Which entity is it about?" in shown
    assert process.returncode == 0, shown
    assert "France, found at character 16 of the prompt" in words_of(stdout)
