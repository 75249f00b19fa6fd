"""Load any causal language model of transformers: path, hub name, GGUF file, embedded name or a pair."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import ModelError, did_you_mean
from causaledit.models.batches import is_out_of_memory
from causaledit.models.checkpoint import check_folder, is_adapter_alone
from causaledit.models.gguf import load_gguf
from causaledit.models.pairs import check_pair
from causaledit.models.quantised import check_quantization, loading_arguments, settle
from causaledit.models.sharded import (
    check_sharding,
    is_sharded,
    settle_sharded,
    sharding_options,
    wants_sharding,
    without_accelerates_sharding,
)
from causaledit.support.hub import hub_fault
from causaledit.support.paths import exists, expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

ARGUMENT = "`model_name`, --model"
DTYPES = ("float32", "bfloat16", "float16")


class LoadedModel(NamedTuple):
    """A model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def resolve_device(device: Any) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N`, N or a `torch.device` into a device that exists.

    Raises:
        ModelError: The device is unknown to torch or not on this machine.
    """
    import torch

    if device is None or device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # one of several processes that were launched together has a GPU of its own
        return (
            torch.device("cuda", int(os.environ["LOCAL_RANK"])) if "LOCAL_RANK" in os.environ else torch.device("cuda")
        )
    if isinstance(device, int) or (isinstance(device, str) and device.strip().isdigit()):
        device = f"cuda:{int(device)}"
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError):
        raise ModelError(f"`device` must be auto, cpu, cuda or cuda:N, got {device!r}.") from None
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            raise ModelError(f"`device` is {str(device)!r}, but this machine has {count} CUDA device(s): use cpu.")
    elif resolved.type == "mps":
        if not torch.backends.mps.is_available():
            raise ModelError("`device` is 'mps', but torch finds no such device here: use cpu.")
    elif resolved.type != "cpu":
        raise ModelError(f"`device` must be auto, cpu, cuda or cuda:N, got {device!r}.")
    return resolved


def resolve_dtype(dtype: str, device: torch.device, *, fp16: bool = False) -> torch.dtype | str:
    """`auto` is float32 on a CPU (bfloat16 is slower there) and the checkpoint's own type elsewhere."""
    import torch

    if fp16:
        return torch.float16
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ModelError(f"`dtype` must be auto or one of {', '.join(DTYPES)}, got {dtype!r}.")
        return getattr(torch, dtype)
    return torch.float32 if device.type == "cpu" else "auto"


def load_model(
    name: Any,
    *,
    device: Any = "auto",
    dtype: str = "auto",
    fp16: bool = False,
    model_parallel: bool = False,
    max_memory: Mapping[Any, Any] | None = None,
    quantization: str = "none",
    argument: str = ARGUMENT,
) -> LoadedModel:
    """Load a causal LM and its tokenizer.

    In processes that were launched together with FSDP its weights are spread over them, frozen (`models.sharded`).

    Args:
        name: A folder, a hub name, a `.gguf` file, the name of an embedded model
            (`smollm2-135m-instruct`), or a `(model, tokenizer)` pair, which is moved to `device`.
        device: See `resolve_device`. Ignored with `model_parallel`.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        fp16: EasyEdit's switch for float16.
        model_parallel: Spread the weights over all devices.
        max_memory: With `model_parallel`: the most that each device may hold, as accelerate takes it.
        quantization: `none`, `8bit` or `4bit`: how bitsandbytes holds the matrices.
        argument: What the user gave the name by, for messages.

    Raises:
        ModelError: There is no such model, it is no causal LM, a pair is something else, the device does not exist, or
            FSDP is configured and cannot spread it.
        MissingExtraError: bitsandbytes is not installed.
    """
    target = resolve_device(device)
    check_quantization(name, quantization)
    if not isinstance(name, str | Path):
        try:
            if isinstance(name, Mapping):  # its keys would pass for the two
                raise TypeError
            model, tokenizer = name
        except (TypeError, ValueError):
            raise ModelError(
                f"`model_name` must be a path, a hub name or a (model, tokenizer) pair, got {type(name).__name__}."
            ) from None
        check_pair(model, tokenizer)
        if not model_parallel and not getattr(model, "hf_device_map", None) and not is_sharded(model):
            model.to(target)
        return LoadedModel(model, tokenizer)

    if not str(name).strip():
        raise ModelError("`model_name` is empty: give a folder, a hub name, a .gguf file or an embedded name.")
    path = _place_of(name)
    weights_dtype = resolve_dtype(dtype, target, fp16=fp16)
    if wants_sharding():
        check_sharding(path, target, quantization=quantization, model_parallel=model_parallel)
        places = {**sharding_options(), **({} if exists(path) else hub_options(str(name), argument))}
        with without_accelerates_sharding():
            loaded = _load_pretrained(path if exists(path) else str(name), weights_dtype, places)
        settle_sharded(loaded.model)
        return loaded
    if is_adapter_alone(path):
        return _load_adapter(
            path, device=device, dtype=dtype, fp16=fp16, model_parallel=model_parallel, max_memory=max_memory,
            quantization=quantization,
        )  # fmt: skip
    if path.suffix == ".gguf":
        loaded = LoadedModel(*load_gguf(path, weights_dtype))
    else:
        places = {"device_map": "auto", "max_memory": dict(max_memory) if max_memory else None}
        if not model_parallel:
            places = {"device_map": {"": str(target)}} if quantization != "none" else {}
        places |= loading_arguments(quantization, weights_dtype)
        if not exists(path):
            places |= hub_options(str(name), argument)
        loaded = _load_pretrained(path if exists(path) else str(name), weights_dtype, places)
    if quantization != "none":
        settle(loaded.model)
    elif not model_parallel:
        placed: Any = loaded.model
        placed.to(target)
    return loaded


def load_from_hparams(hparams: Any) -> LoadedModel:
    """Load the model that a method's hyper-parameters name; `dtype` and `fp16` may be missing there."""
    return load_model(
        hparams.model_name,
        device=hparams.device,
        dtype=getattr(hparams, "dtype", "auto"),
        fp16=getattr(hparams, "fp16", False),
        model_parallel=hparams.model_parallel,
        max_memory=getattr(hparams, "max_memory", None),
        quantization=getattr(hparams, "quantization", "none"),
    )


def load_config(name: Any) -> Any:
    """The configuration of a model that is not loaded: of a folder, a hub name, an embedded name or a pair.

    Raises:
        ModelError: There is none.
    """
    if not isinstance(name, str | Path):
        model, _ = name
        return model.config
    from transformers import AutoConfig

    path = _place_of(name)
    if path.suffix == ".gguf":
        raise ModelError(f"{str(name)!r} is a GGUF file: give a folder with a config.json.")
    options = {} if exists(path) else hub_options(str(name))
    with _in_one_line(name, "Give a folder with a config.json, a hub name, or `smollm2-135m-instruct`."):
        return AutoConfig.from_pretrained(path if exists(path) else str(name), trust_remote_code=False, **options)


def _place_of(name: str | Path) -> Path:
    """Where a model is; what does not exist there is a hub's name.

    Raises:
        ModelError: It can be no hub's name: a folder that does not exist, or nearly an embedded model's name.
    """
    from causaledit.models.embedded import EMBEDDED_MODELS, ensure_embedded_model

    path = expanded(name)
    if exists(path):
        return path
    if str(name) in EMBEDDED_MODELS:
        return ensure_embedded_model(str(name))
    if path.suffix != ".gguf" and (path.is_absolute() or str(name)[:1] in ".~"):
        raise ModelError(f"The model folder {str(name)!r} does not exist: give a folder, a hub name or a .gguf file.")
    if "/" not in str(name) and (hint := did_you_mean(str(name), EMBEDDED_MODELS)):  # before a hub is asked
        raise ModelError(f"There is no folder and no embedded model {str(name)!r}.{hint}")
    return path


def hub_options(name: str, argument: str = ARGUMENT) -> dict[str, Any]:
    """How a model that is no folder is to be asked for: of the hub, or where that cannot be asked, of its cache.

    Returns:
        Arguments of `from_pretrained`.

    Raises:
        ModelError: The hub cannot be asked, and the model is not in the cache.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from causaledit.models.embedded import EMBEDDED_MODELS

    try:
        cached = [try_to_load_from_cache(name, file) for file in ("config.json", "adapter_config.json")]
    except HFValidationError:  # no hub has such a name: the reader says so
        return {}
    fault = hub_fault(f"{name}/resolve/main/config.json")
    if fault is None:
        return {}
    if any(isinstance(file, str) for file in cached):
        logger.info("%s: %s is read from the cache", fault, name)
        return {"local_files_only": True}
    hint = did_you_mean(name.rsplit("/", 1)[-1], EMBEDDED_MODELS)
    instead = f"a folder or a .gguf file.{hint}" if hint else "a folder, a .gguf file, or `smollm2-135m-instruct`."
    raise ModelError(
        f"The model {name!r} ({argument}) is no folder here and not in the hub's cache, and {fault}: give {instead}"
    )


_PAIR = "load both yourself and give the pair (model, tokenizer)"


def _load_pretrained(source: Path | str, dtype: Any, places: Mapping[str, Any]) -> LoadedModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if isinstance(source, Path):
        check_folder(source)
        if not (source / "config.json").is_file():
            raise ModelError(f"{str(source)!r} is no model folder: config.json is missing in it.")
    # without an answer to whether a model's own code is trusted, transformers asks on the terminal
    other = "Give a folder, a hub name, a .gguf file, or `smollm2-135m-instruct` for the embedded model."
    kept = f"If its tokenizer is missing, save it there (`tokenizer.save_pretrained`), or {_PAIR}."
    with _in_one_line(source, kept if isinstance(source, Path) else other):
        tokenizer = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=places.get("local_files_only", False)
        )
    with _in_one_line(source, other):
        found: Any = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, output_loading_info=True, trust_remote_code=False, ignore_mismatched_sizes=True,
            **places,
        )  # fmt: skip
        model, loaded = found
    random = sorted({*loaded["missing_keys"], *(key for key, *_ in loaded["mismatched_keys"])})
    if random:
        raise ModelError(
            f"The model {str(source)!r} is not whole: {type(model).__name__} has {len(random)} weights that its files "
            f"do not hold, or hold in another shape ({', '.join(random[:3])}), and that would be random: take the "
            "model as it was published."
        )
    return LoadedModel(model.eval(), tokenizer)


@contextlib.contextmanager
def _in_one_line(source: Path | str, fix: str) -> Iterator[None]:
    """Turn what goes wrong while a model is loaded into one line: every reader below has errors of its own."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" :")
        if "trust_remote_code" in str(error):
            reason, fix = "it needs code of its own to be run.", (
                f"If you trust that code, {_PAIR}, with `trust_remote_code=True`."
            )  # fmt: skip
        stop = "" if reason.endswith((".", "?", "!")) else "."
        raise ModelError(f"The model {str(source)!r} cannot be loaded: {reason}{stop} {fix}") from None


def _load_adapter(folder: Path, **options: Any) -> LoadedModel:
    """Load a saved adapter on its base model; the base may be an embedded model's name.

    Args:
        **options: How `load_model` is to load the base.
    """
    from peft import PeftConfig, PeftModel

    from causaledit.models.embedded import embedded_name

    check_folder(folder)
    with _in_one_line(folder, "Save the adapter again, or load it with peft and give the pair (model, tokenizer)."):
        base_name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        if not base_name:
            raise ModelError(
                f"The adapter {str(folder)!r} names no base model: set `base_model_name_or_path` in its "
                f"adapter_config.json, or {_PAIR}."
            )
        if not Path(base_name).exists():  # the embedded model in the cache of another user or machine
            base_name = embedded_name(Path(base_name)) or base_name
        base = load_model(base_name, **options)
        adapted: Any = PeftModel.from_pretrained(base.model, str(folder))
        return LoadedModel(adapted.eval(), base.tokenizer)
