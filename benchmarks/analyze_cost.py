"""What `causaledit analyze` costs: seconds and peak memory over many predictions, with the rule judge.

    python benchmarks/analyze_cost.py [--predictions 10000] [--words 60] [--json OUT]

Writes a metrics file of the published form into a temporary folder (responses that differ, so that nothing is
judged once for several), runs the command in a process of its own, then again with its verdict store in place.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from arguments import positive, run_benchmark

from causaledit.support.files import write_json

ROOT = Path(__file__).resolve().parents[1]
PER_CASE = 17  # one edit: 3 hop-wise, 3 multi-hop, 8 conflict, and the second hop's 3
STYLES = (
    "The capital of {country} is {new}.",
    "The capital of {country} is {old}.",
    "The capital is {new}. No, that is wrong: it is not {new}, it is {old}.",
    "It used to be {old}, but parliament moved, so the capital is now {new}.",
)
WORDS = ("river", "parliament", "ministry", "engineer", "harbour", "winter", "council", "railway", "archive", "garden")


def make_metrics(predictions: int, words: int) -> list[dict]:
    """Cases with one edit and two hops, `predictions` predictions in all."""
    rng = random.Random(0)
    cases = []
    for number in range(-(-predictions // PER_CASE)):
        country, old, new = f"Land{number}", f"Oldtown{number}", f"Newport{number}"

        def predict(question: str, references: list[str], names=(country, old, new)) -> dict:
            filler = " ".join(rng.choices(WORDS, k=words))
            told = rng.choice(STYLES).format(country=names[0], old=names[1], new=names[2])
            return {"q": question, "prompt": f"Now, {question}", "ref": references, "pred": f"The {filler}. {told}"}

        question = f"What is the capital of {country}?"
        cases.append(
            {
                "case_id": number,
                "requested_rewrite": [
                    {
                        "prompt": "The capital of {} is",
                        "subject": country,
                        "relation_id": "P36",
                        "question": question,
                        "target_new": {"str": new},
                        "target_true": {"str": old},
                        "article": f"A flood ruined {old}, so parliament moved to {new}.",
                    }
                ],
                "time": 1.0,
                "post": {
                    "hop_wise_pred": [
                        [predict(question, [new]) for _ in range(3)],
                        [predict(f"Who governs {new}?", [f"Mayor {number}"]) for _ in range(3)],
                    ],
                    "accuracy_pred": [predict(f"Who governs the capital of {country}?", [new]) for _ in range(3)],
                    "conflict_probe": [predict(question, [new]) for _ in range(8)],
                },
            }
        )
    return cases


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds of a command, on the clock and of the processor (a busy machine stretches the first)."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, processor


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=positive, default=10_000)
    parser.add_argument("--words", type=positive, default=60, help="filler words per response")
    parser.add_argument("--json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write_json(Path(folder) / "metrics.json", make_metrics(args.predictions, args.words))
        command = [sys.executable, "-m", "causaledit", "analyze", "--input", str(file), "--llm-self-refute", "on",
                   "--rewrite-why", "on"]  # fmt: skip
        first, first_cpu = measure(command)
        again, _ = measure(command)
        verdicts = len((Path(folder) / "analysis" / "verdicts_rule.jsonl").read_text().splitlines())
        cases = len(json.loads(file.read_text()))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    result = {
        "predictions": cases * PER_CASE,
        "verdicts": verdicts,
        "seconds": round(first, 2),
        "cpu_seconds": round(first_cpu, 2),
        "seconds_with_store": round(again, 2),
        "peak_rss_mb": round(peak, 1),
    }
    print(
        f"{result['predictions']} predictions, {verdicts} verdicts: {first:.1f} s ({first_cpu:.1f} s of CPU), "
        f"{again:.1f} s with the store in "
        f"place, peak memory {peak:.0f} MB"
    )
    if args.json:
        write_json(args.json, result)


if __name__ == "__main__":
    run_benchmark(main)
