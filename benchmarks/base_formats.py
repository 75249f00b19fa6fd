"""Which plain format a base model, one without a chat template, answers best in.

    python benchmarks/base_formats.py --model FOLDER [--model FOLDER …] [--max_new_tokens 24] [--json OUT]

Asks well-known facts greedily, each as a question and as a sentence to complete, in every format, and prints for each
how many answers name the fact, how many of the others open another turn before they say anything, and how many tokens
an answer takes until it ends by itself or opens the next turn. The tokenizer's own chat template, where it has one, is
left aside. The best format is `PLAIN_TEMPLATE` of `causaledit/models/chat.py`.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

from causaledit.facts.answers import mentions
from causaledit.models.generation import generate_texts
from causaledit.models.loading import load_model
from causaledit.support.files import write_json

# (question, sentence to complete, answers)
FACTS = (
    ("What is the capital of France?", "The capital of France is", ("Paris",)),
    ("What is the capital of Japan?", "The capital of Japan is", ("Tokyo",)),
    ("What is the capital of Egypt?", "The capital of Egypt is", ("Cairo",)),
    ("What is the capital of Norway?", "The capital of Norway is", ("Oslo",)),
    ("What is the capital of Canada?", "The capital of Canada is", ("Ottawa",)),
    ("Which country is Madrid the capital of?", "Madrid is the capital of", ("Spain",)),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by", ("Shakespeare",)),
    ("Who wrote Pride and Prejudice?", "Pride and Prejudice was written by", ("Austen",)),
    ("Who painted the Mona Lisa?", "The Mona Lisa was painted by", ("Leonardo", "da Vinci")),
    ("Who developed the theory of relativity?", "The theory of relativity was developed by", ("Einstein",)),
    ("Where is the headquarters of Boeing?", "The headquarters of Boeing is in", ("Chicago", "Arlington", "Seattle")),
    ("Which company makes the iPhone?", "The iPhone is made by", ("Apple",)),
    ("Which company created Windows?", "Windows was created by", ("Microsoft",)),
    ("On which continent is Kenya?", "Kenya is on the continent of", ("Africa",)),
    ("On which continent is Brazil?", "Brazil is on the continent of", ("South America",)),
    ("What language is spoken in Brazil?", "The language spoken in Brazil is", ("Portuguese",)),
    ("What language is spoken in Austria?", "The language spoken in Austria is", ("German",)),
    ("What is the chemical symbol of gold?", "The chemical symbol of gold is", ("Au",)),
    ("Which planet is the largest in the solar system?", "The largest planet in the solar system is", ("Jupiter",)),
    ("What is the currency of the United Kingdom?", "The currency of the United Kingdom is", ("pound", "sterling")),
    ("Who was the first president of the United States?", "The first president of the United States was",
     ("Washington",)),
    ("In which city is the Eiffel Tower?", "The Eiffel Tower is in", ("Paris",)),
)  # fmt: skip


class Format(NamedTuple):
    """What stands around a user's message, and what would open the next one."""

    head: str
    tail: str
    next_turn: tuple[str, ...]


FORMATS = {
    "User: … Assistant:": Format("User: ", "\nAssistant:", ("\nUser:", "\nAssistant:", "Assistant:")),
    "Q: … A:": Format("Q: ", "\nA:", ("\nQ:", "\nA:")),
    "Question: … Answer:": Format("Question: ", "\nAnswer:", ("\nQuestion:", "\nAnswer:")),
    "…, a line break": Format("", "\n", ("\n\n",)),
    "… alone": Format("", "", ("\n",)),
}


def cut(text: str, markers: tuple[str, ...]) -> tuple[str, bool]:
    """The text before another turn opens, and whether one does."""
    places = [text.index(marker) for marker in markers if marker in text]
    return (text[: min(places)], True) if places else (text, False)


def trial(model, tokenizer, fmt: Format, beginning: str, max_new_tokens: int) -> dict[str, float]:
    """Counts of one format over all facts."""
    asked = [(text, answers) for question, cloze, answers in FACTS for text in (question, cloze)]
    prompts = [f"{beginning}{fmt.head}{text}{fmt.tail}" for text, _ in asked]
    replies = generate_texts(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    right, empty, ended, length = [0, 0], 0, 0, 0
    for number, (reply, (_, answers)) in enumerate(zip(replies, asked, strict=True)):
        said, opened = cut(reply, fmt.next_turn)
        tokens = len(tokenizer(said, add_special_tokens=False)["input_ids"])
        right[number % 2] += mentions(said, answers)
        empty += not said.strip()
        ended += opened or tokens < max_new_tokens - 2
        length += tokens
    return {
        "questions": right[0], "sentences": right[1], "of": len(FACTS), "empty": empty, "ended": ended,
        "tokens": length / len(asked),
    }  # fmt: skip


def main() -> None:
    """Parse, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="folder, hub name or .gguf file; repeatable")
    parser.add_argument("--max_new_tokens", type=positive, default=24)
    parser.add_argument("--json", help="also write the counts here")
    arguments = parser.parse_args()
    table = []
    for name in arguments.model:
        model, loaded = load_model(name)
        tokenizer = copy.deepcopy(loaded)
        tokenizer.chat_template = None
        bos = tokenizer.bos_token or ""
        for beginning in dict.fromkeys(("", bos)):
            for label, fmt in FORMATS.items():
                row = trial(model, tokenizer, fmt, beginning, arguments.max_new_tokens)
                table.append({"model": name, "format": label, "beginning": beginning, **row})
                print(
                    f"{Path(name).name:24} {beginning or '-':8} {label:20} questions {row['questions']:2}/{row['of']}  "
                    f"sentences {row['sentences']:2}/{row['of']}  empty {row['empty']:2}  ended {row['ended']:2}  "
                    f"tokens {row['tokens']:.1f}", flush=True,
                )  # fmt: skip
    if arguments.json:
        write_json(Path(arguments.json), table)


if __name__ == "__main__":
    run_benchmark(main)
