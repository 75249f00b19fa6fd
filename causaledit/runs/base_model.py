"""The unedited model behind a model that was edited elsewhere (`--base`): what it says is what counts as before."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError
from causaledit.probes.sets import build_probes
from causaledit.runs.ability import RunAbility
from causaledit.runs.probing import prober_of, start_engine
from causaledit.support.files import read_object, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.models.loading import LoadedModel
    from causaledit.models.vllm_engine import VLLMEngine
    from causaledit.mquake.cases import Case
    from causaledit.runs.plan import Plan


@dataclass(frozen=True)
class BaseAnswers:
    """What the unedited model said.

    Attributes:
        locality: Locality prompt → answer.
        ability: Its ability, beside which the edited model's is measured.
    """

    locality: dict[str, str]
    ability: RunAbility | None = None


def ask_base(
    plan: Plan, todo: Sequence[Case], load: Callable[[Any], LoadedModel], engine: VLLMEngine | None = None
) -> BaseAnswers:
    """Load the unedited model, ask it the locality probes, measure its ability, and let it go again.

    Args:
        plan: Of a run with `base`.
        todo: The cases that are left to do.
        load: Loads the model that settings name.
        engine: Answers in its stead; its weights are the edited model's afterwards.

    Raises:
        ModelError: It cannot be loaded, or has another vocabulary than the edited model and drift is asked for.
    """
    file = plan.folder / "base.json"
    kinds = [kind for kind in plan.arguments.probes if kind == "locality"]
    prompts = list(dict.fromkeys(probe.prompt for case in todo for probe in build_probes(case, kinds)))
    known: dict[str, str] = read_object(file).get("locality", {})
    settings = dataclasses.replace(plan.hparams, model_name=plan.arguments.base)
    missing = [prompt for prompt in prompts if prompt not in known]
    if not missing and plan.ability is None:
        return BaseAnswers(known)
    try:
        model, tokenizer = load(settings)
    except ModelError as error:
        raise ModelError(f"--base: {error}") from None
    if missing:
        prober = prober_of(plan, tokenizer, engine)
        start_engine(plan, prober, model)
        known |= dict(zip(missing, prober.ask(model, missing), strict=True))
        prober.rest()
        write_json(file, {"model": str(plan.arguments.base), "locality": known})
    ability = RunAbility(plan.folder, plan.ability, model, tokenizer) if plan.ability is not None else None
    return BaseAnswers(known, ability)
