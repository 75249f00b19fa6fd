"""The pilot study: the new answer forced on the unedited model, with and without its narrative."""

from __future__ import annotations

from typing import Any

from causaledit.runs.plan import PRE_EDITED, Plan, RunArguments, make_plan

TAG = "pilot"


def make_pilot_plan(
    *,
    datatype: str,
    model_type: str,
    hparams_path: str | None = None,
    max_cases: int = 200,
    hop: int | None = None,
    **further: Any,
) -> Plan:
    """Check the arguments and plan the run; `runs.execute` carries it out, atomically, and resumes it.

    Args:
        datatype: A data set with narratives, or the path of one.
        model_type: Name of an hparams file that names the model, or a model.
        hparams_path: An hparams file instead.
        max_cases: The most cases to take.
        hop: Only cases whose chain has this many hops.
        further: `shuffle_seed`, `output_root`, `run_id`, `device`, `max_new_tokens`, `token_budget`: see
            `RunArguments`.

    Raises:
        RunError, DatasetError, HparamsError, ModelError, SaveError: As in `make_plan`; also, no narratives.
    """
    return make_plan(
        RunArguments(
            editing_method=PRE_EDITED, datatype=datatype, model_type=model_type, hparams_path=hparams_path,
            max_cases=max_cases, hop=hop, exp_tag=TAG, probes=("forced",), **further,
        )
    )  # fmt: skip
