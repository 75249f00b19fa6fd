"""The README.md of a saved model or adapter: true, complete, and what it names loads."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer
from huggingface_hub import ModelCard
from peft import AdaLoraConfig, AutoPeftModelForCausalLM, LoraConfig, get_peft_model

from causaledit.facts.requests import request_from_dict
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS
from causaledit.models.embedded import EMBEDDED_MODELS, embedded_folder
from causaledit.models.loading import load_model
from causaledit.models.model_card import VLLM_LORA_RANKS, collect_metrics, model_card
from causaledit.models.origin import find_origin
from causaledit.models.saving import save_result

EMBEDDED = "smollm2-135m-instruct"


def lora_hparams(**changes):
    return METHODS["LoRA"].load_hparams()(**{**FAST["LoRA"], **changes})


def saved(folder, hparams, requests, metrics=(), model=None, losses=None):
    report = MethodReport(requests=[request_from_dict(request) for request in requests], losses=losses or {})
    save_result(folder, model or make_llama(), make_tokenizer(), hparams, report, list(metrics))
    return ModelCard.load(folder / "README.md")


def answers(*verdicts):
    return [{"kind": "question", "prompt": "?", "response": "!", "gives_new_answer": verdict} for verdict in verdicts]


@pytest.fixture
def embedded_model(tmp_path, monkeypatch):
    """A tiny model where the embedded one is kept."""
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))
    folder = embedded_folder(EMBEDDED)
    make_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    (folder / "causaledit-manifest.json").write_text("{}")
    return folder


# ---- adapters --------------------------------------------------------------------------------------
def test_an_adapter_of_the_embedded_model_finds_its_base_model(tmp_path, embedded_model):
    editor = EmbeddedEditor.from_hparams(lora_hparams(model_name=EMBEDDED, merge_adapter=False, device="cpu"))
    metrics, edited, _ = editor.edit_requests([EGYPT])
    out = tmp_path / "edited"
    report = MethodReport(requests=[request_from_dict(EGYPT)])
    save_result(out, edited, editor.tok, editor.hparams, report, metrics)

    again = AutoPeftModelForCausalLM.from_pretrained(out)
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, edited.eval()(input_ids=ids).logits)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(embedded_model)
    elsewhere = {**config, "base_model_name_or_path": str(Path("/another/cache") / embedded_model.name)}
    (out / "adapter_config.json").write_text(json.dumps(elsewhere))
    assert torch.equal(load_model(str(out)).model(input_ids=ids).logits, again(input_ids=ids).logits)
    card = ModelCard.load(out / "README.md")
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.to_dict()["base_model_relation"] == "adapter"
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "peft"
    assert {"knowledge-editing", "causaledit", "LoRA", "lora"} == set(card.data.tags)
    assert "More Information Needed" not in card.text
    assert "Q4_1.gguf" in card.text  # what was edited is not bit for bit what the Hub has
    assert f"--max-lora-rank {VLLM_LORA_RANKS[0]} " in card.text
    assert config["r"] <= VLLM_LORA_RANKS[0]
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert measured["rewrite_acc"] == pytest.approx(metrics[0]["post"]["rewrite_acc"][0], abs=1e-4)
    assert "locality.neighbour_acc" in measured


def test_a_base_model_in_a_folder_is_found_from_anywhere(tmp_path, tiny_model_folder, monkeypatch):
    monkeypatch.chdir(tiny_model_folder.parent)
    assert find_origin("tiny").path == str(tiny_model_folder)
    assert find_origin("tiny").hub_name is None
    assert find_origin("owner/name").path == find_origin("owner/name").hub_name == "owner/name"
    assert find_origin("some/where/model.gguf").path is None
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path))  # never fetched here: nothing is downloaded for a card
    assert find_origin(EMBEDDED).path == EMBEDDED_MODELS[EMBEDDED].hub_name
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_a_gguf_file_finds_it_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    peft = get_peft_model(make_llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    save_result(tmp_path / "out", peft, make_tokenizer(), lora_hparams(model_name="my.gguf"), MethodReport(), [])
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "my.gguf")


def test_a_card_offers_vllm_what_it_serves(tiny_model_folder):
    hparams = lora_hparams(model_name=str(tiny_model_folder))
    text = {
        name: model_card("out", MethodReport().card(hparams, []), find_origin(str(tiny_model_folder)), adapter).text
        for name, adapter in (
            ("whole", None),
            ("rank 12", LoraConfig(r=12)),
            ("rank 600", LoraConfig(r=600)),
            ("adaptive", AdaLoraConfig(total_step=1)),
        )
    }
    assert "vllm serve out\n" in text["whole"]
    assert "--max-lora-rank 16 " in text["rank 12"]
    assert all("vllm serve" not in text[name] for name in ("rank 600", "adaptive"))


# ---- what a card says ------------------------------------------------------------------------------
def test_the_edits_stand_in_a_table_whatever_is_in_them(tmp_path, tiny_model_folder):
    odd = {**NORWAY, "subject": "Nor|way", "prompt": "The <b>capital</b> of {} is", "target_new": "Ber`gen *now*"}
    card = saved(tmp_path / "out", lora_hparams(model_name=str(tiny_model_folder)), [EGYPT, odd])
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in card.text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in row] for row in rows]
    assert table[0] == ["subject", "fact", "old answer", "new answer", "narrative from"]
    assert table[2] == ["Egypt", "The capital of {} is", "Cairo", "Alexandria", "not used"]
    assert table[3][:2] == ["Nor\\|way", "The &lt;b>capital&lt;/b> of {} is"]
    assert table[3][3] == "Ber\\`gen \\*now\\*"
    assert len(table) == 4
    assert "2 facts changed" in card.text
    assert "Nothing was measured" in card.text


def test_metrics_carry_their_counts(tmp_path, tiny_model_folder):
    measured = [
        {
            "pre": {"rewrite_acc": [0.0], "answers": answers(False, False)},
            "post": {"rewrite_acc": [0.5], "answers": answers(True, False)},
        },
        {
            "pre": {"rewrite_acc": [0.5], "answers": answers(False, True)},
            "post": {"rewrite_acc": [1.0], "answers": answers(True, True)},
        },
    ]
    by_kind = {metric.kind: metric for metric in collect_metrics(measured)}
    assert (by_kind["answers"].before, by_kind["answers"].after, by_kind["answers"].count) == (0.25, 0.75, 4)
    assert (by_kind["rewrite_acc"].before, by_kind["rewrite_acc"].after, by_kind["rewrite_acc"].count) == (
        0.25,
        0.75,
        2,
    )
    card = saved(tmp_path / "out", lora_hparams(model_name=str(tiny_model_folder)), [EGYPT, NORWAY], measured)
    assert "| answers that give the new answer | 1 of 4 | 3 of 4 | 4 |" in card.text
    assert any("n = 4" in result.metric_name for result in card.data.eval_results)


def test_losses_and_rewards_stand_on_the_card_and_a_missing_gradient_is_said(tmp_path, tiny_model_folder):
    hparams = lora_hparams(model_name=str(tiny_model_folder))
    curves = {
        "consolidate": [0.0, -0.125],
        "reward_correctness": [0.0, 0.5, 0.75],
        "flat_groups": [0.5, 0.75],
        "nothing": [],
    }
    card = saved(tmp_path / "out", hparams, [EGYPT], losses=curves)
    assert "| consolidate | 0 | -0.125 | 2 |" in card.text
    assert "| reward: correctness | 0 | 0.75 | 3 |" in card.text
    assert "in 62 % of the groups of responses all rewards were equal" in card.text
    assert "nothing" not in card.text.partition("## Training")[2].partition("## Preserved")[0]
    assert "the rewards of every group" in saved(tmp_path / "flat", hparams, [EGYPT], losses={"flat_groups": [1]}).text
    quiet = saved(tmp_path / "quiet", hparams, [EGYPT], losses={**curves, "flat_groups": [0.25, 0.0]}).text
    assert "Of the rewards" not in quiet
    assert "## Training" not in saved(tmp_path / "none", hparams, [EGYPT]).text


def test_the_licence_is_the_base_models(tmp_path, tiny_model_folder):
    base = tmp_path / "base"
    base.mkdir()
    hparams = lora_hparams(model_name=str(base))
    readmes = {
        "---\nlicense: mit\n---\n# Base\n": "mit",
        "# No metadata\n": None,
        "---\nlicense: [broken\n---\n": None,
    }
    for number, (readme, licence) in enumerate(readmes.items()):
        (base / "README.md").write_text(readme)
        card = saved(tmp_path / f"out-{number}", hparams, [EGYPT])
        assert card.data.license == licence
        assert ("licence was not known" in card.text) is (licence is None)


def test_what_was_preserved(tmp_path, tiny_model_folder):
    from causaledit import CausalEditHyperParams

    for weight, sentence in ((0.5, "`preserve_weight: 0.5`"), (0.0, "No preservation term")):
        hparams = CausalEditHyperParams(
            model_name=str(tiny_model_folder), alg_name="CausalEdit", preserve_weight=weight
        )
        card = saved(tmp_path / f"out-{weight}", hparams, [EGYPT])
        assert sentence in card.text
        assert "1 question whose answers" in card.text


def test_the_number_of_preserved_questions_is_that_of_all_edits_or_the_files(tmp_path, tiny_model_folder):
    from causaledit import CausalEditHyperParams

    def text(name, requests, **changes):
        hparams = CausalEditHyperParams(
            model_name=str(tiny_model_folder),
            alg_name="CausalEdit",
            preserve_weight=1.0,
            preserve_prompts=12,
            **changes,
        )
        return saved(tmp_path / name, hparams, requests).text

    assert "on up to 12 questions that the edit does not touch, drawn for it." in text("one", [EGYPT])
    both = text("both", [EGYPT, NORWAY])
    assert "on up to 12 questions that the edits do not touch, drawn for all edits together." in both
    file = tmp_path / "neighbours.json"
    file.write_text('["Where is the Nile?"]')
    own = text("own", [EGYPT], preserve_file=str(file))
    assert "on questions of the file `neighbours.json`, except those whose answers the edits may change." in own
    assert "12 questions" not in own
