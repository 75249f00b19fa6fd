"""Hyper-parameters: the published keys, the bundled files, and every refusal before any compute is spent."""

from __future__ import annotations

import dataclasses
import inspect
import json

import pytest
import yaml
from conftest import REPOSITORY

from causaledit.errors import HparamsError
from causaledit.hosts.lookup import choose_method
from causaledit.methods.causal_edit.hparams import ALG_NAME, CausalEditHyperParams
from causaledit.methods.registry import METHODS
from causaledit.support.paths import hparams_dir

BUNDLED = sorted((REPOSITORY / "hparams" / "CausalEdit").glob("*.yaml"))
GOOD = {"alg_name": ALG_NAME, "model_name": "some-model"}

# Every key of the published configurations, where it lands here, and a value that is not the default.
PUBLISHED = {
    "stage2_lora_rank": ("lora_rank", 7),
    "stage2_num_train_epochs": ("bootstrap_epochs", 33),
    "stage2_learning_rate": ("bootstrap_learning_rate", 1.5e-5),
    "stage2_batch_size": ("bootstrap_batch_size", 5),
    "stage2_num_samples": ("bootstrap_candidates_per_trace", 11),
    "stage2_max_new_tokens": ("bootstrap_max_new_tokens", 512),
    "stage2_data_replica_times": ("bootstrap_traces", 9),
    "stage3_max_steps": ("distill_max_steps", 42),
    "stage3_max_steps_base": ("distill_steps_base", 21),
    "stage3_max_steps_per_extra_edit": ("distill_steps_per_extra_edit", 6),
    "stage3_cake_data": ("distill_cake_data", True),
    "stage3_learning_rate": ("distill_learning_rate", 1.1e-4),
    "stage3_per_device_train_batch_size": ("distill_batch_size", 24),
    "stage3_gradient_accumulation_steps": ("distill_gradient_accumulation_steps", 3),
    "stage3_num_generations": ("distill_num_generations", 8),
    "stage3_temperature": ("distill_temperature", 0.8),
    "stage3_top_p": ("distill_top_p", 0.7),
    "stage3_max_completion_length": ("distill_max_new_tokens", 99),
    "stage3_use_forward_kl": ("distill_forward_kl", False),
    "stage3_kd_temperature": ("distill_kd_temperature", 2.0),
    "stage3_repetition_ngram_n": ("distill_repetition_ngram", 4),
    "stage3_repetition_tail_window_size": ("distill_repetition_window", 50),
    "stage3_repetition_ngram_ratio_threshold": ("distill_repetition_threshold", 0.25),
    "stage3_rkl_top_k": ("distill_top_k", 32),
    "editing_mode": ("editing_mode", "noncausal"),
    "student_use_sft": ("student_use_sft", False),
}


def write(path, data):
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


# ---- loading ---------------------------------------------------------------------------------------
def test_all_published_keys_in_one_file_land_where_they_should(tmp_path):
    published = {key: value for key, (_, value) in PUBLISHED.items()}
    file = write(tmp_path / "published.yaml", {**GOOD, **published, "teacher_use_sft": True})
    hparams = CausalEditHyperParams.from_hparams(file)
    defaults = CausalEditHyperParams()
    for key, (name, value) in PUBLISHED.items():
        assert getattr(hparams, name) == value, key
        assert getattr(defaults, name) != value, f"{key}: the test's value must not be the default"
    assert hparams.teacher == "bootstrapped"
    untouched = (
        {f.name for f in dataclasses.fields(hparams)} - {n for n, _ in PUBLISHED.values()} - {"teacher", "model_name"}
    )
    assert all(getattr(hparams, name) == getattr(defaults, name) for name in untouched)


@pytest.mark.parametrize(("switch", "teacher"), [(True, "bootstrapped"), (False, "base")])
def test_teacher_use_sft(switch, teacher):
    assert CausalEditHyperParams.from_dict({**GOOD, "teacher_use_sft": switch}).teacher == teacher


def test_defaults_are_the_papers_figures():
    h = CausalEditHyperParams()
    assert (h.bootstrap_traces, h.bootstrap_candidates_per_trace) == (25, 48)
    assert (h.bootstrap_temperature, h.bootstrap_top_p, h.bootstrap_max_new_tokens) == (0.9, 0.95, 2048)
    assert (h.lora_rank, h.lora_alpha, h.lora_dropout, len(h.lora_target_modules)) == (12, None, 0.05, 7)
    assert (h.bootstrap_learning_rate, h.bootstrap_warmup_ratio, h.bootstrap_batch_size) == (3e-5, 0.1, 12)
    assert (h.bootstrap_epochs, h.bootstrap_max_grad_norm) == (125, 0.1)
    assert (h.bootstrap_stop_loss, h.bootstrap_stop_patience) == (0.35, 2)
    assert (h.distill_batch_size * h.distill_gradient_accumulation_steps, h.distill_num_generations) == (36, 9)
    assert (h.distill_temperature, h.distill_top_p, h.distill_max_new_tokens, h.distill_top_k) == (1.0, 0.9, 180, 24)
    assert (h.distill_learning_rate, h.distill_warmup_ratio, h.distill_max_grad_norm) == (9e-5, 0.2, 0.5)
    assert (h.distill_repetition_ngram, h.distill_repetition_window, h.distill_repetition_threshold) == (3, 48, 0.15)
    assert (h.distill_forward_kl, h.teacher, h.editing_mode, h.preserve_weight) == (True, "base", "causal", 0.0)
    assert h.bootstrap_loss_mean == "token"
    assert [h.distill_steps(n) for n in (1, 2, 5)] == [20, 25, 40]


def test_steps_of_a_batch():
    h = CausalEditHyperParams(distill_steps_base=35, bootstrap_max_steps=10, bootstrap_steps_per_extra_edit=6)
    assert [h.distill_steps(n) for n in (1, 3)] == [35, 45]
    assert [h.bootstrap_step_limit(n) for n in (1, 3)] == [10, 22]
    assert CausalEditHyperParams(distill_max_steps=7).distill_steps(9) == 7
    assert CausalEditHyperParams().bootstrap_step_limit(4) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"stage3_max_steps_per_extra_edit": 5}, ["stage3_max_steps_per_extra_edit"]),
        ({"stage3_max_steps_base": 20, "stage3_max_steps_per_extra_edit": 5}, ["stage3_max_steps_base", "extra_edit"]),
        ({"distill_steps_base": 3}, ["distill_steps_base"]),
        ({}, []),
    ],
)
def test_steps_by_edits_beside_a_fixed_number_are_pointed_out(caplog, given, named):
    with caplog.at_level("WARNING"):
        CausalEditHyperParams.from_dict({**GOOD, "stage3_max_steps": 30, **given})
    assert len(caplog.records) == bool(named)
    assert all(word in caplog.text for word in [*named, "stage3_max_steps", "30"] if named)
    caplog.clear()
    CausalEditHyperParams.from_dict({**GOOD, **given})
    assert not caplog.records


def test_every_field_says_what_it_is_for():
    assert all(len(f.metadata.get("help", "")) > 10 for f in dataclasses.fields(CausalEditHyperParams))


def test_scientific_notation_that_yaml_reads_as_text(tmp_path):
    file = tmp_path / "h.yaml"
    file.write_text("alg_name: CausalEdit\nmodel_name: x\nstage3_learning_rate: 3e-5\nbootstrap_traces: 4.0\n", "utf-8")
    assert yaml.safe_load(file.read_text("utf-8"))["stage3_learning_rate"] == "3e-5"  # the trap is there
    hparams = CausalEditHyperParams.from_hparams(file)
    assert hparams.distill_learning_rate == 3e-5
    assert hparams.bootstrap_traces == 4
    assert isinstance(hparams.bootstrap_traces, int)


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_file_with_and_without_its_suffix(tmp_path, suffix):
    write(tmp_path / "mine.v2.yaml", {**GOOD, "seed": 7})
    assert CausalEditHyperParams.from_hparams(str(tmp_path / f"mine.v2{suffix}")).seed == 7


def test_json_files(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({**GOOD, "seed": 8}), encoding="utf-8")
    assert CausalEditHyperParams.from_hparams(file).seed == 8


def test_there_are_bundled_files():
    assert BUNDLED


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_every_bundled_file_loads_by_path_and_by_name(file):
    by_path, by_name = CausalEditHyperParams.from_hparams(file), CausalEditHyperParams.from_hparams(file.stem)
    assert by_path == by_name
    assert by_path.model_name
    given = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert by_path.alg_name == given["alg_name"] == ALG_NAME


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_to_dict_makes_the_same_hparams_again(file):
    hparams = CausalEditHyperParams.from_hparams(file)
    data = json.loads(json.dumps(hparams.to_dict()))
    assert CausalEditHyperParams.from_dict(data) == hparams


def test_to_dict_names_a_model_in_memory(model, tokenizer):
    data = CausalEditHyperParams(model_name=(model, tokenizer)).to_dict()
    assert json.loads(json.dumps(data))["model_name"] == "in memory"


# ---- refusals: data, and words the message must hold -----------------------------------------------
REFUSED = [
    ({"stage3_lerning_rate": 1}, ["stage3_lerning_rate", "stage3_learning_rate"]),
    ({"lora_rnk": 1}, ["lora_rnk", "lora_rank"]),
    ({"teacher_use_stf": True}, ["teacher_use_stf", "teacher_use_sft"]),
    ({"zzzz": 1}, ["unknown key", "zzzz"]),
    ({"alg_name": "ROME"}, ["alg_name", "'ROME'", "CausalEdit"]),
    ({"alg_name": None}, ["alg_name", "None", "CausalEdit"]),
    ({"lora_rank": 4, "stage2_lora_rank": 4}, ["lora_rank", "stage2_lora_rank", "keep one"]),
    ({"teacher": "base", "teacher_use_sft": False}, ["teacher", "teacher_use_sft", "keep one"]),
    ({"editing_mode": "casual"}, ["editing_mode", "causal, noncausal", "'casual'"]),
    ({"teacher": "ema"}, ["teacher", "base, bootstrapped, auto", "'ema'"]),
    ({"context_role": "tool"}, ["context_role", "system, user", "'tool'"]),
    ({"dtype": "int8"}, ["dtype", "bfloat16", "'int8'"]),
    ({"bootstrap_loss_mean": "word"}, ["bootstrap_loss_mean", "token, sequence", "'word'"]),
    ({"distill_vllm_mode": "x"}, ["distill_vllm_mode", "colocate", "'x'"]),
    ({"distill_vllm_gpu_memory_utilization": 35}, ["distill_vllm_gpu_memory_utilization", "between 0 and 1", "35"]),
    ({"distill_vllm_max_model_length": 0}, ["distill_vllm_max_model_length", "at least 1", "0"]),
    ({"distill_vllm_tensor_parallel_size": 0}, ["distill_vllm_tensor_parallel_size", "at least 1", "0"]),
    ({"distill_vllm_server_port": "http"}, ["distill_vllm_server_port", "number", "'http'"]),
    ({"gradient_checkpointing": "auto"}, ["gradient_checkpointing", "true or false", "'auto'"]),
    ({"bootstrap_micro_batch_tokens": 0}, ["bootstrap_micro_batch_tokens", "at least 1", "0"]),
    ({"lora_rank": 0}, ["lora_rank", "at least 1", "0"]),
    ({"lora_rank": 2.5}, ["lora_rank", "whole number", "2.5"]),
    ({"lora_rank": True}, ["lora_rank", "whole number", "True"]),
    ({"lora_rank": "many"}, ["lora_rank", "number", "'many'"]),
    ({"batch_size": 0}, ["batch_size", "0"]),
    ({"distill_top_k": None}, ["distill_top_k", "None"]),
    ({"distill_learning_rate": 0}, ["distill_learning_rate", "above 0"]),
    ({"distill_learning_rate": "fast"}, ["distill_learning_rate", "number", "'fast'"]),
    ({"distill_learning_rate": float("nan")}, ["distill_learning_rate", "nan"]),
    ({"bootstrap_temperature": -1}, ["bootstrap_temperature", "above 0", "-1"]),
    ({"distill_top_p": 1.5}, ["distill_top_p", "between 0 and 1", "1.5"]),
    ({"distill_repetition_threshold": -0.1}, ["distill_repetition_threshold", "between 0 and 1", "-0.1"]),
    ({"lora_dropout": "none"}, ["lora_dropout", "number", "'none'"]),
    ({"preserve_weight": -1}, ["preserve_weight", "at least 0", "-1"]),
    ({"distill_steps_base": -1}, ["distill_steps_base", "at least 0", "-1"]),
    ({"merge_adapter": "yes"}, ["merge_adapter", "true or false", "'yes'"]),
    ({"teacher_use_sft": "yes"}, ["teacher_use_sft", "true or false", "'yes'"]),
    ({"stages": [2, 1]}, ["stages", "[1, 2]", "[2, 1]"]),
    ({"stages": []}, ["stages", "[]"]),
    ({"lora_layers": [3, 3]}, ["lora_layers", "first < end", "[3, 3]"]),
    ({"lora_layers": 3}, ["lora_layers", "[first, end)", "3"]),
    ({"lora_target_modules": "all-linear"}, ["lora_target_modules", "list", "'all-linear'"]),
    ({"lora_target_modules": []}, ["lora_target_modules", "[]"]),
    ({"distill_max_steps": -3}, ["distill_max_steps", "-3"]),
    ({"distill_max_steps": 2.5}, ["distill_max_steps", "2.5"]),
    ({"bootstrap_max_steps": 0}, ["bootstrap_max_steps", "0"]),
    ({"lora_alpha": -2}, ["lora_alpha", "-2"]),
    ({"seed": 1.5}, ["seed", "1.5"]),
    ({"seed": -1}, ["seed", "-1"]),
    *(({name: 0}, [name, "above 0"]) for name in ("bootstrap_top_p", "distill_top_p")),
    ({"narrative_file": 5}, ["narrative_file", "a text", "5"]),
    ({"max_memory": "20GiB"}, ["max_memory", "a mapping", "'20GiB'"]),
    ({"lora_layers": [True, 3]}, ["lora_layers", "first < end", "[True, 3]"]),
    # combinations
    (
        {"distill_batch_size": 10, "distill_num_generations": 4},
        ["distill_batch_size", "10", "distill_num_generations", "4"],
    ),
    ({"stages": [2]}, ["stages: [2]", "student_use_sft: false"]),
    ({"stages": [2], "student_use_sft": False, "teacher": "bootstrapped"}, ["stages: [2]", "teacher: base"]),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[str(change) for change, _ in REFUSED])
def test_refused_with_name_value_and_fix(change, words):
    with pytest.raises(HparamsError) as caught:
        CausalEditHyperParams.from_dict({**GOOD, **change})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lora_rank", 0), ("merge_adapter", "no"), ("student_use_sft", 1), ("preserve_file", ["a.json"]),
        ("bootstrap_stop_log_probability", "low"), ("bootstrap_stop_log_probability", True),
    ],
)  # fmt: skip
def test_the_constructor_checks_too(name, value):
    with pytest.raises(HparamsError, match=f"`{name}` must be .*got"):
        CausalEditHyperParams(**{name: value})


def test_help_lists_every_setting_with_its_default_and_meaning():
    shown = inspect.getdoc(CausalEditHyperParams)
    assert shown.startswith("Configuration of one CausalEdit run.")
    for spec in dataclasses.fields(CausalEditHyperParams):
        assert f"{spec.name} (default " in shown and spec.metadata["help"] in shown
    assert "stages (default [1, 2]): Which stages run" in shown


def test_a_path_stands_for_a_text(tmp_path):
    assert CausalEditHyperParams(narrative_file=tmp_path / "a.json", bootstrap_stop_log_probability=-1)


def test_stage_2_alone_is_possible():
    hparams = CausalEditHyperParams.from_dict({**GOOD, "stages": [2], "student_use_sft": False})
    assert hparams.stages == [2]


def test_an_error_in_a_file_names_the_file(tmp_path):
    file = write(tmp_path / "mine.yaml", {**GOOD, "lora_rnk": 2})
    with pytest.raises(HparamsError, match=r"mine\.yaml.*lora_rnk.*lora_rank"):
        CausalEditHyperParams.from_hparams(file)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: [1", "not valid YAML"),
        ("- a\n- b", "list"),
        ("", "NoneType"),
        ("just words", "str"),
        ("model_name: x", "alg_name"),
    ],
    ids=["broken", "list", "empty", "text", "no alg_name"],
)
def test_unusable_files(tmp_path, text, word):
    file = tmp_path / "bad.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(HparamsError, match=word) as caught:
        CausalEditHyperParams.from_hparams(file)
    assert "bad.yaml" in str(caught.value)


def test_a_missing_file_offers_the_nearest_bundled_name():
    with pytest.raises(HparamsError, match=r"smollm2-135m-instrct.*Did you mean 'smollm2-135m-instruct'"):
        CausalEditHyperParams.from_hparams("smollm2-135m-instrct")


def test_a_missing_file_in_a_named_folder_is_not_replaced_by_a_bundled_one(tmp_path):
    with pytest.raises(HparamsError, match="There is no hparams file"):
        CausalEditHyperParams.from_hparams(tmp_path / "smollm2-135m-instruct")


@pytest.mark.parametrize("method", ["ROME", "embedded:ROME", "CausalEdit@x"])
def test_a_name_longer_than_any_file_can_have_is_a_missing_file(method):
    with pytest.raises(HparamsError, match="There is no hparams file"):
        choose_method(method, model_type="x" * 300)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_paths_that_are_no_files(path):
    with pytest.raises(HparamsError):
        CausalEditHyperParams.from_hparams(path)


# ---- every method ----------------------------------------------------------------------------------
EVERY_FILE = [(method, file) for method in METHODS.values() for file in sorted(hparams_dir(method.name).glob("*.yaml"))]


@pytest.mark.parametrize(
    ("method", "file"), EVERY_FILE, ids=lambda value: getattr(value, "stem", getattr(value, "name", ""))
)
def test_every_methods_bundled_files_load(method, file):
    kind = method.load_hparams()
    by_path, by_name = kind.from_hparams(file), kind.from_hparams(file.stem)
    assert by_path == by_name
    assert by_path.alg_name == method.name
    assert kind.from_dict(json.loads(json.dumps(by_path.to_dict()))) == by_path


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_has_files_and_says_what_its_fields_are_for(method):
    names = {file.stem for other, file in EVERY_FILE if other is method}
    assert {"smollm2-135m-instruct", "qwen2.5-7b-instruct", "llama3.1-8b-instruct"} <= names
    assert all(len(spec.metadata["help"]) > 10 for spec in dataclasses.fields(method.load_hparams()))
