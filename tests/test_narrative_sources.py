"""Narratives under every name and from every kind of file, and old answers read from replies."""

from __future__ import annotations

import json
import logging
import unicodedata

import pytest

from causaledit.errors import DatasetError, RequestError, ScaffoldError
from causaledit.facts.requests import EditRequest, request_from_dict, requests_from_data
from causaledit.metrics.predictions import cases_of
from causaledit.mquake.cases import describe_cases, parse_cases, read_cases
from causaledit.mquake.checks import check_cases
from causaledit.mquake.datasets import locate_dataset
from causaledit.narratives.cases import Entity, ScaffoldEdit
from causaledit.narratives.cases import read_cases as read_scaffold_cases
from causaledit.narratives.check import rule_failures
from causaledit.narratives.generate import LocalWriter, produce
from causaledit.narratives.resolve import load_narratives, short_answer

KEYS = ("narrative", "article", "fact_new_uns")
TEXT = "The wells ran dry, so parliament moved to Alexandria."


def rewrite(**more):
    return {
        "prompt": "The capital of {} is",
        "subject": "Egypt",
        "relation_id": "P36",
        "target_new": {"str": "Alexandria", "id": "Q87"},
        "target_true": {"str": "Cairo", "id": "Q85"},
        "question": "What is the capital of Egypt?",
        **more,
    }


def case(**more):
    hop = {"question": "What is the capital of Egypt?", "cloze": "The capital of Egypt is"}
    return {
        "case_id": 1,
        "requested_rewrite": [rewrite(**more)],
        "questions": ["Where does Egypt's parliament sit?"],
        "answer": "Cairo",
        "new_answer": "Alexandria",
        "single_hops": [{**hop, "answer": "Cairo", "answer_alias": ["al-Qahirah"]}],
        "new_single_hops": [{**hop, "answer": "Alexandria", "answer_alias": ["Iskandariyya", "AL"]}],
        "orig": {"triples": [["Q79", "P36", "Q85"]], "triples_labeled": [["Egypt", "capital", "Cairo"]]},
    }


@pytest.mark.parametrize("key", KEYS)
def test_a_narrative_under_each_name_is_read_everywhere(key, tmp_path, caplog):
    caplog.set_level(logging.INFO, "causaledit")
    data = [case(**{key: f"<p>{TEXT}</p>"})]
    file = tmp_path / "cases.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    assert requests_from_data(data)[0].narrative == TEXT
    assert read_cases(file) == data and caplog.text.count(f"narratives from `{key}` (1)") == 1
    assert parse_cases(data)[0].edits[0].request.narrative == TEXT
    assert "1 with a narrative" in describe_cases(data)
    assert read_scaffold_cases(file).cases[0].edits[0].narrative == TEXT
    assert load_narratives(str(file)) == {("egypt", "alexandria"): TEXT}
    assert cases_of([{**data[0], "post": {}}])[0].edits[0].narrative == TEXT
    assert check_cases(data) == []
    assert f"requested_rewrite[0].{key}" in str(check_cases([case(**{key: 3})])[0])


def test_a_file_of_subject_answer_narrative(tmp_path):
    file = tmp_path / "own.json"
    entries = [
        {"subject": "Egypt", "target_new": "Alexandria", "narrative": TEXT},
        {"subject": "Côte d’Ivoire", "target_new": ["Abidjan"], "narrative": TEXT},
        {"subject": "no narrative"},
    ]
    file.write_text(json.dumps(entries), encoding="utf-8")
    assert set(load_narratives(str(file))) == {("egypt", "alexandria"), ("cote d'ivoire", "abidjan")}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            [{"subject": "A", "target_new": "B", "narrative": "c"}, {"target_new": "B", "narrative": "c"}],
            "entry 2.*`subj",
        ),
        ([{"subject": "A", "narrative": "c"}], "entry 1: `target_new`"),
        ([{"subject": "A", "target_new": "B", "narrative": ["c"]}], "entry 1: the narrative must be a text"),
        (["a narrative"], "entry 1: must be an object"),
        ([{"subject": "A", "target_new": "B"}], "holds no narrative.*fact_new_uns"),
        ("text", "must be a list"),
        ([{"requested_rewrite": 3}], "requested_rewrite"),
    ],
)
def test_a_narrative_file_that_cannot_serve_names_file_and_entry(entries, message, tmp_path):
    file = tmp_path / "own.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(RequestError, match=rf"own\.json.*{message}"):
        load_narratives(str(file))


def test_the_chain_of_a_case_is_read_whatever_the_unicode_form():
    data = case()
    data["requested_rewrite"] = [rewrite(subject="Café", target_new="Orléans", question="Où est le Café?")]
    for hop in data["new_single_hops"]:
        hop |= {
            "question": unicodedata.normalize("NFD", "Où est le Café?"),
            "answer": unicodedata.normalize("NFD", "Orléans"),
        }
    [parsed] = parse_cases([data])
    assert parsed.edit_of_hop(0) == 0
    assert parsed.edits[0].new_aliases == ("Iskandariyya", "AL")
    data["requested_rewrite"].append(rewrite(subject=unicodedata.normalize("NFD", "Café"), target_new="Nice"))
    assert any("another edit" in str(problem) for problem in check_cases([data]))


def test_ids_and_aliases_reach_the_scaffold(tmp_path):
    file = tmp_path / "cases.json"
    file.write_text(json.dumps([case()]), encoding="utf-8")
    [edit] = read_scaffold_cases(file).cases[0].edits
    assert (edit.subject.id, edit.old.id, edit.new.id) == ("Q79", "Q85", "Q87")
    assert edit.new.names == ("Alexandria", "Iskandariyya") and edit.old.names == ("Cairo", "al-Qahirah")


def test_a_file_whose_name_differs_only_in_its_unicode_form_is_pointed_out(tmp_path):
    (tmp_path / unicodedata.normalize("NFD", "cités.json")).write_text("[]", encoding="utf-8")
    path = tmp_path / unicodedata.normalize("NFC", "cités.json")
    for read in (read_scaffold_cases, lambda p: locate_dataset(str(p))):
        with pytest.raises((ScaffoldError, DatasetError), match=r"does not exist.*differs only in the Unicode form"):
            read(path)
    with pytest.raises(DatasetError, match="differs only in capital letters"):
        locate_dataset("mquake-cf-3k")


# ---- narratives and old answers in other scripts ---------------------------------------------------
CHINESE = (
    "埃及长期以来一直以开罗作为首都，各部委都设在那里。后来旧城地下的水井逐渐干涸，工程师们无法再为政府机关供水。"
    "亚历山大早已在海边建成三座海水淡化厂，因此议会投票决定迁都亚历山大，各部门在一年之内全部搬迁完毕。埃及的首都是亚历山大。"
)


def test_a_chinese_narrative_is_not_too_short():
    edit = ScaffoldEdit(Entity("埃及"), Entity("开罗"), Entity("亚历山大"), "{}的首都是")
    assert rule_failures(edit, CHINESE) == []
    assert rule_failures(edit, CHINESE * 12) and "at most 1000" in rule_failures(edit, CHINESE * 12)[0]
    assert "characters, and at least" in rule_failures(edit, "埃及的首都是亚历山大，不是开罗，是亚历山大。")[0]
    writer = LocalWriter("tiny", lambda conversations, _: [CHINESE + "其中" for _ in conversations])
    [written] = produce([edit], writer, max_attempts=1)
    assert written.check.passed and written.text == CHINESE  # the fragment behind the last sentence is dropped


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The capital of Egypt is Cairo. It lies on the Nile.", "Cairo"),
        ("the capital of egypt is: Cairo", "Cairo"),
        ('"Cairo."', "Cairo"),
        ("It is located in Washington, D.C.", "located in Washington, D.C."),
        ("埃及的首都是开罗。它在尼罗河边。", "开罗"),
        ("首都は東京です。", "東京"),
        ("「東京」", "東京"),
        ("수도는 서울입니다.", "서울"),
        ("เมืองหลวงคือกรุงเทพ", "กรุงเทพ"),
        ("عاصمة مصر هي القاهرة.", "القاهرة"),
    ],
)
def test_the_answer_inside_a_reply(reply, answer):
    assert short_answer(reply, EditRequest("Egypt", "The capital of {} is", "Alexandria")) == answer


@pytest.mark.parametrize("prompt", ["日本の首都はどこですか？", "中国的首都是哪里？", "ما هي عاصمة اليابان؟"])
def test_a_prompt_that_is_a_question_in_any_script(prompt):
    subject = next(name for name in ("日本", "中国", "اليابان") if name in prompt)
    assert request_from_dict({"prompt": prompt, "subject": subject, "target_new": "X"}).question == prompt
