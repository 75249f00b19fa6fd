"""One worker of a run: a process that loads the model once and edits the groups it is given.

It writes no file and gives back data alone, errors included: the driver decides what they mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.support.ray_worker import as_data

if TYPE_CHECKING:
    from causaledit.runs.groups import GroupRunner
    from causaledit.runs.plan import Plan


class CaseWorker:
    """The methods that a driver calls from another process; Ray makes an actor of it."""

    def __init__(self) -> None:
        self._loaded: Any = None
        self._key: Any = None
        self._state: Any = None
        self._runner: GroupRunner | None = None
        self._plan: Plan | None = None
        self._records: list[tuple[int | str, dict[str, Any], dict[str, Any]]] = []

    def prepare(self, plan: Plan, cases: list[int | str], measure_rate: bool) -> dict[str, Any]:
        """Load the plan's model, where it is not the one that is loaded, and check that the probes fit.

        Returns:
            `device`, `plain_tokens_per_second` where asked for, `versions`, `model` (name, revision, dtype), `pid`; or
            `error` and `ours`, whether it is one of ours.
        """
        try:
            return self._prepared(plan, set(cases), measure_rate)
        except Exception as error:
            return as_data(error)

    def _prepared(self, plan: Plan, wanted: set[int | str], measure_rate: bool) -> dict[str, Any]:
        import os

        from causaledit.methods.hyperparams import model_label
        from causaledit.models.loading import load_from_hparams, resolve_device
        from causaledit.models.weights import revision_of, state_of
        from causaledit.probes.asking import plain_rate
        from causaledit.runs.folder import device_of_run, reset_peaks
        from causaledit.runs.groups import GroupRunner
        from causaledit.support.costs import versions
        from causaledit.support.progress import SilentProgress

        self.check()
        hparams = plan.hparams
        key = (model_label(hparams.model_name), str(resolve_device(hparams.device)), bool(hparams.model_parallel))
        if key != self._key:
            self._drop()  # freed before the next one is loaded
            self._loaded, self._key = load_from_hparams(hparams), key
            self._state = state_of(self._loaded.model)
        model, tokenizer = self._loaded
        reset_peaks()
        self._plan = plan
        self._runner = GroupRunner(
            plan, model, tokenizer, lambda case, item, cost: self._records.append((case.case_id, item, cost)),
            SilentProgress(),
        )  # fmt: skip
        self._runner.check_window([case for case in plan.cases if case.case_id in wanted])
        return {
            "device": device_of_run(model),
            "plain_tokens_per_second": plain_rate(model, tokenizer) if measure_rate else None,
            "versions": versions(),
            "model": {
                "name": model_label(hparams.model_name),
                "revision": revision_of(model),
                "dtype": str(model.dtype).removeprefix("torch."),
            },
            "pid": os.getpid(),
        }

    def group(self, number: int, cases: list[int | str]) -> dict[str, Any]:
        """Edit one group and ask the probes of these cases of it.

        Returns:
            `records` (case id, entry of metrics.json, cost) and `peak_rss_mb`, `peak_gpu_mb` (0 without a GPU); where
            it fails also `error`, as `prepare`.
        """
        assert self._runner is not None and self._plan is not None  # prepared first
        wanted = set(cases)
        self._records = []
        try:
            self._runner.run(number, [c for c in self._plan.groups[number].cases if c.case_id in wanted])
        except Exception as error:
            return {**as_data(error), "records": self._records, **_peaks()}
        return {"records": self._records, **_peaks()}

    def check(self) -> str | None:
        """What is not as it was when the model was loaded; the model is then given up, and the next run loads it anew.

        Returns:
            As `what_changed`; None also where no model is loaded.
        """
        from causaledit.models.weights import what_changed

        if self._loaded is None:
            return None
        if changed := what_changed(self._loaded.model, self._state):
            self._drop()
        return changed

    def _drop(self) -> None:
        self._loaded = self._runner = self._plan = self._key = self._state = None


def _peaks() -> dict[str, float]:
    import torch

    from causaledit.support.costs import peak_rss_mb

    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    return {"peak_rss_mb": peak_rss_mb(), "peak_gpu_mb": gpu}
