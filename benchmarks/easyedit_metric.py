"""A method measured by EasyEdit's own metric, on questions in the form of ZsRE.

    python benchmarks/easyedit_metric.py --json out.json --hparams smollm2-135m-instruct --limit 2

EasyEdit asks the raw question and wants " answer" next, token by token. Each request is edited alone through
`BaseEditor.edit` and undone again: by EasyEdit's editor and metric where EasyEdit is importable (or in
`EASYEDIT_HOME`), by the embedded host's equal metric otherwise. The requests are `zsre_form.json` beside this file,
twelve counterfactual facts about well-known subjects; EasyEdit's own ZsRE files have the same keys. No request brings a
narrative.

The result is written after every request; a second call goes on where the first one stopped, as long as the
hyper-parameters and the host are the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from arguments import add_settings, positive, run_benchmark
from rich.console import Console
from rich.table import Table

from causaledit import BaseEditor
from causaledit.hosts.lookup import choose_method
from causaledit.support.files import load_json, write_json

REQUESTS = Path(__file__).with_name("zsre_form.json")
METRICS = ("rewrite_acc", "rephrase_acc", "locality")


def edit_one(editor: Any, record: dict[str, Any]) -> dict[str, Any]:
    """One request edited, measured and undone: each metric before and after, and the seconds."""
    began = time.perf_counter()
    [metrics], _, _ = editor.edit(
        prompts=[record["src"]],
        subject=[record["subject"]],
        target_new=[record["alt"]],
        ground_truth=[record["answers"][0]],
        rephrase_prompts=[record["rephrase"]],
        locality_inputs={"neighborhood": {"prompt": [record["loc"]], "ground_truth": [record["loc_ans"]]}},
        sequential_edit=False,
        verbose=False,
    )
    before, after = metrics["pre"], metrics["post"]
    return {
        "question": record["src"],
        "seconds": time.perf_counter() - began,
        "pre": {name: mean(before[name]) for name in METRICS[:2]},
        "post": {
            **{name: mean(after[name]) for name in METRICS[:2]},
            "locality": mean(after["locality"]["neighborhood_acc"]),
        },
    }


def mean(values: Any) -> float:
    """Of one metric, which EasyEdit gives as a list of one."""
    return float(statistics.fmean(values if isinstance(values, list) else [values]))


def chosen_hparams(args: argparse.Namespace) -> Any:
    """The method's hyper-parameters with what `--set`, `--model` and `--device` change."""
    file = Path(args.hparams).is_file()
    method, hparams = choose_method(args.method, model_type=args.hparams, path=args.hparams if file else None)
    given = {"model_name": args.model, "device": args.device}
    changes = {name: value for name, value in given.items() if value}
    return method.load_hparams().from_dict({**hparams.to_dict(), **dict(args.set), **changes})


def summary_of(done: list[dict[str, Any]], host: str, hparams: dict[str, Any]) -> dict[str, Any]:
    """Means over the requests."""
    return {
        "requests": len(done),
        "pre": {name: statistics.fmean(item["pre"][name] for item in done) for name in METRICS[:2]},
        "post": {name: statistics.fmean(item["post"][name] for item in done) for name in METRICS},
        "seconds_per_edit": statistics.fmean(item["seconds"] for item in done),
        "host": host,
        "command": " ".join(["python", "benchmarks/easyedit_metric.py", *sys.argv[1:]]),
        "hparams": hparams,
    }


def main() -> None:
    """Edit, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, help="where the result goes; an unfinished one is resumed")
    parser.add_argument("--hparams", default="smollm2-135m-instruct", help="YAML file or bundled name")
    add_settings(parser)
    parser.add_argument("--method", default="CausalEdit", help="of ours, or `easyedit:NAME`")
    parser.add_argument("--model", help="instead of the hparams' model_name")
    parser.add_argument("--device", help="instead of the hparams' device")
    parser.add_argument("--data", default=str(REQUESTS), help="a file in the form of EasyEdit's ZsRE")
    parser.add_argument("--limit", type=positive, help="only the first N requests")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)

    records = load_json(args.data, "--data")[: args.limit]
    hparams = chosen_hparams(args)
    said, host = hparams.to_dict(), BaseEditor.__module__.partition(".")[0]
    out, done = Path(args.json), []
    if out.is_file():
        earlier = json.loads(out.read_text(encoding="utf-8"))
        if earlier["summary"]["hparams"] == said and earlier["summary"]["host"] == host:
            done = earlier["per_request"]
    finished = {item["question"] for item in done}
    if left := [record for record in records if record["src"] not in finished]:
        editor = BaseEditor.from_hparams(hparams)
        for record in left:
            done.append(edit_one(editor, record))
            write_json(out, {"summary": summary_of(done, host, said), "per_request": done})
            figures = " ".join(f"{name} {value:.2f}" for name, value in done[-1]["post"].items())
            print(f"{record['subject']}: {done[-1]['seconds']:.0f} s, {figures}", flush=True)

    summary = summary_of(done, host, said)
    table = Table(title=f"{summary['requests']} requests, measured by {host}")
    for column in ("", "before", "after"):
        table.add_column(column)
    for name in METRICS:
        before = summary["pre"].get(name)
        table.add_row(name, "" if before is None else f"{before:.3f}", f"{summary['post'][name]:.3f}")
    console = Console()
    console.print(table)
    console.print(f"seconds_per_edit: {summary['seconds_per_edit']:.1f}")


if __name__ == "__main__":
    run_benchmark(main)
