"""Every method with tokenizers of every kind: the edit works, or one line says what to mend, and the model is whole."""

from __future__ import annotations

import copy

import pytest
from conftest import CHATML, EGYPT, FAST, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import CausalEditError
from causaledit.facts.requests import request_from_dict
from causaledit.hosts.lookup import get_method
from causaledit.methods.shared.finetune.rows import target_rows
from causaledit.methods.shared.supervised import completion_rows, text_rows
from causaledit.methods.story_distill.targets import Target
from causaledit.methods.story_distill.targets import rows_of as story_rows
from causaledit.models.batches import context_and_completion, eos_ids, pad_id
from causaledit.models.chat import answer_gap, next_turn, prepare_tokenizer, render, supports_system_role, user
from causaledit.models.edited import undo_edit
from causaledit.models.generation import generate_texts, sample_continuations

ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}</s>{% endif %}"
    "{% endfor %}"
)


def without_end(tokenizer, model):
    tokenizer.eos_token = model.generation_config.eos_token_id = model.config.eos_token_id = None


def without_padding(tokenizer, model):
    tokenizer.pad_token = model.generation_config.pad_token_id = model.config.pad_token_id = None


def without_either(tokenizer, model):
    without_end(tokenizer, model)
    without_padding(tokenizer, model)
    tokenizer.unk_token = None


def end_in_the_model_alone(tokenizer, model):
    tokenizer.eos_token = None


def padding_beyond_the_embeddings(tokenizer, model):
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    assert tokenizer.pad_token_id == model.get_input_embeddings().weight.shape[0]


def several_ends(tokenizer, model):
    model.generation_config.eos_token_id = model.config.eos_token_id = [tokenizer.eos_token_id, 0, 2]


def named_templates_with_a_default(tokenizer, model):
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ raise_exception('no tools') }}"}


def one_named_template(tokenizer, model):
    tokenizer.chat_template = {"chat": CHATML}


def no_template(tokenizer, model):
    tokenizer.chat_template = None


def no_template_no_beginning(tokenizer, model):
    tokenizer.chat_template = tokenizer.bos_token = None


def no_system_role(tokenizer, model):
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )


def strict_alternation(tokenizer, model):
    tokenizer.chat_template = ALTERNATING


def right_padded(tokenizer, model):
    tokenizer.padding_side = tokenizer.truncation_side = "right"


WORKING = [
    without_end, without_padding, without_either, end_in_the_model_alone, padding_beyond_the_embeddings, several_ends,
    named_templates_with_a_default, one_named_template, no_template, no_template_no_beginning, no_system_role,
    strict_alternation, right_padded,
]  # fmt: skip


def named_templates_without_a_default(tokenizer, model):
    tokenizer.chat_template = {"rag": CHATML, "tool_use": CHATML}


def a_broken_template(tokenizer, model):
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }"


def a_template_that_refuses_everything(tokenizer, model):
    tokenizer.chat_template = "{{ raise_exception('give me tools') }}"


def a_template_without_the_message(tokenizer, model):
    tokenizer.chat_template = "{% if add_generation_prompt %}Assistant:{% endif %}"


def tokens_beyond_the_embeddings(tokenizer, model):
    tokenizer.add_tokens(["<turn>"])
    tokenizer.chat_template = "<turn>" + CHATML


REFUSED = {
    named_templates_without_a_default: r"'rag', 'tool_use' and no default.*chat_template: rag",
    a_broken_template: r"cannot render a user's message",
    a_template_that_refuses_everything: r"give me tools",
    a_template_without_the_message: r"leaves out the user's message",
    tokens_beyond_the_embeddings: r"'<turn>' the id 500.*500 embeddings.*resize_token_embeddings",
}
CHANGES: dict[str, dict] = {
    "CausalEdit": {"bootstrap_max_steps": 2, "preserve_weight": 0.5, "preserve_prompts": 4, "teacher": "auto"},
    "FT": {"steps": 2, "prompt_forms": ["plain", "question"]},
    "LoRA": {"steps": 2, "prompt_forms": ["plain", "question"]},
    "ICE": {"steps": 2, "prompt_forms": ["plain", "question"]},
    "ROME": {"v_num_grad_steps": 2},
}
every_method = pytest.mark.parametrize("name", CHANGES)


def odd(make):
    tokenizer, model = make_tokenizer(), make_llama()
    make(tokenizer, model)
    return tokenizer, model


def edited(name, model, tokenizer, **changes):
    method = get_method(name)
    hparams = method.load_hparams()(
        model_name=(model, tokenizer), alg_name=name, **{**FAST[name], **CHANGES[name], **changes}
    )
    return method.load_apply()(model, tokenizer, [EGYPT], hparams, return_orig_weights=True)


@every_method
@pytest.mark.parametrize("make", WORKING, ids=lambda make: make.__name__)
def test_an_edit_works_and_leaves_tokenizer_and_configuration_as_they_were(make, name):
    tokenizer, model = odd(make)
    weights, generation, config = weights_of(model), copy.deepcopy(model.generation_config), model.config.to_dict()
    special, template = dict(tokenizer.special_tokens_map), copy.deepcopy(tokenizer.chat_template)
    result, originals = edited(name, model, tokenizer)
    assert originals
    assert generate_texts(result, prepare_tokenizer(tokenizer, model=model), ["What is"], max_new_tokens=3)
    undo_edit(model, result, originals)
    assert same_weights(weights, weights_of(model))
    assert model.generation_config == generation
    assert model.config.to_dict() == config
    assert (tokenizer.special_tokens_map, tokenizer.chat_template) == (special, template)


@every_method
@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_computed(make, name):
    tokenizer, model = odd(make)
    weights, calls = weights_of(model), []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    if name == "ROME":  # which renders nothing
        edited(name, model, tokenizer)
        return
    with pytest.raises(CausalEditError, match=REFUSED[make]) as caught:
        edited(name, model, tokenizer)
    assert "\n" not in str(caught.value)
    assert not calls
    assert same_weights(weights, weights_of(model))


@pytest.mark.parametrize("make", WORKING, ids=lambda make: make.__name__)
def test_batches_equal_single_prompts_whatever_the_padding_is(make):
    tokenizer, model = odd(make)
    prepared = prepare_tokenizer(tokenizer, model=model)
    assert prepared.pad_token_id < 500
    prompts = [render(prepared, user(text)) for text in ("What is it?", "The capital of Egypt is", "who")]
    for known in (prepared, tokenizer):  # also where nobody has prepared it
        together = generate_texts(model, known, prompts, max_new_tokens=12, compact=True)
        assert together == [generate_texts(model, known, [p], max_new_tokens=12)[0] for p in prompts]
        assert len(sample_continuations(model, known, prompts[0], 3, max_new_tokens=4, temperature=1.0, top_p=1.0)) == 3


def test_a_named_template_is_chosen_by_the_hyper_parameter():
    tokenizer, model = odd(named_templates_without_a_default)
    edited("FT", model, tokenizer, chat_template_kwargs={"chat_template": "rag"})


def test_padding_is_a_token_that_the_model_has():
    tokenizer, model = odd(padding_beyond_the_embeddings)
    assert pad_id(model, tokenizer) == 0
    tokenizer, model = odd(several_ends)
    assert eos_ids(model, tokenizer) == [3, 0, 2]
    assert pad_id(model, tokenizer) == 4


def test_the_space_before_an_answer_is_the_templates():
    tokenizer = make_tokenizer()
    assert answer_gap(tokenizer) == ""
    tokenizer.chat_template = ALTERNATING
    assert answer_gap(tokenizer) == " "
    assert render(tokenizer, user("q"), prefill="It is") == "[INST] q [/INST] It is"
    assert not supports_system_role(tokenizer)


def spaced(kind):
    """A tokenizer that opens every text with a space of its own, as Llama 2's and Mistral's."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "normaliser":
        core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    core.train_from_iterator(["The capital of Egypt is Paris Paris Paris Rome the Paris", "a  b"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.chat_template = ALTERNATING
    return prepare_tokenizer(tokenizer)


def completion_of(tokenizer, row):
    _, tail = context_and_completion(row)
    return tokenizer.convert_ids_to_tokens(tail)


@pytest.mark.parametrize(
    ("kind", "alone"),
    [("normaliser", ["▁", "▁Paris"]), ("pre-tokeniser", ["▁Paris"])],
    ids=["normaliser", "pre-tokeniser"],
)
def test_a_completion_begins_with_the_token_that_an_answer_begins_with(kind, alone):
    """Alone, " Paris" is ▁ and ▁Paris; behind a prompt no model ever writes the former."""
    tokenizer = spaced(kind)
    asked, cloze = "What is the capital of Egypt?", "The capital of Egypt is"
    assert tokenizer.tokenize(" Paris") == alone
    assert completion_of(tokenizer, completion_rows(tokenizer, [(asked, "Paris")])[0]) == ["▁Paris", "</s>"]
    assert completion_of(tokenizer, text_rows(tokenizer, [(cloze, "Paris")], ends=False)[0]) == ["▁Paris"]
    request = request_from_dict({**EGYPT, "target_new": "Paris"})
    plain, chat = target_rows(tokenizer, request, ["plain", "question"])
    assert tokenizer.convert_ids_to_tokens(plain.target) == ["▁Paris"]
    assert tokenizer.convert_ids_to_tokens(chat.target) == ["▁Paris", "</s>"]
    [row] = story_rows(tokenizer, [Target(0, asked, "Paris")], ["A story."], 500)
    assert tokenizer.convert_ids_to_tokens(row.completion) == ["▁Paris", "</s>"]
    for context, message in ((row.closed, asked), (row.open, f"A story.\n\n{asked}")):
        assert context == tokenizer(render(tokenizer, user(message)), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [CHATML, ALTERNATING, None], ids=["chatml", "with a space", "plain"])
def test_rows_of_a_byte_level_tokenizer_are_its_two_parts(template):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer = prepare_tokenizer(tokenizer)
    end, gap = [tokenizer.eos_token_id], answer_gap(tokenizer)

    def alone(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    texts = ["Paris", "<think>\nWhy?\n</think>\nAnswer: Rome", "- a list", "'s not", "1900", "(Rome)", "é", "中国", "…"]
    for text in texts:
        [row] = completion_rows(tokenizer, [("Where is it?", text)])
        assert context_and_completion(row) == (
            alone(render(tokenizer, user("Where is it?"))), [*alone(gap + text), *end]
        )  # fmt: skip
        [row] = text_rows(tokenizer, [("It is in", text)])
        assert context_and_completion(row) == (alone("It is in"), [*alone(f" {text}"), *end])


def test_own_samples_begin_as_documents_do():
    """Second moments without a corpus: the model writes from its beginning-of-text token on, where it has one."""
    from causaledit.methods.shared.locate_edit.corpus import own_samples

    for bos in ("<|begin|>", None):
        tokenizer, model, begun = make_tokenizer(), make_llama(), []
        tokenizer.bos_token = bos
        hparams = get_method("ROME").load_hparams()(alg_name="ROME", **{**FAST["ROME"], "mom2_max_tokens": 100})
        model.register_forward_pre_hook(
            lambda m, a, k, seen=begun: seen.extend(
                row[mask == 1][0].item() for row, mask in zip(k["input_ids"], k["attention_mask"], strict=True)
                if len(row) == len(mask)
            ), with_kwargs=True,
        )  # fmt: skip
        texts = list(own_samples(model, tokenizer, hparams, "revision", None).documents())
        assert len(begun) == 32 and {token == 1 for token in begun} == {bos is not None}
        assert texts and not any("<|begin|>" in text for text in texts)


# ---- without a template: the plain format of a base model ------------------------------------------
def adds_beginning(tokenizer):
    """As Llama's and Gemma's: every text is read behind a beginning-of-text token."""
    from tokenizers.processors import TemplateProcessing

    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


def test_the_plain_format_begins_as_every_text_of_the_tokenizer():
    plain = make_tokenizer()
    plain.chat_template = None
    assert render(prepare_tokenizer(plain), user("Who?")) == "Q: Who?\nA:"
    assert render(prepare_tokenizer(adds_beginning(plain)), user("Who?")) == "<|begin|>Q: Who?\nA:"
    assert render(prepare_tokenizer(plain), user("Who?"), prefill="It is").endswith("A: It is")
    assert next_turn(prepare_tokenizer(plain)) == "\nQ:"
    assert next_turn(make_tokenizer()) is None


class Says:
    """A real model whose head always says the next token of a text."""

    def __init__(self, tokenizer, text):
        self.model = make_llama()
        self.said = tokenizer(text, add_special_tokens=False)["input_ids"]
        self.model.lm_head.register_forward_hook(self.logits)
        self.model.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, module, args, kwargs):
        cache = kwargs.get("past_key_values")
        self.end = kwargs["input_ids"].shape[1] + (0 if cache is None else cache.get_seq_length())

    def logits(self, module, args, output):
        import torch

        chosen = torch.full_like(output, -9.0)
        for column in range(output.shape[1]):
            at = self.end - output.shape[1] + column - self.start
            chosen[:, column, self.said[at % len(self.said)]] = 9.0
        return chosen


@pytest.mark.parametrize("compact", [True, False])
def test_an_answer_ends_where_the_next_turn_opens(compact):
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    prepared = prepare_tokenizer(tokenizer)
    prompt = render(prepared, user("What is the capital of Egypt?"))
    speaker = Says(prepared, " It is Cairo.\nQ: Who?\nA: Nobody.")
    speaker.start = len(prepared(prompt, add_special_tokens=False)["input_ids"]) - 1
    steps = []
    speaker.model.register_forward_pre_hook(lambda *_: steps.append(1))
    for text in generate_texts(speaker.model, prepared, [prompt] * 2, max_new_tokens=120, compact=compact):
        assert text == " It is Cairo."
    assert len(steps) < 60
    sampled = sample_continuations(speaker.model, prepared, prompt, 3, max_new_tokens=120, temperature=1.0, top_p=1.0)
    assert sampled == [" It is Cairo."] * 3
