"""LoRA adapters: put on, merged for inference, delivered, taken off without a trace."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any, Protocol

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from causaledit.errors import ModelError, one_line
from causaledit.models.quantised import is_quantised, originals_of
from causaledit.models.sharded import is_sharded, own_tensors
from causaledit.models.weights import restore, restructuring, structure_of
from causaledit.support.seeding import seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel


class AdapterSettings(Protocol):
    """What a method's hyper-parameters say of its adapter (see `AdapterHyperParams`)."""

    lora_rank: int
    lora_alpha: float | None
    lora_dropout: float
    lora_target_modules: list[str]
    lora_layers: list[int] | None
    seed: int


def lora_config(model: PreTrainedModel, hparams: AdapterSettings) -> LoraConfig:
    """The adapter's configuration, checked against the model.

    Raises:
        ModelError: A target module or layer does not exist in the model.
    """
    targets = hparams.lora_target_modules
    if targets != ["all-linear"]:
        present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        if missing := [name for name in targets if name not in present]:
            raise ModelError(
                f"`lora_target_modules` names {', '.join(missing)}, which {type(model).__name__} does not have: "
                "give its projections' names, or ['all-linear']."
            )
    layers = None
    if hparams.lora_layers is not None:
        first, end = hparams.lora_layers
        depth = model.config.get_text_config().num_hidden_layers
        if end > depth:
            raise ModelError(f"`lora_layers` is {hparams.lora_layers}, but the model has {depth} layers.")
        layers = list(range(first, end))
    return LoraConfig(
        r=hparams.lora_rank,
        # peft declares a whole number and takes any
        lora_alpha=hparams.lora_alpha if hparams.lora_alpha is not None else 2 * hparams.lora_rank,  # type: ignore[arg-type]
        lora_dropout=hparams.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def add_adapter(model: PreTrainedModel, hparams: AdapterSettings, config: LoraConfig | None = None) -> PeftModel:
    """Wrap the model with a fresh adapter (which changes nothing yet: one factor of its update is zero).

    Args:
        config: Of an adapter of another kind than `lora_config` makes.

    Raises:
        ModelError: A target is not there, or peft cannot adapt it. After any exception the model is as it was.
    """
    torch.manual_seed(hparams.seed)  # the A matrices are drawn
    return _wrapped(model, config or lora_config(model, hparams))


def check_adapter(
    model: PreTrainedModel, hparams: AdapterSettings, config: LoraConfig | None = None, *, merged: bool
) -> None:
    """Refuse an adapter that cannot be put on, or could not be merged, before anything is computed.

    The adapter is put on without memory of its own (on the meta device) and taken off again: what peft refuses, it
    refuses here.

    Args:
        model: As it is to be trained; left as it was.
        hparams: Of the method.
        config: As for `add_adapter`.
        merged: Whether the adapter will be merged into the weights.

    Raises:
        ModelError: A target module or layer does not exist, peft cannot adapt it, or merging would change more than
            the adapter does.
    """
    if merged and is_quantised(model):
        originals_of(model)  # that is what it will be merged into
    config = config or lora_config(model, hparams)
    homes: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        for parameter in module.parameters(recurse=False):
            homes.setdefault(id(parameter), []).append(name)
    for name, layer in _adapted_layers(model, hparams, config).items():
        others = [h for p in layer.parameters(recurse=False) for h in homes[id(p)] if h != name]
        if merged and others:
            raise ModelError(
                f"`lora_target_modules` takes in {name}, which shares its weight with {others[0]} (tied weights): "
                "merged, the change would go into both, and the model would not be the trained one. Leave "
                f"{name.rsplit('.', 1)[-1]} out of the targets, or set `merge_adapter: false` for single edits."
            )


def adapted_weights(model: PreTrainedModel, hparams: AdapterSettings, config: LoraConfig | None = None) -> list[str]:
    """Names of the parameters that an adapter would be merged into; the model is left as it was.

    Args:
        model, hparams, config: As in `check_adapter`.

    Raises:
        ModelError: As in `check_adapter`.
    """
    layers = _adapted_layers(model, hparams, config or lora_config(model, hparams))
    return [f"{name}.{kind}" for name, layer in layers.items() for kind, _ in layer.named_parameters(recurse=False)]


def _adapted_layers(model: PreTrainedModel, hparams: AdapterSettings, config: LoraConfig) -> dict[str, nn.Module]:
    """The layers that an adapter takes in, by name: it is put on without memory of its own and taken off again."""
    put_back = structure_of(model)
    try:
        with seeded(hparams.seed):
            adapted = _wrapped(model, config, low_cpu_mem_usage=True).get_base_model()
        return {n: m.get_base_layer() for n, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)}
    finally:
        put_back()


def _wrapped(model: PreTrainedModel, config: LoraConfig, **options: Any) -> PeftModel:
    with restructuring(model), _hooked_once(model):
        try:
            return get_peft_model(model, config, **options)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise ModelError(
                f"`lora_target_modules`: peft cannot put an adapter on this model: {one_line(error)} Give names of "
                "linear layers, or ['all-linear']. The model is as it was."
            ) from error


@contextlib.contextmanager
def _hooked_once(model: Any) -> Iterator[None]:
    """For the block embeddings that are asked for gradients already are not asked once more.

    transformers does when gradient checkpointing is switched on. peft's second hook would stay for good, and hide the
    first one's handle.
    """
    if not getattr(model, "_require_grads_hooks", None):
        yield
        return
    model.enable_input_require_grads = lambda: None
    try:
        yield
    finally:
        del model.enable_input_require_grads


def adapter_state(peft_model: PeftModel, adapter_name: str = "default") -> dict[str, torch.Tensor]:
    """An adapter's own tensors, as peft names them in files.

    Args:
        adapter_name: Which adapter's.
    """
    if not is_sharded(peft_model):
        return get_peft_model_state_dict(peft_model, adapter_name=adapter_name)
    return get_peft_model_state_dict(peft_model, own_tensors(peft_model), adapter_name)


def snapshot_adapted(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """Copy the weights an adapter will be merged into, by their names in the plain model.

    Copies of GPU weights are kept in host memory, which is larger.
    """
    originals = {}
    for name, module in peft_model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            for kind, value in module.get_base_layer().named_parameters(recurse=False):
                originals[f"{name}.{kind}"] = value.detach().to("cpu", copy=True)
    return originals


@contextlib.contextmanager
def exact_merging(peft_model: PeftModel) -> Iterator[None]:
    """For the block, un-merging the adapter puts the base weights' own bits back, whoever merges and un-merges.

    peft un-merges by subtraction, which leaves rounding behind. trl merges the live model each time it hands the
    weights to vLLM (`VLLMGeneration.sync_weights`), so that after one hand-over the base model would be another one.
    The originals of the adapted weights are copied when they are merged and kept until they are put back; a merge that
    an exception left in place is undone at the end of the block.
    """
    tuner: Any = peft_model.base_model  # a PeftModel passes both calls on to it
    replaced = {name: vars(tuner)[name] for name in ("merge_adapter", "unmerge_adapter") if name in vars(tuner)}
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []

    def merge_adapter(*args: Any, **kwargs: Any) -> None:
        if not originals:
            layers = [module for module in tuner.modules() if isinstance(module, BaseTunerLayer)]
            originals.extend((p, p.detach().clone()) for layer in layers for p in layer.get_base_layer().parameters())
        type(tuner).merge_adapter(tuner, *args, **kwargs)

    def unmerge_adapter() -> None:
        type(tuner).unmerge_adapter(tuner)
        with torch.no_grad():
            for parameter, value in originals:
                parameter.copy_(value)
        originals.clear()

    tuner.merge_adapter, tuner.unmerge_adapter = merge_adapter, unmerge_adapter
    try:
        yield
    finally:
        if originals:
            unmerge_adapter()
        del tuner.merge_adapter, tuner.unmerge_adapter
        for name, function in replaced.items():
            setattr(tuner, name, function)


@contextlib.contextmanager
def merged_for_inference(peft_model: PeftModel) -> Iterator[None]:
    """Merge the active adapter for the block, and put the exact base weights back afterwards.

    Generating through merged weights is faster.
    """
    with exact_merging(peft_model):
        tuner: Any = peft_model.base_model
        tuner.merge_adapter()
        yield


def forget_adapter(model: nn.Module) -> None:
    """Take off what peft leaves on a model it has left, so that hosts see a plain one."""
    for name in ("peft_config", "_hf_peft_config_loaded"):
        if name in vars(model):
            delattr(model, name)


def without_adapter(edited: Any) -> Any:
    """A plain model with the base weights of a PeftModel that the caller keeps."""
    plain = copy.deepcopy(edited).unload()
    forget_adapter(plain)
    return plain


def merge_adapter(peft_model: PeftModel, model: Any) -> dict[str, torch.Tensor]:
    """Merge a trained adapter into the weights; gives the original tensors by name.

    Args:
        peft_model: The trained adapter around `model`.
        model: The plain model; restored if merging fails.

    Raises:
        ModelError: The weights are quantised.
    """
    if is_quantised(model):
        raise ModelError(
            "Nothing can be merged into quantised weights: merge into those they were made from "
            "(`causaledit.methods.shared.delivery.deliver`), or set `merge_adapter: false`."
        )
    originals = snapshot_adapted(peft_model)
    try:
        peft_model.merge_and_unload()
    except BaseException:
        peft_model.unload()
        forget_adapter(model)
        restore(model, originals)
        raise
    forget_adapter(model)
    return originals


def is_adapted(model: Any) -> bool:
    """Whether a model carries an adapter: it is a PeftModel, or the network inside one."""
    return hasattr(model, "peft_config") or any(isinstance(module, BaseTunerLayer) for module in model.modules())


def name_base_model(model: Any, name: str) -> None:
    """Note in an adapter which model it belongs to, so that peft finds that again; a plain model has no such note."""
    for config in getattr(model, "peft_config", {}).values():
        config.base_model_name_or_path = name
