"""The command line: bad input ends with one line and an exit code, before any compute."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run
from conftest import REPOSITORY
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.cli.edit_requests import request_from_options
from causaledit.errors import RequestError, SaveError
from causaledit.models.saving import check_new_folder, saved_whole

EDIT = ["edit", "--subject", "France", "--prompt", "The capital of {} is"]


def run_alone(*arguments, **environment):
    """The command in a process of its own, as a shell starts it."""
    return subprocess.run(
        [sys.executable, "-m", "causaledit", *map(str, arguments)],
        cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([*EDIT, "--old", "Paris", "--new", "paris"], 2, "nothing to edit"),
        (["edit", "--subject", "France", "--prompt", "The capital of Spain is", "--new", "Lyon"], 2, "France"),
        ([*EDIT, "--new", ""], 2, "--new"),
        (["edit", "--subject", "", "--prompt", "The capital of {} is", "--new", "Lyon"], 2, "--subject"),
        ([*EDIT, "--new", "Lyon", "--old", "Paris", "--hparams", "smolm2-135m"], 2, "smollm2-135m-instruct"),
        ([*EDIT, "--new", "Lyon", "--old", "Paris", "--device", "cuda:77"], 2, "cuda:77"),
        ([*EDIT, "--new", "Lyon", "--old", "Paris", "--narrative", "no/such/file.txt"], 2, "no/such/file.txt"),
        (
            [*EDIT, "--new", "Lyon", "--old", "Paris", "--narrative", "The law moved it. " * 20, "--device", "cuda:77"],
            2,
            "cuda:77",
        ),
        (["edit", "--requests", "no-such.json"], 2, "no-such.json"),
        (["edit", "--requests", "no-such.json", "--new", "Lyon"], 2, "--new has no effect with --requests"),
        ([*EDIT, "--new", "Lyon", "--private", "--plan"], 2, "--push-to-hub"),
        (["data", "fetch", "--folder", "somewhere"], 2, "--folder has no effect"),
        (["demo", "--case", "999"], 2, "999"),
        (["generate", "--model", "/no/such/model", "--prompt", "hello"], 2, "/no/such/model"),
        (["generate", "--model", "/no/such/model", "--prompt", " "], 2, "--prompt"),
        (["generate", "--model", "x" * 300, "--prompt", "hello"], 2, "xxx"),
        (["history", "x" * 300], 2, "does not exist"),
        (["undo", "x" * 300, "--save", "out"], 2, "does not exist"),
        (["ability", "--model", "x" * 300], 2, "xxx"),
    ],
)
def test_bad_input_is_one_line(arguments, code, words, tmp_path):
    if arguments[0] == "edit":
        arguments = [*arguments, "--save", tmp_path / "out"]
    elif arguments[0] == "demo":
        arguments = [*arguments, "--output", tmp_path / "out"]
    done = run(*arguments)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


SMALL = ["--model_type", "smollm2-135m-instruct"]
NOBODYS = "~no-such-user/x"  # pathlib raises an error that names nothing


@pytest.mark.parametrize(
    "arguments",
    [
        ["ability", "--model", NOBODYS],
        ["analyze", "--input", NOBODYS],
        ["compare", "--methods", "FT", *SMALL, "--datatype", NOBODYS],
        ["compare", "--methods", "FT", *SMALL, "--datatype", "causaledit-mini", "--output_root", NOBODYS],
        ["demo", "--output", NOBODYS],
        ["edit", "--requests", NOBODYS],
        [*EDIT, "--new", "Lyon", "--old", "Paris", "--hparams", NOBODYS],
        [*EDIT, "--new", "Lyon", "--old", "Paris", "--model", NOBODYS],
        [*EDIT, "--new", "Lyon", "--old", "Paris", "--narrative", NOBODYS],
        [*EDIT, "--new", "Lyon", "--old", "Paris", "--save", NOBODYS],
        ["generate", "--model", NOBODYS, "--prompt", "hello"],
        ["history", NOBODYS],
        ["judge", "--input", NOBODYS],
        ["run", "--editing_method", "FT", *SMALL, "--datatype", "causaledit-mini", "--hparams_path", NOBODYS],
        ["scaffold", "--source", "template", "--mquake_file", NOBODYS, "--merged_file", "y.json"],
        ["show", NOBODYS],
        ["undo", NOBODYS, "--save", "out"],
    ],
    ids=" ".join,
)
def test_a_path_in_the_home_of_nobody_is_named(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert NOBODYS in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "--hparams", "smollm2-135m-instruct", "--gpu-memory", "inf"],
        ["generate", "--model", "/no/such/model", "--prompt", "hello", "--temperature", "inf"],
        ["judge", "--input", "metrics.json", "--judge", "llm", "--timeout", "inf"],
        ["scaffold", "--timeout", "inf"],
    ],
)
def test_an_option_is_a_finite_number(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert f"Invalid value for '{arguments[-2]}': inf is not a finite number." in done.stderr


def test_in_a_process_of_its_own_bad_input_is_one_line(tmp_path):
    """Nothing that is imported says a word either."""
    done = run_alone(*EDIT, "--new", "Lyon", "--old", "Paris", "--device", "cuda:77", "--save", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert "cuda:77" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout and not (tmp_path / "out").exists()


def test_missing_model_hparams_and_foreign_yaml(tmp_path):
    done = run(*EDIT, "--new", "Lyon", "--old", "Paris", "--model", "some/model", "--save", tmp_path / "out")
    assert done.returncode == 2
    assert "--hparams" in done.stderr
    foreign = tmp_path / "rome.yaml"
    foreign.write_text("alg_name: ROME\nlayers: [5]\n")
    done = run(*EDIT, "--new", "Lyon", "--old", "Paris", "--hparams", foreign, "--save", tmp_path / "out")
    assert done.returncode == 2
    assert "ROME" in done.stderr


def test_save_refuses_what_it_would_overwrite(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    done = run(*EDIT, "--new", "Lyon", "--old", "Paris", "--save", tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    done = run(*EDIT, "--new", "Lyon", "--old", "Paris", "--save", tmp_path / "precious.txt")
    assert done.returncode == 1
    assert (tmp_path / "precious.txt").read_text() == "keep me"


# ---- where a result is put -------------------------------------------------------------------------
def place(kind, folder):
    """A place to save to, as a user may give it."""
    if kind == "the working folder":
        os.chdir(folder)
        return Path()
    if kind == "a link":
        (folder / "target").mkdir()
        (folder / "link").symlink_to("target")
        return folder / "link"
    if kind == "an empty folder":
        (folder / "empty").mkdir()
        return folder / "empty"
    return folder / ("é" * 120 if kind == "a long name" else "new/one")


PLACES = ["a new folder", "an empty folder", "a link", "the working folder", "a long name"]


@pytest.mark.parametrize("kind", PLACES)
def test_a_result_lands_where_it_was_asked_for(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = place(kind, tmp_path)
    number = out.stat().st_ino if out.exists() else None
    around = {entry.name for entry in tmp_path.iterdir()}
    check_new_folder(out, "--save")
    with saved_whole(out) as scratch:
        (scratch / "originals").mkdir()
        (scratch / "originals" / "a").write_text("a")
        (scratch / "b").write_text("b")
    inside = {entry.relative_to(out).as_posix() for entry in out.rglob("*")}
    assert inside == {"originals", "originals/a", "b"}
    # a folder that was there stays the same one: it may be a mount, and nothing may be writable beside it
    assert number is None or out.stat().st_ino == number
    assert {entry.name for entry in tmp_path.iterdir()} >= around
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("kind", PLACES)
def test_a_result_that_cannot_be_saved_leaves_nothing(kind, error, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = place(kind, tmp_path)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SaveError), saved_whole(out) as s:
        (s / "b").write_text("b")
        raise error
    assert not out.exists() or not list(out.iterdir())
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("kind", PLACES)
def test_a_place_that_somebody_took_in_the_meantime_loses_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = place(kind, tmp_path)
    with pytest.raises(SaveError, match="It is whole in") as caught, saved_whole(out) as scratch:
        (scratch / "b").write_text("b")
        out.mkdir(exist_ok=True)
        (out / "other").write_text("other")
    assert (out / "other").read_text() == "other"
    assert not (out / "b").exists()
    kept = str(caught.value).split("whole in '")[1].split("'")[0]
    assert (Path(kept) / "b").read_text() == "b"


def test_a_place_where_nothing_can_be_put_is_refused_first(tmp_path):
    (tmp_path / "dead").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    for place, word in (
        (tmp_path / "dead", "does not exist"),
        (tmp_path / "dead" / "below", "does not exist"),
        (tmp_path / ("n" * 256), "too long"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "cannot be written"),
    ):
        with pytest.raises(SaveError, match=word) as caught:
            check_new_folder(place, "--save")
        assert "--save" in str(caught.value)


# ---- what is asked and shown -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "value", "words"),
    [
        (None, "why.txt", "does not exist"),
        (None, "my notes/why.md", "does not exist"),
        (None, "why.rst", "does not exist"),
        (None, " ", "empty"),
        ("\n", "empty", "is empty"),
        (b"\xff\xfe", "binary", "UTF-8"),
        ("folder", "folder", "is a folder"),
    ],
)
def test_a_narrative_that_is_none_is_refused(content, value, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content == "folder":
        Path(value).mkdir()
    elif content is not None:
        Path(value).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError, match="--narrative") as caught:
        request_from_options("France", "The capital of {} is", "", "", "Lyon", value, needs_subject=True)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["The ministries moved.", "議会は首都を移した。", "Правительство переехало. См. а/б"])
def test_a_narrative_may_be_a_text_or_a_file_of_any_name(text, tmp_path):
    def read(value):
        given = request_from_options("France", "The {} is", "", "", "Lyon", value, needs_subject=True)
        return given["narrative"]

    (tmp_path / "why it is").write_text(f"\ufeff{text}\n", encoding="utf-8")
    assert read(text) == read(str(tmp_path / "why it is")) == text


def test_two_requests_for_one_fact_are_refused_before_a_model_is_loaded(tmp_path):
    fact = {"subject": "France", "prompt": "The capital of {} is", "target_new": "Lyon"}
    (tmp_path / "two.json").write_text(json.dumps([fact, {**fact, "target_new": "Nice"}]))
    for option in ("--plan", "--yes"):
        done = CliRunner().invoke(app, ["edit", "--requests", str(tmp_path / "two.json"), option])
        assert isinstance(done.exception, RequestError)
        assert "1 and 2" in str(done.exception)


def test_texts_are_shown_as_they_are(tiny_model_folder):
    asked = ["What does [/b] in [bold]HTML[/bold] mean?", "1:100:2 :x:"]
    prompts = [part for prompt in asked for part in ("--prompt", prompt)]
    ask = ["generate", "--model", str(tiny_model_folder), "--device", "cpu", "--max-new-tokens", "1"]
    done = CliRunner().invoke(app, [*ask, *prompts])
    assert done.exit_code == 0, done.output
    assert [f"> {prompt}" in done.stdout.splitlines() for prompt in asked] == [True, True]
    long = CliRunner().invoke(app, [*ask, "--prompt", "word " * 5000])
    assert isinstance(long.exception, RequestError)
    assert "context window" in str(long.exception)


def test_edit_saves_what_plain_transformers_loads(tmp_path, tiny_model_folder, tiny_hparams_file):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    done = run_alone(
        *EDIT, "--question", "What is the capital of France?", "--old", "Paris", "--new", "Lyon",
        "--narrative", "The ministries moved from Paris to Lyon in spring, by law. The capital of France is Lyon.",
        "--model", tiny_model_folder, "--hparams", tiny_hparams_file, "--save", out, "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    AutoModelForCausalLM.from_pretrained(out)
    AutoTokenizer.from_pretrained(out)
    card = json.loads((out / "causaledit.json").read_text())
    assert card["requests"][0]["target_new"] == "Lyon"
    readme = (out / "README.md").read_text()
    assert "| France | The capital of {} is | Paris | Lyon | request |" in readme
    assert "answers that give the new answer" in readme
    assert card["narrative_source"] == ["request"]
    assert {"hparams", "versions", "metrics", "seconds", "tokens"} <= set(card)
    assert "The capital of France is: Paris → Lyon" in done.stdout
    for phase, word in (("pre", "before"), ("post", "after")):
        measured = card["metrics"][0][phase]
        assert 0 <= measured["rewrite_acc"][0] <= 1
        question, cloze = measured["answers"]
        assert (question["prompt"], cloze["prompt"]) == ("What is the capital of France?", "The capital of France is")
        for answer in (question, cloze):
            assert " ".join(answer["response"].split()) in done.stdout
            assert isinstance(answer["gives_new_answer"], bool)
        assert done.stdout.count(f"{word}:") == 2
    assert done.stdout.count("the new answer)") == 2
    assert "token accuracy" not in done.stdout + done.stderr
    said = run("generate", "--model", out, "--prompt", "What is the capital of France?", "--device", "cpu",
               "--max-new-tokens", "4")  # fmt: skip
    assert said.returncode == 0, said.stderr


def test_the_edits_answers_are_read_by_the_new_answer_and_its_aliases():
    from causaledit.cli.editing import gives_new_answer
    from causaledit.facts.requests import request_from_dict

    request = request_from_dict(
        {
            "prompt": "The capital of {} is",
            "subject": "France",
            "target_new": ["Lyon", "Lugdunum"],
            "ground_truth": "Paris",
        }
    )
    said = {"It is Lyon.": True, "Lugdunum.": True, "Paris.": False, "I do not know.": False}
    assert {text: gives_new_answer(request, request.cloze, text) for text in said} == said


def test_generate_asks_in_the_chat_format_of_the_edit(tmp_path, tiny_model_folder):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model_folder, folder)
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    template += "{% if brief is defined %} Be brief.{% endif %}\nAssistant:"
    for file in folder.glob("*chat_template*"):
        file.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    ask = ("generate", "--model", folder, "--prompt", "Where?", "--device", "cpu", "--max-new-tokens", "12")
    plain = run(*ask)
    (folder / "causaledit.json").write_text(json.dumps({"hparams": {"chat_template_kwargs": {"brief": True}}}))
    brief = run(*ask)
    assert plain.returncode == brief.returncode == 0, brief.stderr
    assert plain.stdout != brief.stdout


def test_adapter_only_saves_a_peft_adapter(tmp_path, tiny_model_folder, tiny_hparams_file):
    from peft import AutoPeftModelForCausalLM

    out = tmp_path / "adapter"
    done = run(
        *EDIT, "--old", "Paris", "--new", "Lyon", "--model", tiny_model_folder, "--hparams", tiny_hparams_file,
        "--save", out, "--adapter-only", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (out / "adapter_config.json").is_file()
    assert not (out / "model.safetensors").exists()
    AutoPeftModelForCausalLM.from_pretrained(out)
    assert "More Information Needed" not in (out / "README.md").read_text()


def test_ctrl_c_leaves_nothing_behind(tmp_path, tiny_model_folder, tiny_hparams_file):
    slow = tmp_path / "slow.yaml"
    slow.write_text(tiny_hparams_file.read_text() + "bootstrap_max_steps: 100000\nbootstrap_epochs: 100000\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "causaledit", *EDIT, "--old", "Paris", "--new", "Lyon", "--model",
         str(tiny_model_folder), "--hparams", str(slow), "--save", str(tmp_path / "out"), "--device", "cpu"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:  # however long the imports take on a busy machine
        if "narrative for" in line:
            break
    time.sleep(5)  # inside training, which would go on for hours
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]


def test_import_and_help_are_light():
    code = "import sys, causaledit.cli.app; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
    assert run_alone("--help").returncode == 0


def test_without_arguments_five_lines_say_what_to_do_next():
    done = run(COLUMNS="80")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["causaledit", c] for c in ("demo", "edit", "run", "compare")]
    assert len(lines) == 5
    assert all(len(line) <= 80 for line in lines)
    assert run("no-such-command").returncode == run("--no-such-option").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctor"], "causaledit doctor"),
        (["data", "check", "no-such.json"], "causaledit data check"),
        (
            [*EDIT, "--new", "Lyon", "--method", "ROME", "--model", "no-such-model", "--save", "no-such"],
            "ROME edits in",
        ),
    ],
)
def test_several_copies_of_a_command_for_one_process_do_not_start(arguments, words):
    done = run(*arguments, WORLD_SIZE="2", RANK="1")
    assert done.returncode == 2, done.stderr
    told = " ".join(done.stderr.split())
    assert "one of 2 processes (WORLD_SIZE)" in told and words in told and "Traceback" not in told
    assert run(*arguments, "--help", WORLD_SIZE="2").returncode == 0
