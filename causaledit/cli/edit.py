"""`causaledit edit`: change facts in a model and save the result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console


def edit(
    save: Annotated[Path, typer.Option(help="Folder for the edited model or adapter; must not exist or be empty.")],
    model: Annotated[str, typer.Option(help="Folder, hub name, .gguf file, or smollm2-135m-instruct.")] = "",
    subject: Annotated[str, typer.Option(help="The entity the fact is about.")] = "",
    prompt: Annotated[str, typer.Option(help='Cloze with {} for the subject: "The capital of {} is".')] = "",
    question: Annotated[str, typer.Option(help="The fact as a question.")] = "",
    old: Annotated[str, typer.Option(help="Old answer; if omitted, the model is asked.")] = "",
    new: Annotated[str, typer.Option(help="New answer.")] = "",
    narrative: Annotated[str, typer.Option(help="Why it changed: a text, or a file that holds it.")] = "",
    requests: Annotated[str, typer.Option(help="JSON file of requests, instead of the options above.")] = "",
    hparams: Annotated[str, typer.Option(help="YAML file or bundled name.")] = "",
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Save a PEFT adapter, not a whole model.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same edit (on the CPU).")] = None,
) -> None:
    """Edit a model and save it (or an adapter) with a causaledit.json card beside it."""
    from causaledit.errors import HparamsError, SaveError
    from causaledit.facts.requests import requests_from_data
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.shared.processes import is_first
    from causaledit.models.loading import resolve_device
    from causaledit.models.saving import save_result
    from causaledit.support.files import check_writable, load_json

    edits = (
        requests_from_data(load_json(requests, "--requests"))
        if requests
        else requests_from_data([_request(subject, prompt, question, old, new, narrative)])
    )
    name = hparams or _default_hparams(model)
    config = CausalEditHyperParams.from_hparams(name)
    config.model_name = model or config.model_name
    config.device = device or config.device
    config.seed = config.seed if seed is None else seed
    config.merge_adapter = not adapter_only
    if not config.model_name:
        raise HparamsError("--model is missing, and the hparams name no model: give --model or `model_name`.")
    resolve_device(config.device)
    check_writable(save, "--save")
    if save.exists() and any(save.iterdir()):
        raise SaveError(f"--save {str(save)!r} is not empty: give a new folder, so that no model is overwritten.")

    console = Console(stderr=True, quiet=not is_first())  # one of several processes speaks and saves
    edited, tokenizer, report, metrics = _run(edits, config, console)
    if not is_first():
        return
    save_result(save, edited, tokenizer, config, report, metrics)
    out = Console(soft_wrap=True)
    for request, item in zip(report.requests, metrics, strict=True):
        _show(request, item, out)
    out.print(f"saved to {save}", highlight=False, markup=False)


def _default_hparams(model: str) -> str:
    """The embedded model has its own hyper-parameters; for any other model they must be given."""
    from causaledit.errors import HparamsError
    from causaledit.models.embedded import EMBEDDED_MODELS

    if not model or model in EMBEDDED_MODELS:
        return model or next(iter(EMBEDDED_MODELS))
    raise HparamsError(
        f"--hparams is missing for the model {model!r}: give a YAML file or a bundled name, such as "
        "qwen2.5-7b-instruct for a 7–8B model or smollm2-135m-instruct for a very small one."
    )


def _request(subject: str, prompt: str, question: str, old: str, new: str, narrative: str) -> dict[str, Any]:
    from causaledit.errors import RequestError

    for option, value in (("--subject", subject), ("--prompt", prompt), ("--new", new)):
        if not value.strip():
            raise RequestError(
                f"{option} is missing: an edit needs --subject, --prompt and --new (or --requests FILE)."
            )
    return {
        "subject": subject,
        "prompt": prompt,
        "question": question or None,
        "ground_truth": old or None,
        "target_new": new,
        "narrative": _narrative_text(narrative) or None,
    }


def _narrative_text(value: str) -> str:
    """A file's text where the value names one, the value itself otherwise."""
    from causaledit.errors import RequestError

    if not value:
        return ""
    try:
        path = Path(value).expanduser()
        is_file = path.is_file()
    except (OSError, RuntimeError):  # no name of a file: too long, or of nobody's home
        is_file = False
    if is_file:
        try:
            return path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--narrative: the file {value!r} cannot be read as UTF-8 text ({error}).") from None
    if len(value) < 500 and " " not in value.strip() and ("/" in value or value.endswith((".txt", ".md"))):
        raise RequestError(f"--narrative: the file {value!r} does not exist.")
    return value


def _run(edits: list[Any], config: Any, console: Console) -> tuple[Any, Any, Any, list[dict[str, Any]]]:
    """The edited model, its tokenizer, the report, and per edit what was measured before and after it."""
    from causaledit.facts.request_probes import QuestionAnswer
    from causaledit.hosts.token_accuracy import answer_accuracy
    from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
    from causaledit.models.chat import prepare_tokenizer
    from causaledit.models.loading import load_from_hparams
    from causaledit.probes.asking import Prober
    from causaledit.probes.efficacy import MAX_NEW_TOKENS
    from causaledit.support.progress import RichProgress

    with console.status(f"loading {config.model_name}"):
        model, tokenizer = load_from_hparams(config)
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

    pre, report = measure(model), EditReport()
    with RichProgress(console) as progress:
        edited, _ = apply_causal_edit_to_model(model, tokenizer, edits, config, progress=progress, report=report)
    post = measure(edited)
    for request, *phases in zip(report.requests, pre, post, strict=True):  # these have their old answers
        for answer in (answer for phase in phases for answer in phase["answers"]):
            answer["gives_new_answer"] = _gives_new_answer(request, answer["prompt"], answer["response"])
    return edited, tokenizer, report, [{"pre": a, "post": b} for a, b in zip(pre, post, strict=True)]


def _asked(edit: Any) -> dict[str, str]:
    return {"question": edit.question_form, "cloze": edit.cloze}


def _gives_new_answer(edit: Any, prompt: str, response: str) -> bool:
    """Whether a response commits to the new answer rather than to the old one."""
    from causaledit.probes.efficacy import Probe, is_hit

    new = (edit.target_new, *edit.target_aliases)
    old = (*([edit.ground_truth] if edit.ground_truth else []), *edit.ground_truth_aliases)
    return is_hit(Probe("direct", "question", prompt, new, old), response)


def _show(request: Any, measured: dict[str, Any], console: Console) -> None:
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
