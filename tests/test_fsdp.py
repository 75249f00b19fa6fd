"""One edit of a model whose weights lie in pieces in two processes (FSDP2, gloo) is the edit of the whole model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from conftest import EGYPT, FAST, REPOSITORY, make_gpt2, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import ModelError
from causaledit.models.loading import load_model
from causaledit.models.sharded import check_sharding, without_accelerates_sharding

# as `accelerate launch` sets it for an FSDP configuration
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def start(*arguments, **environment):
    """Run Python to its end, on the CPU."""
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    fixed = {"PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env={**os.environ, **fixed, **environment},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """An untied Llama, as those of 8B and 70B are."""
    folder = tmp_path_factory.mktemp("model")
    make_llama(tie_word_embeddings=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def test_an_edit_in_two_processes_with_fsdp_is_that_of_one(tmp_path, model_folder):
    (tmp_path / "requests.json").write_text(json.dumps([EGYPT]))

    def edited(name, *launcher, **environment):
        hparams = {
            **FAST["CausalEdit"],
            "alg_name": "CausalEdit",
            "model_name": str(model_folder),
            "bootstrap_batch_size": 2 if launcher else 4,
            "bootstrap_max_steps": 3,
            "bootstrap_micro_batch_tokens": 160,
            "distill_gradient_accumulation_steps": 1 if launcher else 2,
            "distill_prompts": "leads",
            "distill_min_lead": 0.0,
            "distill_top_p": 1e-6,  # rollouts are the likeliest tokens
            "distill_repetition_threshold": 1.0,
            "distill_trust_kl": 1.0,
            "distill_preserve_share": 0.5,  # rollouts whose teacher is the base model, beside those of the snapshot
            "preserve_weight": 0.5,
            "preserve_prompts": 8,
            "preserve_batch_size": 6,  # all that the trust region leaves
            "preserve_max_new_tokens": 2,
            "gradient_checkpointing": True,
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(hparams))
        said = start(
            *launcher, "-m", "causaledit", "edit", "--hparams", tmp_path / f"{name}.yaml", "--requests",
            tmp_path / "requests.json", "--adapter-only", "--save", tmp_path / name, **environment,
        )  # fmt: skip
        assert said.count("saved to") == 1
        adapted = load_model(tmp_path / name, device="cpu").model
        changes = {n: m.get_delta_weight("default") for n, m in adapted.named_modules() if hasattr(m, "lora_A")}
        return json.loads((tmp_path / name / "causaledit.json").read_text()), changes

    card, changes = edited("one")
    sharded_card, sharded_changes = edited("two", *TWO, **FSDP)
    assert {"bootstrap", "internalise", "internalise_preservation"} <= set(card["losses"])
    assert sharded_card["leads"]["by_kind"] == card["leads"]["by_kind"]
    for stage, losses in card["losses"].items():
        assert sharded_card["losses"][stage] == pytest.approx(losses, abs=1e-4, rel=1e-4), stage
    assert len(changes) == 14 and max(float(change.abs().max()) for change in changes.values()) > 1e-2
    for name, change in changes.items():
        torch.testing.assert_close(sharded_changes[name], change, atol=1e-4, rtol=1e-4, msg=name)


def test_a_sharded_model_is_kept_and_refuses_what_it_cannot_do(tmp_path, model_folder):
    other = tmp_path / "other"
    make_gpt2().save_pretrained(other)
    make_tokenizer().save_pretrained(other)
    start(*TWO, REPOSITORY / "tests" / "sharded_in_processes.py", model_folder, tmp_path, other, **FSDP)
    first, second = (json.loads((tmp_path / f"found{rank}.json").read_text()) for rank in range(2))
    whole = load_model(model_folder, device="cpu")
    ids = torch.tensor([whole.tokenizer("What is the capital of Egypt?")["input_ids"]])
    with torch.no_grad():
        logits = whole.model(input_ids=ids).logits
    for rank, found in enumerate((first, second)):
        assert found["held"] < 0.6 * found["whole"]
        assert found["as_before"] and found["trainable"] == 0
        torch.testing.assert_close(torch.load(tmp_path / f"logits{rank}.pt"), logits)
        refused = found["refused"]
        assert "--adapter-only" in refused["merged"]
        assert "`copy: true`" in refused["copied"]
        assert "`distill_use_vllm: true`" in refused["vllm"]
        assert "by layers" in refused["without layers"]
        assert refused["stopped"] == "between the stages"
        assert not any("\n" in message for message in refused.values())
    assert first["held"] + second["held"] >= first["whole"]
    assert first["said"] == second["said"]  # although the second computes something else


@pytest.mark.parametrize(
    ("environment", "options", "said"),
    [
        ({"FSDP_VERSION": "1"}, {}, "`fsdp_version: 2`"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, {}, "`fsdp_offload_params: false`"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "`gradient_checkpointing: true`"),
        ({}, {"quantization": "4bit"}, "`quantization: none`"),
        ({}, {"model_parallel": True}, "`model_parallel: true`"),
        ({}, {"path": Path("model.gguf")}, "GGUF"),
        ({}, {"device": torch.device("meta")}, "set it to auto"),
    ],
)
def test_what_cannot_be_sharded_is_refused_in_one_line(environment, options, said):
    asked = {
        "path": Path("model"),
        "device": torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu"),
        "quantization": "none",
        "model_parallel": False,
    }
    check_sharding(**asked, environment=FSDP)
    with pytest.raises(ModelError) as caught:
        check_sharding(**{**asked, **options}, environment={**FSDP, **environment})
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["fsdp_8b", "fsdp_70b"])
def test_the_examples_are_what_accelerate_and_we_take(name):
    file = REPOSITORY / "examples" / "accelerate" / f"{name}.yaml"
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(file), "edit.py"]))
    environment = prepare_multi_gpu_env(args)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    check_sharding(Path("model"), here, quantization="none", model_parallel=False, environment=environment)


def test_a_merge_is_refused_before_a_model_is_read(tmp_path, monkeypatch):
    for name, value in {**FSDP, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    options = ["--model", str(tmp_path / "none"), "--hparams", "smollm2-135m-instruct", "--save", str(tmp_path / "out")]
    edit = ["--subject", "Egypt", "--prompt", "The capital of {} is", "--new", "Alexandria", "--question", "Which?"]
    done = CliRunner().invoke(app, ["edit", *options, *edit])
    assert isinstance(done.exception, ModelError) and "--adapter-only" in str(done.exception)


def test_accelerates_own_sharding_is_off_for_a_block_alone(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RuntimeError), without_accelerates_sharding():
        assert os.environ["ACCELERATE_USE_FSDP"] == "false"
        raise RuntimeError
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
