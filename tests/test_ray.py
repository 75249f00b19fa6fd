"""Cases over workers on a real Ray cluster of two nodes on loopback, with tiny models."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import signal
import socket
import threading
from pathlib import Path

import psutil
import pytest
import yaml
from conftest import FAST, REPOSITORY, smollm2_folder
from dying_method import DEADLY
from typer.testing import CliRunner

from causaledit.cli.app import app
from causaledit.cli.options import JudgeOptions
from causaledit.cli.workers import judge_on
from causaledit.errors import MissingExtraError, ModelError, RunError
from causaledit.judges import hf
from causaledit.judges.judging import judge_responses
from causaledit.judges.spread import SpreadJudge
from causaledit.methods.method import Method
from causaledit.metrics.judged import judge_file
from causaledit.metrics.predictions import cases_of, read_metrics, units_of
from causaledit.narratives.local import LocalModels
from causaledit.runs.arguments import RunArguments
from causaledit.runs.execution import SilentRun, execute
from causaledit.runs.groups import groups_to_do
from causaledit.runs.plan import make_plan
from causaledit.runs.ray_pool import RayPool
from causaledit.runs.ray_worker import CaseWorker
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support import extras, ray_cluster
from causaledit.support.workers import in_workers

ray = pytest.importorskip("ray", reason="Ray (the extra `ray`) is not installed")
MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a CPU each; workers find the package and this folder's modules."""
    from ray.cluster_utils import Cluster

    paths = [str(REPOSITORY), str(Path(__file__).parent)]
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    made.wait_for_nodes()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def pool(cluster):
    """Two workers, which keep the tiny model from test to test; none is left running beside other files."""
    with RayPool(WorkerOptions(workers=2, ray_address=cluster.address, worker_retries=1)) as made:
        yield made


@pytest.fixture
def arguments(tmp_path, tiny_model_folder):
    """Arguments of a short run of FT; keywords replace some."""
    lines = {"alg_name": "FT", "model_name": tiny_model_folder, **FAST["FT"], "steps": 3}
    (tmp_path / "ft.yaml").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    cases = [case for case in MINI if len(case["requested_rewrite"]) == 1][:5]
    (tmp_path / "five.json").write_text(json.dumps(cases))

    def make(**changes):
        values = {
            "editing_method": "FT", "datatype": str(tmp_path / "five.json"), "model_type": "tiny",
            "hparams_path": str(tmp_path / "ft.yaml"), "output_root": str(tmp_path / "out"), "run_id": "r",
            "device": "cpu", "max_new_tokens": 5,
        }  # fmt: skip
        return RunArguments(**{**values, **changes})

    return make


def timeless(data):
    """Without the figures that differ from run to run."""
    if isinstance(data, dict):
        return {k: timeless(v) for k, v in data.items() if k != "time" and not k.endswith("seconds")}
    return [timeless(v) for v in data] if isinstance(data, list) else data


def files_of(folder):
    """What a run wrote, by name; `meta/` holds times, paths and process figures."""
    found = {str(f.relative_to(folder)): timeless(json.loads(f.read_text())) for f in folder.rglob("*.json")}
    return {name: data for name, data in found.items() if not name.startswith("meta")}


def worker_pids():
    return [p.pid for p in psutil.process_iter(["cmdline"]) if "ray::RayWorker" in " ".join(p.info["cmdline"] or [])]


def test_files_are_those_of_a_run_in_one_process(arguments, pool):
    alone = execute(make_plan(arguments(run_id="alone")))
    seen = []

    class Sink(SilentRun):
        def workers(self, ready, wanted):
            seen.append((ready, wanted))

    spread = execute(make_plan(arguments(run_id="spread")), Sink(), pool=pool)
    assert files_of(spread.folder) == files_of(alone.folder)
    assert len(files_of(spread.folder)) == 5 + 5 + 3  # cases, their losses, the assembled files
    assert seen == [(1, 2), (2, 2)]
    info = json.loads((spread.folder / "meta" / "run_info.json").read_text())
    assert info["status"] == "finished" and info["device"]["type"] == "cpu"
    assert info["costs"]["plain_tokens_per_second"] > 0 and spread.costs["seconds_per_edit"] > 0


@pytest.mark.slow
def test_files_of_smollm2_are_those_of_a_run_in_one_process(pool, tmp_path):
    smollm2_folder()
    lines = yaml.safe_load((REPOSITORY / "hparams/ROME/smollm2-135m-instruct.yaml").read_text(encoding="utf-8"))
    file = tmp_path / "rome.yaml"
    file.write_text(yaml.safe_dump(lines | {"mom2_adjustment": False, "v_num_grad_steps": 5}), encoding="utf-8")

    def run(name, **over):
        given = RunArguments(
            editing_method="ROME", datatype=str(REPOSITORY / "data" / "causaledit-mini.json"), max_cases=2,
            model_type="smollm2-135m-instruct", hparams_path=str(file), output_root=str(tmp_path / "out"), run_id=name,
            device="cpu", max_new_tokens=6, probes=("hop",),
        )  # fmt: skip
        return execute(make_plan(given), **over)

    alone, spread = run("alone"), run("spread", pool=pool)
    found = files_of(spread.folder)
    assert found == files_of(alone.folder) and spread.failed == alone.failed == {}
    answers = [text for case in found["metrics.json"] for hop in case["post"]["hop_wise_pred"] for text in hop]
    assert len(found["metrics.json"]) == 2 and all(answer["pred"].strip() for answer in answers)


def test_a_killed_worker_is_replaced_and_its_case_done_again(arguments, pool):
    killed = []

    class Killing(SilentRun):
        def case_done(self, case_id, running):
            if not killed:
                killed.extend(worker_pids()[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    summary = execute(make_plan(arguments(run_id="killed")), Killing(), pool=pool)
    assert killed and not set(killed) & set(worker_pids())
    assert summary.failed == {} and summary.results["cases"] == 5
    alone = execute(make_plan(arguments(run_id="alone")))
    assert files_of(summary.folder) == files_of(alone.folder)


def test_a_case_that_kills_its_workers_is_reported_and_the_others_are_done(arguments, pool):
    plan = make_plan(arguments(run_id="deadly"))
    deadly = Method(name="FT", hparams=plan.method.hparams, edit="dying_method:edit")
    summary = execute(dataclasses.replace(plan, method=deadly), pool=pool)
    dead = [case.case_id for case in plan.cases if any(edit.data["subject"] == DEADLY for edit in case.edits)]
    assert dead and list(summary.failed) == dead
    assert "its worker died 2 times" in summary.failed[dead[0]]
    assert summary.results["cases"] == 5 - len(dead)
    again = execute(make_plan(arguments(run_id="deadly")))  # as after any stop: only what failed is done
    assert again.failed == {} and again.results["cases"] == 5


@pytest.mark.parametrize(("edit", "left"), [("careless", "weights"), ("hooked", "hooks")])
def test_what_a_method_leaves_in_a_worker_is_found_and_is_not_there_for_the_next(edit, left, arguments):
    good = make_plan(arguments(run_id="good", max_cases=1))
    bad = dataclasses.replace(good, method=dataclasses.replace(good.method, edit=f"dying_method:{edit}"))
    [case] = good.cases
    worker = CaseWorker()
    revision = worker.prepare(good, [case.case_id], False)["model"]["revision"]
    expected = worker.group(0, [case.case_id])["records"]
    assert worker.check() is None
    worker.prepare(bad, [case.case_id], False)
    worker.group(0, [case.case_id])
    assert worker.check() == left and worker.check() is None  # it has been given up
    for _ in range(2):
        assert worker.prepare(good, [case.case_id], False)["model"]["revision"] == revision
        assert timeless(worker.group(0, [case.case_id])["records"][0][1]) == timeless(expected[0][1])
        worker.prepare(bad, [case.case_id], False)
        worker.group(0, [case.case_id])  # nobody asks what it left


def test_a_worker_counts_its_peaks_for_each_run(arguments, monkeypatch):
    import torch

    plan = make_plan(arguments(run_id="peaks", max_cases=1, editing_method="PreEdited"))
    worker, held = CaseWorker(), [7 * 2**20]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [])
    worker.prepare(plan, [plan.cases[0].case_id], False)
    assert worker.group(0, [plan.cases[0].case_id])["peak_gpu_mb"] == 0.0


def test_a_comparison_on_workers_says_which_method_left_something(arguments, pool, tmp_path):
    from causaledit.comparison.execution import execute_comparison
    from causaledit.comparison.plan import make_compare_plan
    from causaledit.judges.registry import get_judge

    judge, files = get_judge("rule"), [f"{name}={tmp_path / 'ft.yaml'}" for name in ("FT", "PreEdited")]
    given = arguments(run_id="left", model_type="tiny", hparams_path=None, max_cases=2)
    plan = make_compare_plan(["FT", "PreEdited"], given, judge=judge.identity, hparams=files)
    run = plan.runs["FT"]
    careless = dataclasses.replace(run.method, edit="dying_method:careless")
    plan = dataclasses.replace(plan, runs={**plan.runs, "FT": dataclasses.replace(run, method=careless)})
    rows = {row.method: row for row in execute_comparison(plan, judge, pool=pool)}
    assert rows["FT"].status == "failed" and "did not restore" in rows["FT"].error
    assert (rows["PreEdited"].status, rows["PreEdited"].error) == ("finished", None)
    alone = execute(make_plan(arguments(run_id="alone", editing_method="PreEdited", max_cases=2)))
    assert files_of(plan.runs["PreEdited"].folder) == files_of(alone.folder)


def test_a_comparison_on_workers(arguments, pool, tmp_path):
    from causaledit.comparison.execution import execute_comparison
    from causaledit.comparison.plan import make_compare_plan
    from causaledit.judges.registry import get_judge

    judge = get_judge("rule")
    plan = make_compare_plan(
        ["PreEdited", "FT"], arguments(run_id="both", model_type="tiny", hparams_path=None), judge=judge.identity,
        hparams=[f"{name}={tmp_path / 'ft.yaml'}" for name in ("PreEdited", "FT")],
    )  # fmt: skip
    rows = execute_comparison(plan, judge, pool=pool)
    assert [(row.status, row.finished_cases, row.error) for row in rows] == [("finished", 5, None)] * 2
    data = json.loads((plan.folder / "compare.json").read_text())
    assert data["model"]["dtype"] == "float32" and len(data["model"]["revision"]) >= 12


# ---- refusals --------------------------------------------------------------------------------------
def test_workers_that_cannot_load_the_model_say_so_once(arguments, pool, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        execute(make_plan(arguments(run_id="empty", model=str(empty))), pool=pool)


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "nobody answers"), ("ray://127.0.0.1:1", "nobody answers"), ("auto:x", "must be auto, host:port")],
)
def test_an_address_without_a_cluster(address, message):
    with pytest.raises(RunError, match=message) as caught:
        ray_cluster._connect(address)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"), [(None, "nobody answers there"), (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not Ray")]
)
@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_at_which_something_else_listens(reply, message, form, monkeypatch):
    monkeypatch.setattr(ray_cluster, "ANSWER_SECONDS", 0.3)
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):
                kept.append(listener.accept()[0])
                if reply:
                    kept[0].sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(RunError, match=message) as caught:
            ray_cluster._connect(form.format(listener.getsockname()[1]))
        thread.join()
    assert "\n" not in str(caught.value)
    for link in kept:
        link.close()


def test_more_gpus_than_there_are(cluster, pool):
    options = WorkerOptions(workers=2, gpus_per_worker=1, ray_address=cluster.address)
    with pytest.raises(RunError, match=r"2 GPUs, and the cluster has 0"), RayPool(options):
        pass


def test_without_ray_one_line_names_the_extra(monkeypatch):
    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ray" else found(name))
    with pytest.raises(MissingExtraError, match=r"^--workers \(--ray-workers\) needs ray.*causaledit\[ray\]") as caught:
        RayPool(WorkerOptions(workers=2))
    assert "\n" not in str(caught.value)


def test_a_worker_does_not_touch_the_runs_folder(arguments, tmp_path):
    plan = dataclasses.replace(make_plan(arguments(run_id="elsewhere")), folder=tmp_path / "not" / "here")
    worker, (number, cases) = CaseWorker(), next(groups_to_do(plan, plan.cases))
    ids = [case.case_id for case in cases]
    assert "error" not in worker.prepare(plan, ids, False)
    result = worker.group(number, ids)
    assert "error" not in result and [case for case, _, _ in result["records"]] == ids
    assert not (tmp_path / "not").exists()


def test_other_versions_on_a_worker(arguments, pool, monkeypatch):
    monkeypatch.setattr(ray_cluster, "versions", lambda: dict.fromkeys(["torch", "causaledit"], "0.1"))
    with pytest.raises(RunError, match=r"A worker has \w+ .*, this process 0\.1"):
        execute(make_plan(arguments(run_id="old")), pool=pool)


# ---- local judges and narratives -------------------------------------------------------------------
@pytest.fixture
def judged(tmp_path):
    """A run's metrics.json with the answers of three cases, of different lengths."""
    cases = []
    for number, case in enumerate(MINI[:3]):
        rewrite = case["requested_rewrite"][0]
        answers = [f"It is {rewrite['target_new']['str']}." + " Surely so." * n for n in range(number + 1)]
        hops = [
            [{"q": "q", "prompt": "Which is it?", "ref": [rewrite["target_new"]["str"]], "pred": a} for a in answers]
        ]
        post = {"hop_wise": [[True] * len(answers)], "hop_wise_pred": hops, "accuracy": [], "accuracy_pred": []}
        cases.append({"case_id": case["case_id"], "requested_rewrite": [rewrite], "time": 0.0, "post": post})

    def make(name):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.json").write_text(json.dumps(cases))
        return folder / "metrics.json"

    return make


def test_a_local_judge_over_workers_gives_the_same_files(judged, pool, tiny_model_folder, monkeypatch):
    monkeypatch.setattr(hf, "BATCH", 2)  # several batches
    tasks = ["answer"]
    judges = {"alone": hf.HfJudge(str(tiny_model_folder), device="cpu", batch_size=2),
              "spread": SpreadJudge(pool, str(tiny_model_folder), device="cpu")}  # fmt: skip
    found = {}
    for name, judge in judges.items():
        file = judged(name)
        judge.batch_size = 2
        table = judge_file(file, cases_of(read_metrics(file)), tasks, judge)
        lines = (file.parent / "analysis" / "verdicts_hf.jsonl").read_text().splitlines()
        found[name] = (len(table), table.errors(), sorted(lines))
    assert found["spread"] == found["alone"] and found["alone"][0] >= 4


def test_the_local_judge_of_a_command_that_edits_is_on_its_workers(judged, pool, tiny_model_folder):
    options = JudgeOptions(judge="hf", judge_model=str(tiny_model_folder), device="cpu")
    found = {}
    for name, workers in (("alone", None), ("spread", pool)):
        judge, file = judge_on(workers, options), judged(name)
        assert isinstance(judge, SpreadJudge) is (name == "spread")
        units = units_of(cases_of(read_metrics(file)), ["answer"])
        table = judge_responses(judge, units)
        found[name] = judge.identity, [table.get(*unit) for unit in units]
    assert found["spread"] == found["alone"]
    assert judge_on(pool, JudgeOptions(judge="rule")).name == "rule"


def test_a_judge_whose_worker_is_killed_judges_its_batch_again(judged, pool, tiny_model_folder):
    judge = SpreadJudge(pool, str(tiny_model_folder), device="cpu")
    killed = []

    def kill_one():
        if not killed:
            killed.extend(worker_pids()[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    judge.batch_size = 1
    file = judged("killed")
    units = units_of(cases_of(read_metrics(file)), ["answer"])
    table = judge_responses(judge, units, on_verdict=kill_one)
    assert killed and len(table) == len(set(units)) and not set(killed) & set(worker_pids())


def test_narratives_by_a_local_model_over_workers_are_the_same(pool, tiny_model_folder):
    conversations = [[{"role": "user", "content": f"Tell of number {n}."}] for n in range(2)]
    made = {}
    for name, cluster in (("alone", None), ("spread", pool)):
        models = LocalModels(cluster, device="cpu", seed=3)
        write = models.generate(str(tiny_model_folder), 0.8)
        check = models.generate(str(tiny_model_folder), None)
        parts = list(enumerate([conversations[:1], conversations[1:], conversations[:1]]))
        work = functools.partial(lambda write, part: write(part[1], 6), write)
        texts = {number: found for (number, _), found in in_workers(work, parts, workers=1 if cluster is None else 2)}
        made[name] = (texts, check(conversations, 4), models.tokens.generated)
    assert made["spread"] == made["alone"]
    texts = made["alone"][0]
    assert texts[0] == texts[2] and texts[0] != texts[1]


def test_a_judge_that_workers_cannot_load_is_refused_once(judged, pool, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    file = judged("empty-judge")
    with pytest.raises(ModelError, match=r"config\.json") as caught:
        judge_file(file, cases_of(read_metrics(file)), ["answer"], SpreadJudge(pool, str(empty), device="cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "message"),
    [(["judge", "--judge", "rule"], "give --judge hf, not 'rule'"),
     (["analyze", "--judge", "llm"], "give --judge hf, not 'llm'")],
)  # fmt: skip
def test_workers_are_for_local_judges(judged, command, message):
    done = CliRunner().invoke(app, [*command, "--input", str(judged("refused")), "--ray-workers", "2"])
    assert done.exit_code != 0 and message in str(done.exception or done.output)
