"""What `judge` and `analyze` share: the judge's options, and judging a file with a store beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.judges.base import Judge, Task
    from causaledit.judges.store import VerdictTable

InputOption = Annotated[Path, typer.Option("--input", help="A run's metrics.json.")]
JudgeOption = Annotated[str, typer.Option("--judge", help="rule, llm or hf.")]
ModelOption = Annotated[str, typer.Option("--judge-model", help="Model of the llm or hf judge.")]
UrlOption = Annotated[str, typer.Option("--base-url", help="OpenAI-compatible endpoint; OpenAI's own if left out.")]
KeyOption = Annotated[str, typer.Option("--api-key-env", help="Environment variable that holds the endpoint's key.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, max=256, help="Requests at a time (llm).")]
TimeoutOption = Annotated[float, typer.Option("--timeout", min=0.1, help="Longest wait for a reply, in seconds (llm).")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N (hf).")]
RetryOption = Annotated[bool, typer.Option("--retry-errors", help="Judge again what is kept as an error.")]


@dataclass(frozen=True)
class JudgeOptions:
    """The judge's options as given."""

    judge: str
    model: str
    base_url: str
    api_key_env: str
    workers: int
    timeout: float
    device: str
    retry_errors: bool

    def load(self) -> Judge:
        """Set the judge up."""
        from causaledit.judges.registry import get_judge

        return get_judge(
            self.judge,
            model=self.model or None,
            base_url=self.base_url or None,
            api_key_env=self.api_key_env,
            timeout=self.timeout,
            device=self.device,
        )


def judge_file(
    file: Path,
    cases: Sequence[Any],
    tasks: Sequence[Task],
    judge: Judge,
    options: JudgeOptions,
    *,
    also: Sequence[Path] = (),
) -> VerdictTable:
    """Judge the cases of a file, with its store and a progress bar.

    Args:
        file: The metrics file; its store gets the new verdicts.
        cases: What to judge, from `read_cases`.
        tasks: What to ask.
        judge: The judge.
        options: For the number of workers.
        also: Other metrics files whose stores are read.

    Raises:
        JudgingStoppedError: The judge cannot go on, or Ctrl-C; the message says what is kept.
    """
    from causaledit.errors import JudgingStoppedError
    from causaledit.evaluation.predictions import units_of
    from causaledit.judges.store import VerdictStore, judge_responses, store_of
    from causaledit.progress import terminal_progress

    path = store_of(file, judge.name)
    units = units_of(cases, tasks)
    with VerdictStore(path, also=[store_of(f, judge.name) for f in also]) as store, terminal_progress() as progress:
        try:
            return judge_responses(
                judge,
                units,
                store=store,
                workers=options.workers,
                retry_errors=options.retry_errors,
                on_start=lambda missing: progress.start(f"judging ({judge.name})", missing),
                on_verdict=progress.advance,
            )
        except (JudgingStoppedError, KeyboardInterrupt) as error:
            kept = sum(
                store.get(response.key(task, judge.identity)) is not None for task, response in dict.fromkeys(units)
            )
            raise JudgingStoppedError(
                f"{str(error) or 'interrupted'}: {kept} of {len(set(units))} verdicts are kept in {path}; the same "
                "command goes on from there."
            ) from error
        finally:
            progress.finish()


def check_some_verdict(table: VerdictTable) -> str | None:
    """What to tell the user about verdicts that could not be reached, or None.

    Raises:
        JudgingStoppedError: There is not a single one.
    """
    from causaledit.errors import JudgingStoppedError

    errors = table.errors()
    if not errors:
        return None
    number, first = sum(errors.values()), max(errors, key=errors.__getitem__)
    told = f"{number} of {len(table)} responses could not be judged, most often: {first[:200]}"
    if number == len(table):
        raise JudgingStoppedError(f"{told}. No figure can be given.")
    return f"{told}. They are in no figure; --retry-errors judges them again."
