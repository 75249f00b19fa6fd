"""Judges by name. Each is imported when it is asked for: `rule` needs neither torch nor the openai client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import JudgeError, did_you_mean

if TYPE_CHECKING:
    from causaledit.judges.base import Judge

JUDGES = ("rule", "llm", "hf")


def get_judge(
    name: str,
    *,
    model: Any = None,
    base_url: str | None = None,
    api_key_env: str = "OPENAI_API_KEY",
    timeout: float = 60.0,
    device: Any = "auto",
) -> Judge:
    """Set a judge up.

    Args:
        name: `rule` (offline, deterministic), `llm` (OpenAI-compatible endpoint) or `hf` (local chat model).
        model: The model of `llm` or `hf`.
        base_url: Address of `llm`'s endpoint.
        api_key_env: Environment variable that holds `llm`'s key.
        timeout: Longest wait for a reply of `llm`, in seconds.
        device: Where `hf` runs.

    Raises:
        JudgeError: There is no such judge (the nearest name is offered), or it lacks a model or a key.
        ModelError: The model of `hf` cannot be loaded.
    """
    if name == "rule":
        from causaledit.judges.rule import RuleJudge

        return RuleJudge()
    if name == "llm":
        from causaledit.judges.llm import LlmJudge

        return LlmJudge(model, base_url=base_url, api_key_env=api_key_env, timeout=timeout)
    if name == "hf":
        from causaledit.judges.hf import HfJudge

        return HfJudge(model, device=device)
    raise JudgeError(f"There is no judge {name!r}.{did_you_mean(str(name), JUDGES)} Known: {', '.join(JUDGES)}.")
