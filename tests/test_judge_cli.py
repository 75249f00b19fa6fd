"""`causaledit judge`: what it writes, resumes, refuses, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import run
from conftest import REPOSITORY
from endpoint import Endpoint, Fault, free_port, verdict_by_marks
from published import OLD, RIGHT, case, locality, write


def command(*arguments):
    return [sys.executable, "-m", "causaledit", *map(str, arguments)]


def environment():
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENAI_API_KEY", "OPENAI_BASE_URL")}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}


def llm(endpoint, *further):
    return ["--judge", "llm", "--judge-model", "m", "--base-url", endpoint.url, *further]


def many(count):
    """Cases whose responses are all different."""
    return [
        case(
            n,
            hop_wise=[[f"{RIGHT} {n}-{s}" for s in range(3)]],
            multi_hop=[f"{OLD if s else RIGHT} {n}-q{s}" for s in range(3)],
        )
        for n in range(count)
    ]


def test_judge_writes_beside_the_input_and_leaves_it_alone(tmp_path):
    data = case(hop_wise=[[RIGHT, OLD, RIGHT]], multi_hop=[OLD, RIGHT, OLD])
    data["post"]["locality_probe"] = [locality("Who?", "x", "[PASS] x", "[FAIL] y")]
    file = write(tmp_path, [data, {"case_id": 2, "error": "no memory"}])
    before = file.read_bytes()
    with Endpoint() as endpoint:
        done = run("judge", "--input", file, *llm(endpoint))
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == before
    judged = json.loads((tmp_path / "metrics_judged.json").read_text())
    post = judged[0]["post"]
    assert [p["verdict"]["grade"] for p in post["hop_wise_pred"][0]] == ["PASS", "FAIL", "PASS"]
    assert [p["verdict"]["grade"] for p in post["accuracy_pred"]] == ["FAIL", "PASS", "FAIL"]
    assert post["hop_wise_pred"][0][0]["verdict"]["evidence"] == "[PASS +=] "
    [local] = post["locality_probe"]
    assert (local["verdict_before"]["grade"], local["verdict"]["grade"]) == ("PASS", "FAIL")
    # as published, these are not judged for answers
    assert not any("verdict" in p for p in post["conflict_probe"] + post["old_knowledge_probe"])
    for predictions in (post["hop_wise_pred"][0], post["accuracy_pred"], [local]):
        for prediction in predictions:
            prediction.pop("verdict")
            prediction.pop("verdict_before", None)
    assert judged == json.loads(before)
    summary = json.loads((tmp_path / "metrics_judged.summary.json").read_text())
    assert summary["h_acc"]["rate"] == pytest.approx(2 / 3)
    assert summary["m_acc"]["qa"]["rate"] == pytest.approx(1 / 3)
    assert summary["m_acc"]["any_right_accuracy"]["hits"] == 1
    assert summary["locality"]["still_right"]["rate"] == 0
    assert (summary["cases"], summary["failed_cases"]) == (2, 1)
    assert "H-Acc 66.7 %" in done.stdout


def test_rule_judge_through_the_command(tmp_path):
    file = write(tmp_path, [case(1, hop_wise="It is {new}."), case(2, hop_wise="It is {old}.", as_text=True)])
    done = run("judge", "--input", file)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "metrics_judged.summary.json").read_text())
    assert summary["h_acc"]["rate"] == 0.5
    lines = (tmp_path / "analysis" / "verdicts_rule.jsonl").read_text().splitlines()
    assert {json.loads(line)["judge"] for line in lines} == {summary["judge"]}
    again = run("judge", "--input", file)
    assert again.returncode == 0
    assert (tmp_path / "analysis" / "verdicts_rule.jsonl").read_text().splitlines() == lines


def test_kill_and_resume_judge_nothing_twice(tmp_path):
    file, count = write(tmp_path, many(10)), 60

    def slowly(_, body):
        time.sleep(0.1)
        return verdict_by_marks(body)

    store = tmp_path / "analysis" / "verdicts_llm.jsonl"
    with Endpoint(slowly) as endpoint:
        for stop_at in (10, 30):
            process = subprocess.Popen(
                command("judge", "--input", file, *llm(endpoint), "--workers", 3), env=environment(), cwd=REPOSITORY,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while not store.exists() or store.read_bytes().count(b"\n") < stop_at:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (tmp_path / "metrics_judged.json").exists()
        done = run("judge", "--input", file, *llm(endpoint), "--workers", 3)
        assert done.returncode == 0, done.stderr
        # what was asked and not yet answered when the process died is asked again, and nothing else
        assert count <= len(endpoint.requests) <= count + 2 * 3
    resumed = json.loads((tmp_path / "metrics_judged.json").read_text())
    fresh = write(tmp_path / "fresh", many(10))
    with Endpoint(port=endpoint.port) as endpoint:
        assert run("judge", "--input", fresh, *llm(endpoint)).returncode == 0
    assert json.loads((tmp_path / "fresh" / "metrics_judged.json").read_text()) == resumed
    keys = [json.loads(line)["key"] for line in store.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == count


def test_endpoint_that_dies_keeps_what_was_done(tmp_path):
    file = write(tmp_path, many(5))

    def behave(number, body):
        return verdict_by_marks(body) if number < 12 else Fault(status=401)

    with Endpoint(behave) as endpoint:
        done = run("judge", "--input", file, *llm(endpoint, "--workers", 1))
    assert done.returncode == 1
    assert "12 of 30 verdicts are kept" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "metrics_judged.json").exists()


def test_endpoint_down(tmp_path):
    file = write(tmp_path, many(1))
    done = run("judge", "--input", file, "--judge", "llm", "--judge-model", "m", "--base-url",
               f"http://127.0.0.1:{free_port()}/v1")  # fmt: skip
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "0 of 6 verdicts are kept" in " ".join(done.stderr.split())


def test_interrupt_says_what_is_kept(tmp_path):
    file = write(tmp_path, many(10))

    def behave(number, body):
        return verdict_by_marks(body) if number < 5 else Fault(hang=60, content="")

    store = tmp_path / "analysis" / "verdicts_llm.jsonl"
    with Endpoint(behave) as endpoint:
        process = subprocess.Popen(
            command("judge", "--input", file, *llm(endpoint)), env=environment(), cwd=REPOSITORY,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not store.exists() or store.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, stderr = process.communicate(timeout=30)
    assert time.monotonic() - began < 10  # it does not wait for the endpoint
    assert process.returncode == 1
    assert "interrupted: 5 of 60 verdicts are kept" in " ".join(stderr.split())


def test_only_errors_is_no_result(tmp_path):
    file = write(tmp_path, many(1))
    with Endpoint(lambda *_: "I cannot say.") as endpoint:
        done = run("judge", "--input", file, *llm(endpoint))
    assert done.returncode == 1
    assert "6 of 6 responses could not be judged" in done.stderr
    summary = json.loads((tmp_path / "metrics_judged.summary.json").read_text())
    assert summary["h_acc"]["rate"] is None
    assert summary["h_acc"]["predictions_not_judged"] == 3


def test_some_errors_are_told_and_not_counted(tmp_path):
    file = write(tmp_path, [case(hop_wise=[[RIGHT, OLD, "[PASS] filter me"]], multi_hop=RIGHT)])

    def behave(_, body):
        filtered = "filter me" in body["messages"][1]["content"]
        return (
            Fault(status=400, error={"message": "x", "code": "content_filter"}) if filtered else verdict_by_marks(body)
        )

    with Endpoint(behave) as endpoint:
        done = run("judge", "--input", file, *llm(endpoint))
    assert done.returncode == 0
    assert "could not be judged" in done.stderr
    assert "--retry-errors" in done.stderr
    summary = json.loads((tmp_path / "metrics_judged.summary.json").read_text())
    assert summary["h_acc"]["rate"] == 0.5
    assert summary["h_acc"]["predictions_not_judged"] == 1
    assert list(summary["errors"].values()) == [1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--judge", "rulle"], "Did you mean 'rule'?"),
        (["--judge", "rulle", "--judge-model", "m"], "Did you mean 'rule'?"),
        (["--judge-model", "m"], "--judge-model has no effect with --judge rule: give --judge llm or hf, or leave"),
        (["--base-url", "http://127.0.0.1:9/v1"], "--base-url has no effect with --judge rule"),
        (["--judge", "hf", "--judge-model", "m", "--workers", "2"], "--workers has no effect with --judge hf"),
        (["--judge", "llm", "--judge-model", "m", "--device", "cpu"], "--device has no effect with --judge llm"),
        (["--ray-address", "auto"], "--ray-address has no effect without --ray-workers: give that too"),
        (["--judge", "llm"], "--judge-model"),
        (["--judge", "llm", "--judge-model", "m"], "OPENAI_API_KEY"),
        (["--judge", "llm", "--judge-model", "m", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["--judge", "hf"], "--judge-model"),
        (["--judge", "hf", "--judge-model", "/no/such/model"], "/no/such/model"),
    ],
)
def test_bad_judge_is_one_line_and_writes_nothing(tmp_path, arguments, words):
    file = write(tmp_path, many(1))
    done = run("judge", "--input", file, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    "content", ['[{"case_id": 1, "post": {', "", "{}", "[]", '[{"question": "MQuAKE, not metrics"}]']
)
def test_bad_files_are_one_line(tmp_path, content):
    file = tmp_path / "metrics.json"
    file.write_text(content)
    for name in ("judge", "analyze"):
        done = run(name, "--input", file)
        assert done.returncode == 2
        assert "metrics.json" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_hard_predictions_go_through(tmp_path):
    data = many(1)[0]
    texts = ["", "首都是卑尔根。", "العاصمة هي برغن", "It is Bergen. " * 7200, "\x00\ud83c", "Берген"]
    predictions = [*data["post"]["hop_wise_pred"][0], *data["post"]["accuracy_pred"]]
    for prediction, text in zip(predictions, texts, strict=True):
        prediction["pred"] = text
    predictions[0]["ref"], predictions[1]["ref"] = [], ["卑尔根", ""]
    file = write(tmp_path, [data])
    assert file.stat().st_size > 100_000
    began = time.monotonic()
    done = run("judge", "--input", file)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 30
    post = json.loads((tmp_path / "metrics_judged.json").read_text())[0]["post"]
    first = post["hop_wise_pred"][0][0]["verdict"]
    assert first["grade"] is None
    assert "reference" in first["error"]
    assert post["hop_wise_pred"][0][1]["verdict"]["grade"] == "PASS"
    assert post["accuracy_pred"][0]["verdict"]["grade"] == "PASS"


def test_hf_judge_through_the_command(tmp_path, tiny_model_folder):
    """A random model never gives the form: everything is an error, nothing a verdict."""
    file = write(tmp_path, [case(hop_wise=RIGHT, multi_hop=RIGHT)])
    done = run("judge", "--input", file, "--judge", "hf", "--judge-model", tiny_model_folder, "--device", "cpu")
    assert done.returncode == 1
    assert "could not be judged" in done.stderr
    lines = (tmp_path / "analysis" / "verdicts_hf.jsonl").read_text().splitlines()
    assert all(json.loads(line)["verdict"]["grade"] is None for line in lines)
