"""`causaledit judge`: verdicts for the answers of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.cli.judging import judge_with_progress, show
from causaledit.cli.options import InputOption, JudgeOptions, takes
from causaledit.cli.workers import JUDGE_WORKERS, loaded_judge
from causaledit.runs.worker_options import WorkerOptions  # noqa: TC001  (`takes` reads the annotation)
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import Item
    from causaledit.metrics.summary import RunMetrics


@takes(judging=JudgeOptions, spread=JUDGE_WORKERS)
def judge(
    input_file: InputOption,
    judging: JudgeOptions,
    spread: WorkerOptions,
) -> None:
    """Judge the answers of a run: writes metrics_judged.json and its summary beside the input."""
    from causaledit.metrics.judged import check_some_verdict
    from causaledit.metrics.predictions import cases_of, read_metrics
    from causaledit.metrics.summary import summarise
    from causaledit.support.files import check_writable, write_json

    file = expanded(input_file)
    content = read_metrics(file)
    cases = cases_of(content)
    check_writable(file.parent, "the folder of --input")
    with loaded_judge(judging, spread) as chosen:
        verdicts = judge_with_progress(file, cases, ["answer"], chosen, judging)
    metrics = summarise(cases, verdicts)
    for case in cases:
        for item in case.items:
            if item.task == "answer":
                _add_verdict(content, item, verdicts)
    judged = write_json(file.with_name(f"{file.stem}_judged.json"), content)
    summary = write_json(file.with_name(f"{file.stem}_judged.summary.json"), _summary(file.name, metrics, verdicts))
    show("\n".join(_lines(metrics)), check_some_verdict(verdicts), f"{judged} and {summary}")


def _add_verdict(content: Any, item: Item, verdicts: VerdictTable) -> None:
    """Put a verdict into the prediction it belongs to."""
    from causaledit.judges.base import AnswerVerdict, verdict_to_dict

    verdict = verdicts.get("answer", item.response) or AnswerVerdict(None, error=item.problem or "not judged")
    holder: Any = content
    for step in item.path[:-1]:
        holder = holder[step]
    last: Any = item.path[-1]
    if not isinstance(holder[last], dict):  # a bare text, or nothing
        holder[last] = {"pred": holder[last]}
    holder[last]["verdict_before" if item.before else "verdict"] = {"judge": verdicts.judge, **verdict_to_dict(verdict)}


def _summary(name: str, metrics: RunMetrics, verdicts: VerdictTable) -> dict[str, Any]:
    data = metrics.to_dict()
    wanted = ("judge", "cases", "failed_cases", "edits", "h_acc", "m_acc", "locality", "portability")
    by_hops = {hops: {key: part[key] for key in ("cases", "h_acc", "m_acc")} for hops, part in data["by_hops"].items()}
    return {"input": name, **{key: data[key] for key in wanted}, "by_hops": by_hops, "errors": verdicts.errors()}


def _lines(metrics: RunMetrics) -> list[str]:
    from causaledit.metrics.wording import counted, worded_rate

    failed = f", {metrics.failed_cases} without predictions" if metrics.failed_cases else ""
    lines = [f"{counted(metrics.cases, 'case')}{failed}; judge {metrics.judge}"]
    if not metrics.portability or metrics.h_acc.values or metrics.m_acc.values:  # the protocol asks no hops by itself
        any_right = worded_rate(metrics.any_right_accuracy)
        lines.append(f"H-Acc {worded_rate(metrics.h_acc)}")
        lines.append(f"M-Acc {worded_rate(metrics.m_acc)}; any of a case's questions {any_right}")
    if metrics.locality.unchanged.total or metrics.locality.unchanged.not_judged:
        lines.append(
            f"locality: unchanged {worded_rate(metrics.locality.unchanged)}; "
            f"still right {worded_rate(metrics.locality.still_right)}"
        )
    return lines + [score.line() for score in metrics.portability]
