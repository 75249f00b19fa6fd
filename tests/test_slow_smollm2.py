"""One real edit of the embedded SmolLM2-135M-Instruct: the bundled file's, with fewer steps (a few minutes)."""

from __future__ import annotations

import dataclasses

import pytest
from conftest import REPOSITORY, same_weights, smollm2_folder, weights_of

from causaledit.facts.requests import requests_from_data
from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.probes.efficacy import ask, case_probes, rates
from causaledit.support.files import load_json
from causaledit.support.progress import SilentProgress


@pytest.mark.slow
def test_one_real_edit():
    folder = smollm2_folder()
    # `.ci/run` makes the whole edit by `causaledit demo`
    fewer = {"bootstrap_max_steps": 20, "preserve_prompts": 24, "distill_steps_base": 1}
    hparams = dataclasses.replace(CausalEditHyperParams.from_hparams("smollm2-135m-instruct"), **fewer)
    model, tokenizer = load_model(str(folder), device="cpu")
    case = load_json(REPOSITORY / "data" / "causaledit-mini.json", "data")[0]
    requests = requests_from_data(case["requested_rewrite"])
    probes = [p for p in case_probes(case, requests) if p.family in ("direct", "locality")]
    before, answers_before = weights_of(model), ask(model, tokenizer, probes)
    report = EditReport()
    edited, originals = apply_causal_edit_to_model(
        model, tokenizer, requests, hparams, return_orig_weights=True, progress=SilentProgress(), report=report
    )
    answers = ask(edited, tokenizer, probes)
    found = rates(answers_before, answers)
    assert found["direct"]["total"] == 5
    assert found["direct"]["hits"] >= 3, [a.response for a in answers]
    assert report.narrative_source == ["request"]
    assert len(report.losses["internalise"]) == hparams.distill_steps(1)
    restore(model, originals)
    assert same_weights(weights_of(model), before)
    assert [a.response for a in ask(model, tokenizer, probes)] == [a.response for a in answers_before]
