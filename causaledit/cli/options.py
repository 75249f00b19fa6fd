"""What `judge` and `analyze` share: the judge's options, and judging a file with a store beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from causaledit.judges.base import Judge

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
