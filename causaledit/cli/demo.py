"""`causaledit demo`: one real edit of the embedded model, before and after."""

from __future__ import annotations

import contextlib
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

DEMO_MODEL = "smollm2-135m-instruct"
DATA_FILE = "causaledit-mini.json"


def demo(
    output: Annotated[Path, typer.Option(help="Folder for demo.json.")] = Path("causaledit-out"),
    case: Annotated[int, typer.Option(help="case_id in data/causaledit-mini.json.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same edit (on the CPU).")] = 42,
) -> None:
    """Edit one bundled case in the embedded SmolLM2-135M and show real answers before and after."""
    from causaledit.errors import RequestError
    from causaledit.facts.requests import requests_from_data
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.models.loading import resolve_device
    from causaledit.probes.efficacy import case_probes
    from causaledit.support.files import check_writable, load_json
    from causaledit.support.paths import data_dir

    check_writable(output, "--output")
    resolve_device(device)
    cases = load_json(data_dir() / DATA_FILE, "the bundled cases")
    chosen = next((c for c in cases if c["case_id"] == case), None)
    if chosen is None:
        raise RequestError(f"--case {case} is not bundled: choose one of 1 to {len(cases)}.")
    requests = requests_from_data(chosen["requested_rewrite"])
    hparams = CausalEditHyperParams.from_hparams(DEMO_MODEL)
    hparams.device, hparams.seed = device, seed
    result = _run(chosen, requests, case_probes(chosen, requests), hparams, plain_console(markup=True, stderr=True))

    from causaledit.support.files import write_json

    path = write_json(output / "demo.json", result)
    _show(result, plain_console(markup=True))
    plain_console(markup=True, soft_wrap=True).print(f"written to {path}", highlight=False, markup=False)


def _run(
    case: dict[str, Any], requests: list[Any], probes: list[Any], hparams: Any, console: Console
) -> dict[str, Any]:
    import time

    from causaledit.methods.causal_edit.apply import EditReport, apply_causal_edit_to_model
    from causaledit.models.embedded import ensure_embedded_model
    from causaledit.models.loading import load_model
    from causaledit.probes.efficacy import ask, rates
    from causaledit.probes.trained import TrainedPrompts
    from causaledit.support.costs import peak_rss_mb
    from causaledit.support.progress import RichProgress

    report = EditReport()
    with RichProgress(console) as progress:
        with report.tally.timed("load"):
            folder = ensure_embedded_model(hparams.model_name, progress)
            with _waiting(progress, "loading the model"):
                model, tokenizer = load_model(folder, device=hparams.device)
        with report.tally.timed("probe"), _waiting(progress, "asking before the edit"):
            pre = ask(model, tokenizer, probes, template_kwargs=hparams.chat_template_kwargs)
        began = time.perf_counter()
        edited, _ = apply_causal_edit_to_model(model, tokenizer, requests, hparams, progress=progress, report=report)
        seconds = time.perf_counter() - began
        with report.tally.timed("probe"), _waiting(progress, "asking after the edit"):
            post = ask(
                edited, tokenizer, probes, trained=TrainedPrompts(report.trained_prompts),
                template_kwargs=hparams.chat_template_kwargs,
            )  # fmt: skip
    return {
        "case": {key: case[key] for key in ("case_id", "kind", "requested_rewrite", "questions", "new_answer")},
        "pre": [a.to_dict() for a in pre],
        "post": [a.to_dict() for a in post],
        "rates": rates(pre, post),
        "teacher": report.teacher,
        "narrative_source": report.narrative_source,
        "seconds": {**{k: round(v, 2) for k, v in report.tally.seconds.items()}, "edit": round(seconds, 2)},
        "tokens": vars(report.tally.tokens),
        "peak_rss_mb": round(peak_rss_mb(), 1),
        "hparams": json.loads(json.dumps(hparams.to_dict(), default=str)),
    }


@contextlib.contextmanager
def _waiting(progress: Any, stage: str) -> Iterator[None]:
    """A stage without steps, which leaves no bar."""
    progress.start(stage, None)
    try:
        yield
    finally:
        progress.finish()


def _show(result: dict[str, Any], console: Console) -> None:
    edits = "; ".join(
        f"{r['prompt'].format(r['subject'])} [s]{r['target_true']['str']}[/s] → [bold]{r['target_new']['str']}[/]"
        for r in result["case"]["requested_rewrite"]
    )
    table = Table(title=edits, show_lines=True, expand=True)
    # three columns: in 80 characters a fourth would break words
    table.add_column("asked", ratio=8)
    table.add_column("before", ratio=9)
    table.add_column("after", ratio=9)
    for before, after in sorted(zip(result["pre"], result["post"], strict=True), key=_place):
        table.add_row(f"[bold]{before['kind']}[/]\n{escape(before['prompt'])}", _cell(before), _cell(after))
    console.print(table)
    rates = ", ".join(f"{name} {r['hits']}/{r['total']}" for name, r in result["rates"].items() if r["total"])
    seconds = ", ".join(f"{stage} {value:.0f}" for stage, value in result["seconds"].items() if value >= 0.5)
    console.print(f"[bold]{rates}[/]", highlight=False)
    console.print(
        f"teacher {result['teacher']}; narrative from the {', '.join(result['narrative_source'])}; seconds: {seconds}; "
        f"tokens: {result['tokens']['generated']} generated, {result['tokens']['trained']} trained; "
        f"peak memory {result['peak_rss_mb']:.0f} MB",
        highlight=False,
    )


def _place(pair: tuple[dict[str, Any], dict[str, Any]]) -> tuple[bool, bool]:
    """The direct questions first, then why: it shows what an edit with a narrative is for."""
    before, _ = pair
    return before["family"] != "direct", before["kind"] != "why"


def _cell(answer: dict[str, Any]) -> str:
    mark = "[green]✓[/] " if answer["hit"] else "[red]✗[/] "
    return mark + escape(textwrap.shorten(answer["response"], 160, placeholder=" …"))
