"""`chat_template_kwargs`: one mode for all methods, wherever a prompt is rendered, and kept with the result."""

from __future__ import annotations

import dataclasses
import json

import pytest
from conftest import CHATML, EGYPT, FAST, make_llama, make_tokenizer
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.comparison.plan import make_compare_plan
from causaledit.errors import HparamsError, RunError
from causaledit.facts.requests import request_from_dict
from causaledit.hosts.lookup import get_method
from causaledit.methods.method import MethodReport
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.models.saving import save_result, template_kwargs_of
from causaledit.probes.asking import Prober
from causaledit.probes.efficacy import ask, edit_probes
from causaledit.runs.plan import RunArguments, make_plan

# as Qwen3's: without thinking the assistant's turn opens with empty thoughts
OPENING = "<|im_start|>assistant\n"
CLOSED = "<think>\n\n</think>\n\n"
THINKING = CHATML.replace(
    "{% endif %}",
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
)
OFF = {"enable_thinking": False}
METHODS = ("CausalEdit", "FT", "LoRA", "ICE")


def thinking_tokenizer():
    tokenizer = make_tokenizer()
    tokenizer.chat_template = THINKING
    return tokenizer


def heard(model, tokenizer):
    """Every row that the model is given from now on, as text, without what is padded."""
    texts = []

    def look(module, args, kwargs):
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        for number, row in enumerate(ids.tolist()):
            if len(row) > 1:
                kept = (
                    row if mask is None or mask.dim() != 2 or mask.shape != ids.shape else ids[number][mask[number] > 0]
                )
                texts.append(tokenizer.decode(kept))

    model.register_forward_pre_hook(look, with_kwargs=True)
    return texts


def modes(texts):
    """The modes of all assistant turns: whether each opens with empty thoughts."""
    return {turn.startswith(CLOSED) for text in texts for turn in text.split(OPENING)[1:] if turn}


def test_the_template_has_two_modes():
    tokenizer = thinking_tokenizer()
    assert render(prepare_tokenizer(tokenizer), user("q")).endswith(OPENING)
    off = prepare_tokenizer(tokenizer, OFF)
    assert render(off, user("q")).endswith(OPENING + CLOSED)
    assert render(prepare_tokenizer(off), user("q")).endswith(OPENING + CLOSED)  # a copy of a copy keeps its mode


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kwargs", [OFF, None], ids=["no thinking", "thinking"])
def test_a_method_is_trained_in_one_mode(name, kwargs):
    model, tokenizer, method = make_llama(), thinking_tokenizer(), get_method(name)
    few = {"CausalEdit": {"bootstrap_max_steps": 2, "preserve_weight": 0.5, "preserve_prompts": 4, "teacher": "auto"}}
    options = {**FAST[name], **few.get(name, {"steps": 2, "prompt_forms": ["question", "cloze"]})}
    hparams = method.load_hparams()(
        model_name=(model, tokenizer), alg_name=name, chat_template_kwargs=kwargs, **options
    )
    texts = heard(model, tokenizer)
    method.load_apply()(model, tokenizer, [EGYPT], hparams)
    assert modes(texts) == {kwargs == OFF}


@pytest.mark.parametrize("name", FAST)
def test_every_method_has_the_field_and_checks_it(name):
    load = get_method(name).load_hparams()
    assert load(alg_name=name, chat_template_kwargs=OFF).to_dict()["chat_template_kwargs"] == OFF
    with pytest.raises(HparamsError, match=r"`chat_template_kwargs`.*enable_thinking"):
        load(alg_name=name, chat_template_kwargs="no thinking")


def test_probes_are_asked_in_the_mode():
    model, tokenizer = make_llama(), thinking_tokenizer()
    texts = heard(model, tokenizer)
    Prober(tokenizer, max_new_tokens=2, template_kwargs=OFF).ask(model, ["Who?", "Which one is it?"])
    ask(model, tokenizer, edit_probes(request_from_dict(EGYPT)), template_kwargs=OFF)
    assert modes(texts) == {True}


# ---- runs and comparisons --------------------------------------------------------------------------
@pytest.fixture
def workplace(tmp_path, monkeypatch, tiny_model_folder):
    from conftest import REPOSITORY

    cases = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))
    (tmp_path / "one.json").write_text(json.dumps(cases[:1]))
    for name in FAST:
        file = tmp_path / "hparams" / name / "tiny.yaml"
        file.parent.mkdir(parents=True)
        settings = {"alg_name": name, "model_name": str(tiny_model_folder), "chat_template_kwargs": OFF, **FAST[name]}
        file.write_text(json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    return tmp_path


ARGUMENTS = RunArguments(
    editing_method="FT", datatype="one.json", model_type="tiny", output_root="out", device="cpu", max_new_tokens=5
)


def test_a_run_has_its_methods_mode(workplace):
    for name in (*FAST, "PreEdited"):
        plan = make_plan(dataclasses.replace(ARGUMENTS, editing_method=name))
        assert plan.hparams.chat_template_kwargs == OFF


def test_a_comparison_has_one_mode(workplace):
    make_compare_plan(("CausalEdit", "FT", "IKE", "PreEdited"), ARGUMENTS, judge="rule")
    file = workplace / "hparams" / "IKE" / "tiny.yaml"
    settings = json.loads(file.read_text())
    del settings["chat_template_kwargs"]
    file.write_text(json.dumps(settings))
    with pytest.raises(
        RunError, match=r"CausalEdit have `chat_template_kwargs` \{'enable_thinking': False\}.*IKE unset"
    ):
        make_compare_plan(("CausalEdit", "FT", "IKE"), ARGUMENTS, judge="rule")


# ---- a saved result --------------------------------------------------------------------------------
def test_generate_asks_in_the_mode_that_the_card_names(tmp_path, monkeypatch):
    model, tokenizer = make_llama(), thinking_tokenizer()
    hparams = get_method("FT").load_hparams()(model_name=(model, tokenizer), alg_name="FT", chat_template_kwargs=OFF)
    folder = save_result(tmp_path / "saved", model, tokenizer, hparams, MethodReport(), [])
    assert template_kwargs_of(folder) == OFF
    assert template_kwargs_of(tmp_path) is template_kwargs_of("no/such/folder") is None
    with monkeypatch.context() as hub:  # one on the Hub has its card there
        hub.setattr("causaledit.models.history.hub_file", lambda *_, **__: folder / "causaledit.json")
        assert template_kwargs_of("owner/edited") == OFF
    said = CliRunner().invoke(
        app, ["generate", "--model", str(folder), "--prompt", "Who is it?", "--device", "cpu", "--max-new-tokens", "9"]
    )
    answers = [
        generate_texts(model, prepared, [render(prepared, user("Who is it?"))], max_new_tokens=9)[0].strip()
        for prepared in (prepare_tokenizer(tokenizer, OFF), prepare_tokenizer(tokenizer))
    ]
    assert answers[0] != answers[1]
    assert answers[0] in said.stdout
