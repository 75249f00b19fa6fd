"""What a report says an edit was trained on, so that no such prompt counts as a test of it."""

from __future__ import annotations

import pytest
from conftest import EGYPT, FAST, NORWAY, make_llama, make_tokenizer

from causaledit.methods.registry import METHODS
from causaledit.support.progress import SilentProgress

CLOZES = ["The capital of Egypt is", "The capital of Norway is"]
QUESTIONS = [EGYPT["question"], NORWAY["question"]]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("FT", {}, CLOZES),
        ("FT", {"prompt_forms": ["question", "plain", "cloze"]}, CLOZES + QUESTIONS),
        ("LoRA", {"prompt_forms": ["question"]}, QUESTIONS),
        ("ICE", {"prompt_forms": ["plain", "question"]}, CLOZES + QUESTIONS),
        ("ROME", {}, CLOZES),
        ("MEMIT", {}, CLOZES),
        ("AlphaEdit", {}, CLOZES),
        ("IKE", {}, []),
    ],
)
def test_the_prompts_that_an_edit_was_trained_on(name, changes, expected, own_files, words):
    method, tokenizer = METHODS[name], make_tokenizer()
    corpus = {"mom2_dataset": words} if name in ("ROME", "MEMIT", "AlphaEdit") else {}
    hparams = method.load_hparams()(**{**FAST[name], **corpus, **changes})
    report = method.load_report()()
    method.load_apply()(make_llama(), tokenizer, [EGYPT, NORWAY], hparams, progress=SilentProgress(), report=report)
    assert sorted(report.trained_prompts) == sorted(expected)
