"""Every method of EasyEdit through `get_method`: which edit and are undone exactly, which refuse, which fail and why.

    EASYEDIT_HOME=/path/to/EasyEdit python benchmarks/easyedit_methods.py

Each method edits a random Llama of four layers (with SmolLM2's tokenizer), with the checkout's own file for a Llama, or
its nearest: layers are moved into the small model, steps are few, and statistics come from the model's own samples
instead of Wikipedia. The edited model is asked, the edit undone, and weights, modules, hooks and flags are compared. A
table in Markdown is printed. What a method learns is not measured here.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from arguments import positive, run_benchmark

from causaledit.errors import CausalEditError, one_line
from causaledit.hosts.easyedit import own_methods
from causaledit.hosts.easyedit.files import plain_name
from causaledit.methods.in_turn import edit_all
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model

DEPTH = 4
LAYER = 2  # where a file's layers are moved to
LIKELY = ("llama3-8b", "llama3-8b-instruct", "llama-7b", "llama3.1-8b", "qwen2.5-7b")
STEPS = ("num_steps", "n_iter", "v_num_grad_steps")
# settings without which the checkout's file is refused or fails
CHANGES: dict[str, dict[str, Any]] = {
    "IKE": {"use_icl_examples": False},
    "LoRA": {"lora_type": "lora"},
}
REQUEST = {
    "prompt": "The capital of Egypt is",
    "subject": "Egypt",
    "question": "What is the capital of Egypt?",
    "target_new": "Alexandria",
    "ground_truth": "Cairo",
    "rephrase_prompt": "Egypt has its capital in",
    "locality": {"other": {"prompt": "The capital of Japan is", "ground_truth": "Tokyo"}},
}


class TooLong(Exception):
    """A method took longer than its time."""


def small_model(tokenizer: Any) -> Any:
    """A random Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM  # only now can a torchvision for GPUs be passed over

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=DEPTH,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def state_of(model: Any) -> dict[str, Any]:
    """Everything that an edit has to leave as it was."""
    return {
        "weights": {name: value.detach().clone() for name, value in model.state_dict().items()},
        "modules": {name: type(module) for name, module in model.named_modules()},
        "hooks": {n: (len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()},
        "flags": {name: value.requires_grad for name, value in model.named_parameters()},
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states are equal, weights to the bit."""
    a, b = one["weights"], other["weights"]
    return (
        a.keys() == b.keys()
        and all(torch.equal(a[name], b[name]) for name in a)
        and all(one[key] == other[key] for key in ("modules", "hooks", "flags"))
    )


def hparams_of(home: Path, method: Any) -> tuple[str, Any]:
    """The checkout's file for a Llama, fitted to the small model; its name, and the hyper-parameters."""
    kind = method.load_hparams()
    folders = [f for f in sorted((home / "hparams").iterdir()) if plain_name(f.name) == plain_name(method.name)]
    files = {file.stem: file for folder in folders for file in sorted(folder.glob("*.yaml"))}
    name = next((name for name in LIKELY if name in files), next(iter(files), None))
    if name is None:  # CORE has none: MEMIT's has all that it needs
        file = home / "hparams" / "MEMIT" / "llama-7b.yaml"
        hparams = kind.from_dict({**yaml.safe_load(file.read_text(encoding="utf-8")), "alg_name": method.name})
        name = "MEMIT/llama-7b"
    else:
        hparams = kind.from_hparams(files[name])
    fit(hparams)
    return name, hparams


def fit(hparams: Any) -> None:
    """Move layers, take few steps, take the model's own samples for Wikipedia."""
    hparams.device = "cpu"
    for key, value in list(vars(hparams).items()):
        if dataclasses.is_dataclass(value):  # the base method's, within SimIE's
            fit(value)
        elif key == "layers" and value:
            hparams.layers = [LAYER]
        elif key == "v_loss_layer":
            hparams.v_loss_layer = DEPTH - 1
        elif key in STEPS:
            setattr(hparams, key, min(value, 5))
        elif key == "mom2_dataset":
            hparams.mom2_dataset, hparams.mom2_max_tokens = None, 2000
            hparams.mom2_adjustment = hparams.mom2_adjustment and hparams.alg_name not in ("ROME", "R-ROME")
        elif key == "fan_in_fan_out":  # of MELO, whose only file is for GPT-2
            hparams.fan_in_fan_out = False
        elif key == "grace_layer":  # the one before those of the adapter
            hparams.grace_layer = moved(value).replace(str(LAYER), str(LAYER - 1))
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            setattr(hparams, key, list(dict.fromkeys(moved(item) for item in value)))


def moved(path: str) -> str:
    """A module's path with its layer's number moved into the small model."""
    path = re.sub(r"transformer\.h\.\d+\.mlp\.c_fc", f"model.layers.{LAYER}.mlp.up_proj", path)
    return re.sub(r"(layers[.\[])\d+", rf"\g<1>{LAYER}", path)


def try_method(method: Any, home: Path, model: Any, tokenizer: Any, changes: dict[str, Any]) -> tuple[str, str]:
    """What became of one edit, and the file it was made with."""
    name = "none"
    try:
        name, hparams = hparams_of(home, method)
        for key, value in changes.items():
            setattr(hparams, key, value)
            name += f", `{key}: {yaml.safe_dump(value, default_flow_style=True).split(chr(10))[0]}`"
        before = state_of(model)
        edited = edit_all(method, model, tokenizer, [copy.deepcopy(REQUEST)], hparams)
        generate_texts(edited.model, tokenizer, [REQUEST["prompt"]], max_new_tokens=2)
        edited.undo()
        return "works" if same(before, state_of(model)) else "works, but is not undone exactly", name
    except TooLong as error:
        return str(error), name
    except CausalEditError as error:
        return f"refused: {one_line(error)}", name
    except Exception as error:  # whatever EasyEdit's code runs into
        return f"fails in EasyEdit: {one_line(error)}", name


def main() -> None:
    """Try them all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="comma-separated names of methods")
    parser.add_argument("--seconds", type=positive, default=120, help="that a method may take")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    home = Path(os.environ["EASYEDIT_HOME"]).resolve()
    methods = own_methods()
    chosen = args.only.split(",") if args.only else list(methods)

    def stop(*_: Any) -> None:
        raise TooLong(f"stopped after {args.seconds} s")

    signal.signal(signal.SIGALRM, stop)
    _, tokenizer = load_model("smollm2-135m-instruct", device="cpu", dtype="float32")
    model = small_model(tokenizer)
    original = state_of(model)
    os.chdir(tempfile.mkdtemp())  # EasyEdit writes into the current folder
    print("| method | file | result | s |\n| --- | --- | --- | --- |", flush=True)
    rows = [(name, changes) for name in chosen for changes in ({}, CHANGES.get(name)) if changes is not None]
    for name, changes in rows:
        began = time.perf_counter()
        signal.alarm(args.seconds)
        result, file = try_method(methods[name], home, model, tokenizer, changes)
        signal.alarm(0)
        if not same(original, state_of(model)):
            result += "; the model was left changed"
            model = small_model(tokenizer)
        print(f"| {name} | {file} | {result} | {time.perf_counter() - began:.0f} |", flush=True)


if __name__ == "__main__":
    run_benchmark(main)
