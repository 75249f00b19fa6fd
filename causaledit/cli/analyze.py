"""`causaledit analyze`: self-refutation, rationales and accuracies of a run, alone or paired with another."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from causaledit.cli.judging import judge_with_progress, show
from causaledit.cli.options import InputOption, JudgeOptions, takes
from causaledit.cli.workers import JUDGE_WORKERS, loaded_judge
from causaledit.errors import MetricsError
from causaledit.metrics.ability import ability_lines
from causaledit.metrics.wording import (
    SOURCE_NAMES,
    counted,
    not_judged,
    p_value,
    srr_notes,
    worded_difference,
    worded_rate,
)
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from causaledit.judges.base import Task
    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.paired import PairedComparison
    from causaledit.metrics.predictions import Item
    from causaledit.metrics.retention import Retention
    from causaledit.metrics.scores import CaseScores, Source
    from causaledit.metrics.summary import RunMetrics, SelfRefutation


ALONE = WorkerOptions()


class Switch(StrEnum):
    """On or off."""

    on = "on"
    off = "off"


@takes(judging=JudgeOptions, spread=JUDGE_WORKERS)
def analyze(
    input_file: InputOption,
    judging: JudgeOptions,
    spread: WorkerOptions,
    llm_self_refute: Annotated[Switch, typer.Option(help="Judge self-refutation.")] = Switch.on,
    rewrite_why: Annotated[Switch, typer.Option(help="Judge the why-prompts' explanations.")] = Switch.on,
    paired: Annotated[str, typer.Option(help="metrics.json of another run on the same cases.")] = "",
) -> None:
    """Analyse a run: writes analysis/pred_analysis.json and .txt beside the input."""
    analyse_file(
        expanded(input_file),
        judging,
        refutations=llm_self_refute is Switch.on,
        rationales=rewrite_why is Switch.on,
        paired=paired,
        spread=spread,
    )


def analyse_file(
    file: Path,
    judging: JudgeOptions,
    *,
    refutations: bool = True,
    rationales: bool = True,
    paired: str = "",
    spread: WorkerOptions = ALONE,
) -> None:
    """Judge a metrics file, and write and show its analysis.

    Args:
        file: metrics.json of a run.
        judging: The judge.
        refutations: Judge self-refutation.
        rationales: Judge the why-prompts' explanations.
        paired: metrics.json of another run on the same cases.
        spread: Workers of the hf judge.
    """
    from causaledit.ability.summary import read_ability
    from causaledit.judges.store import analysis_folder
    from causaledit.metrics.judged import check_some_verdict
    from causaledit.metrics.likelihood import likelihood_metrics
    from causaledit.metrics.paired import compare_runs, shared_cases
    from causaledit.metrics.predictions import cases_of, last_checkpoint, read_metrics
    from causaledit.metrics.summary import summarise
    from causaledit.support.files import check_writable, write_json, write_text

    other_file = expanded(paired) if paired else None
    content = read_metrics(file)
    cases = cases_of(content)
    other_cases = cases_of(read_metrics(other_file, "--paired")) if other_file else []
    if other_file:
        try:  # refused before anything is judged
            shared_cases(last_checkpoint(cases), last_checkpoint(other_cases))
        except MetricsError as error:
            raise MetricsError(f"--paired ({str(other_file)!r}) and --input: {error}") from None
    folder = analysis_folder(file)
    check_writable(folder, "the folder of --input")
    tasks: list[Task] = ["answer"]
    tasks += ["refutation"] if refutations else []
    tasks += ["rationale"] if rationales else []
    # one pass over both files: what they share is judged once, and the store beside --input gets it all
    also = [other_file] if other_file else []
    with loaded_judge(judging, spread) as chosen:
        verdicts = judge_with_progress(file, [*cases, *other_cases], tasks, chosen, judging, also)
    metrics = summarise(cases, verdicts)
    comparison = compare_runs(metrics, summarise(other_cases, verdicts)) if other_file else None
    ability = read_ability(file.parent, sequence=metrics.retention is not None)
    likelihood = likelihood_metrics(content)
    named = {True: Switch.on.value, False: Switch.off.value}
    result = {
        "input": file.name,
        "judge": verdicts.judge,
        "options": {"llm_self_refute": named[refutations], "rewrite_why": named[rationales]},
        "metrics": metrics.to_dict(),
        "errors": verdicts.errors(),
        "paired": comparison and {"other": paired, **comparison.to_dict()},
        "cases": [_case(scores, verdicts) for scores in metrics.scores],
        **({"likelihood": likelihood.to_dict()} if likelihood else {}),
        **({"ability": ability} if ability else {}),
    }
    text = _text(file, metrics, comparison, paired)
    if likelihood:
        text += "\n" + "\n".join(["New answer against old one", *(f"  {line}" for line in likelihood.lines())]) + "\n"
    if ability:
        text += "\n" + "\n".join(["Ability", *(f"  {line}" for line in ability_lines(ability))]) + "\n"
    written = write_json(folder / "pred_analysis.json", result)
    report = write_text(folder / "pred_analysis.txt", text)
    show(text, check_some_verdict(verdicts), f"{written} and {report}")


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
def _text(file: Path, metrics: RunMetrics, comparison: PairedComparison | None, other: str) -> str:
    judge = metrics.judge
    when = ", at the last checkpoint" if metrics.retention else ""
    lines = [
        f"Analysis of {file.name}{when}: {metrics.cases} cases ({metrics.failed_cases} without predictions), "
        f"{metrics.edits} edits; judge {judge}",
        "",
        "Answers",
        *_answer_lines(metrics),
        "",
        "Self-refutation (SRR): edits with a self-refuting response, among those whose hop-wise answers assert the new "
        "answer",
        f"  edits that assert the new answer    {worded_rate(metrics.asserting_edits)}",
        *_srr_lines(metrics.self_refutation, judge, "conditional"),
        "  over all edits:",
        *_srr_lines(metrics.self_refutation, judge, "all_edits"),
    ]
    if metrics.open_book_self_refutation:
        lines += ["  open-book:", *_srr_lines(metrics.open_book_self_refutation, judge, "conditional")]
    rationale = metrics.rationale
    lines += [
        "",
        "Rationales of why-prompts (edits with a narrative)",
        f"  agree with the narrative            {worded_rate(rationale.aligned)}",
        f"  PASS {rationale.passed}, FAIL {rationale.failed}, UNSURE {rationale.unsure}, not judged "
        f"{rationale.not_judged}",
        "",
        "Locality",
        *_locality_lines(metrics),
    ]
    if metrics.portability:
        lines += ["", "Portability protocol", *(f"  {score.line()}" for score in metrics.portability)]
    lines += ["", "By length of the chain"]
    for hops, part in metrics.by_hops.items():
        chain = f"{hops}-hop" if hops else "no hop-wise probes"
        srr = worded_rate(part.self_refutation.conditional, srr_notes(part.self_refutation, judge))
        lines.append(
            f"  {chain}, {counted(part.cases, 'case')}: H-Acc {worded_rate(part.h_acc)}; "
            f"M-Acc {worded_rate(part.m_acc)}; SRR {srr}"
        )
    if metrics.unseen:
        lines += [
            "",
            f"Without the {metrics.trained_predictions} predictions whose prompts the method trained on",
            *_answer_lines(metrics.unseen),
            *_srr_lines(metrics.unseen.self_refutation, judge, "conditional"),
            *_locality_lines(metrics.unseen),
        ]
    if metrics.retention:
        lines += ["", *_retention_lines(metrics.retention)]
    if comparison:
        lines += ["", *_paired_lines(comparison, other)]
    return "\n".join(lines) + "\n"


def _answer_lines(metrics: RunMetrics) -> list[str]:
    return [
        f"  H-Acc                               {worded_rate(metrics.h_acc)}",
        f"  M-Acc, all questions                {worded_rate(metrics.m_acc)}",
        f"  M-Acc, any of a case's questions    {worded_rate(metrics.any_right_accuracy)}",
    ]


def _locality_lines(metrics: RunMetrics) -> list[str]:
    return [
        f"  unchanged                           {worded_rate(metrics.locality.unchanged)}",
        f"  still right, of right before        {worded_rate(metrics.locality.still_right)}",
    ]


def _retention_lines(retention: Retention) -> list[str]:
    lines = ["Along the sequence: edits held (most of an edit's hop-wise answers right), and locality"]
    for found in retention.checkpoints:
        failed = f"; {counted(found.failed, 'edit')} failed" if found.failed else ""
        lines.append(
            f"  after {counted(found.edits, 'edit')}: this step's {worded_rate(found.current)}; earlier ones "
            f"{worded_rate(found.earlier)}; unchanged {worded_rate(found.unchanged)}{failed}"
        )
    return lines


def _srr_lines(
    sources: Mapping[Source, SelfRefutation], judge: str, which: Literal["conditional", "all_edits"]
) -> list[str]:
    lines = []
    for source, name in SOURCE_NAMES.items():
        found = sources[source]
        rate = found.conditional if which == "conditional" else found.all_edits
        lines.append(f"  {name:<36}{worded_rate(rate, srr_notes(found, judge))}")
    return lines


def _paired_lines(comparison: PairedComparison, other: str) -> list[str]:
    lines = [
        f"Paired with {other}: {comparison.cases} cases in both, {comparison.only_this} only here, "
        f"{comparison.only_other} only there",
        "  both / only here / only there / neither say yes; repaired and harmed against the other run; exact McNemar p",
    ]
    for name, table in comparison.tables.items():
        missing = f", {not_judged(table.not_judged)}" if table.not_judged else ""
        lines.append(
            f"  {name:<50} {table.both} / {table.only_this} / {table.only_other} / {table.neither}; "
            f"repaired {table.repaired}, harmed {table.harmed}, p {p_value(table.p)}{missing}"
        )
    for name, difference in comparison.differences.items():
        if difference.mean is not None:
            lines.append(f"  {name}: {worded_difference(difference)}")
    return lines
