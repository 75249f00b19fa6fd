"""One edit in EasyEdit's own style; runs on EasyEdit where it is importable, embedded otherwise.

python examples/edit_easyedit_style.py
EASYEDIT_HOME=/path/to/EasyEdit python examples/edit_easyedit_style.py
"""

from causaledit import BaseEditor, CausalEditHyperParams

hparams = CausalEditHyperParams.from_hparams("smollm2-135m-instruct")
editor = BaseEditor.from_hparams(hparams)
metrics, edited_model, weights_copy = editor.edit(
    prompts="The headquarters of Boeing is located in the city of",
    ground_truth="Chicago",
    target_new="Denver",
    subject="Boeing",
    rephrase_prompts="Boeing is headquartered in the city of",
    locality_inputs={
        "neighbour": {"prompt": "The capital of France is", "ground_truth": "Paris"},
    },
    # sequential_edit=True keeps the edit in editor.model; otherwise the weights are restored, bit for bit
    sequential_edit=True,
)
print(type(editor).__module__, metrics[0]["pre"]["rewrite_acc"], "->", metrics[0]["post"]["rewrite_acc"])
