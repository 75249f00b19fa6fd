"""The locate-then-edit core: closed forms, equivalences, statistics, and what is refused."""

from __future__ import annotations

import json
import logging
import random
import string

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    EGYPT,
    FAST,
    NORWAY,
    REPOSITORY,
    make_gpt2,
    make_llama,
    make_qwen3,
    make_tokenizer,
    same_weights,
    weights_of,
)

from causaledit.errors import EditFailedError, HparamsError, ModelError, RequestError
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.methods.alphaedit.apply import apply_alphaedit_to_model, projected_change
from causaledit.methods.alphaedit.hparams import AlphaEditHyperParams
from causaledit.methods.alphaedit.null_space import null_space_projection
from causaledit.methods.memit.apply import apply_memit_to_model, least_squares_change
from causaledit.methods.memit.hparams import MEMITHyperParams
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.methods.rome.apply import apply_rome_to_model, rank_one_change
from causaledit.methods.rome.hparams import ROMEHyperParams
from causaledit.methods.shared.locate_edit import contexts as ctx
from causaledit.methods.shared.locate_edit import covariance
from causaledit.methods.shared.locate_edit.corpus import open_corpus
from causaledit.methods.shared.locate_edit.covariance import KeySpace, cache_key, collect, moments_for
from causaledit.methods.shared.locate_edit.editor import LocateEditor, LocateEditReport, LocateMemory
from causaledit.methods.shared.locate_edit.keys import mean_keys
from causaledit.methods.shared.locate_edit.stored import Moment, read_moment, write_moment
from causaledit.methods.shared.locate_edit.subjects import locate, refuse_unclear_subjects, target_tokens
from causaledit.methods.shared.locate_edit.values import _chunks, optimise_values
from causaledit.models.layout import find_layout, not_behind_keys
from causaledit.models.weights import revision_of
from causaledit.support.progress import SilentProgress

LOCATE = ("ROME", "MEMIT", "AlphaEdit")
DEFAULTS = {"fact_token": "subject_last"}
TEXT = "The capital of Egypt is Cairo.\n\nThe capital of Norway is Oslo, and parliament voted to move.\n\n"


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    """Random words, enough for a regular second moment of tiny models: sampling from a model takes longer."""
    draw = random.Random(0)
    file = tmp_path_factory.mktemp("text") / "words.txt"
    lines = (" ".join("".join(draw.choices(string.ascii_letters, k=4)) for _ in range(5)) for _ in range(40))
    file.write_text("\n\n".join(lines), encoding="utf-8")
    return str(file)


@pytest.fixture(autouse=True)
def _own_files(tmp_path, monkeypatch, words):
    monkeypatch.setenv("CAUSALEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(DEFAULTS, "mom2_dataset", words)


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text(TEXT * 6, encoding="utf-8")
    return file


def hparams_for(name, **changes):
    return METHODS[name].load_hparams()(**{**FAST[name], **DEFAULTS, **changes})


def apply(name, model, *requests, **changes):
    options = {key: changes.pop(key) for key in ("sequence", "report") if key in changes}
    return METHODS[name].load_apply()(
        model, make_tokenizer(), list(requests), hparams_for(name, **changes), return_orig_weights=True,
        progress=SilentProgress(), **options,
    )  # fmt: skip


def editor_for(name, model, **changes):
    hparams = hparams_for(name, **changes)
    return LocateEditor(
        model, make_tokenizer(), find_layout(model, hparams), hparams,
        progress=SilentProgress(), report=LocateEditReport(),
    )  # fmt: skip


def edits(*requests):
    return [request_from_dict(request) for request in requests]


def states_by_hand(model, module, text, at):
    """A module's input and output at one token of a text, by one plain forward pass."""
    seen = {}
    handle = module.register_forward_hook(lambda _, args, out: seen.update(i=args[0][0, at], o=out[0, at]))
    with torch.no_grad():
        model(input_ids=torch.tensor([make_tokenizer()(text)["input_ids"]]))
    handle.remove()
    return seen["i"], seen["o"]


def random_moment(n=12, count=100, seed=0):
    torch.manual_seed(seed)
    keys = torch.randn(count, n, dtype=torch.double)
    return Moment(keys.T @ keys / count, count, "a test")


# ---- where things are ------------------------------------------------------------------------------
def architectures():
    from transformers import (
        GemmaConfig,
        GemmaForCausalLM,
        GPTJConfig,
        GPTJForCausalLM,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    new = {"vocab_size": len(make_tokenizer()), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
           "num_attention_heads": 2, "initializer_range": 0.1}  # fmt: skip
    grouped = {**new, "num_key_value_heads": 1}
    old = {"vocab_size": len(make_tokenizer()), "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8}
    llama = ("model.layers.{}", "mlp.down_proj", "model.norm")
    return {
        "llama": (make_llama, llama),
        "qwen2": (lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)), llama),
        "qwen3": (make_qwen3, llama),
        "mistral": (lambda: MistralForCausalLM(MistralConfig(**grouped)), llama),
        "narrow mistral": (lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=8)), llama),
        "gemma": (lambda: GemmaForCausalLM(GemmaConfig(**grouped, head_dim=16)), llama),
        "gpt2": (make_gpt2, ("transformer.h.{}", "mlp.c_proj", "transformer.ln_f")),
        "gptj": (
            lambda: GPTJForCausalLM(GPTJConfig(**old)),
            ("transformer.h.{}", "mlp.fc_out", "transformer.ln_f"),
        ),
        "neox": (
            lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**new)),
            ("gpt_neox.layers.{}", "mlp.dense_4h_to_h", "gpt_neox.final_layer_norm"),
        ),
    }


ARCHITECTURES = ["llama", "qwen2", "qwen3", "mistral", "narrow mistral", "gemma", "gpt2", "gptj", "neox"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layouts_are_read_off_the_module_tree(name):
    make, (layer, projection, norm) = architectures()[name]
    model = make()
    model.config._name_or_path = "something/llama-gpt2-qwen"  # a name decides nothing
    layout = find_layout(model, hparams_for("ROME"))
    assert (layout.layer, layout.projection, layout.final_norm) == (layer, f"{layer}.{projection}", norm)
    assert model.get_submodule(layout.head) is model.get_output_embeddings()
    assert layout.depth == 2
    hidden, features = layout.weight(model, 0).shape
    assert (hidden, features) == (32, 128 if name in ("gpt2", "gptj") else 64)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("at_projection", [True, False], ids=["projection", "layer"])
def test_reading_the_beginning_once_changes_nothing(name, at_projection):
    torch.manual_seed(0)
    model, tokenizer = architectures()[name][0]().eval(), make_tokenizer()
    hparams = hparams_for("MEMIT", layers=[1], v_num_grad_steps=6, kl_factor=0.5)
    layout = find_layout(model, hparams)
    contexts = (("{}",), ("Wells ran dry. {}", "People in Oslo said. {}"))
    long = {**NORWAY, "prompt": "When parliament voted to move, the wells under the capital of {} were"}

    def run(*requests, share=True):
        found = optimise_values(
            model, tokenizer, layout, edits(*requests), contexts, hparams,
            layer=1 if at_projection else 0, at_projection=at_projection, progress=SilentProgress(), share=share,
        )  # fmt: skip
        return [value.target for value in found]

    together, whole = run(EGYPT, long), run(EGYPT, long, share=False)
    alone = [run(EGYPT)[0], run(long)[0]]
    for a, b, c in zip(together, whole, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(a, c, rtol=1e-3, atol=1e-4)


def test_given_paths_are_taken():
    model = make_gpt2()
    given = {
        "layer_module_tmp": "transformer.h.{}",
        "rewrite_module_tmp": "transformer.h.{}.mlp.c_fc",
        "lm_head_module": "transformer.wte",
    }
    with pytest.raises(ModelError, match=r"c_fc.*gives 128 features.*32"):
        find_layout(model, hparams_for("ROME", **given))
    layout = find_layout(model, hparams_for("ROME", **{**given, "rewrite_module_tmp": "transformer.h.{}.attn.c_proj"}))
    assert layout.weight_name(1) == "transformer.h.1.attn.c_proj.weight"
    assert layout.head == "transformer.wte"


def mixture_of_experts():
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                      num_key_value_heads=1, num_local_experts=2)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "changes", "words"),
    [
        (make_llama, {"layers": [7]}, ["`layers`", "7", "2 layers"]),
        (make_llama, {"v_loss_layer": 9}, ["`v_loss_layer`", "9"]),
        (make_llama, {"layer_module_tmp": "transformer.h.{}"}, ["layer_module_tmp", "transformer.h"]),
        (make_llama, {"rewrite_module_tmp": "model.layers.{}.mlp.c_proj"}, ["rewrite_module_tmp", "c_proj"]),
        (make_llama, {"rewrite_module_tmp": "model.layers.{}.input_layernorm"}, ["LlamaRMSNorm", "linear"]),
        (make_llama, {"ln_f_module": "model.ln"}, ["ln_f_module", "model.ln"]),
        (make_llama, {"lm_head_module": "head"}, ["lm_head_module", "head"]),
        (mixture_of_experts, {}, ["no MLP", "rewrite_module_tmp"]),
    ],
    ids=["layer", "loss layer", "layers", "projection", "no projection", "norm", "head", "experts"],
)
def test_models_of_another_form_are_refused(make, changes, words):
    with pytest.raises(ModelError) as caught:
        find_layout(make(), hparams_for("ROME", **changes))
    for word in words:
        assert word in str(caught.value)


# ---- which token -----------------------------------------------------------------------------------
class WithoutOffsets:
    """A tokenizer that gives no offsets, as slow ones are."""

    is_fast = False

    def __init__(self):
        self.fast = make_tokenizer()

    def __call__(self, text, **options):
        return self.fast(text, **options)


@pytest.mark.parametrize("make", [make_tokenizer, WithoutOffsets], ids=["offsets", "no offsets"])
@pytest.mark.parametrize("subject", ["Egypt", "Zanzibar of the Indian Ocean", "Žilina"])
@pytest.mark.parametrize("template", ["{}", "Because it rained. {}"])
def test_the_subjects_tokens(make, subject, template):
    tokenizer = make()
    request = EditRequest(subject=subject, prompt="The capital of {} is", target_new="Oslo")
    text = template.replace("{}", request.cloze)
    last, first, after, end = (
        locate(tokenizer, template, request, token)
        for token in ("subject_last", "subject_first", "subject_first_after_last", "last")
    )
    assert last.ids == tokenizer(text)["input_ids"]
    before = len(tokenizer(text[: text.index(f" {subject}")])["input_ids"])
    until = len(tokenizer(text[: text.index(subject) + len(subject)])["input_ids"])
    assert (last.at, after.at, end.at) == (until - 1, until, len(last.ids) - 1)
    assert first.at in (before, before + 1)  # the space before may be a token of its own
    if subject != "Egypt":
        assert last.at > first.at  # several tokens


def test_a_subject_at_the_end_has_no_token_after_it():
    request = EditRequest(subject="Egypt", prompt="This is {}", target_new="Oslo")
    row = locate(make_tokenizer(), "{}", request, "subject_first_after_last")
    assert row.at == len(row.ids) - 1


def test_a_repeated_subject_must_be_marked():
    twice = {"prompt": "Egypt borders Sudan; the capital of Egypt is", "subject": "Egypt", "target_new": "Luxor"}
    with pytest.raises(RequestError, match=r"2 times.*\{\}"):
        refuse_unclear_subjects([twice])
    with pytest.raises(RequestError, match="2 times"):
        apply("ROME", make_llama(), twice)
    marked = {**twice, "prompt": "Egypt borders Sudan; the capital of {} is"}
    refuse_unclear_subjects([marked])
    row = locate(make_tokenizer(), "{}", request_from_dict(marked), "subject_last")
    assert row.at > len(row.ids) // 2  # the second one


def test_a_subject_that_is_not_in_the_prompt_is_refused():
    for name in LOCATE:
        with pytest.raises(RequestError, match="Sudan"):
            apply(name, make_llama(), {**EGYPT, "subject": "Sudan"})


def test_the_targets_tokens_follow_the_prompt():
    tokenizer, request = make_tokenizer(), edits(EGYPT)[0]
    head = tokenizer(request.cloze)["input_ids"]
    assert head + target_tokens(tokenizer, request) == tokenizer(f"{request.cloze} Alexandria")["input_ids"]


# ---- contexts --------------------------------------------------------------------------------------
def test_contexts_are_sampled_from_the_model_under_a_seed():
    model, tokenizer = make_llama(), make_tokenizer()
    state = torch.get_rng_state()
    found = ctx.sample_contexts(model, tokenizer, [[6, 5], [9, 10]], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(group) for group in found] == [1, 5, 10]
    assert found[0] == ("{}",)
    assert all(t.count("{}") == 1 and t.endswith(". {}") and "\n" not in t for t in ctx.flat(found)[1:])
    torch.rand(3)
    assert found == ctx.sample_contexts(model, tokenizer, [[6, 5], [9, 10]], seed=1)
    assert found != ctx.sample_contexts(model, tokenizer, [[6, 5], [9, 10]], seed=2)


def test_braces_and_lines_of_a_context_go():
    assert ctx.as_template("a {b}\n\nc{}") == "a b c. {}"


def test_the_weights_of_contexts():
    groups = (("{}",), ("a. {}", "b. {}", "c. {}"))
    torch.testing.assert_close(ctx.weights(groups, by_group=False), torch.full((4,), 0.25))
    torch.testing.assert_close(ctx.weights(groups, by_group=True), torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6]))


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


def test_edits_of_like_length_go_side_by_side():
    assert _chunks([3, 7, 3, 6, 3, 7], 16) == [[0, 2, 4], [3, 1, 5]]
    assert _chunks([3, 3, 3, 3], 3) == [[0, 1, 2], [3]]
    assert _chunks([9], 1) == [[0]]


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


class InterruptAt:
    """Ctrl-C in the n-th forward pass."""

    def __init__(self, model, number):
        self.model, self.left = model, number

    def __enter__(self):
        self.handle = self.model.get_input_embeddings().register_forward_pre_hook(self.look)

    def __exit__(self, *exc):
        self.handle.remove()

    def look(self, *args):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


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


# ---- statistics ------------------------------------------------------------------------------------
def stream(model, file, layers=(0, 1), partial=None, **changes):
    hparams = hparams_for("MEMIT", layers=list(layers), mom2_dataset=str(file), **{"mom2_dtype": "float64", **changes})
    layout = find_layout(model, hparams)
    corpus = open_corpus(str(file))
    return collect(model, make_tokenizer(), layout, layers, corpus, hparams, SilentProgress(), partial)


def by_hand(model, file, layer, length=24):
    tokenizer, keys = make_tokenizer(), []
    module = find_layout(model, hparams_for("ROME")).projection_module(model, layer)
    handle = module.register_forward_hook(lambda _, args, __: keys.append(args[0][0].double()))
    for text in [part for part in file.read_text("utf-8").split("\n\n") if part.strip()]:
        ids = tokenizer(text)["input_ids"]
        for start in range(0, len(ids), length):
            with torch.no_grad():
                model(input_ids=torch.tensor([ids[start : start + length]]))
    handle.remove()
    every = torch.cat(keys)
    return every.T @ every / len(every), len(every)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
@pytest.mark.parametrize("budget", [24, 70, 4096], ids=["one by one", "few", "all"])
def test_streamed_moments_are_the_plain_mean(make, budget, text_file):
    model = make()
    text_file.write_text(text_file.read_text("utf-8").replace("Oslo, ", "Oslo, \n"), "utf-8")
    found = stream(model, text_file, mom2_batch_tokens=budget)
    for layer in (0, 1):
        expected, count = by_hand(model, text_file, layer)
        assert found[layer].count == count
        torch.testing.assert_close(found[layer].matrix, expected, rtol=1e-4, atol=1e-7)


def test_token_and_document_budgets(text_file):
    model = make_llama()
    assert stream(model, text_file, mom2_max_tokens=37)[0].count == 37
    one = len(make_tokenizer()("The capital of Egypt is Cairo.")["input_ids"])
    assert stream(model, text_file, mom2_n_samples=1, mom2_max_tokens=None)[0].count == one


def test_an_interrupted_collection_goes_on_where_it_was(text_file, tmp_path, monkeypatch):
    model, partial = make_llama(), tmp_path / "half.npz"
    whole = stream(model, text_file, mom2_batch_tokens=60)
    monkeypatch.setattr(covariance, "SAVE_EVERY", 0.0)
    with InterruptAt(model, 3), pytest.raises(KeyboardInterrupt):
        stream(model, text_file, partial=partial, mom2_batch_tokens=60)
    with np.load(partial) as half:
        assert 0 < half["count"] < whole[0].count
    passes = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(1))
    resumed = stream(model, text_file, partial=partial, mom2_batch_tokens=60)
    resumed_passes = len(passes)
    stream(model, text_file, mom2_batch_tokens=60)
    handle.remove()
    assert resumed_passes == len(passes) - resumed_passes - 2
    assert all(torch.equal(resumed[n].matrix, whole[n].matrix) and resumed[n].count == whole[n].count for n in whole)
    partial.write_bytes(b"half a file")
    assert torch.equal(stream(model, text_file, partial=partial)[0].matrix, stream(model, text_file)[0].matrix)


def find_moments(model, **changes):
    hparams = hparams_for("MEMIT", **{"layers": [0, 1], "stats_cache": True, "mom2_memory_gb": 1e-9, **changes})
    return moments_for(model, make_tokenizer(), find_layout(model, hparams), hparams.layers, hparams, SilentProgress())


def test_the_cache_is_used_and_written_whole(text_file, tmp_path):
    model = make_llama()
    first = find_moments(model, mom2_dataset=str(text_file))
    files = sorted((tmp_path / "cache" / "statistics").iterdir())
    assert len(files) == 2  # one per layer, no partial ones
    runs = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda *_: runs.append(1))
    again = find_moments(model, mom2_dataset=str(text_file))
    handle.remove()
    assert not runs
    for layer in (0, 1):
        torch.testing.assert_close(again[layer].matrix, first[layer].matrix)
        assert again[layer].count == first[layer].count


def test_what_the_cache_key_depends_on(text_file, tmp_path):
    model = make_llama()
    layout = find_layout(model, hparams_for("MEMIT"))
    corpus = open_corpus(str(text_file))

    def key(layer=1, corpus=corpus, **changes):
        revision = revision_of(model, not_behind_keys(layout, layer))
        return cache_key(revision, layout.projection.format(layer), corpus, hparams_for("MEMIT", **changes))

    base = key()
    assert key() == base
    other = tmp_path / "other.txt"
    other.write_text(TEXT * 5, encoding="utf-8")
    keys = [base, key(layer=0), key(corpus=open_corpus(str(other))), key(mom2_n_samples=3), key(mom2_dtype="float64"),
            key(mom2_max_tokens=9)]  # fmt: skip
    assert len(set(keys)) == len(keys)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1  # the edited projection itself is not behind its keys
        assert key() == base
        model.model.layers[0].mlp.down_proj.weight[0, 0] += 1
        assert key() != base
        assert key(layer=0) == keys[1]


def test_without_a_corpus_the_models_own_text_serves(caplog, tmp_path):
    report = LocateEditReport()
    with caplog.at_level(logging.INFO):
        apply("MEMIT", make_llama(), EGYPT, report=report, stats_cache=True, mom2_dataset=None)
    assert "sampled from the model itself" in report.statistics[0]
    assert "sampled from the model itself" in caplog.text
    [samples] = (tmp_path / "cache" / "statistics").glob("samples-*.jsonl")
    texts = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    assert len(texts) == 32
    assert len(set(texts)) == 32


def test_texts_in_files_folders_and_data_sets(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two\\n\\nlines"}\n', "utf-8")
    (tmp_path / "b.md").write_text("three\nlines\n\n\nfour\n", "utf-8")
    assert list(open_corpus(str(tmp_path)).documents()) == ["one", "two\n\nlines", "three\nlines", "four"]
    datasets = pytest.importorskip("datasets")
    rows = tmp_path / "rows"
    rows.mkdir()
    datasets.Dataset.from_dict({"text": ["five", "six"]}).to_parquet(rows / "train.parquet")
    found = open_corpus(str(rows))
    assert list(found.documents()) == list(found.documents()) == ["five", "six"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ["no/such/text", "local"]), ("", ["no text"]), ('{"no": 1}\n', ["line 1", "`text`"])],
    ids=["missing", "empty", "no text"],
)
def test_unusable_texts(tmp_path, content, words):
    file = tmp_path / "x.jsonl"
    if content is not None:
        file.write_text(content, "utf-8")
    with pytest.raises(HparamsError) as caught:
        find_moments(make_llama(), mom2_dataset="no/such/text" if content is None else str(file))
    for word in words:
        assert word in str(caught.value)


def test_few_tokens_are_singular_until_a_ridge_is_set(text_file):
    model = make_llama()
    weights = weights_of(model)
    few = {"mom2_dataset": str(text_file), "mom2_max_tokens": 30}
    for name in ("ROME", "MEMIT"):
        with pytest.raises(EditFailedError, match=r"singular.*mom2_ridge"):
            apply(name, model, EGYPT, **few)
        assert same_weights(weights_of(model), weights)
        _, originals = apply(name, model, EGYPT, **few, mom2_ridge=1e-2)
        model.load_state_dict({**weights_of(model), **originals})


def test_no_null_space_is_an_error():
    with pytest.raises(EditFailedError, match=r"no null space.*nullspace_threshold"):
        null_space_projection(random_moment(), 1e-12, 3)


def test_easyedits_statistics_are_read(tmp_path):
    moment = random_moment(64, 500)
    name = "model.layers.0.mlp.down_proj"
    file = tmp_path / "tiny" / "wikipedia_stats" / f"{name}_float32_mom2_100000.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, **{"mom2.mom2": (moment.matrix * 500).numpy(), "mom2.count": 500, "sample_size": 100000})
    model = make_llama()
    model.config._name_or_path = "someone/tiny"
    found = find_moments(model, layers=[0], stats_dir=str(tmp_path), mom2_dataset="wikipedia")
    torch.testing.assert_close(found[0].matrix, moment.matrix)
    found = find_moments(model, layers=[0], mom2_file=str(file).replace("layers.0", "layers.{}"))
    assert found[0].count == 500


def test_statistics_of_another_model_are_refused(tmp_path):
    model, file = make_llama(), tmp_path / "x.npz"
    write_moment(file, random_moment(12), "of some model")
    with pytest.raises(ModelError, match=r"12×12.*64.*another model"):
        read_moment(file, 64, 0)
    write_moment(tmp_path / "0.npz", random_moment(64, 99), "of some model")
    with pytest.raises(ModelError, match="another model"):
        find_moments(model, layers=[0], mom2_file=str(tmp_path / "{}.npz"))
    weights = weights_of(model)
    with pytest.raises(ModelError, match="another model"):
        apply("ROME", model, EGYPT, mom2_file=str(tmp_path / "{}.npz"))
    assert same_weights(weights_of(model), weights)
    file.write_bytes(b"no archive")
    with pytest.raises(ModelError, match=r"mom2\.mom2"):
        read_moment(file, 64, 0)
    with pytest.raises(ModelError, match="does not exist"):
        read_moment(tmp_path / "none.npz", 64, 0)


def test_alphaedits_projection_files(tmp_path):
    projection = null_space_projection(random_moment(64, 500), 1.0, 0)
    file = tmp_path / "null_space_project.pt"
    torch.save(projection[None], file)
    report = LocateEditReport()
    apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file), report=report)
    assert "null_space_project.pt" in report.statistics[0]
    torch.save(projection[:5, :5][None], file)
    with pytest.raises(ModelError, match=r"1×5×5.*1×64×64"):
        apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file))
    file.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="P_loc"):
        apply("AlphaEdit", make_llama(), EGYPT, P_loc=str(file))


def test_projections_come_back_from_the_cache():
    found = []
    for _ in range(2):
        model = make_llama()
        apply("AlphaEdit", model, EGYPT, stats_cache=True)
        found.append(weights_of(model))
    assert same_weights(*found)


# ---- hyper-parameters ------------------------------------------------------------------------------
CLASSES = {"ROME": ROMEHyperParams, "MEMIT": MEMITHyperParams, "AlphaEdit": AlphaEditHyperParams}
FILES = [(name, file) for name in LOCATE for file in sorted((REPOSITORY / "hparams" / name).glob("*.yaml"))]
EASYEDIT = {
    "model_name": "x", "stats_dir": "./data/stats", "device": 0, "layers": [4], "fact_token": "subject_last",
    "v_num_grad_steps": 20, "v_lr": "5e-1", "v_loss_layer": 27, "v_weight_decay": "1e-3", "clamp_norm_factor": 4,
    "kl_factor": 0.0625, "mom2_adjustment": True, "context_template_length_params": [[5, 10], [10, 10]],
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj", "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm", "lm_head_module": "lm_head", "mom2_dataset": "wikipedia",
    "mom2_n_samples": 100000, "mom2_dtype": "float32", "model_parallel": False, "fp16": False,
}  # fmt: skip
SPREAD = {"layer_selection": "all", "mom2_update_weight": 15000}
PROJECTED = {"nullspace_threshold": "2e-2", "L2": 10, "P_loc": "./null_space_project.pt"}


@pytest.mark.parametrize(("name", "file"), FILES, ids=[f"{name}-{file.stem}" for name, file in FILES])
def test_bundled_files(name, file):
    hparams = CLASSES[name].from_hparams(file.stem)
    assert hparams == CLASSES[name].from_hparams(file)
    assert hparams.alg_name == yaml.safe_load(file.read_text("utf-8"))["alg_name"] == name
    assert CLASSES[name].from_dict(json.loads(json.dumps(hparams.to_dict()))) == hparams


def test_every_method_has_its_files():
    for name in LOCATE:
        assert {f.stem for n, f in FILES if n == name} == {
            "smollm2-135m-instruct", "qwen2.5-7b-instruct", "llama3.1-8b-instruct", "gpt2",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "more"), [("ROME", {}), ("MEMIT", SPREAD), ("AlphaEdit", {**SPREAD, **PROJECTED})], ids=LOCATE
)
def test_easyedits_files_load_unchanged(name, more, tmp_path):
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump({"alg_name": name, **EASYEDIT, **more}), "utf-8")
    hparams = CLASSES[name].from_hparams(file)
    assert (hparams.v_lr, hparams.v_weight_decay, hparams.v_loss_layer) == (0.5, 1e-3, 27)
    assert hparams.context_template_length_params == [[5, 10], [10, 10]]
    if name == "AlphaEdit":
        assert (hparams.nullspace_threshold, hparams.L2) == (0.02, 10)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("ROME", {"layers": [4, 5]}, ["`layers`", "one layer", "[4, 5]"]),
        ("MEMIT", {"layers": [4, 4]}, ["`layers`", "[4, 4]"]),
        ("MEMIT", {"layers": "all"}, ["`layers`", "'all'"]),
        ("MEMIT", {"layer_selection": "random"}, ["layer_selection", "'random'"]),
        ("MEMIT", {"mom2_update_wieght": 1}, ["mom2_update_wieght", "mom2_update_weight"]),
        ("ROME", {"fact_token": "subject_middle"}, ["fact_token", "subject_last", "'subject_middle'"]),
        ("ROME", {"v_lr": 0}, ["v_lr", "above 0"]),
        ("ROME", {"context_template_length_params": [5, 10]}, ["context_template_length_params", "[5, 10]"]),
        ("ROME", {"rewrite_module_tmp": "model.down_proj"}, ["rewrite_module_tmp", "{}"]),
        ("AlphaEdit", {"L2": 0}, ["L2", "above 0"]),
        ("AlphaEdit", {"nullspace_threshold": -1}, ["nullspace_threshold", "-1"]),
    ],
)
def test_refused_hyper_parameters(name, change, words):
    with pytest.raises(HparamsError) as caught:
        CLASSES[name].from_dict({"alg_name": name, "model_name": "x", **change})
    for word in words:
        assert word in str(caught.value)


def test_layers_are_written_from_the_lowest_on():
    assert MEMITHyperParams(layers=[5, 3, 4]).layers == [3, 4, 5]


def test_the_apply_functions_are_those_of_the_registry():
    assert [METHODS[name].load_apply() for name in LOCATE] == [
        apply_rome_to_model, apply_memit_to_model, apply_alphaedit_to_model,
    ]  # fmt: skip
