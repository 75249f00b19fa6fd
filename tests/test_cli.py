"""The command line: bad input ends with one line and an exit code, before any compute."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import run
from conftest import REPOSITORY

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
