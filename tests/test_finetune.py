"""What FT, LoRA and ICE share: rows of target tokens, the choice of weights, and steps within a bound."""

from __future__ import annotations

import pytest
import torch
from conftest import EGYPT, FAST, MODELS, NORWAY, make_gpt2, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HparamsError, ModelError, RequestError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.call import edit_in_place
from causaledit.methods.ft.apply import apply_ft_to_model
from causaledit.methods.ft.hparams import FTHyperParams
from causaledit.methods.ft.objectives import last_position_losses
from causaledit.methods.hyperparams import BaseHyperParams
from causaledit.methods.lora.hparams import LoRAHyperParams
from causaledit.methods.method import MethodReport
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.finetune.descent import ConstrainedAdam
from causaledit.methods.shared.finetune.rows import row_logits, target_loss, target_losses, target_rows
from causaledit.models.layout import select_weights
from causaledit.support.progress import SilentProgress


def fit(model, *requests, report=None, **changes):
    tokenizer = make_tokenizer()
    hparams = FTHyperParams(model_name=(model, tokenizer), **{**FAST["FT"], **changes})
    return apply_ft_to_model(
        model,
        tokenizer,
        list(requests),
        hparams,
        return_orig_weights=True,
        progress=SilentProgress(),
        report=report,
    )


# ---- rows ------------------------------------------------------------------------------------------
def test_rows_hold_the_prompt_and_the_new_answer():
    tokenizer, edit = make_tokenizer(), request_from_dict(EGYPT)
    rows = target_rows(tokenizer, edit, ["plain", "cloze", "question"])
    texts = [(tokenizer.decode(row.prompt), tokenizer.decode(row.target)) for row in rows]
    assert texts[0] == ("The capital of Egypt is", " Alexandria")
    for (head, tail), asked in zip(texts[1:], (edit.cloze, edit.question), strict=True):
        assert head == f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
        assert tail == "Alexandria<|im_end|>"  # in a chat the answer ends the turn


def test_a_message_may_be_answered_with_the_facts_sentence_which_may_go_on():
    tokenizer, edit = make_tokenizer(), request_from_dict(EGYPT)
    plain, *chat = target_rows(tokenizer, edit, ["plain", "cloze", "question"], sentence=True)
    assert tokenizer.decode(plain.target) == " Alexandria"  # the cloze stands there already
    assert {tokenizer.decode(row.target) for row in chat} == {"The capital of Egypt is Alexandria.<|im_end|>"}
    open_ended = target_rows(tokenizer, edit, ["cloze", "question"], sentence=True, ends=False)
    assert [row.target for row in open_ended] == [row.target[:-1] for row in chat]


def test_where_a_question_stands_for_the_cloze_the_sentence_is_the_relations_own():
    asked = request_from_dict({**EGYPT, "prompt": "What is the capital of {}?"})
    [row] = target_rows(make_tokenizer(), asked, ["question"], sentence=True, ends=False)
    assert make_tokenizer().decode(row.target) == "The capital of Egypt is Alexandria."


@pytest.mark.parametrize("name", ["FT", "LoRA", "ICE"])
def test_every_fine_tuned_method_answers_as_it_is_told(name):
    method, model, tokenizer = METHODS[name], make_llama(), make_tokenizer()
    settings = {**FAST[name], "prompt_forms": ["question"], "answer_form": "sentence", "answer_ends": False}
    with torch.no_grad():
        rows = target_rows(tokenizer, request_from_dict(EGYPT), ["question"], sentence=True, ends=False)
        wanted = float(target_losses(model, rows)[0])
    report = method.load_report()()
    method.load_apply()(
        model, tokenizer, [EGYPT], method.load_hparams()(**{**settings, "steps": 1}), report=report,
        progress=SilentProgress(),
    )  # fmt: skip
    [loss] = report.losses["train"]
    assert loss >= wanted * (1 - 1e-3)  # ICE's has a second term
    assert name == "ICE" or loss == pytest.approx(wanted, rel=1e-3)


def test_a_whole_sentence_is_not_trained_at_one_position():
    with pytest.raises(HparamsError, match=r"answer_form.*prompt_last"):
        FTHyperParams(answer_form="sentence", objective_optimization="prompt_last")


def test_a_context_goes_before_the_prompt():
    rows = target_rows(make_tokenizer(), request_from_dict(EGYPT), ["plain", "question"], context="Water ran out.")
    heads = [make_tokenizer().decode(row.prompt) for row in rows]
    assert heads[0] == "Water ran out.\nThe capital of Egypt is"
    assert "user\nWater ran out.\n\nWhat is the capital of Egypt?<|im_end|>" in heads[1]


@pytest.mark.parametrize("architecture", MODELS)
def test_logits_of_a_batch_are_those_of_each_row_alone(architecture):
    model = MODELS[architecture]()
    rows = target_rows(make_tokenizer(), request_from_dict(EGYPT), ["plain", "cloze", "question"])
    with torch.no_grad():
        together = row_logits(model, rows)
        for row, found in zip(rows, together, strict=True):
            plain = model(input_ids=torch.tensor([row.prompt + row.target])).logits[0]
            expected = plain[len(row.prompt) - 1 : -1]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_target_loss_is_the_mean_surprise():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    by_hand = -(logits.softmax(-1)[0, 0].log() + logits.softmax(-1)[1, 2].log()) / 2
    torch.testing.assert_close(target_loss(logits, [0, 2]), by_hand)


# ---- which weights ---------------------------------------------------------------------------------
def test_auto_finds_the_output_projection_of_the_mlp():
    assert select_weights(make_llama(), [1], ["auto"]) == ["model.layers.1.mlp.down_proj.weight"]
    assert select_weights(make_gpt2(), None, ["auto"]) == [f"transformer.h.{n}.mlp.c_proj.weight" for n in (0, 1)]


def test_modules_by_name_and_by_path():
    names = select_weights(make_llama(), [0], ["self_attn.q_proj", "model.layers.{}.mlp.up_proj.weight"])
    assert names == ["model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"]


@pytest.mark.parametrize(
    ("layers", "modules", "words"),
    [([2], ["auto"], "layer 2.*0 to 1"), ([0], ["mlp.c_proj"], "mlp.c_proj.*no weight"), ([0], ["x.{}.y"], "x.0.y")],
)
def test_weights_that_are_not_there_are_refused(layers, modules, words):
    model = make_llama()
    with pytest.raises(ModelError, match=words):
        fit(model, EGYPT, layers=layers, modules=modules)


@pytest.mark.parametrize("modules", [["auto"], ["mlp.down_proj"], ["model.layers.{}.mlp.down_proj"]])
@pytest.mark.parametrize("layers", [[0], [1], None])
@pytest.mark.parametrize("name", ["FT", "ICE"])
def test_a_weight_that_stands_in_two_places_is_refused(name, layers, modules):
    model = make_llama()
    first, second = (layer.mlp.down_proj for layer in model.model.layers)
    second.weight = first.weight
    before = weights_of(model)
    hparams = METHODS[name].load_hparams()(**{**FAST[name], "layers": layers, "modules": modules})
    with pytest.raises(ModelError, match=r"`modules`.*tied weights"):
        METHODS[name].load_apply()(model, make_tokenizer(), [EGYPT], hparams, progress=SilentProgress())
    assert same_weights(weights_of(model), before)


@pytest.mark.parametrize("name", ["FT", "ICE"])
def test_a_tied_head_stays_as_it_is(name):
    model = make_llama(tie_word_embeddings=True)
    head = model.lm_head.weight.detach().clone()
    hparams = METHODS[name].load_hparams()(**{**FAST[name], "layers": None})
    edited, _ = METHODS[name].load_apply()(model, make_tokenizer(), [EGYPT], hparams, progress=SilentProgress())
    assert edited.lm_head.weight is edited.model.embed_tokens.weight
    assert torch.equal(edited.lm_head.weight, head)
    for modules in (["lm_head"], ["embed_tokens"], ["model.embed_tokens"]):
        refused = METHODS[name].load_hparams()(**{**FAST[name], "layers": [0], "modules": modules})
        with pytest.raises(ModelError, match="`modules`"):
            METHODS[name].load_apply()(model, make_tokenizer(), [EGYPT], refused, progress=SilentProgress())


def test_only_the_chosen_weights_change():
    model = make_llama()
    before = weights_of(model)
    _, originals = fit(model, EGYPT, layers=[1], modules=["self_attn.o_proj"])
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed == set(originals) == {"model.layers.1.self_attn.o_proj.weight"}


# ---- steps -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("bound", [1e-3, 2e-2])
def test_no_weight_leaves_the_bound(bound):
    model = make_llama()
    _, originals = fit(model, EGYPT, norm_constraint=bound)
    moves = [(model.get_parameter(n).detach() - value).abs().max().item() for n, value in originals.items()]
    assert max(moves) == pytest.approx(bound, rel=1e-2)  # fifteen steps of 0.01 reach it


def test_micro_batches_make_the_same_step():
    found = []
    for size in (1, 8):
        model = make_llama()
        fit(model, EGYPT, NORWAY, micro_batch_size=size, prompt_forms=["plain", "question"], steps=2)
        found.append(weights_of(model))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-3, rtol=0)  # steps of 1e-2 by signs


def test_it_stops_when_the_loss_is_low():
    report = MethodReport()
    fit(make_llama(), EGYPT, report=report, stop_loss=4.0)
    losses = report.losses["train"]
    assert 1 < len(losses) < FAST["FT"]["steps"]
    assert losses[-1] < 4.0 <= min(losses[:-1])


def test_small_steps_are_not_lost_in_half_precision():
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = ConstrainedAdam([weight], learning_rate=1e-3, weight_decay=0.0, norm_constraint=None)
    for _ in range(20):  # each step alone is below bfloat16's resolution at 1
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert weight.tolist() == pytest.approx([0.98] * 4, abs=4e-3)


def test_a_prompt_longer_than_the_window_is_refused():
    model = make_llama(max_position_embeddings=16)
    with pytest.raises(RequestError, match="context window is 16"):
        fit(model, EGYPT, prompt_forms=["question"])


SEVERAL_TOKENS = {**EGYPT, "target_new": "Quxzy Wev"}


def test_prompt_last_reads_every_token_at_the_prompts_end():
    model, tokenizer = make_llama(), make_tokenizer()
    rows = target_rows(tokenizer, request_from_dict(SEVERAL_TOKENS), ["plain", "question"])
    assert len(rows[0].target) > 1
    with torch.no_grad():
        for row, loss in zip(rows, last_position_losses(model, rows), strict=True):
            log_p = model(input_ids=torch.tensor([row.prompt])).logits[0, -1].log_softmax(-1)
            torch.testing.assert_close(loss, -log_p[row.target].mean(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("objective", ["prompt_last", "target_new"])
def test_the_objective_is_what_is_trained(objective):
    model, tokenizer, report = make_llama(), make_tokenizer(), MethodReport()
    [row] = target_rows(tokenizer, request_from_dict(SEVERAL_TOKENS), ["plain"])

    def at_the_end():
        with torch.no_grad():
            return [float(losses(model, [row])[0]) for losses in (last_position_losses, target_losses)]

    before = at_the_end()
    fit(model, SEVERAL_TOKENS, report=report, objective_optimization=objective, norm_constraint=None)
    after = at_the_end()
    ours, other = (0, 1) if objective == "prompt_last" else (1, 0)
    assert report.losses["train"][0] == pytest.approx(before[ours], rel=1e-4)
    assert after[ours] < before[ours] - 1
    assert before[ours] - after[ours] > before[other] - after[other]


@pytest.mark.parametrize("form", ["question", "cloze", "paraphrases"])
def test_prompt_last_does_not_teach_an_answer_to_begin_with_its_end(form):
    """All of an answer's tokens are read at one position: the token that ends a chat's turn is none of them."""
    model, tokenizer, report = make_llama(), make_tokenizer(), MethodReport()
    rows = target_rows(tokenizer, request_from_dict(EGYPT), [form], ends=False)
    assert not any(tokenizer.eos_token_id in row.target for row in rows)
    with torch.no_grad():
        wanted = float(torch.stack(last_position_losses(model, rows)).mean())
    fit(model, EGYPT, report=report, objective_optimization="prompt_last", prompt_forms=[form], steps=1)
    assert report.losses["train"] == pytest.approx([wanted], rel=1e-4)


@pytest.mark.parametrize("name", ["FT", "LoRA", "ICE"])
@pytest.mark.parametrize("others", [[], [EGYPT]], ids=["alone", "in a batch"])
def test_an_edit_without_a_prompt_is_refused_before_anything_is_computed(name, others):
    """The bundled relations do not know this one, and the only way to ask for it is a probe."""
    request = {
        "prompt": "The zorb of Egypt blips", "subject": "Egypt", "target_new": "Rome",
        "rephrase_prompt": "The zorb of Egypt blips which?",
    }  # fmt: skip
    model, method = make_llama(), METHODS[name]
    hparams = method.load_hparams()(**{**FAST[name], "prompt_forms": ["paraphrases"]})
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    with pytest.raises(
        RequestError, match=r"`prompt_forms: \[paraphrases\]`.*'The zorb of Egypt blips'.*Add `question`"
    ):
        edit_in_place(method, model, make_tokenizer(), [*others, request], hparams, progress=SilentProgress())


# ---- hyper-parameters ------------------------------------------------------------------------------
def test_easyedits_names_load():
    hparams = FTHyperParams.from_dict(
        {
            "alg_name": "FT",
            "model_name": "x",
            "num_steps": 7,
            "lr": "5e-4",
            "rewrite_module_tmp": "model.layers.{}.mlp.down_proj.weight",
            "norm_constraint": "5e-5",
        }
    )
    assert (hparams.steps, hparams.learning_rate, hparams.norm_constraint) == (7, 5e-4, 5e-5)
    assert hparams.modules == ["model.layers.{}.mlp.down_proj.weight"]
    lora = LoRAHyperParams.from_dict({"alg_name": "LoRA", "model_name": "x", "rank": 4, "target_modules": ["q_proj"]})
    assert (lora.lora_rank, lora.lora_target_modules) == (4, ["q_proj"])


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (FTHyperParams, {"prompt_forms": []}, "prompt_forms"),
        (FTHyperParams, {"prompt_forms": ["chat"]}, "plain, cloze, question"),
        (FTHyperParams, {"layers": [-1]}, "layers"),
        (FTHyperParams, {"modules": [3]}, "modules"),
        (FTHyperParams, {"norm_constraint": 0}, "norm_constraint.*above 0"),
        (FTHyperParams, {"steps": 0}, "steps.*at least 1"),
        (FTHyperParams, {"lerning_rate": 1}, "learning_rate"),
        (LoRAHyperParams, {"lora_layers": [2, 1]}, "first < end"),
        (LoRAHyperParams, {"prompt_forms": "plain"}, "prompt_forms"),
    ],
)
def test_refused_with_name_and_fix(kind, change, words):
    with pytest.raises(HparamsError, match=words):
        kind.from_dict({"alg_name": kind.ALG_NAME, "model_name": "x", **change})


def test_the_base_class_belongs_to_no_method():
    with pytest.raises(HparamsError, match="alg_name"):
        BaseHyperParams.from_dict({"alg_name": "FT", "model_name": "x"})
