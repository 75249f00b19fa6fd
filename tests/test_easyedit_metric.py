"""The benchmark that measures by EasyEdit's metric, in the host that is there."""

from __future__ import annotations

import json
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import easyedit_metric


@pytest.fixture
def measure(tmp_path, monkeypatch, tiny_model_folder, capsys):
    """The benchmark with FT on a tiny model; what it wrote, and what it said of each request."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "fast.yaml"
    file.write_text("alg_name: FT\nlayers: [1]\nsteps: 5\nlearning_rate: 0.01\nstop_loss: 0.0\n")

    def call(limit, *options):
        given = ["--json", "out.json", "--method", "FT", "--hparams", str(file), "--model", str(tiny_model_folder)]
        monkeypatch.setattr(sys, "argv", ["x", *given, "--device", "cpu", "--limit", str(limit), *options])
        easyedit_metric.main()
        said = capsys.readouterr().out
        return json.loads((tmp_path / "out.json").read_text()), said

    return call


def test_requests_are_edited_alone_and_an_unfinished_result_goes_on(measure):
    found, said = measure(1)
    assert len(found["per_request"]) == 1
    assert "Boeing: " in said
    more, said = measure(2)
    assert "Boeing: " not in said  # it stands in the file already
    assert more["per_request"][0] == found["per_request"][0]
    summary = more["summary"]
    assert summary["requests"] == 2
    values = [item["post"]["rewrite_acc"] for item in more["per_request"]]
    assert summary["post"]["rewrite_acc"] == pytest.approx(sum(values) / 2)
    _, said = measure(1, "--set", "steps=6")
    assert "Boeing: " in said  # other hyper-parameters are another measurement


def test_every_request_is_a_question_with_its_subject():
    records = json.loads(easyedit_metric.REQUESTS.read_text(encoding="utf-8"))
    assert len(records) == 12
    for record in records:
        assert record["src"].endswith("?")
        assert record["subject"] in record["src"]
        assert record["alt"] not in record["answers"]
