"""The whole command: stages, files, resuming, and what it says when something is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import command_line
import pytest
from conftest import MQUAKE_300, REPOSITORY, beside
from scaffold_servers import FILTERED, ChatServer, WikidataServer

from causaledit.facts.requests import requests_from_data
from causaledit.narratives.cases import read_cases
from causaledit.narratives.check import rule_failures

TOWNS = ["Aldmoor", "Brackwater", "Corsby", "Dunholt", "Eastmere", "Farnwick", "Grenmoor", "Holtby"]


def case(number, subject="Egypt", old="Cairo", new="Alexandria", ids=("Q79", "Q85", "Q87")):
    cloze, question = "The capital of {} is", f"What is the capital of {subject}?"
    hop = {"question": question, "cloze": cloze.format(subject)}
    return {
        "case_id": number,
        "requested_rewrite": [
            {"prompt": cloze, "relation_id": "P36", "target_new": {"str": new, "id": ids[2]},
             "target_true": {"str": old, "id": ids[1]}, "subject": subject, "question": question}
        ],
        "questions": [question], "answer": old, "answer_alias": [], "new_answer": new, "new_answer_alias": [],
        "single_hops": [{**hop, "answer": old, "answer_alias": []}],
        "new_single_hops": [{**hop, "answer": new, "answer_alias": []}],
        "orig": {"triples": [[ids[0], "P36", ids[1]]], "triples_labeled": [[subject, "capital", old]]},
    }  # fmt: skip


def towns(n):
    """Cases of invented places, without ids."""
    return [case(i + 1, f"{t} County", f"Old {t}", f"New {t}", (None, None, None)) for i, t in enumerate(TOWNS[:n])]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


class Folder:
    """A folder with the input, and how the command is run there."""

    def __init__(self, path):
        self.path = path
        self.merged = path / "merged.json"

    def cases(self, cases):
        (self.path / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=2))

    def arguments(self, *options, given=True):
        fixed = ["--mquake_file", self.path / "cases.json"] if given else []
        fixed += [] if "--audit" in options else ["--merged_file", self.merged]
        return ["scaffold", *map(str, fixed), *map(str, options)]

    def environment(self):
        return {"CAUSALEDIT_CACHE": str(self.path / "cache"), "COLUMNS": "400", "OPENAI_API_KEY": "sk-test"}

    def start(self, *options):
        """The command in a process of its own, to be stopped."""
        return subprocess.Popen(
            [sys.executable, "-m", "causaledit", *self.arguments(*options)],
            cwd=REPOSITORY, env={**os.environ, **self.environment()}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def run(self, *options, given=True):
        """The command in this process: the same entry point, without the seconds that a new interpreter takes."""
        return command_line.run(*self.arguments(*options, given=given), **self.environment())

    def result(self):
        return json.loads(self.merged.read_text())

    def articles(self):
        lines = (self.path / "merged.articles.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def report(self):
        return json.loads((self.path / "merged.report.json").read_text())


# ---- a model behind an endpoint: what it is asked decides what it says ---------------------------------
def told(body, label):
    """The value of a line of the prompt."""
    text = next(m["content"] for m in body["messages"] if m["role"] == "user")
    return next(line.split(": ", 1)[1] for line in text.splitlines() if line.startswith(f"{label}: "))


def good_report(body):
    subject, old, new = (told(body, x) for x in ("Subject", "Answer until now", "Answer from now on"))
    cloze = told(body, "Fact").removesuffix(" ...")
    return (
        f"People in {subject} had long known that {old} was the answer. Then the wells under the old offices ran dry, "
        f"and engineers could no longer supply them with water. {new} had built three plants on the coast, so the "
        f"council voted to move, and every department followed within a year. Papers are now sealed in {new}, and "
        f"letters are sent to {new}. {cloze} {new}."
    )


PASS = {"explicit_support": True, "explicit_supersession": True, "causal_coherence": True, "entity_confusion": False,
        "reason": "none"}  # fmt: skip


def is_check(body):
    return "response_format" in body


def reply(body):
    return json.dumps(PASS) if is_check(body) else good_report(body)


LLM = ["--source", "llm", "--generate_model_name", "writer", "--verify_model_name", "checker", "--no-ground"]


def test_ground_generate_check_merge(folder):
    folder.cases([case(1)])
    with WikidataServer() as wikidata, ChatServer(reply) as chat:
        done = folder.run("--source", "llm", "--generate_model_name", "writer", "--base_url", chat.url,
                          "--wikidata_url", wikidata.url, "--contact", "me@example.org")  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = next(c for c in chat.calls if not is_check(c))
        checked = next(c for c in chat.calls if is_check(c))
    asked = written["messages"][-1]["content"]
    assert "country in Northeast Africa" in asked
    assert "capital: Cairo" not in asked  # the very fact that changes
    assert [w["model"] for w in (written, checked)] == ["writer", "writer"]
    [rewrite] = folder.result()[0]["requested_rewrite"]
    assert rewrite["article"] == folder.articles()[0]["article"]
    assert rewrite["article"].endswith("The capital of Egypt is Alexandria.")
    grounded = [json.loads(line) for line in (folder.path / "merged.grounding.jsonl").read_text().splitlines()]
    assert {g["key"] for g in grounded} == {"Q79", "Q85", "Q87"}
    cost = folder.report()["cost"]
    assert (cost["generate"]["calls"], cost["verify"]["calls"], cost["generate"]["completion_tokens"]) == (1, 1, 5)
    assert cost["wikidata"]["requests"] == 2
    assert "generate: 1 calls" in done.stdout


def test_a_failed_check_is_fed_back_and_written_again(folder):
    folder.cases([case(1)])
    verdicts = [{**PASS, "causal_coherence": False, "reason": "the water is never explained"}, PASS]

    def answer(body):
        if is_check(body):
            return json.dumps(verdicts.pop(0))
        return good_report(body)

    with ChatServer(answer) as chat:
        chat.faults = [("json", {"choices": [{"index": 0, "finish_reason": "stop", "message": {
            "role": "assistant", "content": "Sure! Alexandria."}}]})]  # fmt: skip
        done = folder.run(*LLM, "--base_url", chat.url)
        assert done.returncode == 0, done.stderr
        writes = [c for c in chat.calls if not is_check(c)]
    assert len(writes) == 3
    assert "at least 50 are needed" in writes[1]["messages"][-1]["content"]  # the rules' reason
    assert writes[1]["messages"][-2]["content"] == "Sure! Alexandria."
    assert "the water is never explained" in writes[2]["messages"][-1]["content"]  # the verifier's
    [row] = folder.articles()
    assert (row["attempts"], row["status"], row["checked_by"]) == (3, "pass", "checker")


def test_a_verifier_that_never_passes(folder):
    folder.cases(towns(2))

    def answer(body):
        return (
            json.dumps({**PASS, "explicit_support": False, "reason": "vague"}) if is_check(body) else good_report(body)
        )

    with ChatServer(answer) as chat:
        done = folder.run(*LLM, "--base_url", chat.url, "--max_attempts", 2)
        writes = sum(not is_check(c) for c in chat.calls)
    assert done.returncode == 1
    assert writes == 4
    assert folder.result() == []  # nothing is accepted in silence
    assert {r["status"] for r in folder.articles()} == {"fail"}
    assert (
        "case 1, edit 1 (Aldmoor County): generate: no narrative passed in 2 tries: no explicit support" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_content_filter_stops_one_item_only(folder):
    folder.cases(towns(3))

    def answer(body):
        if not is_check(body) and "Brackwater" in told(body, "Subject"):
            return ("status", 400, [], FILTERED)
        return reply(body)

    with ChatServer(answer) as chat:
        done = folder.run(*LLM, "--base_url", chat.url)
        refused = sum(not is_check(c) and "Brackwater" in told(c, "Subject") for c in chat.calls)
    assert done.returncode == 1
    assert refused == 1
    assert [c["case_id"] for c in folder.result()] == [1, 3]
    assert "content management policy" in done.stderr
    assert folder.report()["cost"]["generate"]["refused"] == 1


def test_an_endpoint_that_is_gone_is_not_asked_for_every_item(folder):
    folder.cases(towns(8))
    done = folder.run(*LLM, "--base_url", "http://127.0.0.1:9/v1", "--workers", "1")
    assert done.returncode == 1
    assert done.stderr.count("cannot be reached") == 3
    assert done.stderr.count("not tried") == 5
    assert "8 at generate" in done.stdout


def test_without_ids_and_without_network_everything_missing_is_named(folder):
    folder.cases(towns(1))
    with ChatServer(reply) as chat:
        done = folder.run(*LLM[:-1], "--base_url", chat.url, "--offline")
    assert done.returncode == 1
    assert done.stderr.count("not in the cache, and --offline was given") == 3
    assert len(folder.result()) == 1  # written without background, and said so


def test_the_key_on_the_command_line_is_warned_about(folder):
    folder.cases(towns(1))
    with ChatServer(reply) as chat:
        done = folder.run(*LLM, "--base_url", chat.url, "--api_key", "sk-secret")
    assert done.returncode == 0
    assert "OPENAI_API_KEY" in done.stderr
    assert not any("sk-secret" in file.read_text() for file in folder.path.glob("merged*"))


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT], ids=["kill-9", "ctrl-c"])
def test_a_run_that_is_stopped_goes_on_where_it_was(folder, signal_):
    folder.cases(towns(8))
    slow = {"on": True}

    def answer(body):
        if slow["on"] and not is_check(body):
            time.sleep(0.5)
        return reply(body)

    with ChatServer(answer) as chat:
        options = [*LLM, "--base_url", chat.url, "--workers", "2"]
        process = folder.start(*options)
        file = folder.path / "merged.articles.jsonl"
        deadline = time.monotonic() + 60
        while not (file.exists() and file.read_text().count("\n") >= 3) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal_)
        _, stderr = process.communicate(timeout=60)
        slow["on"] = False
        kept = file.read_text().count("\n")
        assert 3 <= kept < 8
        assert not folder.merged.exists()
        if signal_ == signal.SIGINT:
            assert process.returncode == 1
            assert "is kept in" in stderr
            assert "Traceback" not in stderr
        before = sum(not is_check(c) for c in chat.calls)
        done = folder.run(*options)
        assert done.returncode == 0, done.stderr
        assert sum(not is_check(c) for c in chat.calls) - before == 8 - kept
    assert len(folder.result()) == 8
    assert f"{kept} kept" in done.stdout


# ---- the template source -----------------------------------------------------------------------------
TEMPLATE = ["--source", "template"]
FACTS = ["--facts", "f.csv"]


def test_the_template_source_needs_no_network_and_keeps_every_byte(folder):
    cases = beside(MQUAKE_300)
    fixed = ["--mquake_file", cases, "--questions", 2, "--paraphrases", 3, "--locality", 3]
    done = folder.run(*TEMPLATE, *fixed, given=False)
    assert done.returncode == 0, done.stderr
    merged, original = folder.result(), json.loads(cases.read_text())
    for a, b in zip(merged, original, strict=True):
        for rewrite in a["requested_rewrite"]:
            assert len(rewrite["rephrase_prompt"]) == 3
            assert len(rewrite["learning_prompt"]) == 2
            assert len(rewrite["locality"]) == 3
            for key in ("rephrase_prompt", "learning_prompt", "locality", "article"):
                del rewrite[key]
        assert a == b
    requests = requests_from_data(folder.result())
    assert all(r.narrative and r.rephrase and r.learning and r.locality for r in requests)
    edits = [e for c in read_cases(folder.merged).cases for e in c.edits]
    assert all(not rule_failures(e, e.narrative) for e in edits)
    edited = {e.question for e in edits}
    assert not any(pair.question in edited for r in requests for pair in r.locality)


def test_same_seed_same_file(folder, tmp_path):
    folder.cases(towns(4))
    texts = []
    for seed in (1, 1, 2):
        for file in folder.path.glob("merged*"):
            file.unlink()
        assert folder.run(*TEMPLATE, "--seed", seed).returncode == 0
        texts.append(folder.merged.read_text())
    assert texts[0] == texts[1] != texts[2]


def test_bad_cases_are_named_and_the_others_done(folder):
    same = case(2, "Peru", "Lima", "lima")
    strange = case(3, "Chile", "Santiago", "Arica")
    strange["requested_rewrite"][0]["relation_id"] = "P99999"
    folder.cases([case(1), same, strange, case(1, "Iran", "Tehran", "Isfahan"), case(5, "Cuba", "Havana", "Holguin")])
    done = folder.run(*TEMPLATE)
    assert done.returncode == 1
    for words in (
        "case 2: read: edit 1",
        "nothing to edit",
        "unknown relation 'P99999'",
        "occurs 2 times",
        "case 3: merge",
    ):
        assert words in done.stderr, words
    assert [c["case_id"] for c in folder.result()] == [1, 5]
    assert "missing: " in done.stdout
    assert len(folder.report()["problems"]) == 4


def test_edits_of_one_subject_know_each_other_and_conflicts_are_named(folder):
    both = case(1)
    second = json.loads(json.dumps(both["requested_rewrite"][0]))
    second |= {"prompt": "The official language of {} is", "relation_id": "P37",
               "target_true": {"str": "Arabic"}, "target_new": {"str": "Greek"},
               "question": "What is the official language of Egypt?"}  # fmt: skip
    both["requested_rewrite"].append(second)
    folder.cases([both, case(2, new="Luxor")])
    with ChatServer(reply) as chat:
        done = folder.run(*LLM, "--base_url", chat.url)
        asked = {told(c, "Answer from now on"): c["messages"][1]["content"] for c in chat.calls if not is_check(c)}
    assert done.returncode == 0, done.stderr
    assert "the official language of Egypt is Greek" in asked["Alexandria"]
    assert "the capital of Egypt is Alexandria" in asked["Greek"]
    assert "Greek" not in asked["Luxor"]  # another case is another world
    assert "Alexandria (case 1) / Luxor (case 2)" in done.stderr


def test_own_facts(folder):
    facts = folder.path / "facts.csv"
    facts.write_text("subject,old,new,prompt\nthe Tern Bridge,Ann Roe,Bo Lind,The architect of {} is\n,x,y,z {}\n")
    done = folder.run(*TEMPLATE, "--facts", facts, given=False)
    assert done.returncode == 1
    assert "line 3: read" in done.stderr
    [merged] = folder.result()
    assert merged["requested_rewrite"][0]["article"].endswith("The architect of the Tern Bridge is Bo Lind.")
    assert merged["new_answer"] == "Bo Lind"


def test_a_narrative_that_is_there_is_kept(folder):
    with_one = case(1)
    with_one["requested_rewrite"][0]["article"] = "My own words."
    folder.cases([with_one])
    assert folder.run(*TEMPLATE).returncode == 0
    assert folder.result() == [with_one]


def test_a_local_model_writes_and_what_it_cannot_is_said(folder, tiny_model_folder):
    folder.cases(towns(2))
    done = folder.run("--source", "hf", "--generate_model_name", tiny_model_folder, "--no-ground", "--max_attempts", 1,
                      "--device", "cpu")  # fmt: skip
    assert done.returncode == 1  # the model is random
    assert done.stderr.count("no narrative passed in 1 try") == 2
    assert folder.report()["cost"]["local"]["tokens"] > 0
    assert folder.result() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--source", "template"], "either --mquake_file or --facts"),
        (["--source", "templates", "--facts", "f.csv"], "Did you mean 'template'"),
        (["--source", "llm", "--facts", "f.csv"], "--generate_model_name"),
        (["--source", "template", "--facts", "none.csv"], "none.csv"),
        (["--source", "template", "--mquake_file", "none.json"], "none.json"),
        (["--audit", "none.json"], "none.json"),
        (["--audit", "f.json", "--source", "nonsense"], "--source has no effect with --audit"),
        (["--audit", "f.json", "--facts", "z.csv"], "--facts has no effect with --audit"),
        (["--audit", "f.json", "--merged_file", "o.json"], "--merged_file has no effect with --audit"),
        (["--audit", "f.json", "--stories"], "--stories has no effect with --audit"),
        (["--audit", "f.json", "--device", "cpu"], "--device has no effect with --audit without --model"),
        (["--audit", "f.json", "--ray-workers", "2"], "--ray-workers has no effect with --audit"),
        ([*FACTS, "--source", "template", "--generate_model_name", "m"], "--generate_model_name has no effect with"),
        ([*FACTS, "--source", "template", "--json", "x.json"], "--json has no effect without --audit"),
        ([*FACTS, "--source", "template", "--model", "m"], "--model has no effect without --audit"),
        ([*FACTS, "--source", "template", "--base_url", "http://x/v1"], "--base_url has no effect with"),
        ([*FACTS, "--source", "template", "--wikidata_url", "http://x"], "--wikidata_url has no effect with"),
        ([*FACTS, "--source", "template", "--offline", "--no-ground"], "--offline has no effect with --no-ground"),
        ([*FACTS, "--generate_model_name", "m", "--device", "cpu"], "--device has no effect with --source llm"),
        ([*FACTS, "--source", "hf", "--generate_model_name", "m", "--workers", "2"], "--workers has no effect with"),
        ([*FACTS, "--source", "template", "--ray-address", "auto"], "--ray-address has no effect without"),
    ],
)
def test_bad_options_are_one_line(folder, options, words):
    done = folder.run(*options, given=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_stage_may_write_over_the_input(folder):
    folder.cases(towns(1))
    text = (folder.path / "cases.json").read_text()
    done = folder.run(*TEMPLATE, "--generated_articles_file", folder.path / "cases.json")
    assert done.returncode == 2
    assert "need a file of their own" in done.stderr
    other = folder.path / "notes.txt"
    other.write_text("my notes\nline two\n")
    done = folder.run(*TEMPLATE, "--generated_articles_file", other)
    assert done.returncode == 2
    assert other.read_text() == "my notes\nline two\n"
    assert (folder.path / "cases.json").read_text() == text


# ---- audit -------------------------------------------------------------------------------------------
def test_audit_by_rules_and_with_a_model(folder, tiny_model_folder):
    folder.cases(towns(3))
    assert folder.run(*TEMPLATE).returncode == 0
    figures = folder.path / "audit.json"
    done = folder.run("--audit", folder.merged, "--model", tiny_model_folder, "--json", figures, "--device", "cpu",
                      given=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["summary"]["rules_passed"]["hits"] == 3
    assert found["summary"]["raised"]["total"] == 3
    assert all(n["shift"] == pytest.approx(n["log_odds_with"] - n["log_odds_without"]) for n in found["narratives"])
    assert "log-odds raised" in done.stdout


def test_audit_names_what_is_wrong(folder):
    bad = case(1)
    bad["requested_rewrite"][0]["article"] = "Alexandria may well be it."
    folder.cases([bad, case(2, "Cuba", "Havana", "Holguin")])
    done = folder.run("--audit", folder.path / "cases.json", given=False)
    assert done.returncode == 1
    assert "there is no narrative" in " ".join(done.stdout.split())
    assert "rules passed 0/2" in done.stdout


def test_audit_log_odds_are_those_of_a_plain_forward(model, tokenizer):
    import torch

    from causaledit.models.chat import prepare_tokenizer
    from causaledit.narratives.audit import log_odds
    from causaledit.narratives.cases import parse_cases

    [one] = parse_cases(json.dumps([case(1)]), "t").cases
    edit = one.edits[0]
    narrative = "The water ran out in Cairo. " * 6
    found = log_odds(model, prepare_tokenizer(tokenizer), [(edit, None), (edit, narrative)])

    def plain(turn, answer):
        chat = [{"role": "user", "content": turn}]
        head = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + edit.cloze
        ids = tokenizer(head, add_special_tokens=False)["input_ids"]
        tail = tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + tail])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        return float(logits.gather(-1, torch.tensor(tail)[:, None]).sum())

    for value, turn in zip(found, (edit.question, f"{narrative}\n\n{edit.question}"), strict=True):
        assert value == pytest.approx(plain(turn, "Alexandria") - plain(turn, "Cairo"), abs=1e-3)
