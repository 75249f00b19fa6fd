"""`causaledit scaffold`: narratives for edits that have none; `--audit`: how good narratives are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from causaledit.narratives.pipeline import Report

SHOWN_PROBLEMS = 20
SOURCES = ("llm", "hf", "template")
HF_BATCH = 8


def scaffold(
    mquake_file: Annotated[str, typer.Option("--mquake_file", help="JSON list of MQuAKE cases.")] = "",
    facts: Annotated[str, typer.Option(help="Own facts instead, .csv or .jsonl: subject, old, new, prompt.")] = "",
    merged_file: Annotated[str, typer.Option("--merged_file", help="The cases with narratives (JSON).")] = "",
    grounding_info_file: Annotated[
        str, typer.Option("--grounding_info_file", help="What Wikidata says (JSON lines); beside --merged_file.")
    ] = "",
    generated_articles_file: Annotated[
        str, typer.Option("--generated_articles_file", help="The narratives (JSON lines); beside --merged_file.")
    ] = "",
    source: Annotated[
        str, typer.Option(help="Who writes: llm (a chat endpoint), hf (a local model), template.")
    ] = "llm",
    generate_model_name: Annotated[
        str, typer.Option("--generate_model_name", help="Model that writes, at the endpoint or local.")
    ] = "",
    verify_model_name: Annotated[
        str, typer.Option("--verify_model_name", help="Model that checks; 'none' leaves it at the rules.")
    ] = "",
    api_key: Annotated[str, typer.Option("--api_key", help="Discouraged: set OPENAI_API_KEY instead.")] = "",
    base_url: Annotated[str, typer.Option("--base_url", help="Address of an OpenAI-compatible endpoint.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Calls at the same time.")] = 4,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Longest wait for one reply of the endpoint, in seconds.")
    ] = 120,
    max_attempts: Annotated[int, typer.Option("--max_attempts", min=1, help="Tries per narrative.")] = 3,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many cases.")] = None,
    ground: Annotated[
        bool | None, typer.Option("--ground/--no-ground", help="Ask Wikidata (default: not for --source template).")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ground from the cache alone.")] = False,
    wikidata_url: Annotated[str, typer.Option("--wikidata_url", help="Another address of the Wikidata API.")] = "",
    contact: Annotated[
        str, typer.Option(help="Your mail or page, for Wikidata's user agent.", envvar="CAUSALEDIT_CONTACT")
    ] = "",
    paraphrases: Annotated[int, typer.Option(min=0, help="Paraphrased questions per edit.")] = 0,
    locality: Annotated[int, typer.Option(min=0, help="Locality questions per edit.")] = 0,
    questions: Annotated[int, typer.Option(min=0, help="Learning questions (CAKE) per edit.")] = 0,
    audit: Annotated[str, typer.Option(help="Check the narratives of this file instead of writing any.")] = "",
    model: Annotated[str, typer.Option(help="With --audit: the model that reads the narratives.")] = "",
    json_file: Annotated[str, typer.Option("--json", help="With --audit: write all figures here.")] = "",
    device: Annotated[str, typer.Option(help="For local models: auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same templates.")] = 42,
) -> None:
    """Write narratives (ground, generate, check, merge), or audit those of a file."""
    from causaledit.errors import CausalEditError, ScaffoldError
    from causaledit.narratives.extras import Amounts

    if audit:
        _audit(audit, model, json_file, device, limit)
        return
    if bool(mquake_file) == bool(facts):
        raise ScaffoldError("Give either --mquake_file or --facts (or --audit FILE to check narratives).")
    if not merged_file:
        raise ScaffoldError("--merged_file is missing: name the file for the result.")
    if source not in SOURCES:
        from causaledit.errors import did_you_mean

        raise ScaffoldError(f"--source {source!r} is unknown: {', '.join(SOURCES)}.{did_you_mean(source, SOURCES)}")
    if source != "template" and not generate_model_name:
        raise ScaffoldError(f"--generate_model_name is missing: --source {source} needs a model.")
    console = Console(stderr=True, soft_wrap=True)
    if api_key:
        console.print(
            "[yellow]warning:[/] --api_key can be read by others on this machine and stays in the shell's history; "
            "set OPENAI_API_KEY instead.", highlight=False,
        )  # fmt: skip
    choices = {
        "source": source, "write": generate_model_name, "verify": verify_model_name, "api_key": api_key,
        "base_url": base_url, "timeout": timeout, "workers": workers, "max_attempts": max_attempts, "device": device,
        "ground": source != "template" if ground is None else ground, "offline": offline, "contact": contact,
        "seed": seed, "wikidata_url": wikidata_url, "amounts": Amounts(paraphrases, locality, questions),
    }  # fmt: skip
    paths = _paths(merged_file, grounding_info_file, generated_articles_file, inputs=(mquake_file, facts))
    try:
        complete = _run(mquake_file, facts, limit, paths, choices, console)
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; what was done is kept in {paths.articles}: the same command goes on from there"
        ) from None
    if not complete:
        raise typer.Exit(1)


def _paths(merged: str, grounding: str, articles: str, inputs: tuple[str, ...]) -> Any:
    from causaledit.errors import ScaffoldError
    from causaledit.narratives.pipeline import Files
    from causaledit.support.files import check_writable

    target = Path(merged).expanduser()
    if target.is_dir():
        raise ScaffoldError(f"--merged_file {merged!r} is a folder: name a file.")
    files = Files(
        merged=target,
        grounding=Path(grounding).expanduser() if grounding else target.with_suffix(".grounding.jsonl"),
        articles=Path(articles).expanduser() if articles else target.with_suffix(".articles.jsonl"),
        extras=target.with_suffix(".questions.jsonl"),
    )
    named = [p.resolve() for p in (files.merged, files.grounding, files.articles, files.extras) if p is not None]
    named += [Path(i).expanduser().resolve() for i in inputs if i]
    if twice := [str(path) for path, n in Counter(named).items() if n > 1]:
        raise ScaffoldError(f"{twice[0]!r} is named for two things: every stage, and the input, needs its own file.")
    check_writable(target.parent, "--merged_file")
    return files


def _run(
    mquake_file: str, facts: str, limit: int | None, paths: Any, choices: dict[str, Any], console: Console
) -> bool:
    """Run the stages and say what came of it. Returns whether nothing is missing."""
    import time

    from causaledit.narratives.cases import read_cases
    from causaledit.narratives.own_facts import read_facts
    from causaledit.narratives.pipeline import Settings, run_scaffold
    from causaledit.support.files import write_json
    from causaledit.support.progress import RichProgress

    cases = read_facts(facts, limit=limit) if facts else read_cases(mquake_file, limit=limit)
    began = time.perf_counter()
    wikidata = _wikidata(choices)
    roles = _Roles(choices, console)
    local = choices["source"] == "hf"
    settings = Settings(
        source=choices["source"],
        workers=choices["workers"] if choices["source"] == "llm" or roles.verify_client else 1,
        batch=HF_BATCH if local else 1,
        max_attempts=choices["max_attempts"],
        amounts=choices["amounts"],
    )
    with RichProgress(console) as progress:
        report = run_scaffold(
            cases, paths, settings,
            make_writer=roles.writer, verifier=roles.verifier, wikidata=wikidata, extras_client=roles.write_client,
            progress=progress, on_stop=roles.stop,
        )  # fmt: skip
    cost = {**roles.cost(), **({"wikidata": vars(wikidata.usage)} if wikidata else {})}
    seconds = round(time.perf_counter() - began, 2)
    report_file = paths.merged.with_suffix(".report.json")
    write_json(report_file, {**report.to_dict(), "cost": cost, "seconds": seconds})
    _say(report, cost, seconds, paths.merged, report_file, console)
    return not report.problems


def _wikidata(choices: dict[str, Any]) -> Any:
    if not choices["ground"] and not choices["offline"]:
        return None
    from causaledit.narratives.wikidata import API_URL, Wikidata
    from causaledit.support.paths import cache_dir

    return Wikidata(
        url=choices["wikidata_url"] or API_URL,
        contact=choices["contact"],
        cache=cache_dir() / "wikidata",
        offline=choices["offline"],
    )


class _Roles:
    """Who writes and who checks, as the options say; local models are loaded once."""

    def __init__(self, choices: dict[str, Any], console: Console) -> None:
        self._choices, self._console = choices, console
        self._local: dict[str, Any] = {}
        self.write_client: Any = None
        self.verify_client: Any = None
        self.tokens: Any = None
        verify = choices["verify"]
        if choices["source"] == "llm":
            verify = verify or choices["write"]
            self.write_client = self._client(choices["write"])
        elif choices["source"] == "hf":
            self._generate = self._load(choices["write"], temperature=0.8)
        self.verifier = None if not verify or verify == "none" else self._verifier(verify)

    def _client(self, name: str) -> Any:
        from causaledit.support.chat_endpoint import ChatClient

        options = {key: self._choices[key] or None for key in ("base_url", "api_key")}
        return ChatClient(name, timeout=self._choices["timeout"], **options)

    def _load(self, name: str, temperature: float | None) -> Any:
        import torch

        from causaledit.models.chat import prepare_tokenizer
        from causaledit.models.loading import load_model
        from causaledit.narratives.generate import local_generate
        from causaledit.support.costs import TokenCount

        if name not in self._local:
            with self._console.status(f"loading {name}"):
                self._local[name] = load_model(name, device=self._choices["device"])
        self.tokens = self.tokens or TokenCount()
        torch.manual_seed(self._choices["seed"])
        loaded = self._local[name]
        tokenizer = prepare_tokenizer(loaded.tokenizer)
        return local_generate(loaded.model, tokenizer, temperature=temperature, count=self.tokens)

    def _verifier(self, name: str) -> Any:
        from causaledit.narratives.verify import ChatVerifier, LocalVerifier

        if self._choices["source"] == "hf":
            return LocalVerifier(name, self._load(name, temperature=None))
        self.verify_client = self._client(name)
        return ChatVerifier(self.verify_client)

    def writer(self, grounding: Any) -> Any:
        """The writer, once the entities are grounded."""
        from causaledit.narratives.generate import ChatWriter, LocalWriter, TemplateWriter
        from causaledit.narratives.templates import TemplateBank

        seed = self._choices["seed"]
        if self._choices["source"] == "llm":
            return ChatWriter(self.write_client, grounding, seed=seed)
        if self._choices["source"] == "hf":
            return LocalWriter(self._choices["write"], self._generate, grounding)
        return TemplateWriter(TemplateBank.bundled(), grounding, seed=seed)

    def stop(self) -> None:
        """End waiting calls."""
        for client in (self.write_client, self.verify_client):
            if client is not None:
                client.stop()

    def cost(self) -> dict[str, Any]:
        """Calls, tokens and retries by role."""
        clients = {"generate": self.write_client, "verify": self.verify_client}
        cost = {role: client.usage.to_dict() for role, client in clients.items() if client is not None}
        if self.tokens is not None:
            cost["local"] = {"tokens": self.tokens.generated}
        return cost


def _say(
    report: Report, cost: dict[str, Any], seconds: float, merged: Path, report_file: Path, console: Console
) -> None:
    """The summary: what is missing on standard error, the result on standard output."""
    for problem in report.problems[:SHOWN_PROBLEMS]:
        console.print(f"{problem.item}: {problem.stage}: {problem.reason}", highlight=False, markup=False)
    if len(report.problems) > SHOWN_PROBLEMS:
        rest = len(report.problems) - SHOWN_PROBLEMS
        console.print(f"… and {rest} more, all in {report_file}", highlight=False, markup=False)
    for conflict in report.conflicts[:SHOWN_PROBLEMS]:
        console.print(f"note: not for one batch: {conflict}", highlight=False, markup=False)
    out = Console(soft_wrap=True)

    def say(text: str) -> None:
        out.print(text, highlight=False, markup=False)

    say(
        f"{report.merged} of {report.cases} cases merged; {report.edits} edits: {report.narratives} narratives written "
        f"in {report.attempts} tries, {report.kept} kept; {seconds:.1f} s"
    )
    for role, figures in cost.items():
        say(f"{role}: " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in figures.items()))
    if report.problems:
        stages = Counter(p.stage for p in report.problems)
        say("missing: " + ", ".join(f"{n} at {stage}" for stage, n in stages.items()))
    say(f"written to {merged}")


# ---- audit -------------------------------------------------------------------------------------------
def _audit(file: str, model: str, json_file: str, device: str, limit: int | None) -> None:
    from causaledit.models.loading import resolve_device
    from causaledit.narratives.audit import audit_rules, audit_with_model, summarise
    from causaledit.narratives.cases import read_cases
    from causaledit.support.files import write_json

    cases = read_cases(file, limit=limit)
    console = Console(stderr=True, soft_wrap=True)
    audits = audit_rules(cases.cases)
    if model:
        from causaledit.models.chat import prepare_tokenizer
        from causaledit.models.loading import load_model
        from causaledit.support.progress import RichProgress

        resolve_device(device)
        with console.status(f"loading {model}"):
            loaded = load_model(model, device=device)
        with RichProgress(console) as progress:
            progress.start("audit", sum(bool(a.words) for a in audits))
            audit_with_model(
                cases.cases, audits, loaded.model, prepare_tokenizer(loaded.tokenizer),
                on_done=lambda n: [progress.advance() for _ in range(n)],
            )  # fmt: skip
            progress.finish()
    summary = summarise(audits)
    if json_file:
        write_json(json_file, {"summary": summary, "narratives": [a.to_dict() for a in audits],
                               "problems": [p._asdict() for p in cases.problems]})  # fmt: skip
    for problem in cases.problems:
        console.print(f"{problem.item}: {problem.reason}", highlight=False, markup=False)
    _show_audit(audits, summary)
    if cases.problems or any(a.failures for a in audits):
        raise typer.Exit(1)


def _show_audit(audits: list[Any], summary: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = Console(soft_wrap=True)
    table = Table("case", "edit", "subject", "words", "log-odds without", "with", "shift", "rules")
    for a in audits:
        figures = [f"{v:+.2f}" if v is not None else "" for v in (a.log_odds_without, a.log_odds_with, a.shift)]
        table.add_row(
            str(a.case_id),
            str(a.edit),
            escape(a.subject),
            str(a.words),
            *figures,
            escape("; ".join(a.failures)) or "pass",
        )
    out.print(table)
    rates = [("rules passed", "rules_passed"), ("log-odds raised", "raised"),
             ("new answer ahead without", "new_ahead_without"), ("with", "new_ahead_with")]  # fmt: skip
    said = [
        f"{name} {r['hits']}/{r['total']} ({r['rate']:.1%}, 95 % {r['low']:.1%} to {r['high']:.1%})"
        for name, key in rates
        if (r := summary[key])["total"]
    ]
    if summary["median_shift"] is not None:
        said.append(f"median shift {summary['median_shift']:+.2f}")
    out.print("; ".join(said), highlight=False, markup=False)
