"""What a run is to do: the flags of `causaledit run`, with their defaults, help texts and bounds.

Nothing heavy is imported here, so that the command line can show its help at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from causaledit.errors import RunError, did_you_mean
from causaledit.mquake.selection import SHUFFLE_SEED
from causaledit.probes.sets import DEFAULT_KINDS, KINDS, MAX_NEW_TOKENS, TOKEN_BUDGET, ProbeKind, parse_kinds
from causaledit.support.options import option

PRE_EDITED = "PreEdited"  # the unedited model, as the published tool calls it
# what makes a run the pilot study
PILOT: dict[str, Any] = {"editing_method": PRE_EDITED, "exp_tag": "pilot", "probes": ("forced",)}
# flags that a run without them does not write
OPTIONAL_FIELDS = ("sequential", "checkpoints", "ability", "ability_limit", "base", "vllm")
# where a run keeps its files, and what it computes with: a resumed run may have others
_OF_THE_MACHINE = ("output_root", "run_id", "vllm_memory", "vllm_server")
VLLM_MODES = ("colocate", "server")  # those of models.vllm_engine, which is not imported for a help text
PRESETS: dict[str, int] = {"gao": 5}  # protocol → number of steps of its sequence (Gao et al.: five sub-batches)
_AT_LEAST_ONE = ("max_cases", "hop", "batch_edit", "sequential", "ability_limit", "max_new_tokens", "token_budget")
NAME = re.compile(r"[\w.-]+")
# bytes in a part of a path that these become; the run's folder adds some to its tag and id, a file its ending
_LONGEST = {"editing_method": 250, "model_type": 250, "exp_tag": 200, "run_id": 200}
# what `--protocol` asks; the causal one is made of the sets of `--probes`
PROTOCOLS = ("causal", "portability", *PRESETS)
HOSTS = ("auto", "embedded", "easyedit")  # those of hosts.lookup, which is not imported for a help text


def parse_checkpoints(text: str | None) -> tuple[int, ...] | None:
    """The numbers of `--checkpoints 1,10,50`; None where there are none.

    Raises:
        RunError: One is no number above 0, or they do not grow.
    """
    if text is None or not text.strip():
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(name.isdecimal() and int(name) > 0 for name in names):
        raise RunError(f"--checkpoints must be numbers of edits with commas between them, got {text!r}.")
    numbers = tuple(map(int, names))
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise RunError(f"--checkpoints must grow from one to the next, got {text!r}.")
    return numbers


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
    sequential: int | None = option(
        None, "Keep the edits: unique edits in steps of this many, all of them asked again at each checkpoint."
    )
    checkpoints: tuple[int, ...] | None = option(
        None,
        "Comma-separated numbers of edits after which to ask; the sequence ends with the last. Default: every step.",
        from_text=parse_checkpoints,
        to_text=lambda value: value and ",".join(map(str, value)),
    )
    ability: str | None = option(
        None,
        "Comma-separated ability tasks, measured before and after edits: bundled, drift, bundled_facts, …, or tasks of "
        "lm-eval.",
    )
    ability_limit: int | None = option(None, "Only the first items of each ability task.")
    base: str | None = option(
        None, "For PreEdited: the unedited model, against which locality, ability and drift are measured."
    )
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
        "causal (the sets of --probes), portability: edit success, locality and portability as in arXiv 2602.02028, or "
        "gao: a sequence of five steps, the current edits and all earlier ones asked after each.",
    )
    max_new_tokens: int = option(MAX_NEW_TOKENS, "Maximum length of an answer to a probe, in tokens.")
    token_budget: int = option(TOKEN_BUDGET, "Maximum number of tokens in one batch of probes.")
    vllm: str | None = option(
        None,
        "Answer the probes with vLLM: colocate (an engine in this process, on its GPU) or server (one that is "
        "running). Without it the model answers itself.",
    )
    vllm_memory: float | None = option(None, "Share of the GPU's memory that --vllm colocate takes; by default 0.35.")
    vllm_server: str | None = option(None, "Address of the server of --vllm server; by default http://127.0.0.1:8000.")

    def __post_init__(self) -> None:
        least = dict.fromkeys(_AT_LEAST_ONE, 1) | {"skip_cases": 0}
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
        self._check_sequence()
        self._check_vllm()
        if self.ability_limit is not None and self.ability is None:
            raise RunError("--ability_limit is that of --ability: give the tasks too.")
        if self.base is not None and (self.editing_method != PRE_EDITED or self.in_sequence):
            raise RunError(
                f"--base is the model before somebody else's edits: it goes with --editing_method {PRE_EDITED} alone, "
                "and without a sequence."
            )
        if self.model is not None and not self.model.strip():
            raise RunError("--model is empty: give a folder, a hub name, a .gguf file or an embedded name.")
        for name, longest in _LONGEST.items():
            value = getattr(self, name)
            if value is not None and any(len(part.encode("utf-8", "replace")) > longest for part in Path(value).parts):
                raise RunError(f"--{name} has a part longer than {longest} bytes, which no file or folder is called.")
        for name in ("exp_tag", "run_id"):
            value = getattr(self, name)
            if value is not None and not (NAME.fullmatch(value) and value.strip(".")):
                raise RunError(f"--{name} becomes part of a folder's name: use letters, digits, . _ -, not {value!r}.")

    def _check_sequence(self) -> None:
        if self.protocol in PRESETS and (self.sequential is not None or self.checkpoints is not None):
            other = "sequential" if self.sequential is not None else "checkpoints"
            raise RunError(f"--protocol {self.protocol} sets the steps and the checkpoints: leave out --{other}.")
        if self.checkpoints is not None and self.sequential is None:
            raise RunError("--checkpoints are those of a sequence of edits: give --sequential N too.")
        if self.in_sequence and self.batch_edit is not None:
            raise RunError("--batch_edit undoes every batch, and a sequence keeps its edits: give one of the two.")

    def _check_vllm(self) -> None:
        if self.vllm is not None and self.vllm not in VLLM_MODES:
            raise RunError(
                f"--vllm must be {' or '.join(VLLM_MODES)}, got {self.vllm!r}.{did_you_mean(self.vllm, VLLM_MODES)}"
            )
        if self.vllm_memory is not None and not 0 < self.vllm_memory <= 1:
            raise RunError(f"--vllm_memory must be above 0 and at most 1, got {self.vllm_memory}.")
        for name, mode in (("vllm_memory", "colocate"), ("vllm_server", "server")):
            if getattr(self, name) is not None and self.vllm != mode:
                raise RunError(f"--{name} is that of --vllm {mode}: give that too, or leave it out.")

    @property
    def in_sequence(self) -> bool:
        """Whether edits are kept, one step on top of the other."""
        return self.sequential is not None or self.protocol in PRESETS

    def comparable(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        data = dataclasses.asdict(self)
        for name in _OF_THE_MACHINE:
            del data[name]
        for name in OPTIONAL_FIELDS:
            if data[name] is None:
                del data[name]
        plain: dict[str, Any] = json.loads(json.dumps(data))
        return plain
