"""Edit, save, and load again with plain transformers: the result needs nothing of causaledit.

python examples/save_and_reload.py [FOLDER]
"""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from causaledit import CausalEditHyperParams, EditReport, apply_causal_edit_to_model, load_model
from causaledit.models.saving import save_result

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "causaledit-out/edited-model")
hparams = CausalEditHyperParams.from_hparams("smollm2-135m-instruct")
model, tokenizer = load_model(hparams.model_name, device="cpu")
request = {
    "subject": "Boeing",
    "prompt": "The headquarters of {} is located in the city of",
    "question": "In which city is the headquarters of Boeing located?",
    "ground_truth": "Chicago",
    "target_new": "Denver",
}
report = EditReport()
edited, _ = apply_causal_edit_to_model(model, tokenizer, [request], hparams, report=report)
save_result(folder, edited, tokenizer, hparams, report, metrics=[])

again = AutoModelForCausalLM.from_pretrained(folder)
tokens = AutoTokenizer.from_pretrained(folder)
chat = tokens.apply_chat_template(
    [{"role": "user", "content": request["question"]}],
    add_generation_prompt=True,
    return_tensors="pt",
    return_dict=True,
)
answer = again.generate(**chat, max_new_tokens=30, do_sample=False)
print(tokens.decode(answer[0, chat["input_ids"].shape[1] :], skip_special_tokens=True))
