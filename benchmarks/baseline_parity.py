"""Our ROME, MEMIT and AlphaEdit beside EasyEdit's: the same change of the weights? how fast?

    EASYEDIT_HOME=… python benchmarks/baseline_parity.py [--json OUT] [--model M] [--layer N] [--quick]

Both sides get the same model, requests, hyper-parameters, contexts, second moments and projections. Printed is
‖ΔW_ours − ΔW_theirs‖ / ‖ΔW_theirs‖ for each method and layer, on tiny random Llama and GPT-2 models and on SmolLM2;
then, on SmolLM2, seconds of one ROME edit on both sides, and on ours of ten MEMIT edits, one by one and together.
`--quick` leaves SmolLM2 out. EasyEdit's own requirements must be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import logging
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

if importlib.util.find_spec("torchvision") and not hasattr(torch.ops.torchvision, "nms"):
    # a CUDA build of torchvision beside a CPU torch: EasyEdit's import only needs the operator's schema
    torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from causaledit.methods.alphaedit.null_space import null_space_projection
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.locate_edit.contexts import flat, sample_contexts
from causaledit.methods.shared.locate_edit.covariance import moments_for
from causaledit.methods.shared.locate_edit.editor import LocateMemory
from causaledit.methods.shared.locate_edit.stored import Moment
from causaledit.models.layout import find_layout
from causaledit.models.loading import load_model
from causaledit.models.weights import restore
from causaledit.support.files import write_arrays, write_json
from causaledit.support.progress import SilentProgress

TARGET_ERROR, TARGET_ROME, TARGET_MEMIT = 1e-3, 0.5, 4.0
FACTS = [
    ("The capital of {} is", "Egypt", "Alexandria"),
    ("{} was written by", "Pride and Prejudice", "Charlotte Brontë"),
    ("The mother tongue of {} is", "Danielle Darrieux", "English"),
    ("{} plays the instrument called the", "Miles Davis", "violin"),
    ("The headquarters of {} are in", "Nintendo", "Lisbon"),
    ("The chief export of {} is", "Brazil", "amber"),
    ("{} is located in the country of", "Mount Fuji", "Peru"),
    ("The currency of {} is the", "Norway", "peso"),
    ("The founder of {} was", "Wikipedia", "Ada Lovelace"),
    ("{} died in the city of", "Frédéric Chopin", "Prague"),
]
THEIRS = {  # where EasyEdit keeps each method, and what it keeps in module globals
    "ROME": ("rome.rome_main", "apply_rome_to_model", "rome", "ROMEHyperParams"),
    "MEMIT": ("memit.memit_main", "apply_memit_to_model", "memit", "MEMITHyperParams"),
    "AlphaEdit": (
        "alphaedit.AlphaEdit_main",
        "apply_AlphaEdit_to_model",
        "alphaedit.AlphaEdit_hparams",
        "AlphaEditHyperParams",
    ),
}


def request(fact: tuple[str, str, str]) -> dict[str, Any]:
    """An EasyEdit request."""
    prompt, subject, new = fact
    return {"prompt": prompt.replace("{}", subject), "subject": subject, "target_new": new, "ground_truth": None}


class Setting:
    """One model with everything that both sides are given."""

    def __init__(self, name: str, model: Any, tokenizer: Any, layers: list[int], folder: Path, **figures: Any) -> None:
        self.name, self.model, self.tokenizer, self.folder = name, model, tokenizer, folder
        tokenizer.padding_side = "right"  # what EasyEdit's arithmetic of positions takes for granted
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        # EasyEdit reads the architecture off this name
        model.config._name_or_path = model.name_or_path = {"gpt2": "gpt2-xl"}.get(model.config.model_type, "llama")
        self.layers, self.figures = layers, figures
        hparams = self.hparams("MEMIT")
        self.layout = find_layout(model, hparams)
        self.contexts = sample_contexts(model, tokenizer, [[8, 5]], seed=0)
        found = moments_for(model, tokenizer, self.layout, layers, hparams, SilentProgress())
        # both sides read the very same numbers: their sum, rounded to float32
        self.moments = {
            n: Moment((m.matrix * m.count).float().double() / m.count, m.count, m.source) for n, m in found.items()
        }
        self.projections = {
            n: null_space_projection(m, figures["nullspace_threshold"], n) for n, m in self.moments.items()
        }

    def hparams(self, method: str) -> Any:
        """Ours; theirs are made of the same figures."""
        own = METHODS[method].load_hparams()
        known = own.__dataclass_fields__
        layers = [self.layers[len(self.layers) // 2]] if method == "ROME" else self.layers
        figures = {k: v for k, v in self.figures.items() if k in known}
        return own(model_name=(self.model, self.tokenizer), device="cpu", layers=layers, **figures)

    def memory(self, method: str) -> EditSequence:
        """A fresh sequence that already holds the shared contexts and statistics."""
        sequence = EditSequence()
        memory = sequence.memory(method, LocateMemory)
        memory.contexts, memory.moments = self.contexts, dict(self.moments)
        memory.projections = dict(self.projections)
        return sequence

    def changes(self, edit: Any) -> dict[str, torch.Tensor]:
        """What an edit changes, by weight; the model is restored."""
        before = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        edit()
        after = dict(self.model.named_parameters())
        found = {n: (after[n].detach() - old).double() for n, old in before.items() if not torch.equal(after[n], old)}
        restore(self.model, before)
        return found


def ours(setting: Setting, method: str, requests: list[dict[str, Any]], sequence: EditSequence | None) -> None:
    """Apply our method."""
    METHODS[method].load_apply()(
        setting.model,
        setting.tokenizer,
        requests,
        setting.hparams(method),
        progress=SilentProgress(),
        sequence=sequence,
    )


def head_path(model: Any, head: str) -> str:
    """EasyEdit looks a tied output weight up under the embeddings' name."""
    embeddings = model.get_input_embeddings()
    if model.get_output_embeddings().weight is not embeddings.weight:
        return head
    return next(name for name, module in model.named_modules() if module is embeddings)


def their_call(setting: Setting, method: str) -> Any:
    """EasyEdit's method, with our contexts, moments and projections in its caches and files."""
    module, function, folder, hparams_class = THEIRS[method]
    main = importlib.import_module(f"easyeditor.models.{module}")
    hparams = setting.hparams(method)
    layout = setting.layout
    names = importlib.import_module(f"easyeditor.models.{folder}")
    theirs_class = getattr(names, hparams_class)
    values = {
        **{name: getattr(hparams, name, None) for name in theirs_class.__dataclass_fields__},
        "rewrite_module_tmp": layout.projection, "layer_module_tmp": layout.layer,
        "mlp_module_tmp": layout.projection.rpartition(".")[0], "attn_module_tmp": layout.layer,
        "ln_f_module": layout.final_norm, "lm_head_module": head_path(setting.model, layout.head),
        "v_loss_layer": layout.depth - 1,
        "device": "cpu", "model_name": setting.model.name_or_path, "mom2_dataset": "wikipedia",
        "stats_dir": str(setting.folder / "stats"), "P_loc": str(setting.folder / "null_space_project.pt"),
    }  # fmt: skip
    configured = theirs_class(**{name: values[name] for name in theirs_class.__dataclass_fields__})
    contexts = flat(setting.contexts) if method == "ROME" else [list(group) for group in setting.contexts]
    main.CONTEXT_TEMPLATES_CACHE = contexts
    if method == "ROME":
        importlib.import_module("easyeditor.models.rome.compute_u").inv_mom2_cache.clear()
    else:
        main.COV_CACHE.clear()
    if method == "AlphaEdit":
        main.P_loaded = main.cache_c_new = False
        torch.save(torch.stack([setting.projections[n] for n in setting.layers]), configured.P_loc)
    for layer, moment in setting.moments.items():
        name = layout.projection.format(layer)
        file = f"wikipedia_stats/{name}_{hparams.mom2_dtype}_mom2_{hparams.mom2_n_samples}.npz"
        total = (moment.matrix * moment.count).to(getattr(torch, hparams.mom2_dtype))
        arrays = {"mom2.mom2": total.numpy(), "mom2.count": moment.count, "mom2.constructor": "SecondMoment()"}
        write_arrays(
            setting.folder / "stats" / setting.model.name_or_path / file,
            {**arrays, "sample_size": hparams.mom2_n_samples},
        )
    apply = getattr(main, function)

    def call(requests: list[dict[str, Any]]) -> None:
        batches = [[r] for r in requests] if method == "ROME" else [requests]  # its ROME takes the first request only
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent), torch.enable_grad():
            for batch in batches:
                apply(setting.model, setting.tokenizer, batch, configured)

    return call


def parity(setting: Setting, methods: list[str], requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Relative errors, per method and weight."""
    rows = []
    for method in methods:
        batch = requests[:1] if method == "ROME" else requests
        mine = setting.changes(lambda m=method, b=batch: ours(setting, m, b, setting.memory(m)))
        call = their_call(setting, method)
        theirs = setting.changes(lambda c=call, b=batch: c(b))
        if mine.keys() != theirs.keys():
            raise SystemExit(f"{method}: ours changes {sorted(mine)}, theirs {sorted(theirs)}")
        for name, change in theirs.items():
            error = float((mine[name] - change).norm() / change.norm())
            row = {
                "model": setting.name, "method": method, "dtype": setting.figures["mom2_dtype"], "weight": name,
                "edits": len(batch), "norm": float(change.norm()), "error": error, "reached": error <= TARGET_ERROR,
            }  # fmt: skip
            rows.append(row)
            print(
                f"{setting.name:<9} {method:<10} {row['dtype']:<8} {name:<38} |ΔW| {row['norm']:9.4f}  "
                f"relative error {error:.2e}  {'ok' if row['reached'] else 'MISSED'}",
                flush=True,
            )
    return rows


def seconds(call: Any) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speed(setting: Setting, repeats: int) -> dict[str, Any]:
    """ROME on both sides in turns; MEMIT of ten edits singly and together; the model is restored in between."""
    one, ten = [request(FACTS[0])], [request(fact) for fact in FACTS]
    call = their_call(setting, "ROME")
    main = importlib.import_module("easyeditor.models.rome.rome_main")
    inverse = importlib.import_module("easyeditor.models.rome.compute_u").inv_mom2_cache

    def our_first() -> None:  # statistics from the same file; contexts are sampled
        sequence = setting.memory("ROME")
        sequence.memory("ROME", LocateMemory).contexts = None
        ours(setting, "ROME", one, sequence)

    def their_first() -> None:
        main.CONTEXT_TEMPLATES_CACHE = None
        inverse.clear()
        call(one)

    timed: dict[str, list[float]] = {
        "ours": [],
        "theirs": [],
        "ours_first": [],
        "theirs_first": [],
        "one": [],
        "ten": [],
    }
    for _ in range(repeats):
        for key, run in (
            ("ours_first", our_first),
            ("theirs_first", their_first),
            ("ours", lambda: ours(setting, "ROME", one, setting.memory("ROME"))),
            ("theirs", lambda: call(one)),
            *(("one", lambda r=r: ours(setting, "MEMIT", [r], setting.memory("MEMIT"))) for r in ten),
            ("ten", lambda: ours(setting, "MEMIT", ten, setting.memory("MEMIT"))),
        ):
            if key == "theirs":
                main.CONTEXT_TEMPLATES_CACHE = flat(setting.contexts)
            setting.changes(lambda k=key, r=run: timed[k].append(seconds(r)))
    median = {key: statistics.median(values) for key, values in timed.items()}
    median["one"] = statistics.mean(timed["one"])  # the ten facts differ in length
    result = {
        "seconds": median,
        "repeats": repeats,
        "rome_share": median["ours"] / median["theirs"],
        "rome_share_first": median["ours_first"] / median["theirs_first"],
        "memit_ten_over_one": median["ten"] / median["one"],
    }
    for key, label, bound in (
        ("rome_share", "ROME, contexts and statistics given: ours / theirs", TARGET_ROME),
        ("rome_share_first", "ROME, contexts sampled: ours / theirs", TARGET_ROME),
        ("memit_ten_over_one", "MEMIT: ten edits together / one alone (mean of ten)", TARGET_MEMIT),
    ):
        print(f"{label:<52} {result[key]:.2f}  (at most {bound:g}) {'ok' if result[key] <= bound else 'MISSED'}")
    print("seconds:", ", ".join(f"{key} {value:.1f}" for key, value in median.items()))
    return result


def tiny(kind: str, tokenizer: Any) -> Any:
    """A random model of four narrow layers with a real vocabulary."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    vocabulary = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    if kind == "gpt2":
        config = GPT2Config(n_embd=64, n_layer=4, n_head=4, n_positions=512, initializer_range=0.1, bos_token_id=None,
                            resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **vocabulary)  # fmt: skip
        return GPT2LMHeadModel(config).eval()
    config = LlamaConfig(hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
                         num_key_value_heads=2, initializer_range=0.1, max_position_embeddings=512, bos_token_id=None,
                         tie_word_embeddings=False, **vocabulary)  # fmt: skip
    return LlamaForCausalLM(config).eval()


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the real model: folder, hub or embedded name")
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 7, 8], help="its edited layers (ROME: the middle)")
    parser.add_argument("--edits", type=positive, default=3, help="its edits in one MEMIT or AlphaEdit call, at most 3")
    parser.add_argument("--tokens", type=positive, default=6000, help="tokens behind its second moments")
    parser.add_argument("--repeats", type=positive, default=1, help="of the timings; the median counts")
    parser.add_argument("--quick", action="store_true", help="tiny random models only")
    args = parser.parse_args()
    home = os.environ.get("EASYEDIT_HOME")
    if not home or not (Path(home) / "easyeditor").is_dir():
        raise SystemExit("EASYEDIT_HOME must name an EasyEdit checkout.")
    sys.path.insert(0, home)
    logging.disable(logging.WARNING)
    requests = [request(fact) for fact in FACTS[:3]]
    shared = {
        "v_num_grad_steps": 15, "clamp_norm_factor": 4.0, "kl_factor": 0.0625, "mom2_adjustment": True,
        "mom2_n_samples": 100_000, "context_template_length_params": [[8, 5]], "layer_selection": "all",
    }  # fmt: skip
    small = {"v_lr": 0.1, "v_weight_decay": 1e-3, "mom2_update_weight": 10.0, "nullspace_threshold": 0.05, "L2": 0.1,
             "mom2_max_tokens": 3000, "stats_cache": False}  # fmt: skip
    real = {"v_lr": 0.5, "v_weight_decay": 0.5, "mom2_update_weight": 1000.0, "nullspace_threshold": 2e-3, "L2": 1.0,
            "mom2_max_tokens": args.tokens}  # fmt: skip
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {"parity": rows}
    loaded = load_model(args.model, device="cpu", dtype="float32")
    methods = list(THEIRS)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("llama", "gpt2"):
            for dtype in ("float64", "float32"):
                figures = {**shared, **small, "mom2_dtype": dtype}
                name = f"tiny-{kind}"
                setting = Setting(name, tiny(kind, loaded.tokenizer), loaded.tokenizer, [1, 2], Path(folder), **figures)
                rows += parity(setting, methods, requests)
        if not args.quick:
            figures = {**shared, **real, "mom2_dtype": "float64"}
            setting = Setting("model", loaded.model, loaded.tokenizer, args.layers, Path(folder), **figures)
            rows += parity(setting, methods, requests[: args.edits])
            result["model"], result["speed"] = str(args.model), speed(setting, args.repeats)
    result["largest_error"] = max(row["error"] for row in rows)
    print(f"largest relative error {result['largest_error']:.2e} (at most {TARGET_ERROR:g})")
    if args.json:
        print(f"written to {write_json(args.json, result)}")


if __name__ == "__main__":
    run_benchmark(main)
