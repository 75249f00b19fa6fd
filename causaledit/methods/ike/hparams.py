"""Hyper-parameters of IKE (arXiv 2305.12740)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import BaseHyperParams, setting

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

ALG_NAME = "IKE"


@dataclass
class IKEHyperParams(BaseHyperParams):
    """Configuration of one IKE run."""

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {**BaseHyperParams.PUBLISHED_KEYS, "k": "demonstrations"}

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    demonstrations: int = setting(0, "Worked examples of obeying a new fact, put before the facts.", integer_from=0)
    demonstration_file: str | None = setting(
        None, "JSON file of edit requests the examples are drawn from (with `seed`); needed for any."
    )
    include_narrative: bool = setting(False, "Also give the request's narrative after its fact.")

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.demonstrations and not self.demonstration_file:
            raise HparamsError(
                f"`demonstrations` is {self.demonstrations}, but `demonstration_file` is missing: name a JSON file of "
                "edit requests, or set `demonstrations: 0`."
            )
