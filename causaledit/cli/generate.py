"""`causaledit generate`: ask a saved model, through its chat template."""

from __future__ import annotations

from typing import Annotated

import typer

from causaledit.cli.options import finite
from causaledit.support.console import plain_console


def generate(
    model: Annotated[str, typer.Option(help="Folder of a model or adapter, hub name, .gguf file, embedded name.")],
    prompt: Annotated[list[str], typer.Option(help="What to ask; can be given several times.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, callback=finite, help="0 is greedy.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="For sampling.")] = 42,
) -> None:
    """Answer prompts with a saved model or adapter, in the chat format it was edited in."""

    import torch

    from causaledit.errors import RequestError
    from causaledit.models.batches import context_window
    from causaledit.models.chat import prepare_tokenizer, render, user
    from causaledit.models.generation import generate_texts
    from causaledit.models.loading import load_model
    from causaledit.models.saving import template_kwargs_of

    if empty := [p for p in prompt if not p.strip()]:
        raise RequestError(f"--prompt is empty ({empty[0]!r}): say what to ask.")
    with plain_console(stderr=True).status(f"loading {model}"):
        loaded = load_model(model, device=device)
    # a thinking model answers in the mode that it was edited in
    tokenizer = prepare_tokenizer(loaded.tokenizer, template_kwargs_of(model), model=loaded.model)
    asked = [render(tokenizer, user(p)) for p in prompt]
    window = context_window(loaded.model)
    longest = max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in asked)
    if window and longest >= window:
        raise RequestError(
            f"--prompt has {longest} tokens in the chat format, and the model's context window is {window}: ask "
            "something shorter."
        )
    torch.manual_seed(seed)
    answers = generate_texts(
        loaded.model,
        tokenizer,
        asked,
        max_new_tokens=max_new_tokens,
        temperature=temperature or None,
    )
    console = plain_console(soft_wrap=True)
    for question, answer in zip(prompt, answers, strict=True):
        if len(prompt) > 1:
            console.print(f"> {question}", style="dim", highlight=False, markup=False)
        console.print(answer.strip(), highlight=False, markup=False)
