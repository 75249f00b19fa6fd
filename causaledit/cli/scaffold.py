"""`causaledit scaffold`: narratives for edits that have none; `--audit`: how good narratives are."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from causaledit.cli.options import Group, takes
from causaledit.cli.workers import worker_pool
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.console import plain_console
from causaledit.support.options import option
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import Console

    from causaledit.narratives.pipeline import Report
    from causaledit.support.ray_cluster import RayCluster

SHOWN_PROBLEMS = 20
SOURCES = ("llm", "hf", "template")
HF_BATCH = 8


@dataclass(frozen=True)
class ScaffoldOptions:
    """What `causaledit scaffold` is asked to do; the fields are its flags."""

    mquake_file: str = option("", "JSON list of MQuAKE cases.")
    facts: str = option("", "Your own facts instead: a .csv or .jsonl file with subject, old, new, prompt.")
    merged_file: str = option("", "File for the cases with their narratives (JSON).")
    grounding_info_file: str = option("", "File for what Wikidata says (JSON lines); by default beside --merged_file.")
    generated_articles_file: str = option("", "File for the narratives (JSON lines); by default beside --merged_file.")
    source: str = option(
        "llm", "What writes the narratives: llm (a chat endpoint), hf (a local model) or template.", choices=SOURCES
    )
    generate_model_name: str = option("", "Model that writes, at the endpoint or local.", of=("source", ("llm", "hf")))
    verify_model_name: str = option("", "Model that checks what was written; 'none' checks by the rules alone.")
    api_key: str = option("", "Discouraged: set OPENAI_API_KEY instead.")
    base_url: str = option("", "Address of an OpenAI-compatible endpoint.")
    workers: int = option(4, "Number of calls to the endpoint at the same time.", min=1)
    timeout: float = option(120.0, "Maximum wait for one reply of the endpoint, in seconds.", min=1.0)
    max_attempts: int = option(3, "Attempts per narrative.", min=1)
    limit: int | None = option(None, "Take only this many cases, from the beginning of the file.", min=1)
    ground: bool | None = option(
        None, "Ask Wikidata (the default, except with --source template).", flag="--ground/--no-ground"
    )
    offline: bool = option(False, "Ground from the cache only.")
    wikidata_url: str = option("", "Another address of the Wikidata API.")
    contact: str = option(
        "", "Your e-mail address or web page, for Wikidata's user agent.", envvar="CAUSALEDIT_CONTACT"
    )
    paraphrases: int = option(0, "Paraphrased questions per edit.", min=0)
    locality: int = option(0, "Locality questions per edit.", min=0)
    questions: int = option(
        0, "Learning questions (CAKE) per edit; with --stories, questions that need the story.", min=0
    )
    stories: bool = option(
        False, "Write background stories, as StoryDistill reads them, instead of narratives.", flag="--stories"
    )
    audit: str = option("", "Check the narratives of this file instead of writing any.")
    model: str = option("", "With --audit: the model that reads the narratives.")
    json_file: str = option("", "With --audit: file for all measurements (JSON).", flag="--json")
    device: str = option("auto", "Device of local models: auto, cpu, cuda or cuda:N.")
    seed: int = option(42, "The same seed gives the same templates.")

    @property
    def grounded(self) -> bool:
        """Whether Wikidata, or its cache, is asked."""
        return self.offline or (self.source != "template" if self.ground is None else self.ground)

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ScaffoldError: An option is missing, or two exclude each other.
        """
        from causaledit.errors import ScaffoldError, did_you_mean

        if self.audit:
            self._refuse_given(set(_FLAGS) - _AUDIT, "with --audit, which writes no narratives")
            if not self.model:
                self._refuse_given(("device",), "with --audit without --model")
            return
        if bool(self.mquake_file) == bool(self.facts):
            raise ScaffoldError("Give either --mquake_file or --facts (or --audit FILE to check narratives).")
        if not self.merged_file:
            raise ScaffoldError("--merged_file is missing: name the file for the result.")
        if self.source not in SOURCES:
            raise ScaffoldError(
                f"--source {self.source!r} is unknown: {', '.join(SOURCES)}.{did_you_mean(self.source, SOURCES)}"
            )
        if self.stories and self.source == "template":
            raise ScaffoldError("--stories: there are no templates for stories; give --source llm or hf.")
        if self.source != "template" and not self.generate_model_name:
            raise ScaffoldError(f"--generate_model_name is missing: --source {self.source} needs a model.")
        self._check_effects()

    def _check_effects(self) -> None:
        """Refuse what would be ignored, beside what `of` says."""
        self._refuse_given(("model", "json_file"), "without --audit")
        if self.source != "hf":
            self._refuse_given(("device",), f"with --source {self.source}, which loads no local model")
        if self.source == "hf" or (self.source == "template" and self.verify_model_name in ("", "none")):
            named = "hf" if self.source == "hf" else "template without --verify_model_name"
            self._refuse_given(_ENDPOINT, f"with --source {named}, which calls no endpoint")
        if self.ground is False:
            self._refuse_given(("offline",), "with --no-ground")
        if not self.grounded:
            how = "--no-ground" if self.ground is False else "--source template, where --ground is not given"
            self._refuse_given(("wikidata_url",), f"with {how}")

    def _refuse_given(self, names: Iterable[str], where: str) -> None:
        """Refuse options that were given and have no effect."""
        from causaledit.errors import OptionError

        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]
        if strays := [_FLAGS[name] for name in given if name in names]:
            raise OptionError(f"{strays[0]} has no effect {where}: leave it out.")


_FLAGS = {
    field.name: (field.metadata.get("flag") or f"--{field.name}").partition("/")[0]
    for field in dataclasses.fields(ScaffoldOptions)
}
# what an audit uses; the contact may come from the environment
_AUDIT = {"audit", "model", "json_file", "device", "limit", "contact"}
_ENDPOINT = ("api_key", "base_url", "workers", "timeout")


@takes(
    options=ScaffoldOptions,
    spread=Group(
        WorkerOptions,
        renamed={"workers": "--ray-workers"},
        helps={
            "workers": "Number of processes that write at the same time, on Ray, with --source hf; 0: this one alone.",
            "worker_retries": "How often narratives are written again after their worker died.",
        },
    ),
)
def scaffold(options: ScaffoldOptions, spread: WorkerOptions) -> None:
    """Write narratives (ground, generate, check, merge), or audit those of a file."""
    from causaledit.errors import CausalEditError, OptionError

    if options.audit and spread.workers:
        raise OptionError("--ray-workers has no effect with --audit: leave it out.")
    if options.audit:
        options.check()
        _audit(options.audit, options.model, options.json_file, options.device, options.limit)
        return
    options.check()
    if spread.workers and options.source != "hf":
        raise CausalEditError(f"--ray-workers are for a local model: give --source hf, not {options.source!r}.")
    console = plain_console(markup=True, stderr=True, soft_wrap=True)
    if options.api_key:
        console.print(
            "[yellow]warning:[/] --api_key can be read by others on this machine and stays in the shell's history; "
            "set OPENAI_API_KEY instead.", highlight=False,
        )  # fmt: skip
    paths = _paths(
        options.merged_file,
        options.grounding_info_file,
        options.generated_articles_file,
        inputs=(options.mquake_file, options.facts),
    )
    try:
        with worker_pool(spread) as pool:
            complete = _run(options, paths, console, pool)
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; what was done is kept in {paths.articles}: run the same command again to resume"
        ) from None
    if not complete:
        raise typer.Exit(1)


def _paths(merged: str, grounding: str, articles: str, inputs: tuple[str, ...]) -> Any:
    from causaledit.errors import ScaffoldError
    from causaledit.narratives.pipeline import Files
    from causaledit.support.files import check_writable

    target = expanded(merged)
    if target.is_dir():
        raise ScaffoldError(f"--merged_file {merged!r} is a folder: name a file.")
    files = Files(
        merged=target,
        grounding=expanded(grounding) if grounding else target.with_suffix(".grounding.jsonl"),
        articles=expanded(articles) if articles else target.with_suffix(".articles.jsonl"),
        extras=target.with_suffix(".questions.jsonl"),
    )
    named = [p.resolve() for p in (files.merged, files.grounding, files.articles, files.extras) if p is not None]
    named += [expanded(i).resolve() for i in inputs if i]
    if twice := [str(path) for path, n in Counter(named).items() if n > 1]:
        raise ScaffoldError(f"{twice[0]!r} is named twice: the input and each stage need a file of their own.")
    check_writable(target.parent, "--merged_file")
    return files


def _run(options: ScaffoldOptions, paths: Any, console: Console, pool: RayCluster | None) -> bool:
    """Run the stages and report the result. Returns whether nothing is missing."""
    import time

    from causaledit.narratives.cases import read_cases
    from causaledit.narratives.extras import Amounts
    from causaledit.narratives.own_facts import read_facts
    from causaledit.narratives.pipeline import Settings, run_scaffold
    from causaledit.support.files import write_json
    from causaledit.support.progress import RichProgress

    cases = (
        read_facts(options.facts, limit=options.limit)
        if options.facts
        else read_cases(options.mquake_file, limit=options.limit)
    )
    began = time.perf_counter()
    wikidata = _wikidata(options)
    roles = _Roles(options, console, pool)
    local = options.source == "hf"
    at_a_time = options.workers if options.source == "llm" or roles.verify_client else 1
    settings = Settings(
        source=options.source,
        workers=at_a_time if pool is None else pool.options.workers,
        batch=HF_BATCH if local else 1,
        max_attempts=options.max_attempts,
        amounts=Amounts(options.paraphrases, options.locality, options.questions),
        stories=options.stories,
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


def _wikidata(options: ScaffoldOptions) -> Any:
    if not options.grounded:
        return None
    from causaledit.narratives.wikidata import API_URL, Wikidata
    from causaledit.support.paths import cache_dir

    return Wikidata(
        url=options.wikidata_url or API_URL,
        contact=options.contact,
        cache=cache_dir() / "wikidata",
        offline=options.offline,
    )


class _Roles:
    """Who writes and who checks, as the options say; local models are loaded once."""

    def __init__(self, options: ScaffoldOptions, console: Console, pool: RayCluster | None) -> None:
        from causaledit.narratives.local import LocalModels

        self._options, self._console = options, console
        self._local = LocalModels(pool, device=options.device, seed=options.seed)
        self.write_client: Any = None
        self.verify_client: Any = None
        verify = options.verify_model_name
        if options.source == "llm":
            verify = verify or options.generate_model_name
            self.write_client = self._client(options.generate_model_name)
        elif options.source == "hf":
            self._generate = self._load(options.generate_model_name, temperature=0.8)
        self.verifier = None if not verify or verify == "none" else self._verifier(verify)

    def _client(self, name: str) -> Any:
        from causaledit.support.chat_endpoint import ChatClient

        return ChatClient(
            name,
            timeout=self._options.timeout,
            base_url=self._options.base_url or None,
            api_key=self._options.api_key or None,
        )

    def _load(self, name: str, temperature: float | None) -> Any:
        with self._console.status(f"loading {name}"):
            return self._local.generate(name, temperature)

    def _verifier(self, name: str) -> Any:
        from causaledit.narratives.verify import ChatVerifier, LocalVerifier

        if self._options.source == "hf":
            return LocalVerifier(name, self._load(name, temperature=None), stories=self._options.stories)
        self.verify_client = self._client(name)
        return ChatVerifier(self.verify_client, stories=self._options.stories)

    def writer(self, grounding: Any) -> Any:
        """The writer, once the entities are grounded."""
        from causaledit.narratives.generate import ChatWriter, LocalWriter, TemplateWriter, narrative_messages
        from causaledit.narratives.stories import story_messages
        from causaledit.narratives.templates import TemplateBank

        seed = self._options.seed
        prompt = story_messages if self._options.stories else narrative_messages
        if self._options.source == "llm":
            return ChatWriter(self.write_client, grounding, seed=seed, prompt=prompt)
        if self._options.source == "hf":
            return LocalWriter(self._options.generate_model_name, self._generate, grounding, prompt=prompt)
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
        if self._options.source == "hf":
            cost["local"] = {"tokens": self._local.tokens.generated}
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
    out = plain_console(markup=True, soft_wrap=True)

    def say(text: str) -> None:
        out.print(text, highlight=False, markup=False)

    say(
        f"{report.merged} of {report.cases} cases merged; {report.edits} edits: {report.narratives} narratives written "
        f"in {report.attempts} tries, {report.kept} kept; {seconds:.1f} s"
    )
    for role, counts in cost.items():
        say(f"{role}: " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items()))
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
    console = plain_console(markup=True, stderr=True, soft_wrap=True)
    audits = audit_rules(cases.cases)
    if model:
        from causaledit.models.chat import prepare_tokenizer
        from causaledit.models.loading import load_model
        from causaledit.support.progress import RichProgress

        resolve_device(device)
        with console.status(f"loading {model}"):
            loaded = load_model(model, device=device)
        with RichProgress(console) as progress:

            def done(narratives: int) -> None:
                for _ in range(narratives):
                    progress.advance()

            progress.start("audit", sum(bool(a.words) for a in audits))
            audit_with_model(
                cases.cases, audits, loaded.model, prepare_tokenizer(loaded.tokenizer),
                on_done=done,
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

    out = plain_console(markup=True, soft_wrap=True)
    table = Table("case", "edit", "subject", "words", "log-odds without", "with", "shift", "rules")
    for a in audits:
        numbers = [f"{v:+.2f}" if v is not None else "" for v in (a.log_odds_without, a.log_odds_with, a.shift)]
        table.add_row(
            str(a.case_id),
            str(a.edit),
            escape(a.subject),
            str(a.words),
            *numbers,
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
