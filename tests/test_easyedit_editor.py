"""EasyEdit's editor with our methods in it: our hyper-parameters are its own, and no keyword is dropped in silence."""

from __future__ import annotations

import json
import logging
import os

import pytest
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer, same_weights, weights_of

from causaledit import CausalEditHyperParams
from causaledit.errors import HparamsError, RequestError
from causaledit.methods.ft.hparams import FTHyperParams
from causaledit.methods.registry import METHODS

pytestmark = pytest.mark.skipif(not os.environ.get("EASYEDIT_HOME"), reason="EASYEDIT_HOME names no EasyEdit checkout")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes ./logs


@pytest.fixture
def register():
    from causaledit.hosts.easyedit.patches import register

    return register


def editor_of(register, **changes):
    figures = {**FAST["FT"], **changes}
    return register().from_hparams(FTHyperParams(model_name=(make_llama(), make_tokenizer()), **figures))


@pytest.fixture
def seen(monkeypatch):
    """The requests that a method of ours gets."""
    from causaledit.hosts.easyedit import patches

    got = []
    original = patches._OwnMethod.__call__

    def call(self, model, tok, requests, hparams, **kwargs):
        got.extend(requests)
        return original(self, model, tok, requests, hparams, **kwargs)

    monkeypatch.setattr(patches._OwnMethod, "__call__", call)
    return got


COLUMNS = {
    "prompts": ["The capital of Egypt is", "The capital of Norway is"],
    "target_new": ["Alexandria", "Bergen"],
    "subject": ["Egypt", "Norway"],
    "verbose": False,
}


def test_our_hyper_parameters_are_easyedits(register, tmp_path):
    register()
    from easyeditor import HyperParams

    for method in METHODS.values():
        assert isinstance(method.load_hparams()(), HyperParams), method.name
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"alg_name": "CausalEdit", "alg": "CausalEdit", "model_name": "x", "api_key": "k"}))
    hparams = CausalEditHyperParams.from_json(file)
    assert isinstance(hparams, HyperParams)
    assert hparams.model_name == "x"
    assert not hasattr(hparams, "api_key")
    with pytest.raises(HparamsError, match="CausalEdit"):
        CausalEditHyperParams.from_dict({"alg_name": "CausalEdit", "alg": "ROME"})


@pytest.mark.parametrize("call", ["edit", "batch_edit"])
def test_question_and_narrative_reach_the_method(call, register, seen):
    editor = editor_of(register)
    getattr(editor, call)(**COLUMNS, question=["Which city?", None], narrative=["Because.", "So it was."])
    assert [(r.get("question"), r["narrative"]) for r in seen] == [("Which city?", "Because."), (None, "So it was.")]
    with pytest.raises(RequestError, match=r"`narrative` has 1 entries, but there are 2 prompts"):
        getattr(editor, call)(**COLUMNS, narrative=["Because."])


@pytest.mark.parametrize("call", ["edit", "batch_edit"])
def test_ready_requests_are_taken(call, register, seen):
    editor = editor_of(register)
    before = weights_of(editor.model)
    bare = {key: NORWAY[key] for key in ("prompt", "subject", "target_new")}
    metrics, _, _ = getattr(editor, call)(requests=[{**EGYPT, "narrative": "Because."}, bare], verbose=False)
    assert len(metrics) == 2
    assert [r["subject"] for r in seen] == ["Egypt", "Norway"]
    assert seen[0]["narrative"] == "Because."
    assert same_weights(weights_of(editor.model), before)
    with pytest.raises(RequestError, match="`requests` must be a list"):
        getattr(editor, call)(requests=[])


def test_an_unknown_keyword_is_named(register, caplog):
    editor_of(register).edit(**COLUMNS, narrativ=["a", "b"])
    assert "`narrativ`" in caplog.text
    assert "'narrative'" in caplog.text


def test_generate_edit_shares_a_sequence(register):
    request = {
        **EGYPT,
        "portability": {"por_hop": {"prompt": ["Who?"], "ground_truth": ["Me"]}},
        "locality": {"loc_hop": {"prompt": ["When?"], "ground_truth": ["Now"]}},
    }
    editor = editor_of(register)
    before = weights_of(editor.model)
    editor.generate_edit(prompts=["x"], target_new=["y"], requests=[request], verbose=False)
    assert same_weights(weights_of(editor.model), before)
    editor.generate_edit(prompts=["x"], target_new=["y"], requests=[request], sequential_edit=True, verbose=False)
    assert not same_weights(weights_of(editor.model), before)


def test_the_judge_of_easyedit_gets_the_key_of_the_script_or_the_environment(register, monkeypatch, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert editor_of(register, evaluation_type="LLM-judge").hparams.api_key == "k"
    hparams = FTHyperParams(model_name=(make_llama(), make_tokenizer()), **FAST["FT"], evaluation_type="LLM-judge")
    hparams.api_key = "given"  # as its run_LLM_evaluation.py does
    assert register().from_hparams(hparams).hparams.api_key == "given"
    assert not caplog.records
    monkeypatch.delenv("OPENAI_API_KEY")
    assert editor_of(register, evaluation_type="LLM-judge").hparams.api_key is None  # exact matches count then
    assert "OPENAI_API_KEY" in caplog.text


def test_registering_says_one_line(register, caplog):
    from easyeditor.util.alg_dict import ALG_DICT

    from causaledit.hosts.easyedit.patches import _MARK

    register()
    for name in [name for name, function in ALG_DICT.items() if hasattr(function, _MARK)]:
        del ALG_DICT[name]
    caplog.set_level(logging.INFO, "causaledit")
    register()
    register()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert all(name in said[0] for name in ("CausalEdit", "ICE", "ROME"))
