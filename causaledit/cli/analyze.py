"""`causaledit analyze`: self-refutation, rationales and accuracies of a run, alone or paired with another."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from causaledit.cli import judging
from causaledit.judges.recall import recall_note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from causaledit.evaluation.metrics import CaseScores, PairedComparison, RunMetrics, SelfRefutation
    from causaledit.evaluation.predictions import Item
    from causaledit.evaluation.statistics import Mean, Rate
    from causaledit.judges.base import Task
    from causaledit.judges.store import VerdictTable

SOURCE_NAMES = {
    "hop_wise": "hop-wise only",
    "conflict": "conflict only",
    "conflict_described_first": "conflict, subject described first",
    "combined": "combined (published SRR)",
    "combined_described_first": "combined, described first only",
}


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


def analyze(
    input_file: judging.InputOption,
    llm_self_refute: Annotated[Switch, typer.Option(help="Judge self-refutation.")] = Switch.on,
    rewrite_why: Annotated[Switch, typer.Option(help="Judge the why-prompts' explanations.")] = Switch.on,
    judge: judging.JudgeOption = "rule",
    judge_model: judging.ModelOption = "",
    base_url: judging.UrlOption = "",
    api_key_env: judging.KeyOption = "OPENAI_API_KEY",
    workers: judging.WorkersOption = 4,
    timeout: judging.TimeoutOption = 60.0,
    device: judging.DeviceOption = "auto",
    retry_errors: judging.RetryOption = False,
    paired: Annotated[str, typer.Option(help="metrics.json of another run on the same cases.")] = "",
) -> None:
    """Analyse a run: writes analysis/pred_analysis.json and .txt beside the input."""
    from causaledit.evaluation.metrics import compare_runs, evaluate_run, shared_cases
    from causaledit.evaluation.predictions import read_cases, read_metrics
    from causaledit.files import check_writable, write_json, write_text
    from causaledit.judges.store import analysis_folder

    options = judging.JudgeOptions(judge, judge_model, base_url, api_key_env, workers, timeout, device, retry_errors)
    file, other_file = input_file.expanduser(), Path(paired).expanduser() if paired else None
    cases = read_cases(read_metrics(file))
    other_cases = read_cases(read_metrics(other_file, "--paired")) if other_file else []
    if other_file:
        shared_cases(cases, other_cases)  # refused before anything is judged
    folder = analysis_folder(file)
    check_writable(folder, "the folder of --input")
    tasks: list[Task] = ["answer"]
    tasks += ["refutation"] if llm_self_refute is Switch.on else []
    tasks += ["rationale"] if rewrite_why is Switch.on else []
    chosen = options.load()
    # one pass over both files: what they share is judged once, and the store beside --input gets it all
    table = judging.judge_file(
        file, [*cases, *other_cases], tasks, chosen, options, also=[other_file] if other_file else []
    )
    figures = evaluate_run(cases, table)
    comparison = compare_runs(figures, evaluate_run(other_cases, table)) if other_file else None
    switches = {"llm_self_refute": llm_self_refute.value, "rewrite_why": rewrite_why.value}
    result = {
        "input": file.name,
        "judge": table.judge,
        "options": switches,
        "metrics": figures.to_dict(),
        "errors": table.errors(),
        "paired": comparison and {"other": paired, **comparison.to_dict()},
        "cases": [_case(scores, table) for scores in figures.scores],
    }
    text = _text(file, figures, comparison, paired)
    written = write_json(folder / "pred_analysis.json", result)
    report = write_text(folder / "pred_analysis.txt", text)
    problem = judging.check_some_verdict(table)
    console = Console(soft_wrap=True)
    console.print(text, highlight=False, markup=False)
    if problem:
        Console(stderr=True, soft_wrap=True).print(problem, highlight=False, markup=False)
    console.print(f"written to {written} and {report}", highlight=False, markup=False)


# ---- the JSON file's cases -----------------------------------------------------------------------------------------
def _case(scores: CaseScores, table: VerdictTable) -> dict[str, Any]:
    case = scores.case
    return {
        "case_id": case.case_id,
        "error": case.error,
        "hops": case.hops,
        "h_acc": scores.h_acc,
        "m_acc": scores.m_acc,
        "any_right_accuracy": scores.any_right,
        "answers": [_item(i, table) for i in case.items if i.task == "answer"],
        "edits": [
            {
                "subject": edit.subject,
                "target_new": edit.target_new,
                "target_old": edit.target_old,
                "hops": list(edit.hops),
                "asserted": outcome.asserted,
                "self_refutation": dict(outcome.refutes),
                "open_book_self_refutation": dict(opened.refutes) if opened else None,
                "responses": [_item(i, table) for i in case.items if i.task == "refutation" and i.edit == edit.index],
                "rationales": [_item(i, table) for i in case.items if i.task == "rationale" and i.edit == edit.index],
            }
            for edit, outcome, opened in _edits(scores)
        ],
    }


def _edits(scores: CaseScores) -> Iterator[tuple[Any, Any, Any]]:
    for index, outcome in enumerate(scores.edits):
        yield outcome.edit, outcome, scores.open_book_edits[index] if scores.open_book_edits else None


def _item(item: Item, table: VerdictTable) -> dict[str, Any]:
    from causaledit.judges.base import verdict_to_dict

    verdict = table.get(item.task, item.response)
    place = {"probe": item.probe, "hop": item.hop, "slot": item.slot}
    if item.probe == "locality":
        place["before"] = item.before
    found = {"error": item.problem or "not judged"} if verdict is None else verdict_to_dict(verdict)
    return {**{key: value for key, value in place.items() if value is not None}, "verdict": found}


# ---- the text ------------------------------------------------------------------------------------------------------
def figure_text(figure: Rate | Mean) -> str:
    """`12.5 % (1/8, 95 % 2.2 to 47.1), 3 not judged`; "not judged" or "nothing to count" where there is no rate."""
    missing = figure.not_judged
    if figure.rate is None:
        return f"not judged ({missing})" if missing else "nothing to count"
    total = getattr(figure, "total", None)
    count = f"{figure.hits}/{total}" if total is not None else f"{figure.n} cases"  # type: ignore[union-attr]
    interval = figure.interval
    spread = "" if interval is None else f", 95 % {100 * interval.low:.1f} to {100 * interval.high:.1f}"
    answers = getattr(figure, "predictions_not_judged", 0)
    rest = f", {missing} not judged" if missing else f", {answers} answers not judged" if answers else ""
    return f"{100 * figure.rate:.1f} % ({count}{spread}){rest}"


def _text(file: Path, figures: RunMetrics, comparison: PairedComparison | None, other: str) -> str:
    note = recall_note(figures.judge)
    recall = [f"  {note}"] if note else []
    lines = [
        f"Analysis of {file.name}: {figures.cases} cases ({figures.failed_cases} without predictions), "
        f"{figures.edits} edits; judge {figures.judge}",
        "",
        "Answers",
        f"  H-Acc                               {figure_text(figures.h_acc)}",
        f"  M-Acc, all questions                {figure_text(figures.m_acc)}",
        f"  M-Acc, any of a case's questions    {figure_text(figures.any_right_accuracy)}",
        "",
        "Self-refutation (SRR): edits with a self-refuting response, of those whose hop-wise answers assert the new "
        "answer",
        *recall,
        f"  edits that assert the new answer    {figure_text(figures.asserting_edits)}",
        *_srr_lines(figures.self_refutation, "conditional"),
        "  over all edits:",
        *_srr_lines(figures.self_refutation, "all_edits"),
    ]
    if figures.open_book_self_refutation:
        lines += ["  open-book:", *_srr_lines(figures.open_book_self_refutation, "conditional")]
    rationale = figures.rationale
    lines += [
        "",
        "Rationales of why-prompts (edits with a narrative)",
        f"  agree with the narrative            {figure_text(rationale.aligned)}",
        f"  PASS {rationale.passed}, FAIL {rationale.failed}, UNSURE {rationale.unsure}, not judged "
        f"{rationale.not_judged}",
        "",
        "Locality",
        f"  unchanged                           {figure_text(figures.locality.unchanged)}",
        f"  still right, of right before        {figure_text(figures.locality.still_right)}",
        "",
        "By length of the chain",
        *recall,
    ]
    for hops, part in figures.by_hops.items():
        chain = f"{hops}-hop" if hops else "no hop-wise probes"
        lines.append(
            f"  {chain}, {part.cases} cases: H-Acc {figure_text(part.h_acc)}; M-Acc {figure_text(part.m_acc)}; "
            f"SRR {figure_text(part.self_refutation.conditional)}"
        )
    if comparison:
        lines += ["", *_paired_lines(comparison, other)]
    return "\n".join(lines) + "\n"


def _srr_lines(figures: Mapping[Any, SelfRefutation], which: str) -> list[str]:
    lines = []
    for source, name in SOURCE_NAMES.items():
        figure = figures[source]
        missing = f"; {figure.not_probed} edits not probed" if figure.not_probed else ""
        lines.append(f"  {name:<36}{figure_text(getattr(figure, which))}{missing}")
    return lines


def _paired_lines(comparison: PairedComparison, other: str) -> list[str]:
    lines = [
        f"Paired with {other}: {comparison.cases} cases in both, {comparison.only_this} only here, "
        f"{comparison.only_other} only there",
        "  both / only here / only there / neither say yes; repaired and harmed against the other run; exact McNemar p",
    ]
    for name, table in comparison.tables.items():
        p = "none" if table.p is None else f"{table.p:.4g}"
        missing = f", {table.not_judged} not judged" if table.not_judged else ""
        lines.append(
            f"  {name:<50} {table.both} / {table.only_this} / {table.only_other} / {table.neither}; "
            f"repaired {table.repaired}, harmed {table.harmed}, p {p}{missing}"
        )
    for name, difference in comparison.differences.items():
        if difference.mean is not None:
            spread = difference.interval
            told = "" if spread is None else f" (95 % {100 * spread.low:+.1f} to {100 * spread.high:+.1f})"
            lines.append(f"  {name}: {100 * difference.mean:+.1f} points{told} over {difference.n} cases")
    return lines
