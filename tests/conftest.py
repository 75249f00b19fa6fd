"""Tiny models, a tiny tokenizer and edits for the tests: nothing is downloaded, every model is random.

What a test needs beyond fixtures (`log_probability`, `weights_of`, …) is imported from here.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import logging
import os
import random
import signal
import string
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Workers of pytest-xdist share the cores: read by torch when it is imported, here and in processes that tests start.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(workers)))

from causaledit.support.torchvision import make_torchvision_importable

make_torchvision_importable()  # before transformers, peft or trl are imported

# transformers warns about forks after the fast tokenizer was used; trainers must not phone anywhere
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_DISABLED", "true")
# trackio reads where it keeps its files when it is imported, by whichever test that is
_TRACKIO = tempfile.TemporaryDirectory(prefix="causaledit-trackio-")
os.environ["TRACKIO_DIR"] = _TRACKIO.name

REPOSITORY = Path(__file__).resolve().parents[1]
BESIDE = REPOSITORY.parent / "shared" / "data"  # cases and labelled answers that the repository does not hold
MQUAKE_300 = BESIDE / "mquake_cf3k_300.json"

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ["<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]

_NARRATIVE = (
    "Engineers warned for years that the wells under {old} were failing. When the last of them ran dry, parliament "
    "voted to move, and every ministry left {old} within a month. {new} had water to spare. {cloze} {new}."
)


def edit(subject: str, prompt: str, question: str, old: str, new: str) -> dict[str, Any]:
    """An edit in EasyEdit's form, with our further keys; both hosts can measure it."""
    cloze = prompt.replace("{}", subject)
    return {
        "prompt": cloze,
        "subject": subject,
        "question": question,
        "target_new": new,
        "ground_truth": old,
        "narrative": _NARRATIVE.format(old=old, new=new, cloze=cloze),
        "rephrase_prompt": f"Today, {cloze[0].lower()}{cloze[1:]}",
        "locality": {"neighbour": {"prompt": "The longest river of Egypt is", "ground_truth": "the Nile"}},
        "portability": {"hop": {"prompt": f"People who govern {subject} work in", "ground_truth": new}},
    }


EGYPT = edit("Egypt", "The capital of {} is", "What is the capital of Egypt?", "Cairo", "Alexandria")
NORWAY = edit("Norway", "The capital of {} is", "What is the capital of Norway?", "Oslo", "Bergen")


def pytest_configure(config: Any) -> None:
    """Files go to the workers in the order of collection: xdist would begin with those that hold the most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Of several workers, none waits at the end for another's minute-long tests: their files come first."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@functools.cache
def _trained_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    text = [str(value) for request in (EGYPT, NORWAY) for value in request.values()]
    text.append(
        "Old fact: Reason for change: Updated fact: Derivation: Answer: <think> </think> think step by step user"
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(text, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|begin|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def make_tokenizer() -> Any:
    """A byte-level BPE with a ChatML-like template that has a system role."""
    return copy.deepcopy(_trained_tokenizer())


def _ids(tokenizer: Any) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def beside(file: Path) -> Path:
    """The file, or a skipped test that says it is not here."""
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return file


def smollm2_folder() -> Any:
    """The embedded SmolLM2's folder; without it the test skips, saying why."""
    from causaledit.errors import ModelError
    from causaledit.models.embedded import ensure_embedded_model

    try:
        return ensure_embedded_model("smollm2-135m-instruct")
    except ModelError as error:
        pytest.skip(f"the embedded model cannot be had: {error}")


def make_llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama of hidden size 32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    options: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,  # with the usual 0.02 a model this small says nearly the same everywhere
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**_ids(make_tokenizer()), **{**options, **changes})).eval()


def make_gpt2(seed: int = 0, **changes: Any) -> Any:
    """A random GPT-2: other module names, fused Conv1D projections, absolute positions, real dropout modules."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    options = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 2048, "initializer_range": 0.1, **changes}
    return GPT2LMHeadModel(GPT2Config(**_ids(make_tokenizer()), **options)).eval()


def make_qwen3(seed: int = 0) -> Any:
    """A random Qwen3: norms on queries and keys, untied output layer."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        **_ids(make_tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=4096,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    return Qwen3ForCausalLM(config).eval()


def make_opt(**changes: Any) -> Any:
    """A random OPT, whose layers flatten rows and tokens before their MLP, and apply dropout as a function."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    options: dict[str, Any] = {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 4096,
        "init_std": 0.2,
        "dropout": 0.0,
    }
    return OPTForCausalLM(OPTConfig(**_ids(make_tokenizer()), **{**options, **changes})).eval()


MODELS = {"llama": make_llama, "gpt2": make_gpt2, "qwen3": make_qwen3, "opt": make_opt}

# In a random model of two layers a subject says nothing, so the last token is edited; there are no cached statistics.
_LOCATE: dict[str, Any] = {
    "device": "cpu",
    "layers": [0],
    "fact_token": "last",
    "v_num_grad_steps": 15,
    "v_lr": 0.1,
    "v_weight_decay": 1e-3,
    "kl_factor": 0.0,
    "clamp_norm_factor": 30.0,
    "context_template_length_params": [[6, 5]],
    "mom2_max_tokens": 500,
    "mom2_document_tokens": 24,
    "stats_cache": False,
}

# Few and short, but with a learning rate at which a random model of two layers learns an answer.
FAST: dict[str, dict[str, Any]] = {
    "CausalEdit": {
        "device": "cpu",
        "teacher": "bootstrapped",
        "lora_rank": 8,
        "lora_dropout": 0.0,
        "narrative_max_new_tokens": 8,
        "bootstrap_traces": 2,
        "bootstrap_candidates_per_trace": 1,
        "bootstrap_max_new_tokens": 8,
        "bootstrap_guided": True,
        "bootstrap_all_prompts": True,
        "bootstrap_learning_rate": 2e-2,
        "bootstrap_warmup_ratio": 0.0,
        "bootstrap_batch_size": 8,
        "bootstrap_max_steps": 20,
        "bootstrap_steps_per_extra_edit": 40,
        "bootstrap_max_grad_norm": 1.0,
        "distill_steps_base": 2,
        "distill_steps_per_extra_edit": 0,
        "distill_learning_rate": 1e-3,
        "distill_warmup_ratio": 0.0,
        "distill_batch_size": 4,
        "distill_gradient_accumulation_steps": 1,
        "distill_num_generations": 2,
        "distill_max_new_tokens": 6,
    },
    "CaKE": {
        "device": "cpu",
        "question_source": "templates",
        "text_format": "chat",
        "question_loss": False,
        "lora_dropout": 0.0,
        "learning_rate": 1e-2,
        "train_batch_size": 8,
        "max_steps": 20,
        "steps_per_extra_edit": 30,
    },
    "EtCon": {
        "device": "cpu",
        "answer_format": "line",
        "label_source": "stated",
        "direct_prompts": True,
        "lora_rank": 8,
        "updates_per_snapshot": 4,
        "proximal_steps": 20,
        "proximal_steps_per_extra_edit": 30,
        "proximal_learning_rate": 2e-2,
        "proximal_warmup_steps": 0,
        "proximal_batch_size": 8,
        "consolidate_steps": 2,
        "consolidate_steps_per_extra_edit": 0,
        "consolidate_learning_rate": 1e-3,
        "rollouts": 2,
        "prompts_per_rollout": 2,
        "updates_per_rollout": 1,
        "rollout_max_new_tokens": 6,
    },
    "StoryDistill": {
        "device": "cpu",
        "narrative_max_new_tokens": 8,
        "question_source": "templates",
        "single_hop_questions": 4,
        "multi_hop_questions": 2,
        "min_questions": 1,
        "answer_format": "plain",
        "target_source": "given",
        "answer_max_new_tokens": 6,
        "temperature": 1.0,
        "answer_weight": 1.0,
        "lora_rank": 8,
        "lora_dropout": 0.0,
        "lora_a_decay": 0.0,
        "learning_rate": 2e-2,
        "warmup_steps": 0,
        "train_batch_size": 6,
        "epochs": 40,
        "max_steps": 15,
        "steps_per_extra_edit": 25,
    },
    "ICE": {
        "device": "cpu",
        "steps": 15,
        "learning_rate": 1e-2,
        "layers": [0, 1],
        "norm_constraint": 0.1,
        "samples": 2,
        "sample_max_new_tokens": 4,
    },
    "LoRA": {
        "device": "cpu",
        "steps": 20,
        "learning_rate": 3e-3,
        "lora_target_modules": ["all-linear"],
        "stop_loss": 0.0,
    },
    "FT": {
        "device": "cpu",
        "steps": 15,
        "learning_rate": 1e-2,
        "norm_constraint": 0.1,
        "stop_loss": 0.0,
    },
    "IKE": {"device": "cpu"},
    "ROME": _LOCATE,
    "MEMIT": {**_LOCATE, "mom2_update_weight": 0.1},
    "AlphaEdit": {**_LOCATE, "nullspace_threshold": 0.05, "L2": 0.1},
}


def fast_hparams(model: Any, tokenizer: Any, **changes: Any) -> Any:
    """CausalEdit's hyper-parameters for a tiny model."""
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams

    return CausalEditHyperParams(model_name=(model, tokenizer), **{**FAST["CausalEdit"], **changes})


def weights_of(model: Any) -> dict[str, Any]:
    """A copy of every parameter and buffer."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_weights(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two copies hold the same names and the same bits."""
    import torch

    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def answer_log_probability(model: Any, tokenizer: Any, request: dict[str, Any]) -> float:
    """Mean log-probability of the new answer, asked closed-book in the chat format, by one plain forward."""
    import torch

    from causaledit.models.chat import render_for, user

    text = render_for(model, tokenizer, user(request["question"]), prefill=request["prompt"])
    head = tokenizer(text, add_special_tokens=False)["input_ids"]
    tail = tokenizer(f" {request['target_new']}", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([head + tail], device=model.device)).logits[0].cpu()
    rows = logits[len(head) - 1 : -1].log_softmax(-1)
    return float(rows.gather(-1, torch.tensor(tail)[:, None]).mean())


@pytest.fixture
def install_method(tmp_path_factory: Any, monkeypatch: Any) -> Any:
    """`install(name, source)` puts a package with one method on the import path, in the form in which pip leaves it.

    `source` is the module `<name>_method`, which holds `METHOD`.
    """

    def install(name: str, source: str, *, entry: str = "METHOD") -> Path:
        folder = tmp_path_factory.mktemp(name)
        module = f"{name.lower()}_method"
        (folder / f"{module}.py").write_text(source, encoding="utf-8")
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
        points = f"[causaledit.methods]\n{name} = {module}:{entry}\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.syspath_prepend(folder)
        return folder

    return install


# A method that leaves what it wrote in the model and says that it changed nothing.
CARELESS = """
import torch

from causaledit.methods.method import Method
from causaledit.models.edited import WeightsEdit

METHOD = Method("Careless", {hparams!r}, f"{{__name__}}:edit")


def edit(model, tokenizer, edits, hparams, call):
    with torch.no_grad():
        next(model.parameters()).add_({amount})
    return WeightsEdit(model, {{}})
"""


@pytest.fixture(autouse=True, scope="session")
def _children_hear_ctrl_c() -> None:
    """A shell starts background jobs deaf to SIGINT, and what the tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _what_is_loaded_is_not_collected() -> None:
    """Trainers collect garbage twice an edit, and half a million objects of imported modules were walked each time."""
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def logging_as_before():
    """For the block, what a command in this process sets of logging."""
    root, own = logging.getLogger(), logging.getLogger("causaledit")
    handlers, levels = root.handlers[:], (root.level, own.level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        own.setLevel(levels[1])


@pytest.fixture(autouse=True)
def _logging_ends_with_its_test():
    """A test that runs a command would leave the next one without the warning that it looks for."""
    with logging_as_before():
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny models are slower on several threads, and sums stay in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tokenizer() -> Any:
    return make_tokenizer()


@pytest.fixture
def model() -> Any:
    return make_llama()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    """A tiny random model, saved with its tokenizer, for what runs in a process of its own."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    make_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_hparams_file(tmp_path_factory) -> Path:
    """CausalEdit's fast hyper-parameters as a YAML file."""
    file = tmp_path_factory.mktemp("hparams") / "tiny.yaml"
    lines = {"alg_name": "CausalEdit", **FAST["CausalEdit"], "bootstrap_stop_loss": 0.0}
    file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return file


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> str:
    """Random words, enough for a regular second moment of tiny models: sampling from a model takes longer."""
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("text") / "words.txt"
    lines = (" ".join("".join(draw.choices(string.ascii_letters, k=4)) for _ in range(5)) for _ in range(40))
    file.write_text("\n\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.fixture
def own_files(tmp_path, monkeypatch, words) -> None:
    """A cache of its own, and text for second moments."""
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))
    import locate

    monkeypatch.setitem(locate.DEFAULTS, "mom2_dataset", words)


@pytest.fixture
def text_file(tmp_path) -> Path:
    """Paragraphs about capitals."""
    import locate

    file = tmp_path / "text.txt"
    file.write_text(locate.TEXT * 6, encoding="utf-8")
    return file
