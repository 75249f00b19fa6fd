"""`hf` over workers on Ray: each loads the judge's model once and takes one batch of responses after another."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from causaledit.errors import JudgingStoppedError, RunError
from causaledit.judges.hf import BATCH, HfJudge, OneByOne, check_named, identity_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.judges.base import JudgedResponse, Task
    from causaledit.support.ray_cluster import RayCluster


class SpreadJudge(OneByOne):
    """The verdicts of `HfJudge`, of as many batches at a time as there are workers.

    Args:
        cluster: The workers.
        model: Folder, hub name, GGUF file or embedded name; the same on all nodes.
        device: As for `load_model`.

    Raises:
        JudgeError: No model was named.
    """

    name = "hf"

    def __init__(self, cluster: RayCluster, model: str, *, device: Any = "auto") -> None:
        check_named(model)
        self.identity, self.batch_size, self.batches_at_a_time = identity_of(model), BATCH, cluster.options.workers
        self._cluster, self._make = cluster, functools.partial(HfJudge, model, device=device)

    def judge_many(self, task: Task, items: Sequence[JudgedResponse]) -> list[Any]:
        """See `HfJudge.judge_many`; may be called from many threads.

        Raises:
            JudgingStoppedError: Workers die, again and again.
            ModelError: The model cannot be loaded.
        """
        try:
            found: list[Any] = self._cluster.call(self.identity, self._make, "judge_many", task, list(items))
        except RunError as error:
            raise JudgingStoppedError(str(error)) from error
        return found
