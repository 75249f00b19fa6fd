"""ES, PS, NS and n-gram entropy: scores, counts, and the probes of a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import harmonic_mean

import pytest
import torch
from conftest import EGYPT, FAST, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.facts.requests import request_from_dict
from causaledit.metrics.likelihood import likelihood_metrics, ngram_entropy
from causaledit.probes.likelihood import ask_likelihoods
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import execute
from causaledit.runs.plan import make_plan

COUNTERFACT = Path(__file__).parent / "data" / "forms" / "counterfact.json"


def test_answers_are_scored_by_their_mean_log_probability_behind_the_plain_prompt():
    model, tokenizer = make_llama(), make_tokenizer()
    request = request_from_dict(EGYPT)
    found = ask_likelihoods(model, tokenizer, [request])
    assert [entry["contrast"] for entry in found] == ["efficacy", "paraphrase", "neighbourhood"]
    for entry in found:
        for name in ("new", "old"):
            head = tokenizer(entry["prompt"])["input_ids"]
            tail = tokenizer(f" {entry[name]}", add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                rows = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].log_softmax(-1)
            mean = float(rows.gather(-1, torch.tensor(tail)[:, None]).mean())
            assert entry[f"log_{name}"] == pytest.approx(mean, abs=1e-4)
    assert found[0]["success"] == (found[0]["log_new"] > found[0]["log_old"])
    assert found[2]["success"] == (found[2]["log_old"] > found[2]["log_new"]) and found[2]["old"] == "the Nile"


def entry(contrast, success):
    return {"edit": 0, "contrast": contrast, "success": success}


def test_rates_and_their_harmonic_mean():
    probes = [entry("efficacy", True), entry("paraphrase", True), entry("paraphrase", False),
              entry("neighbourhood", True), entry("neighbourhood", True), entry("neighbourhood", False)]  # fmt: skip
    content = [{"case_id": 1, "post": {"likelihood_probe": probes}}]
    found = likelihood_metrics(content)
    assert [(rate.hits, rate.total) for rate in found.rates.values()] == [(1, 1), (1, 2), (2, 3)]
    assert found.score == pytest.approx(harmonic_mean([1, 0.5, 2 / 3]))
    assert likelihood_metrics([{"case_id": 1, "post": {"likelihood_probe": probes[:1]}}]).score is None
    assert likelihood_metrics([{"case_id": 1, "post": {}}]) is None
    for odd in (1, "no", [probes], {"likelihood_probe": [None, 1, {}, {"contrast": "efficacy", "success": "yes"}]}):
        assert likelihood_metrics([{"case_id": 1, "post": odd}]) is None
        beside = likelihood_metrics([{"case_id": 1, "post": odd, "sequence": [1]}, *content])
        assert beside.rates == found.rates
    earlier = {"case_id": 1, "sequence": {"checkpoint": 1, "edit": 1, "step": 1}, "post": {"likelihood_probe": probes}}
    later = {**earlier, "sequence": {**earlier["sequence"], "checkpoint": 2},
             "post": {"likelihood_probe": probes[:1]}}  # fmt: skip
    assert likelihood_metrics([earlier, later]).rates["PS"].total == 0


def test_entropy_falls_where_a_text_repeats_itself():
    # four bigrams and three trigrams, all different
    assert ngram_entropy("a b c d e") == pytest.approx((2 / 3 * math.log2(4) + 4 / 3 * math.log2(3)) / 2)
    assert ngram_entropy("no no no no no") == 0 == ngram_entropy("") == ngram_entropy("word")


@pytest.mark.parametrize("sequential", [None, 1])
def test_a_run_asks_them_and_analyze_shows_them(sequential, tmp_path):
    file = tmp_path / "ft.yaml"
    file.write_text(json.dumps({"alg_name": "FT", "model_name": "tiny", **FAST["FT"]}))
    arguments = RunArguments(
        editing_method="FT", datatype=str(COUNTERFACT), model_type="tiny", hparams_path=str(file), device="cpu",
        output_root=str(tmp_path / "out"), run_id="r", max_new_tokens=4, probes=("hop", "likelihood"),
        sequential=sequential,
    )  # fmt: skip
    folder = execute(make_plan(arguments), model=make_llama(), tokenizer=make_tokenizer()).folder
    found = likelihood_metrics(json.loads((folder / "metrics.json").read_text()))
    assert [rate.total for rate in found.rates.values()] == [2, 3, 3]
    assert found.rates["ES"].hits == 2  # the edits are in place
    result = CliRunner().invoke(app, ["analyze", "--input", str(folder / "metrics.json")])
    assert result.exit_code == 0 and "S, their harmonic mean" in result.output
    assert "likelihood" in json.loads((folder / "analysis" / "pred_analysis.json").read_text())
