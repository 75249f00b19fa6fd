"""Token accuracy asks as generation does: who greedily says the answer has 1.0, whatever the tokenizer adds."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import CHATML, EGYPT, NORWAY, SPECIAL_TOKENS, make_llama, make_tokenizer

from causaledit.facts.request_probes import QuestionAnswer
from causaledit.hosts.token_accuracy import answer_accuracy, perplexity, predicted_tokens, target_row
from causaledit.models.chat import PLAIN_TEMPLATE, prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts

PROMPT, ANSWER = "The capital of Egypt is", "Alexandria"
QUESTION = "What is the capital of Egypt?"

# closed by the end-of-turn token of the test tokenizers
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n"
    "{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
OPEN_ENDED = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "instruct": INSTRUCT,
    "headers": HEADERS,
    "plain": PLAIN_TEMPLATE,
    "open-ended": OPEN_ENDED,
    "thoughts": THOUGHTS,
}


def special_tokens(tokenizer, *, bos=False, eos=False):
    """A tokenizer that adds BOS or EOS by itself."""
    from tokenizers.processors import TemplateProcessing

    parts = ["<|begin|>"] * bos + ["$A"] + ["<|im_end|>"] * eos
    names = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<|begin|>", "<|im_end|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=" ".join(parts), special_tokens=names)
    return tokenizer


def sentencepiece_like(scheme: str):
    """Words carry their space as ▁, and a text gets one before it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme)
    text = [str(value) for request in (EGYPT, NORWAY) for value in request.values()] + list(TEMPLATES.values())
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=SPECIAL_TOKENS, show_progress=False)
    core.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<|begin|>", eos_token="<|im_end|>", pad_token="<|pad|>",
        unk_token="<|endoftext|>", additional_special_tokens=["<|im_start|>"],
    )  # fmt: skip


TOKENIZERS = {
    "byte-level": make_tokenizer,
    "byte-level, BOS": lambda: special_tokens(make_tokenizer(), bos=True),
    "byte-level, EOS": lambda: special_tokens(make_tokenizer(), eos=True),
    "byte-level, both": lambda: special_tokens(make_tokenizer(), bos=True, eos=True),
    "prefix space": lambda: sentencepiece_like("always"),
    "prefix space first, both": lambda: special_tokens(sentencepiece_like("first"), bos=True, eos=True),
    "no prefix space, BOS": lambda: special_tokens(sentencepiece_like("never"), bos=True),
}


def taught(tokenizer, ids):
    """A tiny model trained until it says the last tokens of `ids` behind the others."""
    model = make_llama(tie_word_embeddings=False).train()
    model.resize_token_embeddings(max(len(tokenizer), model.config.vocab_size))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    row = torch.tensor([ids])
    for _ in range(60):
        loss = model(input_ids=row, labels=row).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_whoever_says_the_answer_in_the_chat_has_all_of_it_right(name, template):
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = TEMPLATES[template]
    prepared = prepare_tokenizer(tokenizer)
    head = render(prepared, user(QUESTION))
    # what a chat model was trained on: the tokens of the whole conversation
    whole = tokenizer.apply_chat_template([*user(QUESTION), {"role": "assistant", "content": ANSWER}], tokenize=False)
    if template == "thoughts":  # a template that writes more than it opens with: the model answers at once
        whole = f"{head}{ANSWER}<|im_end|>\n"
    if template == "plain":  # it has no end of a turn
        whole = f"{whole.rstrip()}<|im_end|>"
    opened = tokenizer(head, add_special_tokens=False)["input_ids"]
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    if ids[: len(opened)] != opened:  # the opening's last space is part of the answer's token
        bare = tokenizer(f"\n{ANSWER}<|im_end|>", add_special_tokens=False)["input_ids"]
        ids = opened + bare[len(tokenizer("\n", add_special_tokens=False)["input_ids"]) :]
    model = taught(tokenizer, ids)
    [said] = generate_texts(model, prepared, [head], max_new_tokens=16)
    assert said.strip() == ANSWER
    asked = [QuestionAnswer(QUESTION, ANSWER)]
    assert answer_accuracy(model, tokenizer, asked, use_chat_template=True) == [1.0]
    row = target_row(model, tokenizer, QUESTION, ANSWER, use_chat_template=True)
    assert row.prompt == opened
    assert row.prompt.count(tokenizer.bos_token_id) == head.count("<|begin|>")
    assert tokenizer.eos_token_id not in row.target


@pytest.mark.parametrize("name", TOKENIZERS)
def test_whoever_completes_the_prompt_has_all_of_it_right(name):
    tokenizer = TOKENIZERS[name]()
    full = tokenizer(f"{PROMPT} {ANSWER}")["input_ids"]
    model = taught(tokenizer, full)
    row = target_row(model, tokenizer, PROMPT, ANSWER)
    assert row.prompt + row.target == [i for i in full if i != tokenizer.eos_token_id]
    assert row.prompt.count(tokenizer.bos_token_id) == full.count(tokenizer.bos_token_id)
    assert answer_accuracy(model, tokenizer, [QuestionAnswer(PROMPT, ANSWER)], use_chat_template=False) == [1.0]
    output = model.generate(torch.tensor([row.prompt]), max_new_tokens=len(row.target), do_sample=False, pad_token_id=0)
    assert output[0, len(row.prompt) :].tolist() == row.target


def test_a_prompt_that_brings_its_bos_gets_no_second_one():
    tokenizer = special_tokens(make_tokenizer(), bos=True)
    row = target_row(make_llama(), tokenizer, f"<|begin|>{PROMPT}", ANSWER)
    assert row.prompt == target_row(make_llama(), tokenizer, PROMPT, ANSWER).prompt


def test_any_alias_counts_and_a_padding_token_outside_the_embeddings_is_harmless():
    tokenizer = make_tokenizer()
    model = taught(tokenizer, tokenizer(f"{PROMPT} {ANSWER}")["input_ids"])
    tokenizer.pad_token = None
    tokenizer.add_special_tokens({"pad_token": "<|further|>"})  # its id lies beyond the model's embeddings
    probes = [QuestionAnswer(PROMPT, "Cairo", (ANSWER,)), QuestionAnswer(f"Today: {PROMPT}", "Cairo")]
    accuracy = answer_accuracy(model, tokenizer, probes, use_chat_template=False)
    assert accuracy[0] == 1.0
    assert accuracy[1] == answer_accuracy(model, tokenizer, probes[1:], use_chat_template=False)[0]


def test_perplexity_is_that_of_a_plain_forward():
    tokenizer, model = make_tokenizer(), make_llama()
    row = torch.tensor([tokenizer(f"{PROMPT} {ANSWER}")["input_ids"]])
    labels = row.clone()
    labels[0, : len(tokenizer(PROMPT)["input_ids"])] = -100
    expected = model(input_ids=row, labels=labels).loss.exp().item()
    assert perplexity(model, tokenizer, [QuestionAnswer(PROMPT, ANSWER)]) == pytest.approx(expected, rel=1e-4)


def test_the_tokenizer_is_left_as_it_is():
    tokenizer = special_tokens(make_tokenizer(), bos=True, eos=True)
    before = copy.deepcopy(tokenizer.init_kwargs), tokenizer.padding_side, tokenizer("x")["input_ids"]
    predicted_tokens(make_llama(), tokenizer, [PROMPT], [ANSWER], use_chat_template=True)
    assert (tokenizer.init_kwargs, tokenizer.padding_side, tokenizer("x")["input_ids"]) == before
