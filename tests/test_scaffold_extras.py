"""Paraphrases, locality and learning questions; and the row files that all stages keep."""

from __future__ import annotations

import json
import threading

import pytest
from scaffold_servers import ChatServer

from causaledit.errors import LLMError, ScaffoldError
from causaledit.narratives.cases import parse_cases
from causaledit.narratives.extras import Amounts, ExtrasWriter
from causaledit.narratives.generate import TemplateWriter
from causaledit.narratives.ground import EntityInfo, Grounding
from causaledit.narratives.pipeline import Files, Settings, run_scaffold
from causaledit.narratives.templates import TemplateBank
from causaledit.support.chat_endpoint import ChatClient
from causaledit.support.jsonl import JsonlStore
from causaledit.support.progress import SilentProgress

BANK = TemplateBank.bundled()


def case(number, subject, old, new, hops):
    question = f"What is the capital of {subject}?"
    return {
        "case_id": number,
        "requested_rewrite": [
            {"prompt": "The capital of {} is", "relation_id": "P36", "target_new": new, "target_true": old,
             "subject": subject, "question": question}
        ],
        "single_hops": [{"question": q, "answer": a} for _, _, q, a in hops],
        "orig": {"triples": [["Q1", pid, "Q2"] for pid, _, _, _ in hops],
                 "triples_labeled": [[s, "", a] for _, s, _, a in hops]},
    }  # fmt: skip


HOPS = [
    ("P36", "Peru", "What is the capital of Peru?", "Lima"),
    ("P36", "Cuba", "What is the capital of Cuba?", "Havana"),  # edited below
    ("P36", "Oman", "What is the capital of Oman?", "Alexandria"),  # its answer is the new answer
    ("P50", "Emma", "Who wrote Emma?", "Jane Austen"),
]
CASES = parse_cases(
    json.dumps([case(1, "Egypt", "Cairo", "Alexandria", HOPS), case(2, "Cuba", "Havana", "Holguin", HOPS[:1])]), "t"
).cases


def test_locality_comes_from_what_no_case_changes():
    writer = ExtrasWriter(CASES, BANK, Amounts(locality=4))
    members, problems = writer.write(CASES[0], 0)
    assert members["locality"] == [
        {"question": "What is the capital of Peru?", "answer": "Lima"},
        {"question": "Who wrote Emma?", "answer": "Jane Austen"},
    ]
    assert [p.reason for p in problems] == ["2 of 4 for locality"]


def test_locality_about_the_subject_itself_comes_from_what_is_known():
    info = EntityInfo("label:egypt", facts={"P30": ["Africa"], "P36": ["Cairo"], "P37": ["Arabic"]})
    writer = ExtrasWriter(CASES, BANK, Amounts(locality=3), grounding=Grounding({info.key: info}))
    questions = [p["question"] for p in writer.write(CASES[0], 0)[0]["locality"]]
    assert len(questions) == 3
    assert sum("Egypt" in q for q in questions) == 1
    assert "What is the capital of Egypt?" not in questions


def client(server):
    return ChatClient("m", base_url=server.url, initial_wait=0.01)


def test_a_models_questions_are_sifted_and_topped_up():
    paraphrases = [
        "Which city heads Egypt?",
        "What is the capital of Egypt?",
        "Is it Alexandria in Egypt?",
        "Which is it?",
    ]
    learning = [("On which sea does Egypt's capital lie?", "the Mediterranean"), ("Is Rome in Italy?", "Rome")]

    def answer(body):
        first = body["messages"][0]["content"].startswith("Question:")
        items = [(q, "x") for q in paraphrases] if first else learning
        return json.dumps({"items": [{"question": q, "answer": a} for q, a in items]})

    with ChatServer(answer) as server:
        writer = ExtrasWriter(CASES, BANK, Amounts(paraphrases=3, questions=3), client=client(server))
        members, problems = writer.write(CASES[0], 0)
    assert not problems
    asked = [p["question"] for p in members["rephrase_prompt"]]
    assert asked[0] == "Which city heads Egypt?"  # the one of four that is usable
    assert asked[1:] == BANK.paraphrases(CASES[0].edits[0], 2)
    assert {p["answer"] for p in members["rephrase_prompt"]} == {"Alexandria"}
    learned = [(p["question"], p["answer"]) for p in members["learning_prompt"]]
    assert learned[0] == ("On which sea does Egypt's capital lie?", "the Mediterranean")
    assert "Is Rome in Italy?" not in dict(learned)
    assert len(learned) == 3


def test_a_model_that_gives_no_list_leaves_it_to_the_templates_and_one_that_is_gone_does_not():
    with ChatServer(lambda body: "no idea") as server:
        writer = ExtrasWriter(CASES, BANK, Amounts(paraphrases=2), client=client(server))
        members, problems = writer.write(CASES[0], 0)
    assert not problems
    assert len(members["rephrase_prompt"]) == 2
    gone = ChatClient("m", base_url="http://127.0.0.1:9/v1", attempts=1)
    with pytest.raises(LLMError):
        ExtrasWriter(CASES, BANK, Amounts(paraphrases=2), client=gone).write(CASES[0], 0)


def questions_of(cases, amounts, folder, client=None):
    """The questions stage of a run over these cases: the merged edits, and what is missing."""
    files = Files(folder / "merged.json", folder / "g.jsonl", folder / "a.jsonl", folder / "q.jsonl")
    report = run_scaffold(
        parse_cases(json.dumps(cases), "t"), files, Settings("template", amounts=amounts), extras_client=client,
        make_writer=lambda grounding: TemplateWriter(BANK, grounding), progress=SilentProgress(),
    )  # fmt: skip
    merged = json.loads(files.merged.read_text())
    edits = [edit for case in merged for edit in case["requested_rewrite"]]
    return edits, [p.reason for p in report.problems if p.stage == "extras"]


def test_a_later_run_over_more_cases_holds_nothing_that_one_of_them_edits(tmp_path):
    first = case(1, "Egypt", "Cairo", "Alexandria", HOPS)
    amounts = Amounts(paraphrases=2, locality=2)
    [edit], _ = questions_of([first], amounts, tmp_path)
    assert {p["question"] for p in edit["locality"]} == {"What is the capital of Peru?", "What is the capital of Cuba?"}
    edits, _ = questions_of([first, case(2, "Cuba", "Havana", "Holguin", HOPS[:1])], amounts, tmp_path)
    assert all(p["question"] != "What is the capital of Cuba?" for e in edits for p in e["locality"])
    assert edits[0]["rephrase_prompt"] == edit["rephrase_prompt"]


def test_what_falls_short_is_asked_for_again_and_what_is_whole_is_not(tmp_path):
    cases = [case(number, "Egypt", "Cairo", "Alexandria", HOPS) for number in (1, 2)]  # one edit in two cases
    amounts, items = Amounts(questions=9), []
    with ChatServer(lambda body: json.dumps({"items": items})) as server:
        _, short = questions_of(cases, amounts, tmp_path, client(server))
        assert len(short) == 2 and len(server.calls) == 1
        items += [{"question": f"What is {n}?", "answer": "x"} for n in range(9)]
        edits, short = questions_of(cases, amounts, tmp_path, client(server))
        assert not short and all(e["learning_prompt"] == items for e in edits)
        server.reply = lambda body: "not asked again"
        assert questions_of(cases, amounts, tmp_path, client(server)) == (edits, [])
        assert len(server.calls) == 2


# ---- rows ----------------------------------------------------------------------------------------------
def test_rows_survive_threads_and_a_torn_last_line(tmp_path):
    file = tmp_path / "deep" / "rows.jsonl"
    store = JsonlStore(file, "test")

    def put(worker):
        for i in range(50):
            store.put({"key": f"{worker}-{i}", "text": "é" * 200})

    threads = [threading.Thread(target=put, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with file.open("ab") as stream:
        stream.write(b'{"key": "torn", "te')
    again = JsonlStore(file, "test")
    assert len(again.rows) == 200
    again.put({"key": "0-0", "text": "new"})
    assert JsonlStore(file, "test").rows["0-0"]["text"] == "new"
    assert not list(tmp_path.glob("none*"))


def test_somebody_elses_file_is_refused_and_left_alone(tmp_path):
    for content in (b"hello\n", b'{"no": "key"}\n', b"[1, 2]\n", b"\xff\xfe\n", b"one line"):
        file = tmp_path / "other"
        file.write_bytes(content)
        with pytest.raises(ScaffoldError, match="this command wrote"):
            JsonlStore(file, "--generated_articles_file")
        assert file.read_bytes() == content
