"""Training in both stages: the loss of stage 1, the preservation term, learning rates, gradient checkpointing."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import MODELS, fast_hparams, make_gpt2, make_llama, make_opt, weights_of
from stages import PAIRS, Gradients, Listener, bootstrap, held, internalise, sft_by_hand, with_adapter

from causaledit.errors import EditFailedError

LONG = " ".join(f"In year {i} the wells of Cairo sank by one more yard." for i in range(1900, 1990))
MORE_PAIRS = [*PAIRS, ("Norway?", "Bergen."), ("What of Norway?", "Its capital is Bergen, and no longer Oslo.")]


# ---- stage 1 ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [make_llama, make_gpt2], ids=["llama", "gpt2"])
def test_one_sft_step_changes_lora_parameters_alone(make):
    hparams = fast_hparams(None, None, lora_target_modules=["all-linear"], bootstrap_max_steps=1)
    peft_model = with_adapter(make(), hparams, trained=False)
    before = weights_of(peft_model)
    found = bootstrap(hparams, peft_model)
    after = weights_of(peft_model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(found.own) == 1
    assert changed
    assert all("lora_" in name for name in changed)


def test_a_large_epsilon_makes_stage_1_move_what_matters():
    """Adam's first step has one length for every weight; with an ε far above the gradient it follows the gradient."""
    found = {}
    for epsilon in (1e-12, 1e3):
        hparams = fast_hparams(None, None, bootstrap_max_steps=1, adam_epsilon=epsilon)
        peft_model = with_adapter(make_llama(), hparams, trained=False)
        before = weights_of(peft_model)
        bootstrap(hparams, peft_model)
        moved = [(v - before[k]).abs().flatten() for k, v in weights_of(peft_model).items() if "lora_B" in k]
        found[epsilon] = torch.cat(moved)
    even, selective = found[1e-12], found[1e3]
    assert even[even > 0].std() / even.mean() < 0.2
    assert selective[selective > 0].std() / selective.mean() > 0.5
    assert selective.max() < even.max() / 100


@pytest.mark.parametrize(
    ("budget", "checkpointing"),
    [(4096, False), (90, False), (1, True)],
    ids=["one batch", "micro-batches", "row by row, checkpointing"],
)
@pytest.mark.parametrize("mean", ["token", "sequence"])
@pytest.mark.parametrize("architecture", MODELS)
def test_the_loss_of_stage_1_is_the_completions_cross_entropy(architecture, mean, budget, checkpointing):
    """However a step's rows are split, and whatever is kept of their activations."""
    hparams = fast_hparams(
        None, None, lora_target_modules=["all-linear"], bootstrap_max_steps=1, bootstrap_max_grad_norm=1e9,
        bootstrap_loss_mean=mean, bootstrap_micro_batch_tokens=budget, gradient_checkpointing=checkpointing,
    )  # fmt: skip
    make = MODELS[architecture]
    if architecture == "gpt2":  # its dropout is no adapter's: by hand it is off
        make = lambda: make_gpt2(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # noqa: E731
    listener = Gradients()
    found = bootstrap(hparams, with_adapter(make(), hparams), pairs=MORE_PAIRS, callback=listener)
    expected, gradients = sft_by_hand(with_adapter(make(), hparams), MORE_PAIRS, mean)
    assert found.own == pytest.approx([expected], abs=1e-4)
    assert listener.gradients[0].keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(listener.gradients[0][name], gradient, atol=1e-4, rtol=1e-3)


def test_a_long_trace_is_never_cut():
    hparams = fast_hparams(None, None, bootstrap_max_steps=1)
    pairs = [("Egypt?", LONG)]
    expected, _ = sft_by_hand(with_adapter(make_llama(), hparams), pairs, "token")
    assert bootstrap(hparams, with_adapter(make_llama(), hparams), pairs=pairs).own == pytest.approx(
        [expected], abs=1e-4
    )


def test_stage_1_stops_when_the_loss_is_low_often_enough_in_a_row():
    hparams = fast_hparams(None, None, bootstrap_stop_loss=1e9, bootstrap_stop_patience=3, bootstrap_max_steps=20)
    assert len(bootstrap(hparams, with_adapter(make_llama(), hparams)).own) == 3
    never = fast_hparams(None, None, bootstrap_stop_loss=0.0, bootstrap_max_steps=5)
    assert len(bootstrap(never, with_adapter(make_llama(), never)).own) == 5


def test_a_loss_that_is_not_finite_ends_the_edit():
    peft_model = with_adapter(make_llama(), hparams := fast_hparams(None, None))
    with torch.no_grad():
        next(p for n, p in peft_model.named_parameters() if "lora_B" in n).fill_(float("inf"))
    with pytest.raises(EditFailedError, match="learning rate"):
        bootstrap(hparams, peft_model)


# ---- the preservation term in both -----------------------------------------------------------------
@pytest.mark.parametrize("run", [bootstrap, internalise], ids=["stage 1", "stage 2"])
def test_the_preservation_term_pulls_and_is_told_apart(run):
    """A large weight multiplies the term and its gradient, and leaves the stage's own loss as it was."""
    found, gradients = {}, {}
    for weight in (1.0, 50.0):
        hparams = fast_hparams(
            None, None, teacher="base", preserve_weight=weight, preserve_prompts=6, preserve_batch_size=3,
            preserve_max_new_tokens=4, bootstrap_max_steps=1, distill_steps_base=1, bootstrap_max_grad_norm=1e9,
            distill_max_grad_norm=1e9,
        )  # fmt: skip
        model = make_llama()
        preservation = held(model, hparams)
        listener = Gradients()
        found[weight] = run(hparams, with_adapter(model, hparams), callback=listener, preservation=preservation)
        gradients[weight] = torch.cat([g.flatten() for g in listener.gradients[0].values()])
    assert found[50.0].own == pytest.approx(found[1.0].own, abs=1e-5)
    assert found[1.0].preservation[0] > 0
    assert found[50.0].preservation[0] == pytest.approx(50 * found[1.0].preservation[0], rel=1e-4)
    assert not torch.allclose(gradients[50.0], gradients[1.0], rtol=0.5)


def test_stage_1_stops_on_its_own_loss_whatever_the_preservation_term_is():
    hparams = fast_hparams(
        None, None, preserve_weight=1e4, preserve_prompts=6, preserve_batch_size=3, preserve_max_new_tokens=4,
        bootstrap_stop_loss=50.0, bootstrap_stop_patience=2, bootstrap_max_steps=6, bootstrap_max_grad_norm=1e-3,
    )  # fmt: skip
    model = make_llama()
    preservation = held(model, hparams)
    found = bootstrap(hparams, with_adapter(model, hparams), preservation=preservation)
    assert min(found.preservation) > 50 > max(found.own)
    assert len(found.own) == len(found.preservation) == 2


# ---- learning rates --------------------------------------------------------------------------------
@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5])
def test_no_step_of_stage_1_is_idle(warmup):
    hparams = fast_hparams(
        None, None, bootstrap_warmup_ratio=warmup, bootstrap_max_steps=10, bootstrap_learning_rate=1e-3,
        bootstrap_stop_loss=0.0,
    )  # fmt: skip
    listener = Listener()
    bootstrap(hparams, with_adapter(make_llama(), hparams), callback=listener)
    up = math.ceil(10 * warmup)
    rising = [1e-3 * (i + 1) / (up + 1) for i in range(up)]
    falling = [1e-3 * 0.5 * (1 + math.cos(math.pi * i / (10 - up))) for i in range(10 - up)]
    assert listener.rates == pytest.approx([*rising, *falling])
    assert min(listener.rates) > 0


@pytest.mark.parametrize("warmup", [0.0, 0.2, 0.5])
def test_no_step_of_stage_2_is_idle(warmup):
    hparams = fast_hparams(
        None, None, teacher="base", distill_warmup_ratio=warmup, distill_steps_base=4, distill_learning_rate=1e-3
    )
    listener = Listener()
    internalise(hparams, with_adapter(make_llama(), hparams), callback=listener)
    up = math.ceil(4 * warmup)
    assert listener.rates == pytest.approx([*(1e-3 * (i + 1) / (up + 1) for i in range(up)), *[1e-3] * (4 - up)])


# ---- gradient checkpointing ------------------------------------------------------------------------
def marks_of(model):
    """What checkpointing sets on modules, and the hooks of the embeddings."""
    flags = [
        (vars(m).get("gradient_checkpointing"), "_gradient_checkpointing_func" in vars(m)) for m in model.modules()
    ]
    return flags, len(model.get_input_embeddings()._forward_hooks)


@pytest.mark.parametrize("run", [bootstrap, internalise], ids=["stage 1", "stage 2"])
@pytest.mark.parametrize("already", [False, True], ids=["a plain model", "a model that has it on"])
def test_checkpointing_gives_the_same_losses_and_leaves_no_mark(run, already):
    found = {}
    for checkpointing in (False, True):
        hparams = fast_hparams(
            None, None, teacher="bootstrapped", distill_steps_base=4, bootstrap_max_steps=4, preserve_weight=1.0,
            preserve_prompts=6, preserve_batch_size=3, preserve_max_new_tokens=4, bootstrap_stop_loss=0.0,
            gradient_checkpointing=checkpointing, distill_batch_size=8, distill_num_generations=4,
        )  # fmt: skip
        model = make_llama()
        preservation = held(model, hparams)
        if already:
            model.gradient_checkpointing_enable()
        peft_model = with_adapter(model, hparams)
        before = marks_of(peft_model)
        found[checkpointing] = run(hparams, peft_model, preservation=preservation)
        assert marks_of(peft_model) == before
    for name in ("own", "preservation"):
        assert len(getattr(found[True], name)) == 4
        assert getattr(found[True], name) == pytest.approx(getattr(found[False], name), abs=1e-4, rel=1e-3)


def test_a_models_own_dropout_does_not_enter_stage_2():
    """OPT keeps its dropout as a number, which trl's switch does not reach."""
    found = []
    for rate in (0.0, 0.4):
        hparams = fast_hparams(None, None, lora_target_modules=["all-linear"])
        model = make_opt(dropout=rate, attention_dropout=rate)
        found.append(internalise(hparams, with_adapter(model, hparams)).own)
        assert all(layer.dropout == rate for layer in model.model.decoder.layers)
    assert found[0] == pytest.approx(found[1])
