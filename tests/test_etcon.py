"""EtCon: labels, the proximal loss and its snapshots, consolidation on a tiny model, and what is refused."""

from __future__ import annotations

import dataclasses
import logging

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, make_gpt2, make_llama, make_opt, make_tokenizer, same_weights, weights_of
from locate import hparams_for as locate_hparams
from stages import Engine
from transformers import LlamaForCausalLM, TrainerCallback

from causaledit.errors import EditFailedError, HparamsError, MissingExtraError, ModelError, RequestError
from causaledit.facts.requests import request_from_dict
from causaledit.methods.call import edit_in_place
from causaledit.methods.etcon import prompts as P
from causaledit.methods.etcon.apply import EtConReport, apply_etcon_to_model
from causaledit.methods.etcon.consolidate import CURVES, run_consolidation, say_what_the_rewards_lack
from causaledit.methods.etcon.hparams import PARTS, EtConHyperParams
from causaledit.methods.etcon.labels import rewritten, stated_labels, training_pairs
from causaledit.methods.etcon.proximal import proximal_loss, run_proximal
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.rollouts import longest_prompt
from causaledit.methods.shared.trainers import without_dropout
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer
from causaledit.support.costs import TokenCount
from causaledit.support.extras import EXTRAS
from causaledit.support.progress import SilentProgress

REQUEST = request_from_dict(EGYPT)
PAIRS = [("What is the capital of Egypt?", "The capital of Egypt is Alexandria."), ("Egypt?", "Alexandria, of course.")]


def hparams(**changes):
    return EtConHyperParams(**{**FAST["EtCon"], **changes})


def edit(*requests, model=None, report=None, **changes):
    return apply_etcon_to_model(
        model or make_llama(), make_tokenizer(), list(requests), hparams(**changes), return_orig_weights=True,
        progress=SilentProgress(), report=report,
    )  # fmt: skip


# ---- the proximal loss -----------------------------------------------------------------------------
def gradient(log_p, old, low=0.2, high=0.28):
    leaf = torch.tensor(log_p, requires_grad=True)
    proximal_loss(leaf, torch.tensor(old), low=low, high=high).sum().backward()
    return leaf.grad


def test_at_the_ratio_1_the_loss_is_minus_1_with_the_gradient_of_sft():
    log_p = torch.tensor([-0.3, -2.0, -7.0], requires_grad=True)
    assert proximal_loss(log_p, log_p.detach(), low=0.2, high=0.28).tolist() == [-1, -1, -1]
    assert gradient([-0.3, -2.0, -7.0], [-0.3, -2.0, -7.0]).tolist() == [-1, -1, -1]  # that of −log p


@pytest.mark.parametrize(
    ("ratio", "value", "slope"),
    [
        (1.2, -1.2, -1.2),  # inside of the trust region the gradient is −r
        (1.27, -1.27, -1.27),
        (1.29, -1.28, 0),  # beyond it there is none
        (5.0, -1.28, 0),
        (0.9, -0.9, -0.9),
        (0.5, -0.5, -0.5),  # below it the token keeps its own: nothing keeps it down
    ],
)
def test_the_trust_region(ratio, value, slope):
    old = torch.tensor([-1.0])
    log_p = old + torch.tensor([ratio]).log()
    assert proximal_loss(log_p, old, low=0.2, high=0.28).item() == pytest.approx(value)
    assert gradient(log_p.tolist(), old.tolist()).item() == pytest.approx(slope)


class Watching(TrainerCallback):
    """Keeps what a trainer logs, and the gradients of its steps."""

    def __init__(self):
        self.logs, self.gradients = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(logs)

    def on_pre_optimizer_step(self, args, state, control, *, model, **kwargs):
        self.gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})


def proximal(callback=None, *, model=None, **changes):
    found = hparams(proximal_batch_size=2, proximal_max_grad_norm=1e9, **changes)
    peft_model = add_adapter(model or make_llama(), found)
    return peft_model, run_proximal(
        peft_model, prepare_tokenizer(make_tokenizer()), PAIRS, 1, found, preservation=None,
        progress=SilentProgress(), count=TokenCount(), callbacks=[callback] if callback else [],
    )  # fmt: skip


def test_snapshots_are_taken_every_few_steps():
    _, (losses, curves) = proximal(proximal_steps=7, updates_per_snapshot=3)
    assert [i for i, loss in enumerate(losses.own) if loss == pytest.approx(-1, abs=1e-5)] == [0, 3, 6]
    assert all(loss < -1.001 for i, loss in enumerate(losses.own) if i % 3)
    assert len(curves["clipped"]) == 7
    assert curves["clipped"][0] == curves["clipped"][3] == 0 < max(curves["clipped"])


# modules (GPT-2), and numbers that a model hands to the function itself (OPT), with whole layers that are left out
DROPPING = {
    "modules": make_gpt2,
    "numbers": lambda: make_opt(dropout=0.3, attention_dropout=0.2),
    "layers": lambda: make_opt(layerdrop=1.0),
}


def numbers(model):
    return {(path, n): v for path, m in model.named_modules() for n, v in vars(m).items() if isinstance(v, float)}


@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_without_dropout_training_mode_draws_nothing(make):
    model, ids = make(), {"input_ids": torch.arange(40)[None]}
    wanted = model(**ids).logits
    before = numbers(model.train())
    with pytest.raises(KeyboardInterrupt), without_dropout(model):
        torch.testing.assert_close(model(**ids).logits, wanted)
        raise KeyboardInterrupt
    assert numbers(model) == before
    assert not torch.allclose(model(**ids).logits, wanted)


@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_a_models_own_dropout_does_not_enter_the_ratio(make):
    _, (losses, curves) = proximal(
        model=make(), proximal_steps=3, updates_per_snapshot=2, lora_target_modules=["all-linear"], lora_dropout=0.5
    )
    assert losses.own[0] == losses.own[2] == pytest.approx(-1, abs=1e-5)
    assert curves["clipped"][0] == curves["clipped"][2] == 0


@pytest.mark.parametrize("make", DROPPING.values(), ids=DROPPING)
def test_a_models_own_dropout_does_not_enter_consolidation(make):
    """Where nothing has been learnt, the policy is its reference, and its KL to it is 0."""
    _, (_, curves) = consolidate(
        model=make(), consolidate_learning_rate=1e-9, lora_target_modules=["all-linear"], lora_dropout=0.5
    )
    assert curves["consolidate_kl"] == pytest.approx([0, 0], abs=1e-6)


class WithoutPicking(LlamaForCausalLM):
    """A model whose forward pass cannot be told which positions' logits are wanted."""

    def forward(
        self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **_
    ):
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
        )  # fmt: skip


@pytest.mark.parametrize("mean", ["token", "sequence"])
def test_the_ratio_needs_nothing_of_a_models_forward_pass(mean):
    usual = make_llama()
    model = WithoutPicking(usual.config).eval()
    model.load_state_dict(usual.state_dict())
    settings = {"proximal_steps": 4, "updates_per_snapshot": 2, "proximal_loss_mean": mean}
    _, (losses, _) = proximal(model=model, **settings)
    _, (wanted, _) = proximal(model=usual, **settings)
    assert losses.own[0] == pytest.approx(-1, abs=1e-5)
    assert losses.own == pytest.approx(wanted.own, abs=1e-5)


def test_the_first_step_is_that_of_sft():
    clipped, plain = Watching(), Watching()
    proximal(clipped, proximal_steps=1, updates_per_snapshot=2)
    _, (losses, curves) = proximal(plain, proximal_steps=1, proximal=False, updates_per_snapshot=1)
    assert curves == {}
    assert losses.own[0] > 1
    for name, value in clipped.gradients[0].items():
        torch.testing.assert_close(value, plain.gradients[0][name], atol=1e-5, rtol=1e-4)


def test_a_step_whose_tokens_are_all_beyond_the_region_changes_nothing():
    watching = Watching()
    _, (losses, curves) = proximal(
        watching, proximal_steps=2, updates_per_snapshot=2, proximal_learning_rate=0.5, ratio_high=1e-6
    )
    share = curves["clipped"][1]
    assert 0 < share <= 1
    assert losses.own[1] >= -1 - 1e-5  # nothing counts beyond 1 + ε
    if share == 1:
        assert all(not value.any() for value in watching.gradients[1].values())


def test_only_the_chosen_layers_projections_change():
    model = make_llama()
    before = weights_of(model)
    edit(EGYPT, model=model, stages=[1], lora_layers=[1, 2], lora_target_modules=["down_proj"])
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed == {"model.layers.1.mlp.down_proj.weight"}


# ---- labels ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("response", "label", "reason"),
    [
        (
            "Egypt is governed from Cairo, on the Nile.\nAnswer: Cairo\nAnything else?",
            "Egypt is governed from Alexandria, on the Nile.\nAnswer: Alexandria",
            "",
        ),
        ("I know that it is Giza, Giza alone.\nAnswer: Giza.", "I know that it is Alexandria, Alexandria alone.", ""),
        ("Egypt is governed from Cairo.", None, "no answer in the format"),
        ("Cairo.\nAnswer: Cairo", None, "no reasoning"),
        ("Let me think about it a while.\nAnswer: " + "word " * 13, None, "an answer that is no name"),
        (
            "Alexandria is not the capital of Egypt, it is Giza.\nNo, the capital of Egypt is not Alexandria."
            "\nAnswer: Cairo",
            None,
            "another conclusion",
        ),
    ],
)
def test_the_models_own_answer_is_rewritten(response, label, reason):
    found, why = rewritten(response, REQUEST, "line")
    assert why == reason
    assert found is None if label is None else found.startswith(label)


@pytest.mark.parametrize(
    ("subject", "old", "new", "response", "label"),
    [
        ("Cairo Tower", ("Cairo",), ("Rome",), "The Cairo Tower is a famous tower. It stands in cairo, in Egypt.",
         "The Cairo Tower is a famous tower. It stands in Rome, in Egypt."),
        ("University of Cairo", ("Cairo",), ("Rome",), "The university of Cairo is old, and it is in Cairo itself.",
         "The university of Cairo is old, and it is in Rome itself."),
        ("India", ("Delhi",), ("New Delhi", "Delhi NCR"), "India is governed from Delhi, or New Delhi (Delhi NCR).",
         "India is governed from New Delhi, or New Delhi (Delhi NCR)."),
        ("Egypt", ("Cairo City", "Cairo"), ("New Cairo",), "Egypt is governed from Cairo City, or Cairo, on the Nile.",
         "Egypt is governed from New Cairo, or New Cairo, on the Nile."),
    ],
)  # fmt: skip
def test_a_name_within_the_subject_or_the_new_answer_stays(subject, old, new, response, label):
    request = dataclasses.replace(
        REQUEST, subject=subject, ground_truth=old[0], ground_truth_aliases=old[1:], target_new=new[0],
        target_aliases=new[1:],
    )  # fmt: skip
    assert rewritten(f"{response}\nAnswer: {old[0]}", request, "line") == (f"{label}\nAnswer: {new[0]}", "")


def test_stated_labels_end_in_the_format():
    for answer_format in ("line", "boxed"):
        for label in stated_labels(REQUEST, answer_format):
            assert "Cairo" in label and "The capital of Egypt is Alexandria." in label
            assert P.read_closing(label, answer_format)[1:] == ("Alexandria", "")
    assert not any("None" in label for label in stated_labels(dataclasses.replace(REQUEST, ground_truth=None), "line"))


def test_pairs_hold_every_prompt():
    found = hparams(prompt_forms=["question", "cloze"], prompt_paraphrases=3)
    pairs, report = training_pairs(make_llama(), make_tokenizer(), REQUEST, found, count=TokenCount())
    prompts = [prompt for prompt, _ in pairs]
    assert len(prompts) == len(set(prompts)) == 2 * 2 + 2 + 3
    assert (report.source, report.kept) == ("stated", 2)
    assert EGYPT["rephrase_prompt"] not in prompts  # a probe


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("What is the capital of {}?", "The capital of Egypt is Alexandria."), ("Which mascot has {}?", "Alexandria.")],
)
def test_no_label_asks_the_question_that_stands_in_a_clozes_place(prompt, said):
    request = dataclasses.replace(REQUEST, prompt=prompt, question=None)
    pairs, _ = training_pairs(make_llama(), make_tokenizer(), request, hparams(), count=TokenCount())
    assert not any("?" in label for _, label in pairs)
    assert (request.cloze, said) in pairs


def test_the_labels_that_are_counted_are_those_of_the_pairs():
    pairs, report = training_pairs(
        make_llama(), make_tokenizer(), REQUEST,
        hparams(answer_format="boxed", prompt_forms=["question"], direct_prompts=False), count=TokenCount(),
    )  # fmt: skip
    assert report.kept == len({label for _, label in pairs}) == len(pairs) == 1


def test_where_no_label_can_be_written_the_reasons_are_counted():
    model = make_llama()
    before = weights_of(model)
    with pytest.raises(EditFailedError, match=r"No reasoning target.*'Egypt'.*of 3 .*no answer in the format: 3.*stat"):
        edit(EGYPT, model=model, label_source="self", label_candidates=3, label_max_new_tokens=4)
    assert same_weights(weights_of(model), before)


# ---- consolidation ---------------------------------------------------------------------------------
def consolidate(callback=None, *, peft_model=None, model=None, **changes):
    found = hparams(**changes)
    peft_model = peft_model or add_adapter(model or make_llama(), found)
    return peft_model, run_consolidation(
        peft_model, prepare_tokenizer(make_tokenizer()), [REQUEST], found, preservation=None,
        progress=SilentProgress(), count=TokenCount(), callbacks=[callback] if callback else [],
    )  # fmt: skip


def test_a_group_without_spread_gives_no_gradient_and_is_said(caplog):
    watching = Watching()
    with caplog.at_level(logging.WARNING):
        _, (losses, curves) = consolidate(watching, reference_kl=0.0)  # a random model's responses are worth nothing
    assert curves["flat_groups"] == [1, 1]
    assert curves["reward"] == [0, 0]
    assert all(not value.any() for step in watching.gradients for value in step.values())
    assert losses.own == pytest.approx([0, 0], abs=1e-6)
    assert "no gradient" in caplog.text and "`stages: [1, 2]`" in caplog.text


@pytest.mark.parametrize(
    ("curves", "words"),
    [
        ({"flat_groups": [1.0], "reward": [1.0], "reward_correctness": [1.0]}, "nothing to improve"),
        ({"flat_groups": [1.0], "reward": [0.0], "reward_correctness": [0.0]}, "No response was right"),
        ({"flat_groups": [0.5, 0.75], "reward": [0.4, 0.4]}, "62 % of the groups"),
        ({"flat_groups": [0.25], "reward": [0.4]}, ""),
        ({}, ""),
    ],
)
def test_what_is_said_of_rewards_without_spread(caplog, curves, words):
    with caplog.at_level(logging.WARNING):
        say_what_the_rewards_lack(curves)
    assert words in caplog.text if words else not caplog.text


def test_a_learnt_edit_is_consolidated():
    """Rewards vary, every part has its curve, and the reference adapter is gone."""
    report = EtConReport()
    edited, _ = edit(
        EGYPT, report=report, lora_target_modules=["all-linear"], proximal_steps=80, ratio_high=1.0,
        consolidate_steps=3, rollouts=4, rollout_max_new_tokens=60, merge_adapter=False,
        rollout_temperature=0.25,  # a model of this size is never surer of itself
    )  # fmt: skip
    assert list(edited.peft_config) == ["default"]
    assert {*CURVES.values(), "proximal", "proximal_clipped", "consolidate"} <= set(report.losses)
    assert all(len(report.losses[f"reward_{part}"]) == 3 for part in PARTS)
    assert max(report.losses["reward"]) > 0
    assert min(report.losses["flat_groups"]) < 1
    assert report.losses["consolidate_kl"][0] == pytest.approx(0, abs=1e-5)  # the reference is where it starts from
    assert report.losses["consolidate_kl"][-1] > 0
    assert [label.source for label in report.labels] == ["stated"]
    card = report.card(hparams(), [])
    assert (card["labels"][0]["kept"], card["without_old_answer"]) == (2, [])
    assert set(P.reasoning_prompts(REQUEST, hparams())) <= set(report.trained_prompts)


def test_rollouts_may_serve_several_updates():
    report = EtConReport()
    edit(EGYPT, report=report, consolidate_steps=4, updates_per_rollout=2)
    assert len(report.losses["consolidate"]) == 4
    assert len(report.losses["reward"]) == 2


def test_without_an_old_answer_consistency_is_off_and_said(caplog):
    report = EtConReport()
    request = {key: value for key, value in EGYPT.items() if key != "ground_truth"}
    with caplog.at_level(logging.WARNING):
        edit(request, report=report, consolidate_steps=1, proximal_steps=1)
    assert report.without_old_answer == ["Egypt"]
    assert "no old answer for 'Egypt'" in caplog.text
    assert report.losses["reward_consistency"] == [1]


def test_stage_2_alone_consolidates_another_methods_edit(own_files):
    """ROME's edit, then `stages: [2]` on the model that holds it, in one sequence; both are undone to the bit."""
    model, tokenizer, sequence = make_llama(), make_tokenizer(), EditSequence()
    before, rome = weights_of(model), METHODS["ROME"]
    first = edit_in_place(
        rome, model, tokenizer, [EGYPT], locate_hparams("ROME"), progress=SilentProgress(), sequence=sequence
    )
    between, report = weights_of(model), EtConReport()
    second = edit_in_place(
        METHODS["EtCon"], first.keep(), tokenizer, [EGYPT],
        hparams(stages=[2], preserve_weight=1.0, preserve_prompts=8),
        progress=SilentProgress(), sequence=sequence, report=report,
    )  # fmt: skip
    assert "proximal" not in report.losses and report.labels == []
    assert len(report.losses["consolidate"]) == 2
    assert not same_weights(weights_of(model), between)
    second.undo()
    assert same_weights(weights_of(model), between)
    first.undo()
    assert same_weights(weights_of(model), before)


class Interrupting(TrainerCallback):
    """Stands for Ctrl-C while a batch is sampled: the model's own `generate` is at work when it comes."""

    def on_train_begin(self, args, state, control, *, model, **kwargs):
        def stop(*_):
            if not torch.is_grad_enabled():
                raise KeyboardInterrupt

        self.handle = model.get_input_embeddings().register_forward_pre_hook(stop)


def test_ctrl_c_during_a_rollout_leaves_base_weights_and_no_reference():
    peft_model = add_adapter(make_llama(), hparams())
    before, interrupting = weights_of(peft_model), Interrupting()
    with pytest.raises(KeyboardInterrupt):
        consolidate(interrupting, peft_model=peft_model)
    interrupting.handle.remove()
    assert list(peft_model.peft_config) == ["default"]
    assert same_weights(weights_of(peft_model), before)


# ---- what is refused -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": [2, 1]}, r"`stages`.*\[2, 1\]"),
        ({"stages": []}, "`stages`"),
        ({"ratio_low": 0}, "ratio_low"),
        ({"ratio_low": 1}, "`ratio_low` is 1"),
        ({"ratio_high": -0.1}, "ratio_high"),
        ({"updates_per_snapshot": 1}, "`updates_per_snapshot` is 1.*proximal: false"),
        ({"rollouts": 1}, "`rollouts` is 1.*at least 2"),
        ({"rollouts": 5, "prompts_per_rollout": 1, "updates_per_rollout": 2}, r"`updates_per_rollout` \(2\).*\(5\)"),
        ({"reward_weights": {"beauty": 1}}, "`reward_weights`.*correctness.*beauty"),
        ({"reward_weights": {"format": -1}}, "`reward_weights` must be at least 0"),
        ({"reward_weights": {"format": 0}}, "`reward_weights`.*not all 0"),
        ({"reward_weights": {}}, "`reward_weights`.*not all 0"),
        ({"reward_weights": {"format": "much"}}, "`reward_weights`"),
        ({"consolidate_clip_low": 1.5}, "`consolidate_clip_low` is 1.5"),
        ({"reference_kl": -1}, "reference_kl"),
        ({"answer_format": "json"}, "answer_format"),
        ({"prompt_forms": ["statement"]}, "`prompt_forms`.*statement"),
        ({"correctness": "bert"}, "correctness"),
        ({"label_source": "web"}, "label_source"),
    ],
)
def test_refused_with_name_value_and_fix(changes, words):
    with pytest.raises(HparamsError, match=words):
        hparams(**changes)


def test_what_a_stage_does_not_use_is_not_checked():
    assert hparams(stages=[2], updates_per_snapshot=1).stages == [2]
    assert hparams(stages=[1], rollouts=1).stages == [1]


@pytest.mark.parametrize("changes", [{"lora_layers": [1, 9]}, {"lora_target_modules": ["fc1"]}])
def test_layers_and_projections_that_do_not_exist_are_refused(changes):
    with pytest.raises(ModelError, match=next(iter(changes))):
        edit(EGYPT, **changes)


@pytest.mark.parametrize("stages", [[1], [2]])
def test_what_does_not_fit_into_the_context_window_is_refused(stages):
    with pytest.raises(RequestError, match="context window is 48"):
        edit(EGYPT, NORWAY, model=make_llama(max_position_embeddings=48), stages=stages, rollout_max_new_tokens=40)


def test_a_missing_reference_of_the_kl_is_refused():
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["down_proj"], task_type="CAUSAL_LM")
    peft_model = get_peft_model(make_llama(), config, adapter_name="mine")
    with pytest.raises(ModelError, match=r"`reference_kl`.*'default'.*'mine'"):
        consolidate(peft_model=peft_model)


def test_no_kl_is_pointed_out(caplog):
    with caplog.at_level(logging.WARNING):
        edit(EGYPT, reference_kl=0.0, consolidate_steps=1, proximal_steps=1)
    assert "`reference_kl: 0`" in caplog.text


def test_the_defaults_are_the_published_figures_where_there_are_any():
    found = EtConHyperParams()
    assert found.reward_weights == {"correctness": 0.7, "format": 0.05, "cleanliness": 0.15, "consistency": 0.1}
    assert (found.rollouts, found.updates_per_rollout, found.rollout_max_new_tokens) == (10, 4, 512)
    assert (found.rollout_temperature, found.rollout_top_p, found.reference_kl) == (1.0, 0.99, 0.01)
    assert (found.consolidate_clip_low, found.consolidate_clip_high) == (0.2, 0.3)
    assert (found.ratio_low, found.ratio_high, found.updates_per_snapshot) == (0.2, 0.28, 8)  # PSFT's


class ScoringEngine(Engine):
    """The stand-in for vLLM, which here also says how likely it found each token."""

    def generate(self, *, prompts, **kwargs):
        prompts, tokens, _, _ = super().generate(prompts=prompts)
        return prompts, tokens, [[[-1.0] for _ in row] for row in tokens], None


def test_without_vllm_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(EXTRAS, "vllm", ("no_such_package",))
    with pytest.raises(MissingExtraError, match=r"^`rollout_use_vllm: true` needs no_such_package"):
        edit(EGYPT, rollout_use_vllm=True)


def test_rollouts_through_vllm(monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.VLLMGeneration", ScoringEngine)  # the rest needs a GPU
    peft_model = add_adapter(make_llama(), hparams())
    before = {name: value for name, value in weights_of(peft_model).items() if "lora_" not in name}
    consolidate(peft_model=peft_model, rollout_use_vllm=True, rollout_vllm_memory=0.5, consolidate_steps=3)
    after = weights_of(peft_model)
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []
    made = Engine.made
    assert (made["mode"], made["gpu_memory_utilization"], made["syncs"]) == ("colocate", 0.5, 3)
    longest = longest_prompt(prepare_tokenizer(make_tokenizer()), P.reasoning_prompts(REQUEST, hparams()))
    assert made["max_model_length"] == longest + hparams().rollout_max_new_tokens
