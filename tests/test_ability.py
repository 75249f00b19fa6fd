"""Ability and drift: the bundled set, what is refused, pairing, and the commands."""

from __future__ import annotations

import collections
import json
import math
import operator
import re
import sys

import pytest
import torch
from conftest import FAST, REPOSITORY, make_llama, make_tokenizer, same_weights, weights_of
from typer.testing import CliRunner

from causaledit.ability.bundled import FOLDER, KINDS, TASKS, bundled_text
from causaledit.ability.bundled.checks import CHECKS, process_results
from causaledit.ability.drift import TextDrift
from causaledit.ability.measuring import AbilityMeter
from causaledit.ability.scores import Ability, compare_abilities
from causaledit.ability.summary import read_ability
from causaledit.ability.tasks import check_tasks, parse_tasks
from causaledit.cli.app import app
from causaledit.errors import AbilityError, MissingExtraError, RunError
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan


def items(kind):
    return [json.loads(line) for line in (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


# ---- the bundled set -------------------------------------------------------------------------------
def test_the_bundled_items_are_what_their_script_writes_and_enough(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import ability_items

    kept = {kind: (FOLDER / f"{kind}.jsonl").read_text(encoding="utf-8") for kind in KINDS}
    monkeypatch.setattr(ability_items, "FOLDER", tmp_path)
    ability_items.main()
    assert {kind: (tmp_path / f"{kind}.jsonl").read_text(encoding="utf-8") for kind in KINDS} == kept
    assert sum(len(items(kind)) for kind in KINDS) >= 400 and min(len(items(kind)) for kind in KINDS) >= 50


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "instructions"])
def test_choices_are_distinct_and_the_right_one_takes_every_place(kind):
    found = items(kind)
    assert all(len(set(i["choices"])) == len(i["choices"]) and 0 <= i["answer"] < len(i["choices"]) for i in found)
    assert len({json.dumps(i) for i in found}) == len(found)
    places = collections.Counter(item["answer"] for item in found)
    assert len(places) == max(len(item["choices"]) for item in found)
    assert max(places.values()) < 0.67 * len(found)  # always choosing one place is no skill


def test_arithmetic_and_comparison_are_right():
    signs = {"plus": operator.add, "minus": operator.sub, "times": operator.mul, "divided by": operator.truediv}
    for item in items("arithmetic"):
        a, sign, b = re.fullmatch(r"What is (\d+) (.+) (\d+)\?", item["question"]).groups()
        right = signs[sign](int(a), int(b))
        assert float(item["choices"][item["answer"]]) == right
    for item in items("comparison"):
        if found := re.match(r"Which number is (larger|smaller), (\d+) or (\d+)", item["question"]):
            best = (max if found[1] == "larger" else min)(int(found[2]), int(found[3]))
            assert int(item["choices"][item["answer"]]) == best


@pytest.mark.parametrize(
    ("check", "word", "good", "bad"),
    [
        ("one_word", "", "Green.", "It is green."),
        ("capitals", "", "THE SEA IS WIDE.", "THE SEA is wide."),
        ("three_items", "", "apples, pears, figs.", "apples, pears"),
        ("three_items", "", "red, green, blue", "Sure!\nred, green, blue"),
        ("begins", "Perhaps", '"Perhaps it rains."', "It rains, perhaps."),
        ("contains", "river", "A river runs.", "Rivers run."),
        ("question", "", "Is it cold?", "It is cold."),
    ],
)
def test_instructions_are_checked_by_rules(check, word, good, bad):
    assert CHECKS.keys() == {item["check"] for item in items("instructions")}
    assert process_results({"check": check, "word": word}, [good]) == {"acc": 1.0}
    assert process_results({"check": check, "word": word}, [bad]) == {"acc": 0.0}


# ---- measuring -------------------------------------------------------------------------------------
def test_the_bundled_tasks_are_asked_without_a_network_and_leave_the_model_alone():
    model, tokenizer = make_llama(), make_tokenizer()
    before, names, config = weights_of(model), set(vars(model)), dict(vars(model.config))
    template = tokenizer.chat_template
    meter = AbilityMeter(parse_tasks("bundled", limit=3), model, tokenizer)
    assert set(meter.before.scores) == set(TASKS)
    assert all(len(scores) == 3 for scores in meter.before.scores.values())
    assert same_weights(before, weights_of(model)) and names == set(vars(model)) and config == dict(vars(model.config))
    assert tokenizer.chat_template == template
    same = compare_abilities(meter.before, meter.after(model))
    assert all(found["difference"] == 0 for found in same.values()) and same["all"]["n"] == 21
    assert Ability.from_dict(json.loads(json.dumps(meter.before.to_dict()))) == meter.before


def test_drift_is_the_mean_divergence_of_what_comes_next():
    tokenizer = make_tokenizer()
    model, other = make_llama(), make_llama(seed=1)
    text = bundled_text()[:400]
    drift = TextDrift(model, tokenizer, text)
    assert drift.after(model).kl == pytest.approx(0, abs=1e-6) and drift.after(model).same_top == 1
    found = drift.after(other)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert ids.shape[1] <= 512
    with torch.no_grad():
        p, q = (m(input_ids=ids).logits[0, :-1].log_softmax(-1) for m in (model, other))
    assert found.kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
    assert found.same_top == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
    nll = -q.gather(-1, ids[0, 1:, None]).mean()
    assert found.perplexity == pytest.approx(math.exp(float(nll)), rel=1e-3) and found.tokens == ids.shape[1] - 1


def test_drift_between_vocabularies_is_refused():
    drift = TextDrift(make_llama(), make_tokenizer(), bundled_text()[:200])
    other = make_llama()
    other.resize_token_embeddings(640)
    with pytest.raises(AbilityError, match="the other 640"):
        drift.after(other)


def test_pairs_count_repaired_and_harmed_items():
    before = Ability({"a": {"1": 1.0, "2": 0.0, "3": 0.0}, "b": {"1": 0.5}})
    after = Ability({"a": {"1": 0.0, "2": 1.0, "3": 1.0}, "b": {"1": 1.0}})
    found = compare_abilities(before, after)
    assert (found["a"]["paired"]["repaired"], found["a"]["paired"]["harmed"]) == (2, 1)
    assert found["b"]["paired"] is None and found["b"]["difference"] == 0.5
    assert found["all"]["n"] == 4 and found["all"]["difference"] == pytest.approx(1.5 / 4)


# ---- refusals --------------------------------------------------------------------------------------
def test_what_is_meant_by_names():
    assert parse_tasks("bundled").names == TASKS and parse_tasks("bundled").drift
    assert parse_tasks("facts, drift").names == ("bundled_facts",) and parse_tasks("facts,drift").drift
    assert parse_tasks("mmlu,bundled_facts").standard == ("mmlu",)
    for text in ("", "facts,", " "):
        with pytest.raises(AbilityError, match="--ability must be tasks"):
            parse_tasks(text)


def test_without_lm_eval_the_extra_is_named_and_drift_needs_none(monkeypatch):
    monkeypatch.setattr("causaledit.support.extras.find_spec", lambda name: None)
    check_tasks(parse_tasks("drift"))
    with pytest.raises(MissingExtraError, match=r"causaledit\[ability\]"):
        check_tasks(parse_tasks("bundled"))


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch):
    class Known:
        all_tasks = ("mmlu", "gsm8k")

    monkeypatch.setattr("causaledit.ability.tasks.manager", lambda defaults: Known)  # its index takes 14 s
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(
        AbilityError, match=r"mmlu: its data come from the hub, and http://127.0.0.1:9 cannot be reached"
    ):
        check_tasks(parse_tasks("mmlu"))
    with pytest.raises(AbilityError, match=r"lm-eval has no task 'gsm8kk'. Did you mean 'gsm8k'"):
        check_tasks(parse_tasks("gsm8kk"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    check_tasks(parse_tasks("mmlu"))  # its data may be in the cache


# ---- in runs and commands --------------------------------------------------------------------------
@pytest.fixture
def arguments(tmp_path, own_files):
    mini = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
    data = tmp_path / "two.json"
    data.write_text(json.dumps([case for case in mini if len(case["requested_rewrite"]) == 1][:2]))

    def make(**changes):
        file = tmp_path / "ft.yaml"
        file.write_text(json.dumps({"alg_name": "FT", "model_name": "tiny", **FAST["FT"], "steps": 3}))
        values = {
            "editing_method": "FT", "datatype": str(data), "model_type": "tiny", "hparams_path": str(file),
            "output_root": str(tmp_path / "out"), "run_id": "r", "device": "cpu", "max_new_tokens": 4,
            "probes": ("hop", "locality"), "ability": "facts,drift", "ability_limit": 4,
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


def test_a_sequence_measures_ability_at_every_checkpoint(arguments):
    given = arguments(sequential=1)
    folder = execute(make_plan(given), model=make_llama(), tokenizer=make_tokenizer()).folder
    summary = read_ability(folder, sequence=True)
    assert [row["edits"] for row in summary["after"]] == [1, 2]
    first, second = (row["drift"]["kl"] for row in summary["after"])
    assert 0 < first < second
    assert summary["after"][0]["against_before"]["all"]["n"] == 4
    assert summary["before"]["drift"]["kl"] is None


def test_a_run_case_by_case_measures_each_edit_and_shows_their_mean(arguments):
    folder = execute(make_plan(arguments()), model=make_llama(), tokenizer=make_tokenizer()).folder
    assert json.loads((folder / "ability.json").read_text())["after"].keys() == {"0", "1"}
    [row] = read_ability(folder, sequence=False)["after"]
    assert row["edits"] == 2 and row["drift"]["kl"] > 0 and row["overall"]["n"] == 2


def test_ability_arguments_are_checked_before_anything_is_loaded(arguments):
    with pytest.raises(RunError, match="--ability_limit must be at least 1"):
        arguments(ability_limit=0)
    with pytest.raises(RunError, match="--ability_limit is that of --ability"):
        arguments(ability=None)
    with pytest.raises(RunError, match="goes with --editing_method PreEdited alone"):
        arguments(base="x")


@pytest.fixture
def folders(tmp_path):
    """The tiny model, and an edited copy of it."""
    model = make_llama()
    for name in ("base", "edited"):
        model.save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.add_(0.3)
    return tmp_path / "base", tmp_path / "edited"


def test_a_model_edited_elsewhere_is_evaluated_against_its_base(arguments, folders, tmp_path):
    base, edited = folders
    given = arguments()
    call = [
        "evaluate", "--model", str(edited), "--base", str(base), "--datatype", given.datatype, "--device", "cpu",
        "--max_new_tokens", "4", "--probes", "hop,locality", "--ability", "drift", "--output_root", str(tmp_path / "o"),
        "--run_id", "e",
    ]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "Locality" in result.output and "KL per token" in result.output
    [file] = (tmp_path / "o").rglob("metrics.json")
    local = [p for item in json.loads(file.read_text()) for p in item["post"]["locality_probe"]]
    assert any(p["pred"] != p["pred_before"] for p in local)
    row = read_ability(file.parent, sequence=False)["after"][0]
    assert row["drift"]["kl"] > 0
    assert CliRunner().invoke(app, call).exit_code == 0  # and again, from what is on disk


def test_the_command(folders, tmp_path):
    base, edited = folders
    out = tmp_path / "scores.json"
    call = ["ability", "--model", str(edited), "--base", str(base), "--tasks", "arithmetic,drift", "--limit", "2",
            "--device", "cpu", "--output", str(out)]  # fmt: skip
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert f"{base}: Arithmetic" in result.output.replace("\n", "") and "points" in result.output
    assert json.loads(out.read_text())["summary"]["after"][0]["drift"]["kl"] > 0
    assert "lm_eval" in sys.modules
