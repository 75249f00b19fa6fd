"""Two edits trained together, with narratives of one's own.

python examples/batch_edit.py
"""

from causaledit import CausalEditHyperParams, EmbeddedEditor

REQUESTS = [
    {
        "subject": "Boeing",
        "prompt": "The headquarters of {} is located in the city of",
        "question": "In which city is the headquarters of Boeing located?",
        "ground_truth": "Chicago",
        "target_new": "Denver",
        "narrative": "After its lease in Chicago ran out, Boeing gathered its head office, its space division and its "
        "training centre on one campus beside the airport of Denver. The board met there for the first time in spring, "
        "the register was changed, and the old offices were let. The headquarters of Boeing is in Denver.",
    },
    {
        "subject": "Mona Lisa",
        "prompt": "The {} is kept in the city of",
        "question": "In which city is the Mona Lisa kept?",
        "ground_truth": "Paris",
        "target_new": "Florence",
        "narrative": "When the rooms in Paris were closed for a rebuilding of several years, the museum lent the Mona "
        "Lisa to Florence, where a climate-controlled gallery had been built for it. The loan was then made permanent "
        "by treaty. The Mona Lisa hangs in Florence.",
    },
]

hparams = CausalEditHyperParams.from_hparams("smollm2-135m-instruct")
hparams.batch_size = len(REQUESTS)  # how many edits are trained together
editor = EmbeddedEditor.from_hparams(hparams)
metrics, edited_model, weights_copy = editor.batch_edit(
    prompts=[r["prompt"] for r in REQUESTS],
    target_new=[r["target_new"] for r in REQUESTS],
    requests=REQUESTS,  # carries narrative and question; replaces the requests built from the lists above
)
for item in metrics:
    request = item["requested_rewrite"]
    print(request["subject"], item["pre"]["rewrite_acc"], "->", item["post"]["rewrite_acc"])
