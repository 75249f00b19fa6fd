"""The hosts around a method: late imports, an EasyEdit that is missing or too old, and the embedded host's refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types
from typing import TYPE_CHECKING

import pytest
from conftest import (
    EGYPT,
    MODELS,
    REPOSITORY,
    fast_hparams,
    make_gpt2,
    make_llama,
    make_tokenizer,
    same_weights,
    weights_of,
)

from causaledit.errors import HostError, HparamsError, ModelError, RequestError, did_you_mean
from causaledit.hosts import find_base_editor
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.hosts.lookup import choose_method, get_method
from causaledit.hosts.token_accuracy import predicted_tokens, token_accuracy
from causaledit.methods.registry import METHODS
from causaledit.models.loading import load_config, load_model

if TYPE_CHECKING:
    from pathlib import Path


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, without this one's EASYEDIT_HOME."""
    env = {k: v for k, v in os.environ.items() if k not in ("EASYEDIT_HOME", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**env, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- imports ---------------------------------------------------------------------------------------
def test_importing_the_package_imports_neither_torch_nor_easyedit():
    done = python(
        """
        import sys, causaledit
        dir(causaledit), causaledit.__version__
        heavy = {"torch", "transformers", "trl", "peft", "easyeditor"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    assert done.returncode == 0, done.stderr


def test_hyper_parameters_and_requests_are_read_without_torch():
    done = python(
        """
        import sys
        from causaledit import CausalEditHyperParams, EditRequest
        CausalEditHyperParams.from_hparams("smollm2-135m-instruct")
        assert "torch" not in sys.modules
        """
    )
    assert done.returncode == 0, done.stderr


def test_every_exported_name_is_there():
    import causaledit

    for name in causaledit.__all__:
        if name not in ("BaseEditor", "register"):  # those look for EasyEdit, see below
            assert getattr(causaledit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        causaledit.no_such_name  # noqa: B018


def test_without_easyedit_the_embedded_host_is_found():
    done = python(
        """
        import importlib.util, sys
        if importlib.util.find_spec("easyeditor"):
            sys.exit(0)
        import causaledit
        assert causaledit.BaseEditor is causaledit.EmbeddedEditor
        try:
            causaledit.register()
        except causaledit.errors.HostError as error:
            assert "EASYEDIT_HOME" in str(error) and "EmbeddedEditor" in str(error), error
        else:
            raise SystemExit("register() found an EasyEdit that is not there")
        """
    )
    assert done.returncode == 0, done.stderr


# ---- an EasyEdit that cannot be used ---------------------------------------------------------------
@pytest.mark.parametrize("call", ["causaledit.BaseEditor", "causaledit.register()"])
def test_an_empty_easyedit_home_is_one_error_that_names_it(tmp_path, call):
    done = python(
        f"""
        import causaledit
        from causaledit.errors import HostError
        try:
            {call}
        except HostError as error:
            print(error)
        """,
        EASYEDIT_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "EASYEDIT_HOME" in done.stdout
    assert str(tmp_path) in done.stdout
    assert "unset" in done.stdout


def fake_easyedit(folder: Path, files: dict[str, str]) -> None:
    """A package of that name with the given modules."""
    for name, text in {"__init__.py": "", "util/__init__.py": "", "editors/__init__.py": "", **files}.items():
        path = folder / "easyeditor" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")


ALGORITHMS = {"util/alg_dict.py": "ALG_DICT = {}"}
BATCHES = {"editors/batch_editor.py": "class BatchEditor:\n    is_batchable_method = staticmethod(lambda name: False)"}
OLD_EDITOR = {"editors/editor.py": "class BaseEditor:\n    def edit(self): ..."}
TOO_OLD = {
    "no modules at all": {},
    "no algorithm table": {"util/alg_dict.py": ""},
    "an editor from before edit_requests": {**ALGORITHMS, **BATCHES, **OLD_EDITOR, "editors/utils.py": ""},
    "a requirement that cannot be imported": {"__init__.py": "from transformers import ThisWasRemovedLongAgo"},
    "a syntax of long ago": {"__init__.py": "print 'hello'"},
}


@pytest.mark.parametrize("version", TOO_OLD)
def test_an_old_easyedit_is_one_clear_error(tmp_path, version):
    fake_easyedit(tmp_path, TOO_OLD[version])
    done = python(
        """
        import causaledit
        from causaledit.errors import HostError
        try:
            causaledit.register()
        except HostError as error:
            print(error)
        """,
        EASYEDIT_HOME=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
    assert "too old" in done.stdout or "cannot be imported" in done.stdout
    if version.startswith("an editor"):
        assert "too old" in done.stdout
        assert "restore_after_edit" in done.stdout
        assert "update" in done.stdout


# ---- the registry ----------------------------------------------------------------------------------
def test_an_unknown_method_offers_the_nearest_name():
    with pytest.raises(HostError, match=r"'CausalEdt'.*Did you mean 'CausalEdit'"):
        get_method("CausalEdt")
    for name in (None, 3, ["CausalEdit"]):
        with pytest.raises(HostError, match="alg_name"):
            get_method(name)


@pytest.mark.parametrize(
    ("name", "model_type", "field", "value"),
    [
        ("CausalEdit@stage1", "smollm2-135m-instruct", "stages", [1]),
        ("CausalEdit@noncausal", "smollm2-135m-instruct", "editing_mode", "noncausal"),
        ("CausalEdit@reversekl", "llama3.1-8b-instruct", "distill_forward_kl", False),
        ("embedded:LoRA@preserve", "smollm2-135m-instruct", "preserve_weight", 6.0),
    ],
)
def test_a_variant_is_another_file_of_the_method(name, model_type, field, value):
    method, hparams = choose_method(name, model_type=model_type)
    assert method.name == name.removeprefix("embedded:").partition("@")[0]
    assert getattr(hparams, field) == value


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("CausalEdit@nothing", HparamsError, "smollm2-135m-instruct_nothing"),
        ("CausalEdit@", HostError, "METHOD@VARIANT"),
        ("@stage1", HostError, "METHOD@VARIANT"),
    ],
)
def test_a_variant_that_is_none_is_one_clear_error(name, error, words):
    with pytest.raises(error, match=words):
        choose_method(name, model_type="smollm2-135m-instruct")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("causal-edit", "CausalEdit"), ("Alpha_Edit", "AlphaEdit"), ("rome", "ROME"), ("MEMTI", "MEMIT"),
        ("GRACE", None), ("WISE", None), ("KN", None), ("SERAC", None), ("EMMET", None), ("", None), ("!", None),
    ],
)  # fmt: skip
def test_a_name_is_offered_only_where_one_is_near(name, nearest):
    assert did_you_mean(name, METHODS) == (f" Did you mean {nearest!r}?" if nearest else "")
    assert did_you_mean(name, []) == ""


def test_of_names_that_are_as_near_the_shortest_is_offered():
    files = ["smollm2-135m-instruct_thorough", "smollm2-135m-instruct", "smollm2-135m-instruct_stage1"]
    assert did_you_mean("smollm2-135m-instruc", files) == " Did you mean 'smollm2-135m-instruct'?"


def test_a_model_that_is_only_planned_is_named_as_one_that_is_loaded():
    for name in ("smollm2-135m-instrct", "/no/such/folder"):
        with pytest.raises(ModelError) as loaded:
            load_model(name, device="cpu")
        with pytest.raises(ModelError) as planned:
            load_config(name)
        assert str(planned.value) == str(loaded.value)


def test_the_editor_refuses_an_unknown_method():
    hparams = types.SimpleNamespace(alg_name="Causal-Edit", model_name="x", device="cpu", model_parallel=False)
    with pytest.raises(HostError, match=r"'Causal-Edit'.*'CausalEdit'"):
        EmbeddedEditor.from_hparams(hparams)
    with pytest.raises(HostError, match="hparams"):
        EmbeddedEditor.from_hparams(None)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_has_what_a_host_reads(method):
    hparams = method.load_hparams()()
    assert hparams.alg_name == method.name
    for field in ("model_name", "device", "model_parallel", "batch_size", "max_length"):
        assert hasattr(hparams, field)
    assert callable(method.load_hparams().from_hparams)
    assert callable(method.load_apply())


# ---- the embedded host -----------------------------------------------------------------------------
def embedded(**changes):
    return EmbeddedEditor.from_hparams(fast_hparams(make_llama(), make_tokenizer(), **changes))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target_new": ["a", "b"]}, ["target_new", "2 entries", "1 prompts"]),
        ({"subject": ["a", "b"]}, ["subject", "2 entries"]),
        ({"ground_truth": []}, ["ground_truth", "0 entries"]),
        ({"rephrase_prompts": ["a", "b", "c"]}, ["rephrase_prompt", "3 entries"]),
        (
            {"locality_inputs": {"near": {"prompt": ["a", "b"], "ground_truth": ["c"]}}},
            ["locality_inputs", "near", "2"],
        ),
        ({"portability_inputs": {"hop": {"prompt": ["a"], "ground_truth": []}}}, ["portability_inputs", "hop", "0"]),
        ({"subject": None}, ["subject"]),
        ({"target_new": ["Cairo"]}, ["target_new", "equals the old answer"]),
        ({"prompts": [], "target_new": [], "ground_truth": [], "subject": []}, ["empty"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_that_do_not_fit_together(arguments, words):
    editor = embedded()
    before = weights_of(editor.model)
    good = {"prompts": [EGYPT["prompt"]], "target_new": ["Alexandria"], "ground_truth": ["Cairo"], "subject": ["Egypt"]}
    with pytest.raises(RequestError) as caught:
        editor.edit(**{**good, **arguments})
    for word in words:
        assert word in str(caught.value)
    assert same_weights(weights_of(editor.model), before)


def test_edit_refuses_a_batch_size():
    with pytest.raises(HostError, match=r"batch_size.*2.*batch_edit"):
        embedded(batch_size=2).edit(EGYPT["prompt"], EGYPT["target_new"], subject="Egypt")


def test_texts_stand_for_lists_of_one():
    editor = embedded()
    metrics, _, _ = editor.edit(
        EGYPT["prompt"],
        "Alexandria",
        ground_truth="Cairo",
        rephrase_prompts="Egypt's capital is",
        subject="Egypt",
        locality_inputs={"near": {"prompt": "The Nile is", "ground_truth": "long"}},
    )
    assert len(metrics) == 1
    assert len(metrics[0]["post"]["locality"]["near_acc"]) == 1


def test_requests_travel_through_edit_and_batch_edit():
    for call in ("edit", "batch_edit"):
        metrics, _, _ = getattr(embedded(), call)(prompts=[], target_new=[], requests=[EGYPT])
        assert metrics[0]["requested_rewrite"] == EGYPT


def test_mquake_rewrites_can_be_measured():
    rewrite = {
        "prompt": "The capital of {} is",
        "subject": "Egypt",
        "question": "What is the capital of Egypt?",
        "target_new": {"str": "Alexandria", "id": "Q87"},
        "target_true": {"str": "Cairo", "id": "Q85"},
        "article": EGYPT["narrative"],
        "rephrase_prompt": [{"question": "Name Egypt's capital.", "answer": "Alexandria"}],
        "locality": [{"question": "What is the capital of Cuba?", "answer": "Havana"}],
    }
    metrics, _, _ = embedded().edit_requests([rewrite])
    assert len(metrics[0]["post"]["rewrite_acc"]) == len(metrics[0]["post"]["rephrase_acc"]) == 1


# ---- metrics ---------------------------------------------------------------------------------------
def test_token_accuracy():
    assert token_accuracy([([1, 2, 3, 4], [1, 9, 3, 9]), ([5], [5])]) == [0.5, 1.0]


@pytest.mark.parametrize("architecture", MODELS)
def test_the_targets_tokens_are_the_models_first_choices_at_their_places(architecture):
    import torch

    model, tokenizer = MODELS[architecture](), make_tokenizer()
    [(choices, target)] = predicted_tokens(model, tokenizer, ["The capital of Egypt is"], ["Alexandria"])
    assert target == tokenizer(" Alexandria")["input_ids"]
    row = tokenizer("The capital of Egypt is Alexandria")["input_ids"]
    first = model(input_ids=torch.tensor([row])).logits[0].argmax(-1).tolist()
    assert choices == first[-len(target) - 1 : -1]


@pytest.mark.parametrize("architecture", MODELS)
def test_a_batch_of_probes_is_measured_as_each_alone(architecture):
    model, tokenizer = MODELS[architecture](), make_tokenizer()
    prompts = ["The capital of Egypt is", "Oslo", "When the last of them ran dry, parliament voted to move to"]
    targets = ["Alexandria", "Bergen and Oslo", "Cairo"]
    together = predicted_tokens(model, tokenizer, prompts, targets)
    alone = [predicted_tokens(model, tokenizer, [p], [t])[0] for p, t in zip(prompts, targets, strict=True)]
    assert together == alone


# ---- models ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", MODELS)
def test_any_architecture_is_loaded_from_a_folder(architecture, tmp_path):
    folder = tmp_path / "no-family-name"  # nothing may hang on a model's name
    model = MODELS[architecture]()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    loaded = load_model(str(folder), device="cpu")
    assert type(loaded.model) is type(model)
    assert same_weights(weights_of(loaded.model), weights_of(model))
    assert loaded.tokenizer.chat_template == make_tokenizer().chat_template
    assert not loaded.model.training


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("", {}, ["model_name", "empty"]),
        (7, {}, ["model_name", "int"]),
        ("/no/such/file.gguf", {}, ["/no/such/file.gguf", "does not exist"]),
        ("smollm2-135m-instrct", {}, ["smollm2-135m-instrct", "Did you mean 'smollm2-135m-instruct'"]),
        ("no/such-model-anywhere", {}, ["no/such-model-anywhere", "smollm2-135m-instruct"]),
        ("x", {"device": "tpu"}, ["device", "tpu"]),
        ("x", {"device": "cuda:99"}, ["cuda:99", "cpu"]),
        ("x", {"device": "cpu", "dtype": "int8"}, ["dtype", "int8"]),
    ],
)
def test_models_that_cannot_be_loaded(name, options, words):
    with pytest.raises(ModelError) as caught:
        load_model(name, **{"device": "cpu", **options})
    for word in words:
        assert word in str(caught.value)


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_model(str(tmp_path), device="cpu")


def test_a_pair_is_taken_as_it_is():
    model, tokenizer = make_gpt2(), make_tokenizer()
    loaded = load_model((model, tokenizer), device="cpu")
    assert loaded.model is model
    assert loaded.tokenizer is tokenizer


@pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout")
def test_with_easyedit_its_own_editor_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_base_editor().__module__.startswith("easyeditor.")
