"""ROME, MEMIT and AlphaEdit: keys, values, closed forms and sequences."""

from __future__ import annotations

import pytest
import torch
from conftest import (
    EGYPT,
    NORWAY,
    make_gpt2,
    make_llama,
    make_opt,
    make_qwen3,
    make_tokenizer,
    same_weights,
    weights_of,
)
from locate import LOCATE, InterruptAt, apply, editor_for, edits, hparams_for, random_moment, states_by_hand

from causaledit.errors import EditFailedError, ModelError
from causaledit.methods.alphaedit.apply import projected_change
from causaledit.methods.alphaedit.null_space import null_space_projection
from causaledit.methods.memit.apply import least_squares_change
from causaledit.methods.method import EditSequence
from causaledit.methods.rome.apply import rank_one_change
from causaledit.methods.shared.locate_edit import contexts as ctx
from causaledit.methods.shared.locate_edit.covariance import KeySpace
from causaledit.methods.shared.locate_edit.editor import LocateMemory
from causaledit.methods.shared.locate_edit.keys import mean_keys
from causaledit.methods.shared.locate_edit.stored import Moment
from causaledit.methods.shared.locate_edit.subjects import locate, target_tokens
from causaledit.methods.shared.locate_edit.values import optimise_values
from causaledit.models.layout import by_token, find_layout
from causaledit.support.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("own_files")


# ---- keys and values -------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_keys_are_the_projections_inputs_at_the_subject(make):
    model, tokenizer = make(), make_tokenizer()
    layout = find_layout(model, hparams_for("ROME"))
    module = layout.projection_module(model, 1)
    groups = (("{}",), ("Wells ran dry. {}", "It rained for a year. {}"))
    found = mean_keys(model, tokenizer, module, edits(EGYPT, NORWAY), groups, fact_token="subject_last", by_group=True)
    for request, row in zip(edits(EGYPT, NORWAY), found, strict=True):
        keys = [
            states_by_hand(
                model,
                module,
                template.replace("{}", request.cloze),
                locate(tokenizer, template, request, "subject_last").at,
            )[0]
            for template in ctx.flat(groups)
        ]
        torch.testing.assert_close(row, keys[0] / 2 + (keys[1] + keys[2]) / 4, rtol=1e-4, atol=1e-6)


class Announced(SilentProgress):
    """Remembers how many steps each stage announced."""

    def __init__(self):
        self.totals = []

    def start(self, stage, total):
        self.totals.append(total)


@pytest.mark.parametrize(("most", "groups"), [(16, 1), (3, 2), (1, 4)])
def test_edits_of_like_length_go_side_by_side(most, groups):
    model = make_llama()
    hparams = hparams_for("MEMIT", v_batch_requests=most, v_num_grad_steps=3, v_stop_loss=0.0)
    layout, progress = find_layout(model, hparams), Announced()
    behind = "The capital of {} which the wells and the people of parliament voted to move to the port is"
    requests = edits(EGYPT, {**EGYPT, "prompt": behind}, NORWAY, {**EGYPT, "target_new": "Oslo"})

    def values(requests, sink):
        return optimise_values(
            model, make_tokenizer(), layout, requests, (("{}",),), hparams, layer=0, at_projection=False, progress=sink
        )

    together = values(requests, progress)
    assert progress.totals == [3 * groups]
    for request, value in zip(requests, together, strict=True):  # in the order of the requests, whatever the groups
        torch.testing.assert_close(value.target, values([request], SilentProgress())[0].target, rtol=1e-3, atol=1e-4)


BEHIND = "The capital of {} which the wells and the people of parliament voted to move to the port is"
CONTEXTS = (("{}",), ("Wells ran dry. {}", "It rained for a year and the ministries moved. {}"))


@pytest.mark.parametrize("at_projection", [False, True], ids=["layer", "projection"])
@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_opt, make_qwen3])
def test_edits_together_get_the_values_that_each_gets_alone(make, at_projection):
    model = make()
    requests = edits(EGYPT, {**EGYPT, "prompt": BEHIND}, NORWAY, {**NORWAY, "target_new": "the port of Alexandria"})
    hparams = hparams_for("MEMIT", v_num_grad_steps=8, v_lr=0.05, v_stop_loss=0.0)

    def values(requests):
        return optimise_values(
            model, make_tokenizer(), find_layout(model, hparams), requests, CONTEXTS, hparams, layer=0,
            at_projection=at_projection, progress=SilentProgress(),
        )  # fmt: skip

    for request, value in zip(requests, values(requests), strict=True):
        [alone] = values([request])
        assert value.losses == pytest.approx(alone.losses, rel=1e-4)
        torch.testing.assert_close(value.delta, alone.delta, rtol=1e-4, atol=1e-4)


def test_edits_of_different_length_are_hardly_padded():
    model = make_llama()
    requests = edits(EGYPT, {**EGYPT, "prompt": BEHIND}, NORWAY)
    hparams = hparams_for("MEMIT", v_num_grad_steps=4, v_lr=0.05, v_stop_loss=0.0)
    layout = find_layout(model, hparams)

    def tokens(requests):
        counts = []
        handle = layout.layer_module(model, 1).register_forward_hook(lambda _, args, __: counts.append(args[0].numel()))
        optimise_values(
            model, make_tokenizer(), layout, requests, CONTEXTS, hparams, layer=0, at_projection=False,
            progress=SilentProgress(),
        )  # fmt: skip
        handle.remove()
        return sum(counts[1:]) / model.config.hidden_size  # the first pass reads what is before the subject

    computed = tokens(requests)
    real = sum(tokens([request]) for request in requests)
    assert computed <= 1.1 * real


def test_a_value_makes_the_answer_likely_and_stays_in_its_ball():
    model = make_llama()
    editor = editor_for("MEMIT", model, fact_token="last", clamp_norm_factor=0.5, v_weight_decay=0.0)
    [value] = editor.values(edits(EGYPT), 0, at_projection=False)
    assert value.losses[-1] < value.losses[0] - 0.3
    assert float(value.delta.norm()) <= 0.5 * float(value.initial.norm()) * 1.0001
    [free] = editor_for("MEMIT", model, fact_token="last").values(edits(EGYPT), 0, at_projection=False)
    assert float(free.delta.norm()) > 0.5 * float(free.initial.norm())
    assert free.losses[-1] < value.losses[-1]


def test_the_likelihood_may_be_read_off_an_earlier_layer():
    model = make_llama(num_hidden_layers=4)
    at_last = editor_for("MEMIT", model, v_loss_layer=3).values(edits(EGYPT), 0, at_projection=False)[0]
    plain = editor_for("MEMIT", model).values(edits(EGYPT), 0, at_projection=False)[0]
    early = editor_for("MEMIT", model, v_loss_layer=2).values(edits(EGYPT), 0, at_projection=False)[0]
    assert at_last.losses == plain.losses
    assert early.losses[0] != plain.losses[0]
    norm, head = model.model.norm, model.lm_head  # the first loss, by hand: the bare prompt and the contexts alone
    hparams = hparams_for("MEMIT", v_loss_layer=2, v_num_grad_steps=1, context_template_length_params=[])
    found = optimise_values(
        model, make_tokenizer(), find_layout(model, hparams), edits(EGYPT), (("{}",),), hparams,
        layer=0, at_projection=False, progress=SilentProgress(),
    )[0]  # fmt: skip
    ids = make_tokenizer()("The capital of Egypt is Alexandria")["input_ids"]
    n = len(target_tokens(make_tokenizer(), edits(EGYPT)[0]))
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0]
        log_p = head(norm(states))[-n - 1 : -1].log_softmax(-1)
    assert found.losses[0] == pytest.approx(-float(log_p.gather(1, torch.tensor(ids[-n:])[:, None]).mean()), rel=1e-4)


def test_an_edit_that_is_good_enough_stops_and_the_others_go_on():
    model = make_llama()
    first = editor_for("MEMIT", model, fact_token="last").values(edits(EGYPT, NORWAY), 0, at_projection=False)
    losses = [value.losses for value in first]
    slower = max(range(2), key=lambda i: losses[i][5])
    bound = (losses[0][5] + losses[1][5]) / 2  # one is below it at step 6 at the latest, the other is not yet
    found = editor_for("MEMIT", model, fact_token="last", v_stop_loss=bound).values(
        edits(EGYPT, NORWAY), 0, at_projection=False
    )
    assert len(found[1 - slower].losses) <= 6 < len(found[slower].losses)
    n = len(found[slower].losses)
    assert found[slower].losses == pytest.approx(losses[slower][:n], rel=1e-4)


@pytest.mark.parametrize("name", LOCATE)
def test_a_loss_that_is_not_finite_leaves_the_model_alone(name):
    model = make_llama()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    weights = weights_of(model)
    with pytest.raises(EditFailedError, match=r"not finite.*v_lr"):
        # the broken norm would also break the model's sampling of contexts and text
        apply(name, model, EGYPT, context_template_length_params=[], sequence=with_statistics(model, name))
    assert all(torch.equal(v.nan_to_num(), weights[n].nan_to_num()) for n, v in weights_of(model).items())


def with_statistics(model, name):
    sequence = EditSequence()
    memory = sequence.memory(name, LocateMemory)
    memory.moments = {0: random_moment(64, 1000)}
    memory.projections = {0: torch.eye(64)}
    return sequence


# ---- closed forms ----------------------------------------------------------------------------------
@pytest.mark.parametrize("make", [make_llama, make_gpt2, make_qwen3])
@pytest.mark.parametrize("adjust", [True, False], ids=["covariance", "identity"])
def test_rome_maps_the_key_to_the_value_with_rank_one(make, adjust):
    model = make()
    editor = editor_for("ROME", model, mom2_adjustment=adjust, mom2_ridge=1e-3)
    editor.prepare_spaces()
    module = editor.layout.projection_module(model, 0)
    [request] = edits(EGYPT)
    [value] = editor.values([request], 0, at_projection=True)
    change = rank_one_change(editor, request, 0)
    before = editor.layout.weight(model, 0).double().clone()
    editor.write(0, change)
    at = locate(make_tokenizer(), "{}", request, "subject_last").at
    _, output = states_by_hand(model, module, request.cloze, at)
    torch.testing.assert_close(output, value.target, rtol=1e-4, atol=1e-4)  # W' k = v*
    assert torch.linalg.matrix_rank(change) == 1
    torch.testing.assert_close(editor.layout.weight(model, 0).double() - before, change, rtol=1e-3, atol=1e-6)
    # among all changes with that property, in the metric of the moment: along C⁻¹ k*
    mean = editor.keys([request], 0, by_group=False)[:, 0].double()
    direction = change[change.norm(dim=1).argmax()]
    moment = editor.memory.moments[0].matrix.double() if adjust else torch.eye(len(mean), dtype=torch.double)
    if adjust:
        moment = moment + 1e-3 * moment.diagonal().mean() * torch.eye(len(mean))
    cosine = torch.nn.functional.cosine_similarity(moment @ direction, mean, dim=0)
    assert abs(float(cosine)) == pytest.approx(1, abs=1e-5)


def test_rome_without_contexts_uses_one_key():
    model = make_llama()
    editor = editor_for("ROME", model, context_template_length_params=[])
    [request] = edits(EGYPT)
    received, _ = editor.bare([request], editor.layout.projection_module(model, 0))
    torch.testing.assert_close(editor.keys([request], 0, by_group=False)[:, 0], received[0])


def test_rome_writes_several_requests_one_after_the_other():
    together, apart = make_llama(), make_llama()
    sequence, other = EditSequence(), EditSequence()
    apply("ROME", together, EGYPT, NORWAY, sequence=sequence)
    apply("ROME", apart, EGYPT, sequence=other)
    apply("ROME", apart, NORWAY, sequence=other)
    assert same_weights(weights_of(together), weights_of(apart))


def test_memit_is_the_weighted_least_squares_solution():
    moment, weight = random_moment(), 3.0
    torch.manual_seed(1)
    keys, residuals = torch.randn(12, 4, dtype=torch.double), torch.randn(5, 4, dtype=torch.double)
    change = least_squares_change(keys, KeySpace(moment, 0).solve(keys), residuals, weight)
    direct = residuals @ keys.T @ torch.linalg.inv(weight * moment.matrix + keys @ keys.T)
    torch.testing.assert_close(change, direct)
    gradient = (change @ keys - residuals) @ keys.T + weight * change @ moment.matrix
    assert float(gradient.abs().max()) < 1e-10


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_memit_brings_the_last_layers_output_to_the_value(make):
    model = make(num_hidden_layers=4) if make is make_llama else make(n_layer=4)
    hparams = {"layers": [0, 1, 2], "mom2_update_weight": 1e-6, "mom2_ridge": 1e-2, "fact_token": "subject_last"}
    editor = editor_for("MEMIT", model, **hparams)
    wanted = [value.target for value in editor.values(edits(EGYPT, NORWAY), 2, at_projection=False)]
    apply("MEMIT", model, EGYPT, NORWAY, **hparams)
    for request, target in zip(edits(EGYPT, NORWAY), wanted, strict=True):
        at = locate(make_tokenizer(), "{}", request, "subject_last").at
        states = torch.stack([layer_output(model, editor.layout, n, request.cloze, at) for n in (2,)])[0]
        # contexts give a mean key, so the bare prompt is only nearly met
        assert float((states - target).norm()) < 0.5 * float(target.norm())


def layer_output(model, layout, layer, text, at):
    seen = {}
    module = layout.layer_module(model, layer)
    handle = module.register_forward_hook(
        lambda _, __, out: seen.update(o=(out if isinstance(out, torch.Tensor) else out[0])[0, at])
    )
    with torch.no_grad():
        model(input_ids=torch.tensor([make_tokenizer()(text)["input_ids"]]))
    handle.remove()
    return seen["o"]


def test_alphaedit_is_the_projected_solution_and_leaves_kept_keys_alone():
    torch.manual_seed(1)
    kept = torch.randn(12, 5, dtype=torch.double)  # what is to stay spans 5 of 12 directions
    moment = Moment(kept @ kept.T / 5, 5, "a test")
    projection = null_space_projection(moment, 1e-8, 0)
    keys, earlier = torch.randn(12, 3, dtype=torch.double), torch.randn(12, 2, dtype=torch.double)
    residuals = torch.randn(6, 3, dtype=torch.double)
    change = projected_change(keys, residuals, projection, earlier, 0.5)
    p = projection.double()
    direct = (
        residuals @ keys.T @ p
        @ torch.linalg.inv(earlier @ earlier.T @ p + keys @ keys.T @ p + 0.5 * torch.eye(12))
    )  # fmt: skip
    torch.testing.assert_close(change, direct, rtol=1e-4, atol=1e-5)
    assert float((change @ kept).abs().max()) < 1e-5
    assert float((change @ keys).abs().max()) > 0.1
    free = projected_change(keys, residuals, projection, None, 0.5)
    assert float((change @ earlier).norm()) < 0.6 * float((free @ earlier).norm())


def test_conv1d_and_linear_give_the_same_edit():
    plain, linear = make_gpt2(), make_gpt2()
    for block in linear.transformer.h:
        old = block.mlp.c_proj
        block.mlp.c_proj = torch.nn.Linear(*old.weight.shape)
        with torch.no_grad():
            block.mlp.c_proj.weight.copy_(old.weight.T)
            block.mlp.c_proj.bias.copy_(old.bias)
    for name in LOCATE:
        found = []
        for model in (plain, linear):
            before = weights_of(model)
            _, originals = apply(name, model, EGYPT, mom2_ridge=1e-3)
            [key] = originals
            found.append(weights_of(model)[key] - before[key])
            model.load_state_dict(before)
        assert found[0].shape == found[1].T.shape == (128, 32)
        torch.testing.assert_close(found[0], found[1].T, rtol=1e-3, atol=1e-4)


# ---- states of two dimensions ----------------------------------------------------------------------
@pytest.mark.parametrize("adjust", [True, False], ids=["second moments", "none"])
@pytest.mark.parametrize("name", ["ROME", "MEMIT"])
def test_a_model_that_flattens_before_its_mlp_is_edited_at_the_subject(name, adjust):
    model = make_opt()
    before = weights_of(model)
    _, originals = apply(name, model, EGYPT, mom2_adjustment=adjust)
    [changed] = originals
    change = weights_of(model)[changed] - before[changed]
    assert torch.linalg.matrix_rank(change) == 1
    assert not torch.allclose(change, change[:, :1].expand_as(change))  # no one number in all columns
    if not adjust and name == "MEMIT":  # then it lies along the key
        module = model.model.decoder.layers[0].fc2
        model.load_state_dict({**weights_of(model), **originals})
        keys = editor_for(name, model).keys(edits(EGYPT), 0, by_group=True)[:, 0]
        seen = []
        handle = module.register_forward_hook(lambda _, args, __: seen.append(args[0]))
        with torch.no_grad():
            model(input_ids=torch.tensor([make_tokenizer()("The capital of Egypt")["input_ids"]]))
        handle.remove()
        assert seen[0].ndim == 2
        assert float(torch.cosine_similarity(change.abs().sum(0), keys.abs(), dim=0)) > 0.999


def test_a_change_of_another_shape_is_refused():
    model = make_llama()
    before = weights_of(model)
    layout = find_layout(model, hparams_for("ROME"))
    for change in (torch.ones(32, 1), torch.ones(64), torch.ones(64, 32)):
        with pytest.raises(ModelError, match=r"change of model.layers.0.mlp.down_proj.weight is .*32×64"):
            layout.add(model, 0, change)
    assert same_weights(weights_of(model), before)


def test_states_of_other_tokens_are_refused():
    assert by_token(torch.zeros(6, 4), 2, 3).shape == by_token(torch.zeros(2, 3, 4), 2, 3).shape == (2, 3, 4)
    for states in (torch.zeros(5, 4), torch.zeros(3, 2, 4)):
        with pytest.raises(ModelError, match=r"rewrite_module_tmp.*no expert"):
            by_token(states, 2, 3)


# ---- sequences -------------------------------------------------------------------------------------
def test_alphaedit_keeps_earlier_keys_in_a_sequence_only():
    def second_change(sequence, independent=False):
        model = make_llama()
        apply("AlphaEdit", model, EGYPT, sequence=None if independent else sequence)
        before = weights_of(model)
        apply("AlphaEdit", model, NORWAY, sequence=sequence)
        return weights_of(model)["model.layers.0.mlp.down_proj.weight"] - before["model.layers.0.mlp.down_proj.weight"]

    sequence = EditSequence()
    kept = second_change(sequence)
    assert sequence.memory("AlphaEdit", LocateMemory).earlier_keys[0].shape == (64, 2)
    free = second_change(EditSequence(), independent=True)
    assert not torch.equal(kept, free)

    model = make_llama()
    apply("AlphaEdit", model, EGYPT)
    editor = editor_for("AlphaEdit", model)
    key = editor.keys(edits(EGYPT), 0, by_group=True)[:, 0]
    assert float((kept @ key).norm()) < float((free @ key).norm())  # Egypt's own key is moved less


def test_a_failed_edit_leaves_no_key_behind(monkeypatch):
    model, sequence = make_llama(), EditSequence()
    apply("AlphaEdit", model, EGYPT, sequence=sequence)
    weights = weights_of(model)
    keys = {n: k.clone() for n, k in sequence.memory("AlphaEdit", LocateMemory).earlier_keys.items()}
    with pytest.raises(KeyboardInterrupt), InterruptAt(model, 12):
        apply("AlphaEdit", model, NORWAY, sequence=sequence)
    assert same_weights(weights_of(model), weights)
    assert same_weights(sequence.memory("AlphaEdit", LocateMemory).earlier_keys, keys)


@pytest.mark.parametrize("name", LOCATE)
def test_ctrl_c_anywhere_leaves_the_model_alone(name):
    model = make_llama()
    weights, hooks = weights_of(model), [len(m._forward_hooks) for m in model.modules()]
    counter = InterruptAt(model, 0)
    with counter:
        _, originals = apply(name, model, EGYPT, NORWAY, v_num_grad_steps=4)
    model.load_state_dict({**weights_of(model), **originals})
    passes = -counter.left
    assert passes > 8
    for at in (1, passes // 3, passes // 2, passes - 2, passes):
        with InterruptAt(model, at), pytest.raises(KeyboardInterrupt):
            apply(name, model, EGYPT, NORWAY, v_num_grad_steps=4)
        assert same_weights(weights_of(model), weights)
        assert [len(m._forward_hooks) for m in model.modules()] == hooks
        assert not any("forward" in vars(m) for m in model.modules())
