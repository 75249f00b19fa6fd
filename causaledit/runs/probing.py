"""What asks a run's probes: the model itself, or vLLM with the model's weights (`--vllm`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.models.loading import resolve_device
from causaledit.models.vllm_engine import MEMORY_SHARE, SERVER, EngineSettings, VLLMEngine, check_engine
from causaledit.probes.asking import Prober
from causaledit.probes.sets import build_probes

if TYPE_CHECKING:
    from causaledit.runs.arguments import RunArguments
    from causaledit.runs.plan import Plan


def prober_of(plan: Plan, tokenizer: Any, engine: VLLMEngine | None = None) -> Prober:
    """What asks a run's probes.

    Args:
        engine: Of `engine_of`.
    """
    return Prober(
        tokenizer,
        max_new_tokens=plan.arguments.max_new_tokens,
        token_budget=plan.arguments.token_budget,
        template_kwargs=getattr(plan.hparams, "chat_template_kwargs", None),
        engine=engine,
    )


def start_engine(plan: Plan, prober: Prober, model: Any) -> None:
    """Start the prober's engine, where it has one, for all probes of a run; none if it was started before.

    Args:
        model: The unedited network.
    """
    if prober.engine is not None:
        probes = [p for case in plan.cases for p in build_probes(case, plan.arguments.probes)]
        prober.start_engine(model, dict.fromkeys((probe.prompt, probe.prefix) for probe in probes))


def engine_of(arguments: RunArguments) -> VLLMEngine | None:
    """The engine that answers a run's probes, not started; None without `--vllm`."""
    settings = _settings(arguments)
    return None if settings is None else VLLMEngine(settings)


def check_vllm(arguments: RunArguments, hparams: Any) -> None:
    """Refuse `--vllm` where it cannot be used.

    Raises:
        MissingExtraError, ModelError: As in `check_engine`.
    """
    settings = _settings(arguments)
    if settings is not None:
        check_engine(settings, resolve_device(hparams.device), model_parallel=bool(hparams.model_parallel))


def _settings(arguments: RunArguments) -> EngineSettings | None:
    if arguments.vllm is None:
        return None
    return EngineSettings(
        f"--vllm {arguments.vllm}",
        mode=arguments.vllm,
        memory_share=arguments.vllm_memory or MEMORY_SHARE,
        server=(arguments.vllm_server or SERVER).rstrip("/"),
    )
