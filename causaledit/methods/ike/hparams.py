"""Hyper-parameters of IKE (arXiv 2305.12740)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causaledit.methods.hyperparams import BaseHyperParams, setting
from causaledit.methods.published_keys import Ignored, Refused

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

ALG_NAME = "IKE"

_MULTIMODAL = Refused(
    "the file is for a vision-language model (BLIP-2, MiniGPT-4), which cannot be edited here; use one for a "
    "language model"
)
_MULTIMODAL_KEYS = (
    "name", "tokenizer_class", "tokenizer_name", "exact_match", "task_name", "template", "qformer_checkpoint",
    "qformer_name_or_path", "state_dict_file", "pretrained_ckpt", "coco_image", "rephrase_image",
)  # fmt: skip


@dataclass
class IKEHyperParams(BaseHyperParams):
    """Configuration of one IKE run."""

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **BaseHyperParams.PUBLISHED_KEYS,
        "k": "demonstrations",
        "sentence_model_name": Ignored("demonstrations are chosen offline, by the words they share with the edit"),
        "results_dir": Ignored("no embeddings are stored"),
        **dict.fromkeys(_MULTIMODAL_KEYS, _MULTIMODAL),
    }

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    demonstrations: int = setting(
        0,
        "Number of worked examples of obeying a new fact, put before the facts: those most like the edit in the host's "
        "`train_ds`, or drawn from `demonstration_file`; any number above 0 needs one of the two.",
        integer_from=0,
    )
    demonstration_file: str | None = setting(
        None, "JSON file of edit requests from which the examples are drawn (with `seed`) if there is no `train_ds`."
    )
    use_icl_examples: bool = setting(True, "EasyEdit's switch: false leaves the demonstrations out.")
    include_narrative: bool = setting(False, "Also give the request's narrative after its fact.")
