"""`causaledit edit`: change facts in a model and save the result."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causaledit.support.console import plain_console
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from rich.console import Console

    from causaledit.facts.requests import EditRequest
    from causaledit.models.history import MadeEdit


def edit(
    save: Annotated[
        Path | None, typer.Option(help="Folder for the edited model or adapter; must not exist or be empty.")
    ] = None,
    model: Annotated[str, typer.Option(help="Folder, hub name, .gguf file, or smollm2-135m-instruct.")] = "",
    subject: Annotated[str, typer.Option(help="The entity the fact is about.")] = "",
    prompt: Annotated[str, typer.Option(help='Cloze with {} for the subject: "The capital of {} is".')] = "",
    question: Annotated[str, typer.Option(help="The fact as a question.")] = "",
    old: Annotated[str, typer.Option(help="Old answer; if omitted, the model is asked.")] = "",
    new: Annotated[str, typer.Option(help="New answer.")] = "",
    narrative: Annotated[str, typer.Option(help="Why it changed: a text, or a file that holds it.")] = "",
    requests: Annotated[str, typer.Option(help="JSON file of requests, instead of the options above.")] = "",
    method: Annotated[str, typer.Option(help="Name of the method.")] = "CausalEdit",
    hparams: Annotated[str, typer.Option(help="YAML file or bundled name.")] = "",
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Save a PEFT adapter, not a whole model.")
    ] = False,
    keep_originals: Annotated[
        bool, typer.Option("--keep-originals", help="Keep the changed weights as they were beside the model, for undo.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Take the subject suggested for a prompt without one.")] = False,
    push_to_hub: Annotated[
        str, typer.Option("--push-to-hub", help="Push the result to this repository of the Hub (owner/name).")
    ] = "",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same edit (on the CPU).")] = None,
) -> None:
    """Edit a model and save it (or an adapter) with a causaledit.json card beside it."""
    from causaledit.cli.edit_requests import Suggestions, read_edits, request_from_options
    from causaledit.cli.editing import edit_and_measure, show_answers
    from causaledit.errors import HostError, OptionError, PushError, RequestError
    from causaledit.hosts.lookup import get_method
    from causaledit.methods.call import refuse_several_processes
    from causaledit.models.history import cards_of, contradictions, made_edits, read_card, with_earlier_answers
    from causaledit.models.hub import find_target
    from causaledit.models.loading import resolve_device
    from causaledit.models.origin import note_license
    from causaledit.models.saving import check_new_folder, save_result
    from causaledit.support.files import load_json
    from causaledit.support.launch import is_first

    if private and not push_to_hub:
        raise PushError("--private is about a repository of the Hub: give --push-to-hub owner/name too.")
    if requests:
        described = (
            ("--subject", subject), ("--prompt", prompt), ("--question", question), ("--old", old), ("--new", new),
            ("--narrative", narrative),
        )  # fmt: skip
        if strays := [flag for flag, value in described if value]:
            raise OptionError(f"{strays[0]} has no effect with --requests, whose file has the edits: leave one out.")
    console = plain_console(stderr=True, quiet=not is_first())  # one of several processes speaks and saves
    chosen = get_method(method, host="embedded")
    refuse_several_processes(chosen)
    needs_subject = chosen.needs_subject
    data = (
        load_json(requests, "--requests")
        if requests
        else [request_from_options(subject, prompt, question, old, new, narrative, needs_subject=needs_subject)]
    )
    suggestions = Suggestions(taken=yes, console=console, planning=plan)
    edits = read_edits(data, needs_subject=needs_subject, suggest=suggestions)
    config = _configured(chosen, hparams, model, device, seed, adapter_only)
    if keep_originals:
        _refuse_quantised_originals(config)
    if not chosen.changes_weights:
        raise HostError(f"--method {chosen.name} changes no weights, so there is nothing to save: give another method.")
    resolve_device(config.device)
    _refuse_adapter(config.model_name)
    if save is not None:
        check_new_folder(save, "--save")
    cards = cards_of(read_card(config.model_name, fetch=True))
    found = contradictions(made_edits(cards), edits)
    edits = with_earlier_answers(edits, found)
    if plan:
        from causaledit.cli.edit_plan import show_plan

        show_plan(
            chosen, config, edits, hparams=hparams or _default_hparams(model), suggested=suggestions.noted, cards=cards,
            contradictions=found, keep=keep_originals, save=save, push=push_to_hub,
        )  # fmt: skip
        return
    if save is None and not push_to_hub:
        raise RequestError(
            "--save is missing: give a new folder for the result, --push-to-hub, or --plan to do nothing."
        )
    target = find_target(push_to_hub, private=private) if push_to_hub else None
    note_license(config.model_name)
    _tell_history(config.model_name, cards, found, console)
    room = save or Path(tempfile.gettempdir())
    result = edit_and_measure(
        chosen, edits, config, console,
        loaded=lambda network: _before_computing(config, network, room, keep_originals, console),
    )  # fmt: skip
    if not is_first():
        return
    place = save or Path(tempfile.mkdtemp(prefix="causaledit-")) / "model"
    save_result(
        place, result.model, result.tokenizer, config, result.report, result.metrics,
        originals=result.originals if keep_originals else None, name=target.repo if target else None,
    )  # fmt: skip
    out = plain_console(soft_wrap=True)
    for request, item in zip(result.report.requests, result.metrics, strict=True):
        show_answers(request, item, out)
    if save is not None:
        out.print(f"saved to {save}", highlight=False, markup=False)
    if target is not None:
        with console.status(f"pushing to {target.url}"):
            page = target.push(place)
        out.print(f"pushed to {page}", highlight=False, markup=False)
        if save is None:
            shutil.rmtree(place.parent, ignore_errors=True)


def _configured(method: Any, hparams: str, model: str, device: str, seed: int | None, adapter_only: bool) -> Any:
    """The method's hyper-parameters, with what the command's options say."""
    from causaledit.errors import HparamsError
    from causaledit.methods.shared.processes import refuse_merging

    config = method.load_hparams().from_hparams(hparams or _default_hparams(model))
    config.model_name = model or config.model_name
    config.device = device or config.device
    config.seed = config.seed if seed is None else seed
    if hasattr(config, "merge_adapter"):
        config.merge_adapter = not adapter_only
        if config.merge_adapter:
            refuse_merging()
    elif adapter_only:
        raise HparamsError(f"--adapter-only: {method.name} trains no adapter: leave the option out.")
    if not config.model_name:
        raise HparamsError("--model is missing, and the hparams name no model: give --model or `model_name`.")
    return config


def _refuse_adapter(model: Any) -> None:
    """Refuse a folder with an adapter alone, before its base model is loaded.

    Raises:
        ModelError: It is one.
    """
    from causaledit.errors import ModelError
    from causaledit.models.checkpoint import is_adapter_alone

    if is_adapter_alone(expanded(model)):
        raise ModelError(
            f"--model {model!r} is an adapter, and an edit needs plain weights: edit its base model with all requests "
            f"together (--requests), or merge the adapter first (AutoPeftModelForCausalLM.from_pretrained({model!r})"
            ".merge_and_unload().save_pretrained(DIR), and its tokenizer)."
        )


def _refuse_quantised_originals(config: Any) -> None:
    """Refuse to keep originals where an adapter on quantised weights is merged into others than those in memory.

    Raises:
        HparamsError: `quantization` is set, and the adapter is merged.
    """
    from causaledit.errors import HparamsError

    if getattr(config, "quantization", "none") != "none" and config.merge_adapter:
        raise HparamsError(
            f"--keep-originals with `quantization: {config.quantization}`: the adapter is merged into a freshly loaded "
            "model, and no originals are kept. Give --adapter-only, which undo leaves off, or no --keep-originals."
        )


def _default_hparams(model: str) -> str:
    """An embedded model has its own, also where it was edited before; for any other model they must be given."""
    from causaledit.errors import HparamsError
    from causaledit.models.embedded import EMBEDDED_MODELS
    from causaledit.models.history import cards_of, read_card

    if not model or model in EMBEDDED_MODELS:
        return model or next(iter(EMBEDDED_MODELS))
    for card in cards_of(read_card(model))[:1]:  # of the first edit, which was made on what no one had edited
        if (first := card.get("hparams", {}).get("model_name")) in EMBEDDED_MODELS:
            return str(first)
    raise HparamsError(
        f"--hparams is missing for the model {model!r}: give a YAML file or a bundled name, such as "
        "qwen2.5-7b-instruct for a 7–8B model or smollm2-135m-instruct for a very small one."
    )


def _tell_history(model: str, cards: list[Any], found: list[Any], console: Console) -> None:
    """Say how many edits the model carries, and which of them the new ones contradict."""
    from rich.text import Text

    if cards:
        counted = "1 edit" if len(cards) == 1 else f"{len(cards)} edits"
        _say(console, f"{model} has {counted} so far (causaledit history {shlex.quote(model)})")
    for one in found:
        _say(console, Text.assemble(("warning: ", "yellow"), contradiction_text(one.new, one.earlier)))


def contradiction_text(new: EditRequest, earlier: MadeEdit) -> str:
    """A contradiction in one line."""
    old = earlier.request
    return f"{new.cloze!r} → {new.target_new!r} contradicts edit {earlier.number}: {old.cloze!r} → {old.target_new!r}"


def _before_computing(config: Any, network: Any, folder: Path, keep: bool, console: Console) -> None:
    """Refuse weights that the method cannot change and a result that the disk cannot hold; say how large it will be."""
    from causaledit.methods.call import refuse_adapted
    from causaledit.models.originals import ORIGINALS, check_room, gib, size_of

    refuse_adapted(network)
    names = config.edited_weights(network)  # a layer or module that is not there is refused here
    if not getattr(config, "merge_adapter", True):
        if keep:
            _say(console, "--keep-originals: an adapter changes no weights; undo leaves it off, and nothing is kept")
        return
    size = 0
    if keep and names is None:
        _say(console, "--keep-originals: the method does not say beforehand which weights it changes")
    elif keep:
        size = size_of({name: network.get_parameter(name) for name in names})
        counted = "1 weight as it was" if len(names) == 1 else f"{len(names)} weights as they were"
        _say(console, f"--keep-originals: {counted}, {gib(size)} in all, kept in {ORIGINALS}/")
    check_room(folder, size, size_of(dict(network.named_parameters())))


def _say(console: Console, text: Any) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
