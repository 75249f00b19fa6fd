"""What EasyEdit's methods lack in a call of ours, said before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import HostError
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Mapping

_BEHIND_AN_API = ("FT-Api", "DeepEdit-Api")
_TRAINED_FIRST = ("MEND", "SERAC")


def refuse_unusable(name: str, hparams: Any, extra: Mapping[str, Any]) -> None:
    """Refuse a method of EasyEdit that cannot work with what the call and its file give.

    Args:
        name: The `alg_name`.
        hparams: The method's hyper-parameters.
        extra: Further arguments of the call.

    Raises:
        HostError: There is nothing that it could edit, or a part that it needs is missing; what to do is said.
    """
    if name in _BEHIND_AN_API:
        raise HostError(
            f"EasyEdit's {name} edits a model behind an API, and there are no weights in it to edit: it can't be used "
            "here."
        )
    archive = getattr(hparams, "archive", None)
    if name in _TRAINED_FIRST and not (archive and expanded(archive).exists()):
        raise HostError(
            f"EasyEdit's {name} applies an editor that was trained before, and `archive` ({archive!r}) is not there: "
            "train it with EasyEdit's EditTrainer, and set `archive` to its checkpoint."
        )
    if name == "DINM":
        raise HostError(
            "EasyEdit's DINM turns answers to unsafe prompts into safe ones, on SafeEdit's data, in a layer that "
            "EasyEdit's safety editor finds for each prompt: it writes no facts, and can't be used here."
        )
    if name == "IKE" and getattr(hparams, "use_icl_examples", True) and extra.get("train_ds") is None:
        raise HostError(
            "EasyEdit's IKE takes demonstrations from a training set (`train_ds`) and a sentence encoder, and this "
            "call has none: set `use_icl_examples: false` in its file, or take embedded:IKE."
        )
