"""The page itself, in gradio: one question to both models, then an edit or a case at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import CausalEditError
from causaledit.probes.efficacy import STEP_BY_STEP, WHY
from causaledit.ui import render
from causaledit.ui.of_model import verdicts_on
from causaledit.ui.shown import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.ui.asking import BeforeAndAfter
    from causaledit.ui.shown import Shown, ShownEdit

LONGEST_QUESTION = 4000  # characters
ANSWER_TOKENS = (16, 96, 512)  # shortest, first and longest setting


def build(shown: Shown, models: BeforeAndAfter | None) -> Any:
    """The page.

    Args:
        shown: What it is about.
        models: Asked for answers; None where nothing can be asked.

    Returns:
        A `gradio.Blocks`, not started.
    """
    import gradio as gr

    names = [(part.name, number) for number, part in enumerate(shown.parts)]
    with gr.Blocks(title=f"{shown.title} – causaledit", analytics_enabled=False) as page:
        gr.HTML(render.header(shown))
        choice: Any = gr.State(0)
        if len(names) > 1:
            label = f"{shown.part_label.capitalize()} ({len(names)})"
            choice = gr.Dropdown(names, value=0, label=label, filterable=True, elem_id="part")
        facts = gr.HTML(render.facts(shown, 0), elem_id="facts")
        if models is None:
            gr.HTML(render.note(shown.silence))
        else:
            _asking(shown, models, choice)
        probes = gr.HTML(render.probes(shown, 0), elem_id="probes")
        gr.HTML(render.history(shown), elem_id="history")
        if len(names) > 1:
            choice.change(
                lambda number: (render.facts(shown, number), render.probes(shown, number)), choice, [facts, probes],
                show_progress="hidden", api_visibility="private",
            )  # fmt: skip
    return page


def _asking(shown: Shown, models: BeforeAndAfter, choice: Any) -> None:
    """A question, its two answers, and questions about the chosen edit to start from."""
    import gradio as gr

    def ask(question: str, tokens: int, number: int) -> Iterator[tuple[str, str]]:
        """The answers as they come."""
        question = question.strip()
        if not question:
            raise gr.Error("Type a question first.", print_exception=False)
        edits = shown.parts[number].edits
        yield render.waiting("The model before the edit is answering …"), render.waiting("")
        try:
            before = _answer(shown, edits, question, models.before(question, max_new_tokens=tokens))
            yield before, render.waiting("The edited model is answering …")
            yield before, _answer(shown, edits, question, models.after(question, max_new_tokens=tokens))
        except CausalEditError as error:
            raise gr.Error(str(error), print_exception=False) from None

    question = gr.Textbox(
        _suggestions(shown, 0)[0], label="Ask both models", lines=2, max_length=LONGEST_QUESTION, elem_id="question"
    )
    with gr.Row():
        ready = [gr.Button(name, size="sm", min_width=90) for name in ("The edit's question", "Step by step", "Why?")]
    shortest, first, longest = ANSWER_TOKENS
    tokens = gr.Slider(shortest, longest, first, step=16, label="Longest answer, in tokens")
    button = gr.Button("Ask", variant="primary", elem_id="ask")
    with gr.Row(equal_height=False):
        with gr.Column(min_width=300, elem_classes="ce-column"):
            gr.HTML("<h3>Before the edit</h3>")
            before = gr.HTML(render.waiting("–"), elem_id="before")
        with gr.Column(min_width=300, elem_classes="ce-column"):
            gr.HTML("<h3>After the edit</h3>")
            after = gr.HTML(render.waiting("–"), elem_id="after")
    for place, one in enumerate(ready):
        one.click(
            lambda number, place=place: _suggestions(shown, number)[place], choice, question,
            show_progress="hidden", api_visibility="private",
        )  # fmt: skip
    gr.on(
        [button.click, question.submit], ask, [question, tokens, choice], [before, after],
        concurrency_limit=1, show_progress="hidden", api_visibility="private",
    )  # fmt: skip


def _suggestions(shown: Shown, number: int) -> tuple[str, str, str]:
    """The first edit's question plainly, step by step, and with a why; empty where there is no edit."""
    edits = shown.parts[number].edits
    if not edits:
        return "", "", ""
    question = edits[0].question
    lowered = question[:1].lower() + question[1:]
    return question, STEP_BY_STEP.format(question=lowered), WHY.format(question=lowered)


def _answer(shown: Shown, edits: tuple[ShownEdit, ...], question: str, text: str) -> str:
    """An answer with what it says of the edits: whether the new answer is asserted, and whether it is taken back.

    No grade stands under it, because the question may be about something else.
    """
    verdicts = tuple(
        verdict
        for edit in edits
        for verdict in verdicts_on(edit, question, text, shown.judge)
        if verdict["task"] == "refutation"
    )
    return render.response(Response("", text, verdicts))
