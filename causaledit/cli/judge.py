"""`causaledit judge`: verdicts for the answers of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console

from causaledit.cli import options as judging
from causaledit.metrics.judged import check_some_verdict, judge_file

if TYPE_CHECKING:
    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import Item
    from causaledit.metrics.summary import RunMetrics


def judge(
    input_file: judging.InputOption,
    judge: judging.JudgeOption = "rule",
    judge_model: judging.ModelOption = "",
    base_url: judging.UrlOption = "",
    api_key_env: judging.KeyOption = "OPENAI_API_KEY",
    workers: judging.WorkersOption = 4,
    timeout: judging.TimeoutOption = 60.0,
    device: judging.DeviceOption = "auto",
    retry_errors: judging.RetryOption = False,
) -> None:
    """Judge the answers of a run: writes metrics_judged.json and its summary beside the input."""
    from causaledit.metrics.predictions import read_cases, read_metrics
    from causaledit.metrics.summary import evaluate_run
    from causaledit.support.files import check_writable, write_json

    options = judging.JudgeOptions(judge, judge_model, base_url, api_key_env, workers, timeout, device, retry_errors)
    file = input_file.expanduser()
    metrics = read_metrics(file)
    cases = read_cases(metrics)
    check_writable(file.parent, "the folder of --input")
    chosen = options.load()
    table = judge_file(file, cases, ["answer"], chosen, workers=workers, retry_errors=retry_errors)
    figures = evaluate_run(cases, table)
    for case in cases:
        for item in case.items:
            if item.task == "answer":
                _add_verdict(metrics, item, table)
    judged = write_json(file.with_name(f"{file.stem}_judged.json"), metrics)
    summary = write_json(file.with_name(f"{file.stem}_judged.summary.json"), _summary(file.name, figures, table))
    problem = check_some_verdict(table)
    console = Console(soft_wrap=True)
    console.print("\n".join(_lines(figures)), highlight=False, markup=False)
    if problem:
        Console(stderr=True, soft_wrap=True).print(problem, highlight=False, markup=False)
    console.print(f"written to {judged} and {summary}", highlight=False, markup=False)


def _add_verdict(metrics: Any, item: Item, table: VerdictTable) -> None:
    """Put a verdict into the prediction it belongs to."""
    from causaledit.judges.base import AnswerVerdict, verdict_to_dict

    verdict = table.get("answer", item.response) or AnswerVerdict(None, error=item.problem or "not judged")
    holder: Any = metrics
    for step in item.path[:-1]:
        holder = holder[step]
    last: Any = item.path[-1]
    if not isinstance(holder[last], dict):  # a bare text, or nothing
        holder[last] = {"pred": holder[last]}
    holder[last]["verdict_before" if item.before else "verdict"] = {"judge": table.judge, **verdict_to_dict(verdict)}


def _summary(name: str, figures: RunMetrics, table: VerdictTable) -> dict[str, Any]:
    data = figures.to_dict()
    wanted = ("judge", "cases", "failed_cases", "edits", "h_acc", "m_acc", "locality")
    by_hops = {hops: {key: part[key] for key in ("cases", "h_acc", "m_acc")} for hops, part in data["by_hops"].items()}
    return {"input": name, **{key: data[key] for key in wanted}, "by_hops": by_hops, "errors": table.errors()}


def _lines(figures: RunMetrics) -> list[str]:
    from causaledit.metrics.wording import figure_text

    failed = f", {figures.failed_cases} without predictions" if figures.failed_cases else ""
    lines = [
        f"{figures.cases} case(s){failed}; judge {figures.judge}",
        f"H-Acc {figure_text(figures.h_acc)}",
        f"M-Acc {figure_text(figures.m_acc)}; any of a case's questions {figure_text(figures.any_right_accuracy)}",
    ]
    if figures.locality.unchanged.total or figures.locality.unchanged.not_judged:
        lines.append(
            f"locality: unchanged {figure_text(figures.locality.unchanged)}; "
            f"still right {figure_text(figures.locality.still_right)}"
        )
    return lines
