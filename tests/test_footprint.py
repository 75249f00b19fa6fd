"""Memory told from a configuration: what a pass allocates, what settings change, and a measured edit."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import EGYPT, FAST, REPOSITORY, make_llama, make_tokenizer, smollm2_folder
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.errors import ModelError
from causaledit.facts.requests import requests_from_data
from causaledit.methods.cake.apply import rows_of
from causaledit.methods.cake.data import texts_of
from causaledit.methods.call import edit_in_place
from causaledit.methods.causal_edit.bootstrap import raw_pairs, training_pairs
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.methods.causal_edit.traces import fallback_trace
from causaledit.methods.footprint import Lengths, Planner
from causaledit.methods.memory_plan import plan_edit, way_to_fit
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.compositions import Composition
from causaledit.models.footprint import MemoryTracker, empty_model, with_storages
from causaledit.support.progress import SilentProgress

SHORT = Lengths(prompt=40, context=80, trace=30)


def hparams(**changes):
    figures = {**FAST["CausalEdit"], "bootstrap_max_new_tokens": 20, "distill_batch_size": 8, **changes}
    return CausalEditHyperParams(model_name=(make_llama(), None), dtype="float32", **figures)


def stages(**changes):
    plan = plan_edit(METHODS["CausalEdit"], hparams(**changes), lengths=SHORT)
    return {stage.stage: stage for stage in plan.stages}, plan


def test_a_tracker_counts_what_is_alive():
    tracker = MemoryTracker(vocabulary=10)
    before = torch.zeros(100)
    tracker.ignore([before])
    with tracker:
        a = before.view(10, 10) + 1  # 400 bytes, as wide as the vocabulary
        b = torch.ones(50)  # 200
        del b
        c = a.t()[:3].contiguous()  # 120
        del a, c
    assert tracker.peak.total == 600
    assert tracker.peak.parts == {"logits": 400, "cache": 0, "activations": 200}


def test_real_tensors_and_those_without_data_need_the_same():
    tokens = torch.zeros(3, 12, dtype=torch.long)
    found = []

    def measure(planned):
        planned.model.get_parameter("model.layers.1.mlp.up_proj.weight").requires_grad_(True)
        with planned.tracked(training=True) as tracker:
            planned.model(input_ids=tokens, use_cache=False).logits.logsumexp(-1).sum().backward()
        found.append(tracker.peak)

    real = make_llama()
    real.requires_grad_(False)
    with with_storages(empty_model(real.config, torch.float32), autocast=False) as planned:
        measure(planned)
        measure(dataclasses.replace(planned))
    from causaledit.models.footprint import PlannedModel

    measure(PlannedModel(real, autocast=False))
    assert found[0].total == found[1].total > 0
    assert found[2].total == pytest.approx(found[0].total, rel=0.05)


def test_what_settings_change():
    plain, plan = stages()
    assert list(plain) == ["traces", "bootstrap", "rollouts", "internalise", "merge"]
    assert plan.parameters == 4 * plan.weights  # float32
    saving, _ = stages(gradient_checkpointing=True)
    assert saving["internalise"].peak.parts["activations"] < plain["internalise"].peak.parts["activations"]
    fewer, _ = stages(distill_batch_size=4, distill_gradient_accumulation_steps=2)
    assert fewer["internalise"].peak.parts["logits"] < 0.7 * plain["internalise"].peak.parts["logits"]
    assert fewer["internalise"].trained == plain["internalise"].trained
    open_end = dataclasses.replace(SHORT, trace=None)
    longer, shorter = (
        plan_edit(METHODS["CausalEdit"], hparams(bootstrap_max_new_tokens=n), lengths=open_end).stages[0]
        for n in (60, 20)
    )
    assert longer.peak.total > shorter.peak.total and longer.generated == 3 * shorter.generated
    kept, _ = stages(merge_adapter=False)
    assert "merge" not in kept
    twice = stages(lora_rank=16)[0]
    assert twice["bootstrap"].adapter == 2 * plain["bootstrap"].adapter
    held, _ = stages(preserve_weight=1.0, preserve_prompts=4, preserve_batch_size=2, preserve_max_new_tokens=3)
    assert held["preserve"].generated == 12


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bootstrap_direct_repeats": 3, "bootstrap_explain_repeats": 3},
        {"bootstrap_direct_repeats": 2, "bootstrap_trace_rows": 1, "prompt_paraphrases": 3},
        {"bootstrap_explain_repeats": 2, "editing_mode": "noncausal"},
        {"bootstrap_explain_repeats": 2, "bootstrap_reason_prompts": 3},
        {"bootstrap_reason_prompts": 3, "editing_mode": "noncausal"},
        {"compositions_onward": 5, "bootstrap_compositions": 2, "bootstrap_raw_prompts": 2},
        {"bootstrap_all_prompts": False, "prompt_paraphrases": 3},
        {"bootstrap_all_prompts": False, "compositions_leading": 5, "bootstrap_compositions": 2},
    ],
)
def test_stage_1_is_planned_with_the_rows_that_it_will_have(changes):
    changes = {"bootstrap_traces": 2, "bootstrap_all_prompts": True, **changes}
    settings = hparams(bootstrap_batch_size=1, bootstrap_epochs=1, bootstrap_max_steps=None, **changes)
    hops = [Composition(f"Hop {n}?", "It is so.", "It is so, and so is that.", "that") for n in range(5)]
    [request] = requests_from_data([EGYPT])
    traces = [fallback_trace(request, causal=settings.editing_mode == "causal")] * 2
    rows = len(training_pairs(request, traces, settings, hops)) + len(raw_pairs(request, settings))
    planned = plan_edit(METHODS["CausalEdit"], settings, lengths=SHORT)
    [found] = [stage for stage in planned.stages if stage.stage == "bootstrap"]
    assert found.trained == rows * (SHORT.prompt + SHORT.trace)


def test_several_gpus_and_quantised_weights_hold_less():
    config = make_llama(num_hidden_layers=12).config
    settings = hparams()
    one = Planner(config, settings, dtype=torch.bfloat16).parameters()
    many = Planner(config, settings, dtype=torch.bfloat16, gpus=8).parameters()
    assert many < one
    small = {
        kind: Planner(config, hparams(quantization=kind, merge_adapter=False), dtype=torch.bfloat16).parameters()
        for kind in ("8bit", "4bit")
    }
    assert small["4bit"] < small["8bit"] < one


def test_a_way_to_fit_changes_no_more_than_it_must():
    plan = plan_edit(METHODS["CausalEdit"], hparams(), lengths=dataclasses.replace(SHORT, trace=4))
    assert plan.highest.stage == "internalise"
    roomy = dataclasses.replace(plan, memory=plan.needed)
    assert roomy.fits and way_to_fit(METHODS["CausalEdit"], roomy).remedies == []
    tight = dataclasses.replace(plan, memory=round(plan.needed - 0.1 * plan.peak))
    assert tight.fits is False
    way = way_to_fit(METHODS["CausalEdit"], tight)
    assert way.plan.fits and way.remedies
    never = way_to_fit(METHODS["CausalEdit"], dataclasses.replace(plan, memory=1000))
    assert never.plan.fits is False


# ---- every method ----------------------------------------------------------------------------------
PLANNED = sorted(name for name, method in METHODS.items() if method.footprint)
STAGES = {
    "AlphaEdit": ["contexts", "statistics", "values", "update"],
    "CaKE": ["train", "merge"],
    "CausalEdit": ["traces", "bootstrap", "rollouts", "internalise", "merge"],
    "EtCon": ["proximal", "rollouts", "consolidate", "merge"],
    "FT": ["train"],
    "ICE": ["train"],
    "LoRA": ["train", "merge"],
    "MEMIT": ["contexts", "statistics", "values", "update"],
    "ROME": ["contexts", "statistics", "values", "update"],
    "StoryDistill": ["targets", "distil", "merge"],
}


def settings_of(name, model=None, tokenizer=None, **changes):
    figures = {"dtype": "float32", **FAST[name], **changes}
    return METHODS[name].load_hparams()(model_name=(model or make_llama(), tokenizer), **figures)


@functools.cache
def default_plan(name):
    return plan_edit(METHODS[name], settings_of(name), lengths=SHORT)


def planned(name, **changes):
    return plan_edit(METHODS[name], settings_of(name, **changes), lengths=SHORT) if changes else default_plan(name)


@pytest.mark.parametrize("name", PLANNED)
def test_every_method_that_computes_says_what_its_stages_need(name):
    plan = planned(name)
    assert [stage.stage for stage in plan.stages] == STAGES[name]
    assert all(stage.total(0) > 0 for stage in plan.stages) and plan.trained > 0
    assert plan.host > 0


def test_copies_are_in_the_same_memory_on_a_cpu_and_in_another_beside_a_gpu():
    beside = planned("MEMIT")
    within = plan_edit(METHODS["MEMIT"], settings_of("MEMIT"), lengths=SHORT, gpu=False)
    assert within.host == 0 and within.peak - beside.peak == beside.host


def test_a_way_to_fit_of_another_method():
    plan = planned("LoRA", prompt_forms=["plain", "cloze", "question"], stop_loss=0.0)
    assert plan.highest.stage == "train"
    way = way_to_fit(METHODS["LoRA"], dataclasses.replace(plan, memory=1000))
    assert way.plan.peak < plan.peak and {"micro_batch_size": 1} in [remedy.changes for remedy in way.remedies]


def test_what_the_methods_settings_change():
    assert planned("LoRA", lora_rank=8).stages[0].adapter == 2 * planned("LoRA", lora_rank=4).stages[0].adapter
    assert planned("LoRA").trained == 20 * SHORT.answer
    one, two = planned("FT", layers=[0]), planned("FT", layers=[0, 1])
    assert two.stages[0].optimizer == 2 * one.stages[0].optimizer and two.host == 2 * one.host
    width = make_llama().config.intermediate_size
    per_layer = {
        name: planned(name, layers=[0, 1]).host - planned(name, layers=[0]).host for name in ("MEMIT", "AlphaEdit")
    }
    original = 4 * width * make_llama().config.hidden_size
    assert per_layer["MEMIT"] == original + (4 + 8) * width**2  # the moment in float32, its factor in float64
    assert per_layer["AlphaEdit"] == original + (4 + 4) * width**2  # the moment and the projection
    without = [stage.stage for stage in planned("ROME", mom2_adjustment=False).stages]
    assert without == ["contexts", "values", "update"]
    stored, anew = planned("StoryDistill"), planned("StoryDistill", cache_targets=False)
    assert stored.stages[1].host > 0 == anew.stages[1].host
    assert planned("EtCon", label_source="self", answer_format="boxed").stages[0].stage == "labels"
    quantised = planned("CaKE", quantization="4bit")
    assert quantised.stages[-1].copies == 4 * quantised.weights  # merged into a second network


@pytest.mark.parametrize("name", ["AlphaEdit", "CaKE", "FT", "ICE", "LoRA", "MEMIT", "ROME"])
def test_an_edit_allocates_what_is_planned(name, words):
    """Every tensor of a real edit of a tiny model is counted, by the operations that make them."""
    model, tokenizer = make_llama(hidden_size=64, intermediate_size=256, num_hidden_layers=4), make_tokenizer()
    text = {"mom2_dataset": words} if name in ("AlphaEdit", "MEMIT", "ROME") else {}
    hparams = settings_of(name, model, tokenizer, **text)
    tracker = MemoryTracker(vocabulary=model.config.vocab_size)
    tracker.ignore([*model.parameters(), *model.buffers()])
    with tracker:
        edit_in_place(METHODS[name], model, tokenizer, [EGYPT], hparams, progress=SilentProgress())

    def tokens(content):
        return len(tokenizer(content)["input_ids"])

    lengths = Lengths(
        prompt=tokens(EGYPT["prompt"]), context=tokens(EGYPT["narrative"]), answer=tokens(" " + EGYPT["target_new"])
    )
    if name == "CaKE":
        rows = rows_of(tokenizer, texts_of(requests_from_data([EGYPT])[0], hparams), hparams)
        answers = [sum(row["completion_mask"]) for row in rows]
        prompts = [len(row["input_ids"]) - answer for row, answer in zip(rows, answers, strict=True)]
        lengths = Lengths(prompt=max(prompts), answer=max(answers), opening=3)
    plan = plan_edit(METHODS[name], hparams, lengths=lengths, gpu=False)
    assert 0.8 <= tracker.peak.total / (plan.peak - plan.parameters) <= 1.2


def test_a_method_that_does_not_say_is_refused():
    method = METHODS["IKE"]
    with pytest.raises(ModelError, match="IKE does not say what its stages need"):
        plan_edit(method, method.load_hparams()(model_name=(make_llama(), None)))


def test_the_command_says_what_fits_and_how(tmp_path):
    make_llama().config.save_pretrained(tmp_path)  # a configuration is enough
    file = tmp_path / "tiny.yaml"
    lines = {"alg_name": "CausalEdit", "dtype": "float32", **FAST["CausalEdit"]}
    file.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    given = ["plan", "--model", str(tmp_path), "--hparams", str(file), "--trace-tokens", "30"]
    done = CliRunner().invoke(app, [*given, "--gpu-memory", "1", "--generate-rate", "100", "--train-rate", "1000"])
    assert done.exit_code == 0, done.output
    assert "fits in 1.00 GiB" in done.output and "internalise" in done.output and "minutes an edit" in done.output
    data = json.loads(CliRunner().invoke(app, [*given, "--gpu-memory", "0.1", "--json"]).stdout)
    assert data["fits"] is False and data["needed"] > data["peak"] > data["parameters"] > 0


# ---- a real edit -----------------------------------------------------------------------------------
@pytest.mark.slow
def test_a_measured_edit_of_smollm2_needs_what_was_predicted(tmp_path):
    smollm2_folder()
    # the C library would keep freed memory for later, by up to half of the peak; here every tensor goes back at once
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    # rows and lengths of the batches that are measured; a bundled file may change
    own = yaml.safe_load((REPOSITORY / "hparams/CausalEdit/smollm2-135m-instruct.yaml").read_text(encoding="utf-8"))
    own |= {"preserve_prompts": 40, "preserve_batch_size": 8, "preserve_max_new_tokens": 12}
    file = tmp_path / "measured.yaml"
    file.write_text(yaml.safe_dump(own), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "gpu_memory.py"), "--model", "smollm2-135m-instruct",
         "--hparams", str(file),
         "--device", "cpu", "--variants", "plain,gradient_checkpointing", "--steps", "1",
         "--candidates", "12", "--trace-tokens", "160", "--trace-new", "24", "--rollout-new", "16"],
        env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ratios = {(line["variant"], line["stage"]): line["ratio"] for line in lines if "stage" in line}
    assert len(ratios) == 12
    assert {key: ratio for key, ratio in ratios.items() if not 0.8 <= ratio <= 1.2} == {}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["LoRA", "ROME"])
def test_a_measured_edit_of_another_method_needs_what_was_predicted(method, words, tmp_path):
    smollm2_folder()
    own = yaml.safe_load((REPOSITORY / f"hparams/{method}/smollm2-135m-instruct.yaml").read_text(encoding="utf-8"))
    if method == "ROME":  # the text that the model would write itself takes minutes
        text = tmp_path / "text.txt"
        text.write_text("\n\n".join([Path(words).read_text(encoding="utf-8")] * 8), encoding="utf-8")
        own["mom2_dataset"] = str(text)
    file = tmp_path / "measured.yaml"
    file.write_text(yaml.safe_dump(own), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "gpu_memory.py"), "--model", "smollm2-135m-instruct",
         "--device", "cpu", "--method", method, "--hparams", str(file)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
    assert 0.8 <= line["ratio"] <= 1.2, line
