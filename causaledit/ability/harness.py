"""Tasks through lm-evaluation-harness, on a model that is in memory.

Tasks that are answered freely are asked through the model's chat template, where it has one; tasks that compare the
probabilities of given answers are asked as plain text, as their published scores are.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from typing import TYPE_CHECKING, Any

from causaledit.ability.bundled import TASKS
from causaledit.ability.tasks import AbilityTasks, manager
from causaledit.errors import AbilityError, one_line
from causaledit.models.batches import is_out_of_memory
from causaledit.models.weights import preserved_state
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

BATCH = 32
_SEED, _FEWSHOT_SEED = 0, 1234  # lm-eval's own


def run_tasks(
    model: Any, tokenizer: Any, tasks: AbilityTasks, *, batch_size: int = BATCH
) -> dict[str, dict[str, float]]:
    """Ask a model the items of tasks.

    Args:
        model: A model of transformers; left as it is.
        tokenizer: Its tokenizer; left as it is.
        tasks: Which.
        batch_size: Items at a time; halved where memory runs out.

    Returns:
        Task → item → score, by lm-eval's first metric of each task; 1 is right.

    Raises:
        AbilityError: lm-eval cannot load or ask a task.
    """
    if not tasks.names:
        return {}
    try:
        with _quiet():
            loaded = manager(defaults=bool(tasks.standard)).load(list(tasks.names))["tasks"]
    except Exception as error:  # data that are not there, a package that a task needs
        raise AbilityError(f"lm-eval cannot load {', '.join(tasks.names)}: {one_line(error)}") from error
    free = {name: task for name, task in loaded.items() if task.OUTPUT_TYPE == "generate_until"}
    given = {name: task for name, task in loaded.items() if name not in free}
    scores: dict[str, dict[str, float]] = {}
    for part, templated in ((given, False), (free, getattr(tokenizer, "chat_template", None) is not None)):
        if part:
            scores |= _halving(model, tokenizer, part, templated, tasks.limit, batch_size)
    return {name: scores[name] for name in sorted(scores, key=lambda n: (TASKS.index(n) if n in TASKS else 99, n))}


def _halving(
    model: Any, tokenizer: Any, tasks: Mapping[str, Any], templated: bool, limit: int | None, batch_size: int
) -> dict[str, dict[str, float]]:
    while True:
        try:
            return _ask(model, tokenizer, tasks, templated, limit, batch_size)
        except RuntimeError as error:
            if batch_size == 1 or not is_out_of_memory(error):
                raise
            batch_size //= 2
            logger.info("memory ran out: asking %d items at a time", batch_size)


def _ask(
    model: Any, tokenizer: Any, tasks: Mapping[str, Any], templated: bool, limit: int | None, batch_size: int
) -> dict[str, dict[str, float]]:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    for task in tasks.values():  # what lm-eval's own command does before it asks
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=_FEWSHOT_SEED)
    with _quiet(), seeded(_SEED), preserved_state(model):
        harness = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        found = evaluate(
            harness, {"tasks": dict(tasks), "groups": {}, "group_map": {}}, limit=limit,
            apply_chat_template=templated, bootstrap_iters=0, log_samples=True,
        )  # fmt: skip
    return {name: _scores(samples) for name, samples in (found or {}).get("samples", {}).items()}


def _scores(samples: list[dict[str, Any]]) -> dict[str, float]:
    """Item → score; the items' content is their name, so that two runs pair the same ones."""
    scores = {}
    for sample in samples:
        metric = next((m for m in sample["metrics"] if isinstance(sample.get(m), int | float)), None)
        if metric is not None:
            scores[f"{sample['doc_id']}:{sample['doc_hash'][:12]}"] = float(sample[metric])
    return scores


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's remarks about its own arguments to itself."""
    spoken = logging.getLogger("lm_eval")
    level = spoken.level
    spoken.setLevel(logging.ERROR)
    try:
        yield
    finally:
        spoken.setLevel(level)
