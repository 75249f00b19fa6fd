"""MQuAKE files: what is read, what is refused, which cases a run takes, how edits are grouped."""

from __future__ import annotations

import copy
import json

import pytest
from conftest import BESIDE, REPOSITORY, beside

from causaledit.errors import DatasetError
from causaledit.mquake.cases import describe_cases, parse_cases, read_cases
from causaledit.mquake.checks import check_cases
from causaledit.mquake.selection import group_by_case, group_in_batches, select_cases

# the bundled cases; how many there are is none of these tests' business
MINI = json.loads((REPOSITORY / "data" / "causaledit-mini.json").read_text(encoding="utf-8"))


def case(case_id, *edits, hops=2):
    """A case with edits `(subject, relation, new answer)` and a chain of so many hops."""
    chain = [{"question": f"Q{i}?", "cloze": f"C{i} is", "answer": f"A{i}", "answer_alias": []} for i in range(hops)]
    return {
        "case_id": case_id,
        "requested_rewrite": [
            {
                "prompt": "{} is in",
                "relation_id": relation,
                "subject": subject,
                "target_new": {"str": new, "id": "Q1"},
                "target_true": {"str": "Old", "id": "Q2"},
                "question": f"Where is {subject}?",
            }
            for subject, relation, new in edits
        ],
        "questions": ["One?", "Two?", "Three?"],
        "answer": "Old end",
        "answer_alias": [],
        "new_answer": "New end",
        "new_answer_alias": [],
        "single_hops": chain,
        "new_single_hops": chain,
        "orig": {},
    }


# ---- reading ---------------------------------------------------------------------------------------
def test_the_bundled_file_is_read_whole():
    assert check_cases(MINI) == []
    cases = parse_cases(MINI)
    assert [c.case_id for c in cases] == [c["case_id"] for c in MINI]
    for parsed, raw in zip(cases, MINI, strict=True):
        assert parsed.new_answer == raw["new_answer"]
        assert [h.answer for h in parsed.hops] == [h["answer"] for h in raw["new_single_hops"]]
        assert all(edit.request.narrative and len(edit.request.locality) == 3 for edit in parsed.edits)
        made = [parsed.edit_of_hop(i) for i in range(len(parsed.hops))]
        assert sorted(i for i in made if i is not None) == list(range(len(parsed.edits)))
    assert describe_cases(MINI).startswith(f"{len(MINI)} cases (")


@pytest.mark.parametrize("name", ["mquake_cf3k_300.json", "mquake_causal_dev.json"])
def test_real_files_have_no_problems(name):
    data = read_cases(beside(BESIDE / name))
    assert check_cases(data) == []
    cases = parse_cases(data)
    matched = sum(c.edit_of_hop(i) is not None for c in cases for i in range(len(c.hops)))
    assert matched == sum(len(c.edits) for c in cases)


def test_all_published_forms_are_read():
    plain = case(1, ("Boeing", "P159", "Denver"))
    rewrite = plain["requested_rewrite"][0]
    rewrite["target_new"] = "Denver"  # a text, as in published metrics
    rewrite["article"] = "<p>The board of <b>Boeing</b> moved.</p>"
    rewrite["rephrase_prompt"] = [{"question": "Where does Boeing sit?", "answer": "Denver"}]
    rewrite["learning_prompt"] = [{"question": "Why did Boeing move?", "answer": "By vote."}]
    rewrite["cloze_question"] = "Boeing is in?"
    plain["answer_extended"] = ["Old end", "another"]  # MQuAKE-T
    assert check_cases([plain]) == []
    parsed = parse_cases([plain])[0]
    request = parsed.edits[0].request
    assert request.target_new == "Denver"
    assert request.narrative == "The board of Boeing moved."
    assert request.rephrase[0].question == "Where does Boeing sit?"
    assert request.learning[0].answer == "By vote."
    assert parsed.data["answer_extended"] == ["Old end", "another"]


def test_a_method_gets_everything_the_rewrite_has():
    rewrite = MINI[0]["requested_rewrite"][0]
    request = parse_cases(MINI[:1])[0].edits[0].to_request(7)
    assert request["case_id"] == 7
    assert request["prompt"] == rewrite["prompt"]
    assert (request["target_new"], request["ground_truth"]) == (
        rewrite["target_new"]["str"],
        rewrite["target_true"]["str"],
    )
    assert request["narrative"]
    for key in ("question", "rephrase_prompt", "locality", "relation_id", "subject"):
        assert request[key] == rewrite[key]


# ---- checking --------------------------------------------------------------------------------------
def _rewrite(**fields):
    return lambda data: data[1]["requested_rewrite"][0].update(**fields)


def _hop(number, **fields):
    return lambda data: data[1]["new_single_hops"][number].update(**fields)


def _broken(change):
    data = copy.deepcopy(MINI[:2])
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda d: d[1].update(case_id=d[0]["case_id"]), "case_id", "occurs 2 times"),
        (lambda d: d[1].pop("case_id"), "case_id", "got None"),
        (lambda d: d[1].update(requested_rewrite=[]), "requested_rewrite", "no edit"),
        (lambda d: d[1].pop("requested_rewrite"), "requested_rewrite", "no edit"),
        (lambda d: d[1].update(new_single_hops=[]), "new_single_hops", "no hop"),
        (_hop(0, answer=" "), "new_single_hops[0].answer", "empty"),
        (lambda d: d[1]["new_single_hops"][1].pop("cloze"), "new_single_hops[1].cloze", "missing"),
        (_hop(0, answer_alias=["x", ""]), "new_single_hops[0].answer_alias[1]", "empty"),
        (lambda d: d[1].update(new_answer=""), "new_answer", "empty"),
        (lambda d: d[1].update(new_answer_alias=[""]), "new_answer_alias[0]", "empty"),
        (lambda d: d[1].update(answer_alias="Rome"), "answer_alias", "list of texts"),
        (lambda d: d[1].update(questions=[]), "questions", "multi-hop"),
        (lambda d: d[1]["questions"].__setitem__(2, 5), "questions[2]", "must be a text"),
        (_rewrite(prompt="Rome is"), "requested_rewrite[0].prompt", "{}"),
        (_rewrite(target_new={"id": "Q1"}), "requested_rewrite[0].target_new", "missing"),
        (_rewrite(target_true={"str": ""}), "requested_rewrite[0].target_true", "empty"),
        (_rewrite(target_new=3), "requested_rewrite[0].target_new", "got 3"),
        (_rewrite(subject=""), "requested_rewrite[0].subject", "empty"),
        (_rewrite(article=""), "requested_rewrite[0].article", "empty"),
        (lambda d: d[1].update(requested_rewrite=2 * d[1]["requested_rewrite"]), "requested_rewrite[", "another edit"),
        (lambda d: d.__setitem__(1, "a case"), "", "must be an object"),
    ],
)  # fmt: skip
def test_a_problem_is_named_by_case_and_field(change, field, words):
    problems = check_cases(_broken(change))
    assert any(p.field.startswith(field) and words in p.message and p.index == 1 for p in problems), problems
    assert all(str(p).startswith(p.case) and p.case for p in problems)


def test_an_edit_to_the_old_answer_is_a_problem():
    data = _broken(
        lambda d: d[0]["requested_rewrite"][0].update(target_new=d[0]["requested_rewrite"][0]["target_true"])
    )
    assert any("nothing to edit" in p.message for p in check_cases(data))


@pytest.mark.parametrize("data", [{}, [], "text", None])
def test_a_file_of_another_kind_is_one_problem(data):
    assert [p.case for p in check_cases(data)] == ["the file"]


def test_truncated_json_and_a_missing_file_are_named(tmp_path):
    text = json.dumps(MINI)
    (tmp_path / "cut.json").write_text(text[: len(text) // 2])
    with pytest.raises(DatasetError, match=r"cut\.json.*not valid JSON"):
        read_cases(tmp_path / "cut.json")
    with pytest.raises(DatasetError, match=r"none\.json"):
        read_cases(tmp_path / "none.json")
    (tmp_path / "empty.json").write_text("[]")
    with pytest.raises(DatasetError, match="holds no case"):
        read_cases(tmp_path / "empty.json")


def test_other_scripts_are_read():
    data = [case(1, ("東京タワー", "P131", "大阪市"))]
    data[0]["new_single_hops"][0]["answer_alias"] = ["🇯🇵", "Ōsaka"]
    assert check_cases(data) == []
    assert parse_cases(data)[0].edits[0].request.cloze == "東京タワー is in"


# ---- choosing --------------------------------------------------------------------------------------
POOL = [case(i, (f"S{i}", "P1", "N"), hops=2 + i % 3) for i in range(30)]


def test_selection_spreads_over_the_hop_counts_and_is_a_prefix_of_a_larger_one():
    chosen = select_cases(POOL, max_cases=12)
    hops = [len(POOL[i]["new_single_hops"]) for i in chosen]
    assert hops == [2, 3, 4] * 4
    assert select_cases(POOL, max_cases=7) == chosen[:7]
    assert len(set(chosen)) == 12
    assert sorted(select_cases(POOL, max_cases=1000)) == list(range(30))


def test_selection_depends_on_the_seed_alone():
    assert select_cases(POOL, max_cases=9) == select_cases(copy.deepcopy(POOL), max_cases=9, seed=70)
    assert select_cases(POOL, max_cases=9) != select_cases(POOL, max_cases=9, seed=71)


def test_hop_and_skip():
    threes = select_cases(POOL, hop=3)
    assert len(threes) == 10 and all(len(POOL[i]["new_single_hops"]) == 3 for i in threes)
    assert select_cases(POOL, hop=3, skip_cases=4, max_cases=3) == threes[4:7]
    with pytest.raises(DatasetError, match=r"--hop 1.*2 hops: 10"):
        select_cases(POOL, hop=1)
    with pytest.raises(DatasetError, match="--skip_cases 30"):
        select_cases(POOL, skip_cases=30)


# ---- grouping --------------------------------------------------------------------------------------
def keys(group):
    return [edit.key[0] for edit in group.edits]


def test_each_case_alone():
    groups = group_by_case(parse_cases(MINI))
    assert [len(g.cases) for g in groups] == [1] * len(MINI)
    assert [len(g.edits) for g in groups] == [len(c["requested_rewrite"]) for c in MINI]


def test_batches_hold_unique_edits_and_the_tail_is_dropped():
    cases = parse_cases([case(i, (f"S{i % 5}", "P1", "N")) for i in range(7)])
    groups = group_in_batches(cases, 2)
    assert [keys(g) for g in groups] == [["S0", "S1"], ["S2", "S3"]]  # S4 alone fills no batch
    assert [[c.case_id for c in g.cases] for g in groups] == [[0, 1, 5, 6], [2, 3]]


def test_a_case_is_kept_whole_where_it_fits():
    cases = parse_cases(
        [case(1, ("A", "P1", "N")), case(2, ("B", "P1", "N"), ("C", "P1", "N")), case(3, ("D", "P1", "N"))]
    )
    groups = group_in_batches(cases, 2)
    assert [keys(g) for g in groups] == [["A", "D"], ["B", "C"]]
    assert [[c.case_id for c in g.cases] for g in groups] == [[1, 3], [2]]


def test_a_batch_is_filled_even_if_a_case_must_be_split():
    cases = parse_cases([case(i, (f"A{i}", "P1", "N"), (f"B{i}", "P1", "N")) for i in range(3)])
    groups = group_in_batches(cases, 3)
    assert [len(g.edits) for g in groups] == [3, 3]
    probed = [c.case_id for g in groups for c in g.cases]
    assert len(probed) == len(set(probed)) == 2  # the split one is in neither


def test_contradicting_edits_never_share_a_batch():
    cases = parse_cases(
        [case(1, ("A", "P1", "N")), case(2, ("A", "P1", "M")), case(3, ("B", "P1", "N")), case(4, ("C", "P1", "N"))]
    )
    for group in group_in_batches(cases, 2):
        assert len({edit.fact for edit in group.edits}) == 2


def test_too_few_edits_for_a_batch():
    with pytest.raises(DatasetError, match=r"--batch_edit 50.*4 unique edits"):
        group_in_batches(parse_cases([case(i, (f"S{i % 4}", "P1", "N")) for i in range(60)]), 50)
    with pytest.raises(DatasetError, match="larger number"):
        group_in_batches(parse_cases([case(1, ("A", "P1", "N"), ("B", "P1", "N"))]), 1)
