"""Hyper-parameters of CausalEdit: every figure of the paper, by our names, with the published aliases.

Source: arXiv 2605.28303 and its published configurations. `bootstrap_*` is stage 1 (causal
bootstrapping), `distill_*` is stage 2 (causal internalisation), `preserve_*` is our addition and off
by default.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from causaledit.errors import HparamsError, did_you_mean
from causaledit.resources import hparams_dir

ALG_NAME = "CausalEdit"

# The published configuration's keys. Files that use them load here unchanged.
PUBLISHED_ALIASES = {
    "alg": "alg_name",
    "stage2_lora_rank": "lora_rank",
    "stage2_num_train_epochs": "bootstrap_epochs",
    "stage2_learning_rate": "bootstrap_learning_rate",
    "stage2_batch_size": "bootstrap_batch_size",
    "stage2_num_samples": "bootstrap_candidates_per_trace",
    "stage2_max_new_tokens": "bootstrap_max_new_tokens",
    "stage2_data_replica_times": "bootstrap_traces",
    "stage3_max_steps": "distill_max_steps",
    "stage3_max_steps_base": "distill_steps_base",
    "stage3_max_steps_per_extra_edit": "distill_steps_per_extra_edit",
    "stage3_cake_data": "distill_cake_data",
    "stage3_learning_rate": "distill_learning_rate",
    "stage3_per_device_train_batch_size": "distill_batch_size",
    "stage3_gradient_accumulation_steps": "distill_gradient_accumulation_steps",
    "stage3_num_generations": "distill_num_generations",
    "stage3_temperature": "distill_temperature",
    "stage3_top_p": "distill_top_p",
    "stage3_max_completion_length": "distill_max_new_tokens",
    "stage3_use_forward_kl": "distill_forward_kl",
    "stage3_kd_temperature": "distill_kd_temperature",
    "stage3_repetition_ngram_n": "distill_repetition_ngram",
    "stage3_repetition_tail_window_size": "distill_repetition_window",
    "stage3_repetition_ngram_ratio_threshold": "distill_repetition_threshold",
    "stage3_rkl_top_k": "distill_top_k",
}


def _f(default: Any, help_text: str) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help_text})
    return field(default=default, metadata={"help": help_text})


@dataclass
class CausalEditHyperParams:
    """Configuration of one CausalEdit run. Defaults are the 7–8B figures of the paper.

    The dataclass has the fields an EasyEdit host reads (`alg_name`, `model_name`, `device`,
    `model_parallel`, `batch_size`, `max_length`) and its constructor `from_hparams`.
    """

    # ---- what the host reads -------------------------------------------------------------------
    model_name: Any = _f("", "Path, hub name, GGUF file or a `(model, tokenizer)` pair.")
    alg_name: str = _f(ALG_NAME, "Name of the method in the host.")
    device: Any = _f("auto", "`auto`, `cpu`, `cuda`, `cuda:N` or the number N of a GPU.")
    dtype: str = _f("auto", "Weights' type: auto, float32, bfloat16 or float16.")
    fp16: bool = _f(False, "EasyEdit's switch for float16 weights.")
    model_parallel: bool = _f(False, "Spread the model over all GPUs (device_map='auto').")
    batch_size: int = _f(1, "How many edits `batch_edit` applies together.")
    max_length: int = _f(40, "Length to which the host's token-accuracy probes are cut.")
    use_chat_template: bool = _f(False, "Whether the host's probes use the chat template.")
    seed: int = _f(42, "Same seed, same edit (on the CPU).")

    # ---- the method ----------------------------------------------------------------------------
    editing_mode: str = _f("causal", "`causal`, or `noncausal`: old and new answer only, no narrative.")
    stages: list[int] = _f([1, 2], "Which stages run: [1, 2], or [1] for bootstrapping alone.")
    teacher: str = _f(
        "base",
        "Stage 2's teacher: `base` (no adapter), `bootstrapped` (a frozen snapshot of the stage-1 adapter), "
        "or `auto` (`base` where it is right often enough on the edit's own prompts).",
    )
    teacher_min_accuracy: float = _f(0.75, "`auto` takes `base` from this share of right answers on.")
    student_use_sft: bool = _f(True, "Stage 2's student starts from the stage-1 adapter.")
    context_role: str = _f("system", "Message that carries the privileged context: `system` or `user`.")
    chat_template_kwargs: dict[str, Any] | None = _f(None, "Further arguments of the chat template.")
    narrative_file: str | None = _f(None, "JSON file with narratives, looked up by subject and new answer.")
    narrative_max_new_tokens: int = _f(256, "Longest narrative the model writes itself, in tokens.")

    prompt_paraphrases: int = _f(0, "Further ways to ask for the fact (data/relations.json) among the prompts.")

    # ---- adapter -------------------------------------------------------------------------------
    lora_rank: int = _f(12, "Rank of the LoRA adapter.")
    lora_alpha: float | None = _f(None, "LoRA alpha; None means 2 × rank.")
    lora_dropout: float = _f(0.05, "LoRA dropout.")
    lora_target_modules: list[str] = _f(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "Names of the projections that get an adapter, or ['all-linear'].",
    )
    lora_layers: list[int] | None = _f(None, "[first, end): the layers that get an adapter. None means all.")
    merge_adapter: bool = _f(True, "Merge the adapter into the weights; False returns a PeftModel.")
    optimizer: str = _f("auto", "`auto`: 8-bit paged AdamW with bitsandbytes on a GPU, AdamW otherwise.")

    # ---- stage 1: causal bootstrapping ---------------------------------------------------------
    bootstrap_traces: int = _f(25, "Traces kept per edit.")
    bootstrap_candidates_per_trace: int = _f(48, "Candidates sampled for each kept trace.")
    bootstrap_early_stop: bool = _f(
        True, "Stop sampling once `bootstrap_oversample` × `bootstrap_traces` candidates have passed."
    )
    bootstrap_oversample: float = _f(4.0, "Passed candidates wanted per kept trace before sampling stops.")
    bootstrap_temperature: float = _f(0.9, "Sampling temperature of the traces.")
    bootstrap_top_p: float = _f(0.95, "Nucleus of the traces' sampling.")
    bootstrap_max_new_tokens: int = _f(2048, "Longest trace, in tokens.")
    bootstrap_sample_batch_size: int = _f(48, "Candidates generated at a time (their prompt is prefilled once).")
    bootstrap_guided: bool = _f(
        False,
        "Write the trace's labels and the two facts, which the request states, into the teacher's turn; "
        "it samples the reason alone. For models too small to keep the format.",
    )
    bootstrap_all_prompts: bool = _f(
        False,
        "Train on every stage-2 prompt form (with the kept traces' reasons), not on the stage-1 form alone.",
    )
    bootstrap_learning_rate: float = _f(3e-5, "Peak learning rate of stage 1.")
    bootstrap_warmup_ratio: float = _f(0.1, "Share of stage 1 that warms up; then cosine.")
    bootstrap_batch_size: int = _f(12, "Traces per optimiser step of stage 1.")
    bootstrap_epochs: int = _f(125, "Most passes over the traces.")
    bootstrap_max_steps: int | None = _f(None, "Most optimiser steps for one edit; None means by epochs alone.")
    bootstrap_steps_per_extra_edit: int = _f(0, "Steps added to `bootstrap_max_steps` per further edit.")
    bootstrap_max_grad_norm: float = _f(0.1, "Gradient clipping of stage 1.")
    bootstrap_loss_mean: str = _f(
        "token", "`token`: all completion tokens weigh the same; `sequence`: all completions, so short ones more."
    )
    bootstrap_stop_loss: float = _f(0.35, "Stage 1 stops when the loss stays below this …")
    bootstrap_stop_patience: int = _f(2, "… for so many logs in a row.")

    # ---- stage 2: causal internalisation -------------------------------------------------------
    distill_steps_base: int = _f(20, "Optimiser steps for one edit.")
    distill_steps_per_extra_edit: int = _f(5, "Further steps per further edit in the batch.")
    distill_max_steps: int | None = _f(None, "Exact number of steps, whatever the number of edits.")
    distill_cake_data: bool = _f(False, "Add the requests' paraphrases and learning questions to the prompts.")
    distill_learning_rate: float = _f(9e-5, "Peak learning rate of stage 2.")
    distill_warmup_ratio: float = _f(0.2, "Share of stage 2 that warms up; then constant.")
    distill_batch_size: int = _f(18, "Rollouts per device and accumulation step.")
    distill_gradient_accumulation_steps: int = _f(2, "Accumulation steps per optimiser step.")
    distill_num_generations: int = _f(9, "Rollouts per prompt: one weight group.")
    distill_temperature: float = _f(1.0, "Sampling temperature of the rollouts.")
    distill_top_p: float = _f(0.9, "Nucleus of the rollouts' sampling.")
    distill_max_new_tokens: int = _f(180, "Longest rollout, in tokens.")
    distill_max_grad_norm: float = _f(0.5, "Gradient clipping of stage 2.")
    distill_forward_kl: bool = _f(True, "Forward KL(teacher‖student); False: reverse KL.")
    distill_kd_temperature: float = _f(1.0, "Temperature of both distributions in the loss.")
    distill_top_k: int = _f(24, "Size of each side's top-k set; the loss lives on their union.")
    distill_repetition_ngram: int = _f(3, "n of the repetition filter's n-grams.")
    distill_repetition_window: int = _f(48, "Last tokens of a rollout that the filter looks at.")
    distill_repetition_threshold: float = _f(0.15, "Share of repeated n-grams above which a rollout is dropped.")
    distill_use_vllm: bool = _f(False, "Rollouts through vLLM (trl's own switch).")
    distill_vllm_mode: str = _f("colocate", "trl's vllm_mode: `colocate` or `server`.")

    # ---- preservation (not in the paper; off in its configurations) ----------------------------
    preserve_weight: float = _f(0.0, "Weight of KL(base‖student) on questions the edit must not change; 0: off.")
    preserve_prompts: int = _f(32, "How many such questions are drawn for an edit.")
    preserve_batch_size: int = _f(8, "Of these, how many enter one optimiser step.")
    preserve_max_new_tokens: int = _f(24, "Length of the base model's own answers to them, in tokens.")
    preserve_top_k: int = _f(64, "Tokens of the base distribution that are kept per position; the rest is one bucket.")
    preserve_file: str | None = _f(None, "JSON list of questions to use instead of the built-in ones.")

    def __post_init__(self) -> None:
        self._check()

    # ---- loading ---------------------------------------------------------------------------------
    @classmethod
    def from_hparams(cls, path: str | Path) -> CausalEditHyperParams:
        """Load a YAML or JSON file, given with or without `.yaml`, or by the name of a bundled one.

        Args:
            path: A file, or a name under `hparams/CausalEdit/` such as `smollm2-135m-instruct`.

        Raises:
            HparamsError: The file cannot be read, is not a mapping, is another method's, or has an
                unknown key or a bad value.
        """
        file = resolve_hparams_file(path)
        try:
            text = file.read_text(encoding="utf-8")
            data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
        except OSError as error:
            raise HparamsError(f"The hparams file {str(file)!r} cannot be read ({error.strerror}).") from None
        except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
            first = str(error).splitlines()[0]
            raise HparamsError(f"The hparams file {str(file)!r} is not valid YAML or JSON ({first}).") from None
        if not isinstance(data, dict):
            raise HparamsError(
                f"The hparams file {str(file)!r} must hold `key: value` lines, got {type(data).__name__}."
            )
        try:
            return cls.from_dict(data)
        except HparamsError as error:
            raise HparamsError(f"{file.name}: {error}") from None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> CausalEditHyperParams:
        """Build from plain data; published key names are translated, unknown keys refused."""
        alg = data.get("alg_name", data.get("alg"))
        if alg != ALG_NAME:
            raise HparamsError(
                f"`alg_name` is {alg!r}, but these hyper-parameters are for {ALG_NAME!r}: give a file of "
                f"hparams/{ALG_NAME}/."
            )
        known = {f.name: f for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {}
        given: dict[str, str] = {}
        for key, value in data.items():
            if key == "teacher_use_sft":  # published switch: a boolean where we have three choices
                if not isinstance(value, bool):
                    raise HparamsError(f"`teacher_use_sft` must be true or false, got {value!r}.")
                name, value = "teacher", "bootstrapped" if value else "base"
            else:
                name = PUBLISHED_ALIASES.get(key, key)
            if name not in known:
                hint = did_you_mean(str(key), [*known, *PUBLISHED_ALIASES, "teacher_use_sft"])
                raise HparamsError(f"unknown key {key!r}.{hint}")
            if name in values:
                raise HparamsError(f"{key!r} and {given[name]!r} are the same setting: keep one.")
            given[name] = str(key)
            values[name] = _coerce(name, value, known[name])
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the model card; a `(model, tokenizer)` pair becomes its model's name."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if not isinstance(self.model_name, str):
            data["model_name"] = str(getattr(self.model_name[0].config, "_name_or_path", "")) or "in memory"
        return data

    # ---- checks ------------------------------------------------------------------------------------
    def _check(self) -> None:
        for name, choices in {
            "editing_mode": ("causal", "noncausal"),
            "teacher": ("base", "bootstrapped", "auto"),
            "context_role": ("system", "user"),
            "dtype": ("auto", "float32", "bfloat16", "float16"),
            "bootstrap_loss_mean": ("token", "sequence"),
            "distill_vllm_mode": ("colocate", "server"),
        }.items():
            value = getattr(self, name)
            if value not in choices:
                raise HparamsError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.")
        for name in (
            "lora_rank", "bootstrap_traces", "bootstrap_candidates_per_trace", "bootstrap_max_new_tokens",
            "bootstrap_sample_batch_size", "bootstrap_batch_size", "bootstrap_epochs", "bootstrap_stop_patience",
            "distill_batch_size", "distill_gradient_accumulation_steps", "distill_num_generations",
            "distill_max_new_tokens", "distill_top_k", "distill_repetition_ngram", "distill_repetition_window",
            "preserve_prompts", "preserve_batch_size", "preserve_max_new_tokens", "preserve_top_k",
            "batch_size", "max_length", "narrative_max_new_tokens",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise HparamsError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        for name in (
            "bootstrap_learning_rate", "distill_learning_rate", "bootstrap_temperature", "distill_temperature",
            "distill_kd_temperature", "bootstrap_max_grad_norm", "distill_max_grad_norm", "bootstrap_oversample",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise HparamsError(f"`{name}` must be a number above 0, got {value!r}.")
        for name in (
            "bootstrap_top_p", "distill_top_p", "lora_dropout", "teacher_min_accuracy", "bootstrap_warmup_ratio",
            "distill_warmup_ratio", "distill_repetition_threshold",
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
                raise HparamsError(f"`{name}` must lie between 0 and 1, got {value!r}.")
        for name, least in (("bootstrap_max_steps", 1), ("distill_max_steps", 0), ("seed", 0)):
            value = getattr(self, name)
            if value is None and name != "seed":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**32:
                raise HparamsError(f"`{name}` must be a whole number of at least {least}, got {value!r}.")
        if self.lora_alpha is not None and not self.lora_alpha > 0:
            raise HparamsError(f"`lora_alpha` must be None or a number above 0, got {self.lora_alpha!r}.")
        targets = self.lora_target_modules
        if not isinstance(targets, list) or not targets or not all(isinstance(name, str) for name in targets):
            raise HparamsError(
                f"`lora_target_modules` must be a list of projection names or ['all-linear'], got {targets!r}."
            )
        for name in ("preserve_weight", "bootstrap_stop_loss"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
                raise HparamsError(f"`{name}` must be a number of at least 0, got {value!r}.")
        for name in (
            "distill_steps_base",
            "distill_steps_per_extra_edit",
            "bootstrap_steps_per_extra_edit",
            "prompt_paraphrases",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise HparamsError(f"`{name}` must be a whole number of at least 0, got {value!r}.")
        if self.stages not in ([1], [2], [1, 2]):
            raise HparamsError(f"`stages` must be [1], [2] or [1, 2], got {self.stages!r}.")
        if 1 not in self.stages and (self.teacher == "bootstrapped" or self.student_use_sft):
            raise HparamsError(
                "`stages: [2]` leaves out the bootstrapping that `teacher: bootstrapped` and "
                "`student_use_sft: true` need: set `teacher: base` and `student_use_sft: false`."
            )
        if self.distill_batch_size % self.distill_num_generations:
            raise HparamsError(
                f"`distill_batch_size` ({self.distill_batch_size}) must be a multiple of "
                f"`distill_num_generations` ({self.distill_num_generations}), so that no weight group is split."
            )
        layers = self.lora_layers
        if layers is not None and not (
            isinstance(layers, list)
            and len(layers) == 2
            and all(isinstance(n, int) for n in layers)
            and 0 <= layers[0] < layers[1]
        ):
            raise HparamsError(f"`lora_layers` must be [first, end) with 0 <= first < end, got {layers!r}.")

    # ---- derived figures ---------------------------------------------------------------------------
    def distill_steps(self, edits: int) -> int:
        """Stage-2 optimiser steps for so many edits trained together (METHOD: 20, +5 for each further one)."""
        if self.distill_max_steps is not None:
            return self.distill_max_steps
        return self.distill_steps_base + self.distill_steps_per_extra_edit * (edits - 1)

    def bootstrap_step_limit(self, edits: int) -> int | None:
        """Most stage-1 optimiser steps for so many edits, or None where epochs alone decide."""
        if self.bootstrap_max_steps is None:
            return None
        return self.bootstrap_max_steps + self.bootstrap_steps_per_extra_edit * (edits - 1)


def resolve_hparams_file(path: str | Path) -> Path:
    """Find a hyper-parameter file: as given, with `.yaml`, or among the bundled ones.

    Raises:
        HparamsError: There is none; the message offers the nearest bundled name.
    """
    given = Path(path).expanduser()
    bundled = hparams_dir(ALG_NAME)
    if not given.name:
        raise HparamsError(f"`{path}` names no hparams file: give a file or the name of a bundled one.")
    for base in (given, bundled / given.name):
        for file in (base, base.with_name(base.name + ".yaml"), base.with_name(base.name + ".json")):
            if file.is_file():
                return file
        if given.parent != Path():  # a folder was named: do not fall back to a bundled file in silence
            break
    names = sorted(p.stem for p in bundled.glob("*.yaml"))
    hint = did_you_mean(given.stem, names)
    raise HparamsError(f"There is no hparams file {str(given)!r}.{hint} Bundled: {', '.join(names)}.")


def _coerce(name: str, value: Any, spec: dataclasses.Field) -> Any:
    """YAML reads `3e-5` as text: turn such texts into numbers; keep whole numbers whole."""
    annotation = str(spec.type)
    if isinstance(value, str) and ("float" in annotation or "int" in annotation):
        try:
            value = float(value)
        except ValueError:
            raise HparamsError(f"`{name}` must be a number, got {value!r}.") from None
    if isinstance(value, float) and "int" in annotation and "float" not in annotation and value.is_integer():
        value = int(value)
    if annotation.startswith("bool") and not isinstance(value, bool):
        raise HparamsError(f"`{name}` must be true or false, got {value!r}.")
    return value
