"""Where things are in a decoder: module paths as data, from the YAML or read off the module tree.

A model's name never decides anything. A layout is the four paths that the methods need; the lists below name
the places where decoders of transformers keep them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from causaledit.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel


# Lists of decoder layers, with the norm that follows them beside the list.
LAYER_LISTS = (
    "model.layers",
    "transformer.h",
    "gpt_neox.layers",
    "model.decoder.layers",
    "model.language_model.layers",
    "language_model.model.layers",
)
FINAL_NORMS = ("norm", "ln_f", "norm_f", "final_layer_norm", "final_layernorm")
# The MLP's projection back into the residual stream, inside a layer.
PROJECTIONS = (
    "mlp.down_proj",
    "mlp.c_proj",
    "mlp.fc_out",
    "mlp.dense_4h_to_h",
    "mlp.fc2",
    "mlp.w2",
    "ffn.down_proj",
    "feed_forward.w2",
    "fc2",
)


@dataclass(frozen=True)
class Layout:
    """Module paths of one model; `{}` stands for the layer's number.

    Attributes:
        layer: A decoder layer.
        projection: The MLP's output projection, whose weight is rewritten.
        final_norm: The norm before the output layer; None where there is none (OPT-350M).
        head: The output layer (or the embeddings it shares its weight with).
        depth: Number of layers.
    """

    layer: str
    projection: str
    final_norm: str | None
    head: str
    depth: int

    def weight_name(self, layer: int) -> str:
        """Name of the rewritten parameter."""
        return f"{self.projection.format(layer)}.weight"

    def layer_module(self, model: nn.Module, layer: int) -> nn.Module:
        """The decoder layer."""
        return model.get_submodule(self.layer.format(layer))

    def projection_module(self, model: nn.Module, layer: int) -> nn.Module:
        """The rewritten projection: a `Linear`, or GPT-2's transposed `Conv1D`."""
        return model.get_submodule(self.projection.format(layer))

    def weight(self, model: nn.Module, layer: int) -> torch.Tensor:
        """The rewritten weight as the `(out, in)` matrix W of W·k, whatever way it is stored."""
        module = self.projection_module(model, layer)
        weight = module.get_parameter("weight")
        return weight.T if _is_transposed(module) else weight

    @torch.no_grad()
    def add(self, model: nn.Module, layer: int, change: torch.Tensor) -> None:
        """Add an `(out, in)` change to the weight, rounded once.

        Raises:
            ModelError: It is of another shape, which torch might spread over the weight in silence.
        """
        weight = self.weight(model, layer)
        if change.shape != weight.shape:
            made, wanted = ("×".join(map(str, tensor.shape)) for tensor in (change, weight))
            raise ModelError(
                f"The change of {self.weight_name(layer)} is {made}, but the weight is {wanted}: its keys are not what "
                "the method takes them for. The model is as it was."
            )
        change = change.to(weight.device)
        weight.copy_((weight.to(change.dtype) + change).to(weight.dtype))


class LayoutSettings(Protocol):
    """What a method's hyper-parameters say of the model's layout; a path that is None is found."""

    layers: list[int]
    v_loss_layer: int | None
    layer_module_tmp: str | None
    rewrite_module_tmp: str | None
    ln_f_module: str | None
    lm_head_module: str | None


def find_layout(model: nn.Module, hparams: LayoutSettings) -> Layout:
    """The paths given in the hyper-parameters, the rest read off the module tree, all of it checked.

    Raises:
        ModelError: A path does not exist, a layer is beyond the model, or the MLP has no plain output projection.
    """
    layers = hparams.layer_module_tmp
    if layers is None:
        layers = _layers_or_refusal(model, "set `layer_module_tmp`, for example 'model.layers.{}'") + ".{}"
    depth = _depth(model, layers)
    wanted = [*hparams.layers, *([] if hparams.v_loss_layer is None else [hparams.v_loss_layer])]
    for number in wanted:
        if number >= depth:
            field = "layers" if number in hparams.layers else "v_loss_layer"
            raise ModelError(f"`{field}` names layer {number}, but the model has {depth} layers (0 to {depth - 1}).")
    projection = hparams.rewrite_module_tmp or _find_projection(model, layers, hparams.layers[0])
    norm = hparams.ln_f_module or _find_norm(model, layers)
    head = hparams.lm_head_module or _find_head(model)
    if norm is None and hparams.v_loss_layer not in (None, depth - 1):
        raise ModelError(
            f"`v_loss_layer` is {hparams.v_loss_layer}, but the norm after the layers of {type(model).__name__}, "
            "through which an earlier layer is read out, was not found: set `ln_f_module`, or `v_loss_layer: null`."
        )
    for field, path in (("ln_f_module", norm), ("lm_head_module", head)):
        if path is not None and _module(model, path) is None:
            raise ModelError(f"`{field}` is {path!r}, but the model has no such module.")
    layout = Layout(layers, projection, norm, head, depth)
    for number in hparams.layers:
        _check_projection(model, layout, number)
    return layout


def decoder_layers(model: Any) -> str | None:
    """Name of the model's list of decoder layers (`model.layers`, `transformer.h`, …); None where there is none.

    A known place first, as a vision tower may have as many layers; elsewhere the list of as many layers as the
    configuration says.
    """
    for path in LAYER_LISTS:
        found = _module(model, path)
        if isinstance(found, nn.ModuleList) and len(found):
            return path
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    return min((path for path, layers in _module_lists(model) if len(layers) == depth), key=len, default=None)


def _module_lists(model: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]


def _layers_or_refusal(model: nn.Module, fix: str) -> str:
    """As `decoder_layers`.

    Raises:
        ModelError: There is none; the message says what to do.
    """
    path = decoder_layers(model)
    if path is None:
        lists = ", ".join(name for name, _ in _module_lists(model)) or "none"
        kind = type(model).__name__
        raise ModelError(f"The decoder layers of {kind} were not found (module lists: {lists}): {fix}.")
    return path


def _module(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _depth(model: nn.Module, template: str) -> int:
    depth = 0
    while _module(model, template.format(depth)) is not None:
        depth += 1
    if not depth:
        raise ModelError(f"`layer_module_tmp` is {template!r}, but the model has no module {template.format(0)!r}.")
    return depth


def _find_projection(model: nn.Module, layers: str, number: int) -> str:
    layer = model.get_submodule(layers.format(number))
    for path in PROJECTIONS:
        if hasattr(_module(layer, path), "weight"):
            return f"{layers}.{path}"
    raise ModelError(
        f"Layer {number} of {type(model).__name__} has no MLP with a known output projection (its parts: "
        f"{_parts(layer)}): set `rewrite_module_tmp`, or use a method that needs none."
    )


def _parts(layer: nn.Module) -> str:
    return ", ".join(name for name, module in layer.named_modules() if name and hasattr(module, "weight"))


def _find_norm(model: nn.Module, layers: str) -> str | None:
    parent = layers.removesuffix(".{}").rpartition(".")[0]
    for name in FINAL_NORMS:
        path = f"{parent}.{name}" if parent else name
        if _module(model, path) is not None:
            return path
    return None


def _find_head(model: Any) -> str:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    for name, module in model.named_modules():
        if module is head and head is not None:
            return name
    raise ModelError(f"The output layer of {type(model).__name__} was not found: is it a causal language model?")


def _check_projection(model: nn.Module, layout: Layout, number: int) -> None:
    path = layout.projection.format(number)
    module = _module(model, path)
    if module is None:
        raise ModelError(f"`rewrite_module_tmp` is {layout.projection!r}, but the model has no module {path!r}.")
    weight = getattr(module, "weight", None)
    plain = isinstance(module, nn.Linear) or _is_transposed(module)
    if not plain or not isinstance(weight, torch.Tensor) or weight.ndim != 2 or not weight.is_floating_point():
        kind = "" if weight is None else f" with a weight of type {getattr(weight, 'dtype', type(weight))}"
        raise ModelError(
            f"{path!r} is a {type(module).__name__}{kind}, but a plain, not quantised linear projection is needed."
        )
    _refuse_shared(model, layout.weight_name(number), "rewrite_module_tmp")
    hidden = _hidden_size(model, layout)
    out = layout.weight(model, number).shape[0]
    if hidden is not None and out != hidden:
        raise ModelError(f"{path!r} gives {out} features, but the hidden size is {hidden}: name its projection.")


def _refuse_shared(model: nn.Module, name: str, setting: str) -> None:
    """A weight that stands in two places would change in both.

    Raises:
        ModelError: It does.
    """
    weight = model.get_parameter(name)
    every = model.named_parameters(remove_duplicate=False)
    if others := [other for other, value in every if value is weight and other != name]:
        raise ModelError(
            f"`{setting}` takes in {name!r}, which is one weight with {others[0]!r} (tied weights): the change would "
            "go into both. Name another module."
        )


def _hidden_size(model: Any, layout: Layout) -> int | None:
    size = getattr(model.config.get_text_config(), "hidden_size", None)
    if size is not None:  # the output layer may be narrower (OPT-350m projects in between)
        return size
    head = getattr(model.get_submodule(layout.head), "weight", None)
    return None if head is None else head.shape[-1]


def _is_transposed(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def by_token(states: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """A module's states as `(rows, columns, features)`, also where the model flattens rows and columns (OPT's MLP).

    Raises:
        ModelError: They are of other tokens: an expert, for instance, sees its share of them alone.
    """
    if states.shape[:-1] == (rows, columns):
        return states
    if states.shape[:-1] == (rows * columns,):
        return states.view(rows, columns, -1)
    raise ModelError(
        f"The module sees states of shape {tuple(states.shape)} where {rows} rows of {columns} tokens are read: name "
        "one in `rewrite_module_tmp` that sees every token (no expert)."
    )


def not_behind_keys(layout: Layout, layer: int) -> tuple[str, ...]:
    """Name prefixes of parameters that a layer's keys do not depend on: its projection and all later layers."""
    later = (f"{layout.layer.format(n)}." for n in range(layer + 1, layout.depth))
    return (f"{layout.projection.format(layer)}.", *later)


def select_weights(model: PreTrainedModel, layers: Sequence[int] | None, modules: Sequence[str]) -> list[str]:
    """Names of the weights of some modules in some layers.

    Args:
        layers: Layer numbers; None means all.
        modules: Names within a layer (`mlp.down_proj`), whole paths with `{}` for the layer, or `auto`: the
            output projection of the MLP.

    Raises:
        ModelError: A layer or module does not exist.
    """
    whole = all("{}" in module for module in modules)
    parent = "" if whole else _layers_or_refusal(model, "name whole paths in `modules`, {} for the layer")
    depth = model.config.get_text_config().num_hidden_layers
    numbers = list(range(depth)) if layers is None else list(layers)
    if wrong := [n for n in numbers if not 0 <= n < depth]:
        raise ModelError(f"`layers` names layer {wrong[0]}, but the model has layers 0 to {depth - 1}.")
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found = []
    for number in numbers:
        base = f"{parent}.{number}"
        for module in modules:
            if module == "auto":
                path = next((f"{base}.{name}" for name in PROJECTIONS if f"{base}.{name}.weight" in known), None)
                if path is None:
                    raise ModelError(
                        f"No output projection of an MLP is known in {type(model).__name__}: name it in `modules`."
                    )
            else:
                path = module.format(number) if "{}" in module else f"{base}.{module}"
            name = f"{path.removesuffix('.weight')}.weight"
            if name not in known:
                raise ModelError(f"`modules` names {module!r}, but {type(model).__name__} has no weight {name!r}.")
            _refuse_shared(model, name, "modules")
            found.append(name)
    return list(dict.fromkeys(found))
