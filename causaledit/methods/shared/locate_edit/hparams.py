"""Hyper-parameters that ROME, MEMIT and AlphaEdit share, under EasyEdit's key names.

Where a name starts with `v_` it belongs to the optimisation of the value, with `mom2_` to the second moment
(uncentred covariance) of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import BaseHyperParams, are_layers, setting
from causaledit.methods.published_keys import Ignored, OnlyAt

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

FACT_TOKENS = ("subject_last", "subject_first", "subject_first_after_last", "last")
_TEMPLATES = ("rewrite_module_tmp", "layer_module_tmp")


@dataclass
class LocateEditHyperParams(BaseHyperParams):
    """The settings of a locate-then-edit method. Files written for EasyEdit load unchanged."""

    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **BaseHyperParams.PUBLISHED_KEYS,
        "mlp_module_tmp": Ignored("the path of an MLP; keys are read at its projection (`rewrite_module_tmp`)"),
        "attn_module_tmp": Ignored("the path of an attention block; attention is not used"),
    }

    # ---- where ---------------------------------------------------------------------------------
    layers: list[int] = setting([5], "Layers whose MLP output projection is rewritten, counted from 0.")
    fact_token: str = setting(
        "subject_last",
        "The token at which the fact is looked up (papers: the subject's last).",
        choices=FACT_TOKENS,
    )
    rewrite_module_tmp: str | None = setting(
        None, "Path of the rewritten projection, `{}` for the layer's number; None: found automatically."
    )
    layer_module_tmp: str | None = setting(
        None, "Path of a decoder layer, `{}` for its number; None: found automatically."
    )
    ln_f_module: str | None = setting(None, "Path of the final norm; None: found automatically.")
    lm_head_module: str | None = setting(
        None, "Path of the output layer, or of tied embeddings; None: found automatically."
    )

    # ---- the value -----------------------------------------------------------------------------
    v_num_grad_steps: int = setting(
        25, "Maximum number of evaluations of the value's loss; one optimiser step fewer is taken.", integer_from=1
    )
    v_lr: float = setting(0.5, "Adam's learning rate for the value.", more_than=0)
    v_loss_layer: int | None = setting(
        None,
        "Layer whose output is read out for the target's likelihood (MEMIT, AlphaEdit); None: the last.",
        integer_from=0,
    )
    v_weight_decay: float = setting(
        0.5, "Weight of the penalty on the change of the value, ‖δ‖ / ‖initial value‖².", at_least=0
    )
    v_stop_loss: float = setting(0.05, "Stop optimising a value once its loss is below this.", at_least=0)
    v_batch_requests: int = setting(16, "How many edits' values are optimised side by side.", integer_from=1)
    clamp_norm_factor: float = setting(
        4.0, "Maximum norm of the value's change, as a multiple of the initial value's norm.", more_than=0
    )
    kl_factor: float = setting(0.0625, "Weight of the KL divergence on the prompt '<subject> is a'.", at_least=0)
    context_template_length_params: list[list[int]] = setting(
        [[10, 5]], "[length in tokens, number] pairs: the contexts that the model samples to put before the prompt."
    )

    # ---- what must stay ------------------------------------------------------------------------
    mom2_adjustment: bool = setting(True, "Weight by the keys' second moment; false uses the identity instead.")
    mom2_dataset: str | None = setting(
        None, "Text for the second moment: a file, a folder or a `datasets` name; None: the model's own samples."
    )
    mom2_n_samples: int = setting(100_000, "Maximum number of documents read.", integer_from=1)
    mom2_max_tokens: int | None = setting(
        None, "Maximum number of tokens read; None: limited by documents alone.", integer_from=1
    )
    mom2_document_tokens: int = setting(
        512, "Maximum length of the pieces in which a document is read, in tokens.", integer_from=2
    )
    mom2_batch_tokens: int = setting(
        4096, "Tokens per forward pass: the memory budget of the activations.", integer_from=1
    )
    mom2_memory_gb: float = setting(
        8.0, "Memory budget of the moments collected in one pass over the text.", more_than=0
    )
    mom2_dtype: str = setting(
        "float32", "Data type in which the moment is summed.", choices=("float64", "float32", "float16")
    )
    mom2_ridge: float = setting(
        0.0, "Added to the moment's diagonal, as a share of its mean; makes a singular moment invertible.", at_least=0
    )
    mom2_file: str | None = setting(None, "A ready `.npz` of second moments, `{}` for the layer's number.")
    stats_dir: str | None = setting(None, "Folder of such files, laid out as EasyEdit does it; searched first.")
    stats_cache: bool = setting(True, "Keep computed statistics in the cache folder and reuse them.")

    def check(self) -> None:
        if not are_layers(self.layers):
            raise HparamsError(
                f"`layers` must be a list of different layer numbers, counted from 0, got {self.layers!r}."
            )
        pairs = self.context_template_length_params
        if not isinstance(pairs, list) or not all(
            isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair)
            for pair in pairs
        ):
            raise HparamsError(
                f"`context_template_length_params` must be a list of [length, number] pairs, got {pairs!r}."
            )
        for name in (*_TEMPLATES, "mom2_file"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or value.count("{}") != 1):
                raise HparamsError(f"`{name}` must hold one `{{}}` where the layer's number stands, got {value!r}.")

    def edited_weights(self, model: Any) -> list[str] | None:
        """The output projections of the layers' MLPs."""
        from causaledit.models.layout import find_layout

        layout = find_layout(model, self)
        return [layout.weight_name(layer) for layer in self.layers]


@dataclass
class SpreadHyperParams(LocateEditHyperParams):
    """What MEMIT and AlphaEdit share: several layers, of which the last carries the value."""

    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **LocateEditHyperParams.PUBLISHED_KEYS,
        "layer_selection": OnlyAt(("all",), "layers are not drawn at random here; name those to rewrite in `layers`"),
    }

    layers: list[int] = setting(
        [3, 4, 5, 6, 7, 8], "Layers whose MLP output projection is rewritten, counted from 0, lowest first."
    )
    clamp_norm_factor: float = setting(
        0.75, "Maximum norm of the value's change, as a multiple of the initial value's norm.", more_than=0
    )

    def check(self) -> None:
        super().check()
        self.layers = sorted(self.layers)
