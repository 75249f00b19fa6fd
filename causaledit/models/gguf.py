"""A model and its tokenizer from a GGUF file."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError, one_line
from causaledit.models.batches import is_out_of_memory
from causaledit.models.checkpoint import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_gguf(path: Path, dtype: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a GGUF file and move its dequantised weights into a plain model.

    A model that transformers dequantised from GGUF still counts as quantised there and refuses to be
    saved; the copy does not.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not path.is_file():
        raise ModelError(f"The GGUF file {str(path)!r} does not exist.")
    check_file(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
        with _without_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(path.parent), gguf_file=path.name, dtype=dtype, output_loading_info=True
            )
        quantised, found = loaded
    except Exception as error:  # a cut file fails wherever the reader happens to be
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The GGUF file {str(path)!r} cannot be read ({one_line(error)}): download it again, or give another model."
        ) from None
    if missing := sorted(found["missing_keys"]):  # transformers fills them with random numbers
        raise ModelError(
            f"The GGUF file {str(path)!r} lacks {len(missing)} of the model's weights ({missing[0]}, …): make it again "
            "with llama.cpp's converter, or give another model."
        )
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain: Any = type(quantised)(config)
    plain.to(quantised.dtype)
    plain.load_state_dict(quantised.state_dict())
    plain.tie_weights()
    plain.generation_config = quantised.generation_config
    return plain.eval(), tokenizer


@contextlib.contextmanager
def _without_bar() -> Iterator[None]:
    """transformers draws a bar over the tensors of a GGUF file, whatever it is told about progress bars."""
    from transformers import modeling_gguf_pytorch_utils as reader

    drawn = reader.tqdm
    reader.tqdm = functools.partial(drawn, disable=True)
    try:
        yield
    finally:
        reader.tqdm = drawn
