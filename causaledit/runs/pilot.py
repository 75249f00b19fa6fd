"""The pilot study: the new answer forced on the unedited model, with and without its narrative."""

from __future__ import annotations

from typing import Any

from causaledit.runs.arguments import PILOT, RunArguments
from causaledit.runs.plan import Plan, make_plan


def make_pilot_plan(
    *,
    datatype: str,
    model_type: str,
    **further: Any,
) -> Plan:
    """Check the arguments and plan the run; `runs.execute` carries it out, atomically, and resumes it.

    Args:
        datatype: A data set with narratives, or the path of one.
        model_type: Name of an hparams file that names the model, or a model.
        further: Other fields of `RunArguments`.

    Raises:
        RunError, DatasetError, HparamsError, ModelError, SaveError: As in `make_plan`; also, no narratives.
    """
    return make_plan(RunArguments(datatype=datatype, model_type=model_type, **further, **PILOT))
