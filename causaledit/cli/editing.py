"""The work of `causaledit edit`: load, measure, edit, measure again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console


@dataclass
class Result:
    """An edit in place.

    Attributes:
        model: What is saved: the network, or the adapter around it.
        tokenizer: Its tokenizer.
        report: The method's.
        metrics: Per edit what was measured before and after it.
        originals: The tensors that changed, as they were, by name; none where an adapter leaves them as they are.
    """

    model: Any
    tokenizer: Any
    report: Any
    metrics: list[dict[str, Any]]
    originals: dict[str, Any] = field(default_factory=dict)


def edit_and_measure(
    method: Any, edits: list[Any], config: Any, console: Console, *, loaded: Callable[[Any], None]
) -> Result:
    """Edit a model, and ask it question and cloze of each edit before and after.

    Args:
        method: From the registry.
        edits: The requests.
        config: The method's hyper-parameters.
        console: Where progress goes.
        loaded: Called with the model before anything is computed.
    """
    from causaledit.facts.request_probes import QuestionAnswer
    from causaledit.hosts.token_accuracy import answer_accuracy
    from causaledit.methods.call import edit_in_place
    from causaledit.models.chat import prepare_tokenizer
    from causaledit.models.loading import load_from_hparams
    from causaledit.probes.asking import Prober
    from causaledit.probes.efficacy import MAX_NEW_TOKENS
    from causaledit.support.progress import RichProgress

    with console.status(f"loading {config.model_name}"):
        model, tokenizer = load_from_hparams(config)
    loaded(model)
    prepared = prepare_tokenizer(tokenizer, config.chat_template_kwargs, model=model)
    prober = Prober(
        tokenizer, max_new_tokens=MAX_NEW_TOKENS["direct"], template_kwargs=config.chat_template_kwargs
    )  # fmt: skip

    def measure(current: Any) -> list[dict[str, Any]]:
        said = iter(prober.ask(current, [prompt for edit in edits for prompt in _asked(edit).values()]))
        found: list[dict[str, Any]] = []
        for edit in edits:
            probes = {
                "rewrite_acc": (QuestionAnswer(edit.question_form, edit.target_new),),
                "rephrase_acc": edit.rephrase,
            }
            accuracy = {
                name: answer_accuracy(current, prepared, asked, use_chat_template=True)
                for name, asked in probes.items()
                if asked
            }
            answers = [{"kind": kind, "prompt": text, "response": next(said)} for kind, text in _asked(edit).items()]
            found.append({**accuracy, "locality": {}, "portability": {}, "answers": answers})
        return found

    pre, report = measure(model), method.load_report()()
    with RichProgress(console) as progress:
        edited = edit_in_place(method, model, tokenizer, edits, config, progress=progress, report=report)
    post = measure(edited.model)
    for request, *phases in zip(report.requests, pre, post, strict=True):  # these have their old answers
        for answer in (answer for phase in phases for answer in phase["answers"]):
            answer["gives_new_answer"] = gives_new_answer(request, answer["prompt"], answer["response"])
    originals = edited.weights_copy()
    return Result(
        edited.model, tokenizer, report, [{"pre": a, "post": b} for a, b in zip(pre, post, strict=True)],
        originals if isinstance(originals, dict) else {},
    )  # fmt: skip


def _asked(edit: Any) -> dict[str, str]:
    return {"question": edit.question_form, "cloze": edit.cloze}


def gives_new_answer(edit: Any, prompt: str, response: str) -> bool:
    """Whether a response commits to the new answer rather than to the old one."""
    from causaledit.probes.efficacy import Probe, is_hit

    new = (edit.target_new, *edit.target_aliases)
    old = (*([edit.ground_truth] if edit.ground_truth else []), *edit.ground_truth_aliases)
    return is_hit(Probe("direct", "question", prompt, new, old), response)


def show_answers(request: Any, measured: dict[str, Any], console: Console) -> None:
    """What the model answers to question and cloze, before and after the edit."""
    lines = [f"{request.cloze}: {request.ground_truth or '(not known)'} → {request.target_new}"]
    for before, after in zip(measured["pre"]["answers"], measured["post"]["answers"], strict=True):
        verdict = "gives" if after["gives_new_answer"] else "does not give"
        lines += [
            f"  {after['kind']}: {after['prompt']}",
            f"    before: {' '.join(before['response'].split())}",
            f"    after:  {' '.join(after['response'].split())}",
            f"            ({verdict} the new answer)",
        ]
    console.print("\n".join(lines), highlight=False, markup=False)
