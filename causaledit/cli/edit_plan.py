"""`causaledit edit --plan`: what an edit would do and cost, from the requests and the model's configuration."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.memory_plan import MemoryPlan
    from causaledit.methods.method import Method
    from causaledit.models.history import Card, Contradiction


def show_plan(
    method: Method,
    config: Any,
    edits: Sequence[EditRequest],
    *,
    hparams: str,
    suggested: Sequence[str],
    cards: Sequence[Card],
    contradictions: Sequence[Contradiction],
    keep: bool,
    save: Path | None,
    push: str,
) -> None:
    """Show it; nothing is loaded but the model's configuration and its tokenizer.

    Args:
        method: The method.
        config: Its hyper-parameters.
        edits: The requests.
        hparams: The file of hyper-parameters, or its bundled name.
        suggested: Subjects that were suggested and that the edit itself would ask for.
        cards: Of the edits made on the model so far.
        contradictions: Where the requests contradict those.
        keep: Whether originals are kept.
        save: Where the result goes.
        push: The repository that it is pushed to.
    """
    from rich.table import Table
    from rich.text import Text

    from causaledit.cli.edit import contradiction_text
    from causaledit.methods.hyperparams import resolve_hparams_file

    out = plain_console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    rows: list[tuple[str, str | Text]] = [
        ("method", method.name),
        ("hparams", str(resolve_hparams_file(hparams, config.ALG_NAME))),
        ("model", f"{config.model_name}, with {len(cards)} edit{'s'[: len(cards) != 1]} so far"),
    ]
    for number, edit in enumerate(edits, start=1):
        name = f"edit {number}" if len(edits) > 1 else "edit"
        before, after = edit.prompt.split("{}") if edit.subject else (edit.prompt, "")
        fact = Text.assemble(before, (edit.subject, "bold underline"), after)
        rows.append((name, Text.assemble(fact, f": {edit.ground_truth or '(asked of the model)'} → {edit.target_new}")))
        rows.append(("subject", _subject(edit, suggested)))
        rows.append(("narrative", _narrative(edit, config)))
    rows += _places(config, keep)
    rows.append(("result", _result(config, save, push)))
    for name, text in rows:
        table.add_row(name, text)
    out.print(table, highlight=False)
    for one in contradictions:
        out.print(Text.assemble(("warning: ", "yellow"), contradiction_text(one.new, one.earlier)))
    _show_stages(method, config, edits, out)
    out.print("a plan: nothing was changed", highlight=False)


def _subject(edit: EditRequest, suggested: Sequence[str]) -> str:
    if not edit.subject:
        return "none, and this method needs none"
    asked = " (suggested: give it with --subject, or take it with --yes)" if edit.subject in suggested else ""
    place = edit.prompt.index("{}")
    return f"{edit.subject}, found at character {place + 1} of the prompt{asked}"


def _narrative(edit: EditRequest, config: Any) -> str:
    """Where it comes from, and how long it is."""
    from causaledit.facts.text import normalise, word_count

    if not hasattr(config, "narrative_file"):
        return "not used by this method"
    if getattr(config, "editing_mode", "causal") != "causal":
        return "not used (`editing_mode`)"
    if edit.narrative:
        return f"from the request, {word_count(edit.narrative)} words"
    if config.narrative_file:
        from causaledit.narratives.resolve import load_narratives

        known = load_narratives(config.narrative_file)
        if text := known.get((normalise(edit.subject), normalise(edit.target_new))):
            return f"from {config.narrative_file}, {word_count(text)} words"
    return f"none given: the model writes one of at most {config.narrative_max_new_tokens} tokens, or a template does"


def _places(config: Any, keep: bool) -> list[tuple[str, str]]:
    """What the edit changes in the model."""
    from causaledit.errors import ModelError
    from causaledit.models.footprint import empty_model
    from causaledit.models.loading import load_config, resolve_device, resolve_dtype
    from causaledit.models.originals import gib, size_of

    try:
        found = load_config(config.model_name)
    except ModelError as error:
        if not str(config.model_name).endswith(".gguf"):
            raise
        return [("changes", f"not known before the model is loaded ({error})")]
    import torch

    dtype = resolve_dtype(config.dtype, resolve_device(config.device), fp16=config.fp16)
    network = empty_model(found, dtype if isinstance(dtype, torch.dtype) else found.dtype or torch.float32)
    names = config.edited_weights(network)
    if names is None:
        return [("changes", "this method does not say which weights")]
    size = size_of({name: network.get_parameter(name) for name in names})
    merged = getattr(config, "merge_adapter", None)
    by = (
        ""
        if merged is None
        else f" by an adapter of rank {config.lora_rank}, " + ("merged" if merged else "kept apart")
    )
    rows = [("changes", f"{_summary(names)}{by}")]
    if keep:
        kept = "nothing: an adapter changes no weights" if merged is False else f"{len(names)} weights, {gib(size)}"
        rows.append(("originals", kept))
    return rows


def _summary(names: Sequence[str]) -> str:
    """Names of parameters in few words: modules, and the layers in which they stand."""
    layers: dict[int, None] = {}
    modules: dict[str, None] = {}
    for name in names:
        number = re.search(r"\.(\d+)\.", name)
        if number is None:
            modules[name] = None
            continue
        layers[int(number[1])] = None
        modules[name[number.end() :].removesuffix(".weight").removesuffix(".bias")] = None
    counted = f"{len(names)} weight{'s'[: len(names) != 1]}"
    where = f" of layers {_ranges(sorted(layers))}" if len(layers) > 1 else f" of layer {min(layers)}" if layers else ""
    return f"{counted}: {', '.join(modules)}{where}"


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as text: 0–3, 7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def _result(config: Any, save: Path | None, push: str) -> str:
    what = "an adapter" if getattr(config, "merge_adapter", True) is False else "a whole model"
    places = [*([f"in {save}"] if save else []), *([f"pushed to {push}"] if push else [])]
    return f"{what}, {' and '.join(places) or 'not saved: give --save'}"


def _show_stages(method: Method, config: Any, edits: Sequence[EditRequest], out: Console) -> None:
    """Memory and tokens of each stage, where the method tells them from the model's configuration."""
    from rich.table import Table

    from causaledit.errors import ModelError
    from causaledit.methods.memory_plan import plan_edit
    from causaledit.models.loading import resolve_device

    gpu = resolve_device(config.device).type == "cuda"
    try:
        found: MemoryPlan = plan_edit(method, config, lengths=_lengths(config, edits), gpu=gpu)
    except ModelError as error:
        out.print(f"cost: not known beforehand. {error}", highlight=False, soft_wrap=True)
        return
    table = Table(title="stages: memory at the highest moment, tokens at most", title_justify="left")
    for name in ("stage", "GiB", "generated", "trained on"):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in found.stages:
        tokens = [f"{count:,}" if count else "" for count in (stage.generated, stage.trained)]
        table.add_row(stage.stage, f"{stage.total(found.parameters) / 2**30:.2f}", *tokens)
    out.print(table)
    together = f"; {len(edits)} edits together train longer" if len(edits) > 1 else ""
    out.print(
        f"one edit generates at most {found.generated:,} tokens and trains on at most {found.trained:,}{together}",
        highlight=False,
        soft_wrap=True,
    )


def _lengths(config: Any, edits: Sequence[EditRequest]) -> Any:
    """The lengths of the longest texts of these edits by the model's tokenizer; the usual ones without a tokenizer."""
    from transformers import AutoTokenizer

    from causaledit.errors import CausalEditError
    from causaledit.models.chat import prepare_tokenizer, render, user
    from causaledit.models.loading import load_config
    from causaledit.support.lengths import Lengths

    try:
        found = AutoTokenizer.from_pretrained(load_config(config.model_name).name_or_path, trust_remote_code=False)
        tokenizer = prepare_tokenizer(found, config.chat_template_kwargs)
    except (CausalEditError, OSError, ValueError, KeyError):
        return Lengths()

    def longest(texts: list[str]) -> int:
        return max(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)

    written = getattr(config, "narrative_max_new_tokens", 0) if any(not edit.narrative for edit in edits) else 0
    contexts = [
        "\n\n".join((edit.narrative or "", f"{edit.ground_truth or ''} {edit.target_new}", edit.question_form))
        for edit in edits
    ]
    return Lengths(
        prompt=longest([render(tokenizer, user(edit.question_form)) for edit in edits]),
        context=longest([render(tokenizer, user(text)) for text in contexts]) + written,
        answer=longest([f" {edit.target_new}" for edit in edits]),
    )
