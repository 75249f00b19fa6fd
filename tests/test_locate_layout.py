"""Where a locate-then-edit method looks: modules, tokens, contexts."""

from __future__ import annotations

import pytest
import torch
from conftest import (
    EGYPT,
    NORWAY,
    make_gpt2,
    make_llama,
    make_tokenizer,
)
from locate import ARCHITECTURES, LOCATE, apply, architectures, edits, hparams_for

from causaledit.errors import ModelError, RequestError
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.methods.shared.locate_edit import contexts as ctx
from causaledit.methods.shared.locate_edit.editor import LocateEditReport
from causaledit.methods.shared.locate_edit.subjects import locate, refuse_unclear_subjects, target_tokens
from causaledit.methods.shared.locate_edit.values import optimise_values
from causaledit.models.layout import find_layout
from causaledit.support.progress import SilentProgress

pytestmark = pytest.mark.usefixtures("own_files")


# ---- where things are ------------------------------------------------------------------------------
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
    assert (hidden, features) == (32, 128 if name in ("gpt2", "gptj", "mpt") else 64)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("at_projection", [True, False], ids=["projection", "layer"])
def test_reading_the_beginning_once_changes_nothing(name, at_projection):
    torch.manual_seed(0)
    model, tokenizer = architectures()[name][0]().eval(), make_tokenizer()
    # in the last layer only the prompt's last token moves the answer: elsewhere Adam would step on rounding errors
    token = "last" if at_projection else "subject_last"
    hparams = hparams_for("MEMIT", layers=[1], v_num_grad_steps=6, kl_factor=0.5, fact_token=token)
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
    ("make", "changes", "said"),
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
def test_models_of_another_form_are_refused(make, changes, said):
    with pytest.raises(ModelError) as caught:
        find_layout(make(), hparams_for("ROME", **changes))
    for word in said:
        assert word in str(caught.value)


def projecting_opt():
    """As OPT-350M: narrower embeddings with a projection behind the layers, and no norm there."""
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=len(make_tokenizer()), hidden_size=32, word_embed_proj_dim=16, do_layer_norm_before=False,
        ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, init_std=0.2, dropout=0.0,
    )  # fmt: skip
    return OPTForCausalLM(config).eval()


@pytest.mark.parametrize("name", LOCATE)
def test_a_decoder_without_a_last_norm_is_edited(name):
    model, report = projecting_opt(), LocateEditReport()
    apply(name, model, EGYPT, report=report, v_stop_loss=0.0)
    assert report.losses["value"][-1] < report.losses["value"][0] - 0.1
    if name != "ROME":
        with pytest.raises(ModelError, match=r"`v_loss_layer` is 0.*ln_f_module.*v_loss_layer: null"):
            apply(name, projecting_opt(), EGYPT, v_loss_layer=0)


def test_a_projection_that_stands_in_two_layers_is_refused():
    model = make_llama()
    model.model.layers[1].mlp.down_proj.weight = model.model.layers[0].mlp.down_proj.weight
    with pytest.raises(ModelError, match="tied weights"):
        find_layout(model, hparams_for("ROME"))


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
