"""vLLM for probes and traces: what the engine is sent and handed, the same answers as without it, what is refused."""

from __future__ import annotations

import http.server
import json
import os
import socket
import threading
import time

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, fast_hparams, make_tokenizer, same_weights, weights_of
from test_runs import some_cases
from transformers import AutoModelForCausalLM
from vllm_standin import StandIn, standin

from causaledit.comparison.execution import execute_comparison
from causaledit.comparison.plan import make_compare_plan
from causaledit.errors import CausalEditError, HparamsError, MissingExtraError, ModelError, RunError
from causaledit.judges.registry import get_judge
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.methods.causal_edit.bootstrap import teacher_prompt
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.methods.footprint import Lengths
from causaledit.methods.in_turn import edit_all
from causaledit.methods.memory_plan import plan_edit
from causaledit.methods.registry import METHODS
from causaledit.models import vllm_engine
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.models.vllm_engine import EngineSettings, VLLMEngine
from causaledit.probes.sets import DEFAULT_KINDS
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan
from causaledit.support.extras import EXTRAS
from causaledit.support.progress import SilentProgress
from causaledit.support.seeding import seeded

__all__ = ["standin"]  # a fixture
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
CHEAP = {
    "FT": {**FAST["FT"], "steps": 3},
    "LoRA": {**FAST["LoRA"], "steps": 3, "merge_adapter": False},
    "IKE": FAST["IKE"],
    "CausalEdit": {
        **FAST["CausalEdit"], "bootstrap_max_steps": 2, "distill_steps_base": 1, "gradient_checkpointing": True,
    },
}  # fmt: skip


@pytest.fixture
def loaded(tiny_model_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder).eval()


@pytest.fixture
def arguments(tmp_path, tiny_model_folder):
    (tmp_path / "two.json").write_text(json.dumps(some_cases()[-2:]))  # one of one edit, one of two
    for name in CHEAP:
        file = tmp_path / "hparams" / name / "tiny.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"alg_name": name, "model_name": str(tiny_model_folder), **CHEAP[name]}))

    def make(method="FT", **changes):
        values = {
            "editing_method": method, "datatype": str(tmp_path / "two.json"), "model_type": "tiny",
            "hparams_path": str(tmp_path / "hparams" / ("FT" if method == "PreEdited" else method) / "tiny.yaml"),
            "output_root": str(tmp_path / "out"), "run_id": "plain", "device": "cpu", "max_new_tokens": 5,
            "probes": ("hop", "locality"),
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


def structure(model):
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    return [(name, type(module)) for name, module in model.named_modules()], hooks, set(vars(model))


def run(arguments, model):
    """A run of a loaded model, which is the same afterwards, as is the environment."""
    before, made_of, environment = weights_of(model), structure(model), [os.environ.get(name) for name in LAUNCHED]
    summary = execute(make_plan(arguments), model=model, tokenizer=make_tokenizer())
    assert same_weights(before, weights_of(model)) and structure(model) == made_of
    assert [os.environ.get(name) for name in LAUNCHED] == environment
    return [{k: v for k, v in item.items() if k != "time"} for item in json.loads(
        (summary.folder / "metrics.json").read_text(encoding="utf-8")
    )]  # fmt: skip


def same_parameters(given, model):
    return all(torch.equal(given[name], value) for name, value in model.named_parameters())


# ---- runs ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_a_run_through_vllm_answers_as_one_without(mode, arguments, loaded, standin, monkeypatch):
    monkeypatch.setattr(vllm_engine, "_check_server", lambda settings: None)  # there is none to ask
    given = {"vllm_memory": 0.5} if mode == "colocate" else {"vllm_server": "http://node:9000/"}
    plain = run(arguments(probes=DEFAULT_KINDS), loaded)
    assert StandIn.made == []
    assert run(arguments(run_id="vllm", vllm=mode, probes=DEFAULT_KINDS, **given), loaded) == plain

    [engine] = StandIn.made
    assert engine.mode == mode and engine.model is None  # it keeps no model alive
    assert engine.given["gpu_memory_utilization"] == (0.5 if mode == "colocate" else 0.35)
    assert engine.given["server_base_url"] == ("http://node:9000" if mode == "server" else "http://127.0.0.1:8000")
    assert engine.given["enable_sleep_mode"] is (mode == "colocate")
    # one hand-over for the unedited model and one for the edited one, whatever is asked in between
    assert len(engine.handed) == 2 * len(plain) == len(engine.batches)
    plan = make_plan(arguments(run_id="again"))
    for number, group in enumerate(plan.groups):
        unedited, edited = engine.handed[2 * number : 2 * number + 2]
        assert same_parameters(unedited, loaded)
        requests = [edit.to_request(group.cases[0].case_id) for edit in group.edits]
        with seeded(plan.arguments.shuffle_seed):
            made = edit_all(plan.method, loaded, make_tokenizer(), requests, plan.hparams, progress=SilentProgress())
        assert same_parameters(edited, loaded) and not same_parameters(unedited, loaded)
        made.undo()
    if mode == "colocate":
        assert engine.llm.calls == ["wake up", "sleep"] * len(engine.handed)  # it has its memory while it answers
    else:
        assert engine.vllm_client.closed

    tokenizer = prepare_tokenizer(make_tokenizer())
    for (prompts, sent), item in zip(engine.batches[::2], plain, strict=True):
        asked = [probe["prompt"] for probe in item["post"]["locality_probe"]]
        texts = [render(tokenizer, user(prompt)) for prompt in dict.fromkeys(asked)]
        assert prompts == tokenizer(texts, add_special_tokens=False)["input_ids"]
        assert sent == {
            "temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_tokens": 5, "ignore_eos": True,
            "stop_token_ids": [tokenizer.eos_token_id],
        }  # fmt: skip
    assert engine.max_model_length == max(len(row) for prompts, _ in engine.batches for row in prompts) + 5


@pytest.mark.parametrize(
    ("changes", "hand_overs"),
    [({"batch_edit": 3}, 2), ({"method": "PreEdited"}, 1), ({"method": "CausalEdit", "max_cases": 1}, 2)],
)
def test_one_hand_over_an_edit_and_none_a_batch(changes, hand_overs, arguments, loaded, standin):
    plain = run(arguments(**changes), loaded)
    assert run(arguments(run_id="vllm", vllm="colocate", **changes), loaded) == plain
    [engine] = StandIn.made
    assert len(engine.handed) == hand_overs
    assert len(engine.batches) >= max(len(plain), hand_overs)


def test_a_sequence_through_vllm(arguments, loaded, standin):
    given = {"sequential": 1, "checkpoints": (1, 3), "probes": ("hop", "locality")}
    plain = run(arguments(**given), loaded)
    assert run(arguments(run_id="vllm", vllm="colocate", **given), loaded) == plain
    [engine] = StandIn.made
    assert len(engine.handed) == 3  # the unedited model, and two checkpoints
    assert len(engine.batches) == 1 + 1 + 3
    unedited, first, last = engine.handed
    assert same_parameters(unedited, loaded)
    assert not same_weights(unedited, first) and not same_weights(first, last)


@pytest.mark.parametrize("method", ["LoRA", "IKE"])
def test_an_edit_that_is_not_in_the_weights_is_asked_here_which_is_said_once(
    method, arguments, loaded, standin, caplog
):
    plain = run(arguments(method), loaded)
    assert run(arguments(method, run_id="vllm", vllm="colocate"), loaded) == plain
    [engine] = StandIn.made
    assert len(engine.batches) == len(plain) and all(same_parameters(given, loaded) for given in engine.handed)
    said = [r.getMessage() for r in caplog.records if "this process answers instead of vLLM" in r.getMessage()]
    assert len(said) == 1 and {"LoRA": "adapter", "IKE": "prompts"}[method] in said[0]


def test_hooks_and_other_modules_are_no_plain_weights(loaded, standin, caplog):
    engine = VLLMEngine(EngineSettings("--vllm colocate"))
    engine.open(loaded, make_tokenizer(), longest=50)
    assert engine.serves(loaded) and not engine.serves(loaded, own_generate=True)
    hook = loaded.model.layers[0].register_forward_hook(lambda *args: None)
    assert not engine.serves(loaded)
    hook.remove()
    assert engine.serves(loaded)
    loaded.model.layers[0].mlp.extra = torch.nn.Linear(2, 2)
    assert not engine.serves(loaded)


def test_a_model_that_vllm_cannot_load_starts_no_engine(arguments, loaded, standin, caplog):
    loaded.config._name_or_path = loaded.name_or_path = ""
    run(arguments(vllm="colocate"), loaded)
    assert StandIn.made == []
    assert caplog.text.count("this process answers instead of vLLM") == 1


def test_methods_compared_share_one_engine(arguments, tmp_path, monkeypatch, standin):
    monkeypatch.chdir(tmp_path)
    judge, rows = get_judge("rule"), {}
    for run_id, given in {"plain": {}, "vllm": {"vllm": "colocate"}}.items():
        shared = arguments(run_id=run_id, hparams_path=None, max_cases=1, **given)
        plan = make_compare_plan(("FT", "PreEdited"), shared, judge=judge.identity)
        rows[run_id] = [(row.method, row.problem, row.metrics) for row in execute_comparison(plan, judge)]
    assert rows["plain"] == rows["vllm"] and [problem for _, problem, _ in rows["vllm"]] == [None] * 2
    [engine] = StandIn.made
    assert len(engine.handed) == 2 + 1


def test_a_run_is_resumed_with_the_engine_it_began_with_wherever_that_is(arguments):
    kept = arguments(vllm="server").comparable()
    assert kept == arguments(vllm="server", vllm_server="http://elsewhere:1").comparable()
    assert kept["vllm"] == "server" and "vllm" not in arguments().comparable()


@pytest.mark.parametrize("template", [True, False])
def test_texts_are_those_of_this_process(template, loaded, standin):
    tokenizer = make_tokenizer()
    if not template:
        tokenizer.chat_template = None
    tokenizer = prepare_tokenizer(tokenizer)
    prompts = [render(tokenizer, user(text)) for text in ("What is the capital of Egypt?", "Oslo", "Which one?" * 9)]
    engine = VLLMEngine(EngineSettings("--vllm server", mode="server"))
    engine.open(loaded, tokenizer, longest=500)
    given = {"max_new_tokens": 40}
    assert generate_texts(loaded, tokenizer, prompts, engine=engine, **given) == generate_texts(
        loaded, tokenizer, prompts, **given
    )
    assert generate_texts(loaded, tokenizer, [], engine=engine, **given) == []
    [(_, sent)] = StandIn.made[0].batches
    assert sent.get("stop") == (None if template else ["\nQ:"])


# ---- refusals --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"vllm": "colocated"}, ["--vllm", "colocate or server", "'colocated'", "Did you mean"]),
        ({"vllm": "colocate", "vllm_memory": 35.0}, ["--vllm_memory", "at most 1", "35"]),
        ({"vllm": "server", "vllm_memory": 0.3}, ["--vllm_memory", "--vllm colocate"]),
        ({"vllm_server": "http://x"}, ["--vllm_server", "--vllm server"]),
    ],
)
def test_arguments_that_do_not_go_together(arguments, changes, words):
    with pytest.raises(RunError) as caught:
        arguments(**changes)
    assert all(word in str(caught.value) for word in words)


def test_where_there_is_no_vllm_one_line_names_the_extra(arguments, loaded, monkeypatch):
    monkeypatch.setitem(EXTRAS, "vllm", ("no_such_package",))
    with pytest.raises(
        MissingExtraError, match=r"^--vllm colocate needs no_such_package.*causaledit\[vllm\]"
    ) as caught:
        make_plan(arguments(vllm="colocate"))
    assert "\n" not in str(caught.value)
    for setting in ("bootstrap_use_vllm", "distill_use_vllm"):
        with pytest.raises(MissingExtraError, match=rf"^`{setting}: true` needs no_such_package"):
            edit(loaded, EGYPT, **{setting: True})


def test_a_cpu_and_a_spread_model_are_refused(arguments, monkeypatch, tmp_path, standin):
    spread = tmp_path / "spread.yaml"
    spread.write_text(
        (tmp_path / "hparams" / "FT" / "tiny.yaml").read_text().replace("{", '{"model_parallel": true, ', 1)
    )
    with pytest.raises(ModelError, match=r"--vllm colocate .*`model_parallel: true`"):
        make_plan(arguments(vllm="colocate", hparams_path=str(spread)))
    monkeypatch.undo()
    monkeypatch.setitem(EXTRAS, "vllm", ("trl",))
    with pytest.raises(ModelError, match=r"--vllm server needs the model on the first GPU.*'cpu'"):
        make_plan(arguments(vllm="server"))


@pytest.mark.parametrize("setting", ["bootstrap_use_vllm", "distill_use_vllm"])
def test_texts_of_an_edit_are_refused_before_stage_1(loaded, monkeypatch, setting):
    monkeypatch.setitem(EXTRAS, "vllm", ("trl",))
    with pytest.raises(ModelError, match=rf"`{setting}: true` needs the model on .*'cpu'"):
        edit(loaded, EGYPT, **{setting: True})
    monkeypatch.setattr(vllm_engine, "DEVICES", ("cpu",))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = {"distill_vllm_mode": "server", "distill_vllm_server_port": port}
    with pytest.raises(ModelError, match=rf"`{setting}: true`: at 'http://127.0.0.1:\d+' nobody answers"):
        edit(loaded, EGYPT, **{setting: True}, **server)


class _Other(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("there", ["nobody", "something else", "somebody silent", "no address"])
def test_a_server_that_does_not_answer_is_one_line(there, arguments, standin, monkeypatch):
    monkeypatch.setattr(vllm_engine, "ANSWER_SECONDS", 0.5)
    assert EngineSettings("x").server == "http://127.0.0.1:8000"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        if there == "nobody":
            silent.close()
        elif there == "something else":
            silent.close()
            server = http.server.HTTPServer(("127.0.0.1", port), _Other)
            threading.Thread(target=server.serve_forever, daemon=True).start()
        elif there == "no address":
            address = "node without scheme"
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"^--vllm server: at 'h|n.*(nobody|something else) answers") as caught:
            make_plan(arguments(vllm="server", vllm_server=address))
        assert time.monotonic() - began < 5 and "\n" not in str(caught.value)
        if there == "something else":
            server.shutdown()
            server.server_close()


def test_workers_are_refused(arguments, standin):
    plan = make_plan(arguments(vllm="colocate"))
    with pytest.raises(RunError, match="--vllm runs in one process: leave out --workers"):
        execute(plan, pool=object())
    assert not plan.folder.exists()


# ---- traces ----------------------------------------------------------------------------------------
def edit(model, *requests, **changes):
    report = EditReport()
    _, originals = apply_causal_edit_to_model(
        model, make_tokenizer(), list(requests),
        fast_hparams(None, None, **{"bootstrap_max_steps": 2, "bootstrap_steps_per_extra_edit": 0, **changes}),
        return_orig_weights=True, progress=SilentProgress(), report=report,
    )  # fmt: skip
    return originals, report


def test_traces_through_vllm(loaded, standin):
    before, made_of, environment = weights_of(loaded), structure(loaded), [os.environ.get(name) for name in LAUNCHED]
    sampling = {"bootstrap_sample_batch_size": 3, "bootstrap_candidates_per_trace": 3, "bootstrap_early_stop": False}
    originals, report = edit(loaded, EGYPT, NORWAY, bootstrap_use_vllm=True, **sampling)
    [engine] = StandIn.made
    assert [os.environ.get(name) for name in LAUNCHED] == environment
    assert len(engine.handed) == 1 and all(torch.equal(engine.handed[0][n], before[n]) for n in engine.handed[0])
    assert engine.llm.calls == ["wake up", "sleep"] and engine.model is None
    assert [trace.sampled for trace in report.traces] == [6, 6] and report.tally.tokens.generated > 0
    hparams, tokenizer = fast_hparams(None, None), prepare_tokenizer(make_tokenizer())
    prompts = [
        teacher_prompt(tokenizer, request, hparams, context_role="system") for request in report.requests
    ]  # fmt: skip
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    assert [batch for batch, _ in engine.batches] == [[row] * 3 for row in rows for _ in range(2)]
    assert engine.max_model_length == max(map(len, rows)) + hparams.bootstrap_max_new_tokens
    assert engine.batches[0][1] == {
        "temperature": hparams.bootstrap_temperature, "top_p": hparams.bootstrap_top_p, "top_k": 0, "ignore_eos": True,
        "max_tokens": hparams.bootstrap_max_new_tokens, "stop_token_ids": [tokenizer.eos_token_id],
    }  # fmt: skip
    with torch.no_grad():
        for name, value in originals.items():
            loaded.get_parameter(name).copy_(value)
    assert same_weights(weights_of(loaded), before) and structure(loaded) == made_of


def test_the_settings_of_the_rollouts_are_those_of_the_traces(loaded, standin, monkeypatch):
    monkeypatch.setattr(vllm_engine, "_check_server", lambda settings: None)
    edit(
        loaded, EGYPT, stages=[1], bootstrap_use_vllm=True, distill_vllm_mode="server", distill_vllm_server_host="node",
        distill_vllm_server_port=9001,
    )  # fmt: skip
    [engine] = StandIn.made
    assert (engine.mode, engine.server_base_url) == ("server", "http://node:9001") and engine.vllm_client.closed


def test_reasons_from_the_narrative_need_no_engine(loaded, standin, monkeypatch):
    monkeypatch.setitem(EXTRAS, "vllm", ("no_such_package",))
    edit(loaded, EGYPT, stages=[1], bootstrap_use_vllm=True, bootstrap_reasons="narrative")
    assert StandIn.made == []


def test_traces_of_several_processes_are_refused(loaded, standin, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HparamsError, match=r"`bootstrap_use_vllm: true` samples in one process, and there are 2") as e:
        edit(loaded, EGYPT, bootstrap_use_vllm=True)
    assert isinstance(e.value, CausalEditError) and "\n" not in str(e.value)


def test_an_engine_that_cannot_be_started_is_one_line(loaded, standin, monkeypatch):
    def broken(self, **settings):
        raise ValueError("Free memory on device is less than desired\nand so on")

    monkeypatch.setattr(StandIn, "__init__", broken)
    before, made_of = weights_of(loaded), structure(loaded)
    with pytest.raises(
        ModelError, match=r"`bootstrap_use_vllm: true`: vLLM cannot be started: .*Free memory"
    ) as caught:
        edit(loaded, EGYPT, bootstrap_use_vllm=True)
    assert "\n" not in str(caught.value)
    assert same_weights(weights_of(loaded), before) and structure(loaded) == made_of


# ---- plan ------------------------------------------------------------------------------------------
def test_a_plan_counts_the_engine(loaded):
    def stages(memory=None, **changes):
        hparams = CausalEditHyperParams(model_name=(loaded, None), **{**FAST["CausalEdit"], **changes})
        plan = plan_edit(
            METHODS["CausalEdit"], hparams, memory=memory, lengths=Lengths(prompt=20, context=40, trace=10)
        )
        return {stage.stage: stage for stage in plan.stages}

    weights = sum(value.numel() for value in loaded.parameters()) * loaded.dtype.itemsize
    both = {"bootstrap_use_vllm": True, "distill_use_vllm": True}
    many = {"bootstrap_candidates_per_trace": 48, "bootstrap_max_new_tokens": 600}
    plain = stages(**many)
    assert not any(stage.engine for stage in plain.values()) and plain["traces"].peak.parts["cache"]
    found = stages(**both, **many)
    assert not found["traces"].peak.parts["cache"]
    assert found["traces"].engine == found["rollouts"].engine == weights and not found["internalise"].engine
    assert found["traces"].total(0) == weights + found["traces"].peak.total
    awake = stages(**both, memory=1000, distill_vllm_sleep_mode=False)
    assert awake["traces"].engine == awake["internalise"].engine == 350
    assert not any(stage.engine for stage in stages(**both, distill_vllm_mode="server").values())
