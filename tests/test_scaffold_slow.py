"""The scaffold against `transformers serve`: a real chat endpoint (about a minute)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY, smollm2_folder
from serving import serve

from causaledit.errors import LLMError
from causaledit.support.chat_endpoint import ChatClient

CASES = REPOSITORY / "data" / "causaledit-mini.json"


@pytest.fixture
def smollm2():
    folder = str(smollm2_folder())
    with serve(folder) as address:
        yield address, folder


@pytest.mark.slow
def test_a_real_endpoint_answers_the_client(smollm2):
    address, model = smollm2
    client = ChatClient(model, base_url=address, format_attempts=2, timeout=600)
    reply = client.complete([{"role": "user", "content": "What is the capital of France?"}], max_tokens=16)
    assert "Paris" in reply.text
    usage = client.usage.to_dict()
    assert usage["calls"] == 1
    assert 0 < usage["completion_tokens"] <= 16
    assert usage["prompt_tokens"] > 10
    schema = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}
    try:  # a model this small may or may not keep the form; what it must not do is pass without it
        data = client.complete(
            [{"role": "user", "content": "The capital of Italy, as JSON."}], schema=schema, max_tokens=40
        ).data
        assert isinstance(data["capital"], str)
    except LLMError as error:
        assert "requested form" in str(error)


@pytest.mark.slow
def test_the_whole_command_against_a_real_endpoint(tiny_model_folder, tmp_path):
    """The served model is random: what it writes fails the rules, and every step up to that is real."""
    merged = tmp_path / "merged.json"
    cases = json.loads(CASES.read_text())[:1]
    for rewrite in cases[0]["requested_rewrite"]:
        del rewrite["article"]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    with serve(tiny_model_folder) as address:
        done = subprocess.run(
            [sys.executable, "-m", "causaledit", "scaffold", "--mquake_file", str(tmp_path / "cases.json"),
             "--merged_file", str(merged), "--source", "llm", "--generate_model_name", str(tiny_model_folder),
             "--base_url", address, "--no-ground", "--max_attempts", "2", "--workers", "1"],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "merged.articles.jsonl").read_text().splitlines()]
    cost = json.loads((tmp_path / "merged.report.json").read_text())["cost"]["generate"]
    assert done.returncode == 1
    assert len(rows) == len(cases[0]["requested_rewrite"])
    assert all((row["status"], row["attempts"], row["checked_by"]) == ("fail", 2, "rules") for row in rows)
    assert all(row["article"] and "it does not name the subject" in row["reason"] for row in rows)
    assert (cost["calls"], cost["failed"], cost["retries"]) == (2 * len(rows), 0, 0)
    assert cost["completion_tokens"] > 10
    assert "no narrative passed in 2 tries" in done.stderr
    assert json.loads(merged.read_text()) == []
