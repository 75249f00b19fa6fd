"""What a run is to do: the flags of `causaledit run`, with their defaults, help texts and bounds.

Nothing heavy is imported here, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import Any

from causaledit.errors import RunError, did_you_mean
from causaledit.mquake.selection import SHUFFLE_SEED
from causaledit.probes.sets import DEFAULT_KINDS, KINDS, MAX_NEW_TOKENS, TOKEN_BUDGET, ProbeKind, parse_kinds
from causaledit.support.options import option

PRE_EDITED = "PreEdited"  # the unedited model, as the published tool calls it
# what makes a run the pilot study
PILOT: dict[str, Any] = {"editing_method": PRE_EDITED, "exp_tag": "pilot", "probes": ("forced",)}
NAME = re.compile(r"[\w.-]+")
# what `--protocol` asks; the causal one is made of the sets of `--probes`
PROTOCOLS = ("causal", "portability")
HOSTS = ("auto", "embedded", "easyedit")  # those of hosts.lookup, which is not imported for a help text


@dataclass(frozen=True)
class RunArguments:
    """What a run is to do; the fields are the command's flags, and their help texts say what they mean.

    Raises:
        RunError: A number is below its bound, or a name cannot be part of a folder's name.
    """

    editing_method: str = option(help_text="Name of a method, or PreEdited for the unedited model.")
    datatype: str = option(help_text="Name of a data set, or path of an MQuAKE file.")
    model_type: str = option(
        help_text="Name of the file in hparams/METHOD/ (a label where --hparams_path is given); for PreEdited also a "
        "model's folder or hub name."
    )
    hparams_path: str | None = option(None, "YAML file to use instead of the one named by --model_type.")
    model: str | None = option(None, "Model to load instead of the one that the hyper-parameters name.")
    host: str = option(
        "auto",
        "Whose method runs: embedded (ours), easyedit (EasyEdit's own), or auto, where the file's format decides. "
        "embedded:METHOD and easyedit:METHOD say it for one method.",
    )
    max_cases: int = option(200, "Maximum number of cases.")
    hop: int | None = option(None, "Take only cases whose chain has this many hops (1 to 4).", min=1, max=4)
    shuffle_seed: int = option(SHUFFLE_SEED, "Seed for selecting the cases.")
    exp_tag: str = option("default", "Tag that becomes part of the folder's name.")
    batch_edit: int | None = option(None, "Apply unique edits together, in batches of this size.")
    skip_cases: int = option(0, "Skip this many cases at the start of the selection.")
    output_root: str = option("./output/experiments", "Folder in which runs are kept.")
    run_id: str | None = option(None, "Name of the run; give the same name again to resume it.")
    device: str | None = option(None, "Device to use instead of the one in the hyper-parameters.")
    probes: tuple[ProbeKind, ...] = option(
        DEFAULT_KINDS,
        f"Comma-separated probe sets to ask: {', '.join(KINDS)}.",
        from_text=parse_kinds,
        to_text=",".join,
    )
    protocol: str = option(
        "causal",
        "causal (the sets of --probes), or portability: edit success, locality and portability as in arXiv 2602.02028.",
    )
    max_new_tokens: int = option(MAX_NEW_TOKENS, "Maximum length of an answer to a probe, in tokens.")
    token_budget: int = option(TOKEN_BUDGET, "Maximum number of tokens in one batch of probes.")

    def __post_init__(self) -> None:
        least = {"max_cases": 1, "hop": 1, "batch_edit": 1, "skip_cases": 0, "max_new_tokens": 1, "token_budget": 1}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise RunError(f"--{name} must be at least {bound}, got {value}.")
        if self.protocol not in PROTOCOLS:
            raise RunError(
                f"--protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}."
                f"{did_you_mean(self.protocol, PROTOCOLS)}"
            )
        if self.protocol == "portability" and self.probes != ("portability",):
            if self.probes != DEFAULT_KINDS:
                raise RunError(
                    f"--probes {','.join(self.probes)} with --protocol portability: the protocol says what is asked; "
                    "leave one of the two out."
                )
            object.__setattr__(self, "probes", ("portability",))
        if self.host not in HOSTS:
            raise RunError(
                f"--host must be one of {', '.join(HOSTS)}, got {self.host!r}.{did_you_mean(self.host, HOSTS)}"
            )
        if self.model is not None and not self.model.strip():
            raise RunError("--model is empty: give a folder, a hub name, a .gguf file or an embedded name.")
        for name in ("exp_tag", "run_id"):
            value = getattr(self, name)
            if value is not None and not (NAME.fullmatch(value) and value.strip(".")):
                raise RunError(f"--{name} becomes part of a folder's name: use letters, digits, . _ -, not {value!r}.")

    def comparable(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        data = dataclasses.asdict(self)
        for name in ("output_root", "run_id"):
            del data[name]
        plain: dict[str, Any] = json.loads(json.dumps(data))
        return plain
