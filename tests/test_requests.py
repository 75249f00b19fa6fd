"""Edit requests: every form that is read, and every refusal with the field, the value and the fix in it."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from conftest import REPOSITORY

from causaledit.errors import CausalEditError, RequestError
from causaledit.facts.request_probes import read_probe_groups
from causaledit.facts.requests import EditRequest, QuestionAnswer, request_from_dict, requests_from_data, strip_html
from causaledit.support.files import load_json

EASYEDIT = {
    "prompt": "The capital of Egypt is",
    "target_new": "Alexandria",
    "ground_truth": "Cairo",
    "subject": "Egypt",
    "rephrase_prompt": "Egypt's capital is",
    "locality": {"near": {"prompt": "The capital of Cuba is", "ground_truth": "Havana"}},
    "portability": {},
}
MQUAKE = {
    "prompt": "The capital of {} is",
    "subject": "Egypt",
    "question": "What is the capital of Egypt?",
    "target_new": {"str": "Alexandria", "id": "Q87"},
    "target_true": {"str": "Cairo", "id": "Q85"},
    "article": "Water ran out in <b>Cairo</b>.",
    "rephrase_prompt": [{"question": "Name Egypt's capital.", "answer": "Alexandria"}],
    "learning_prompt": [{"question": "Which sea does Egypt's capital lie on?", "answer": "the Mediterranean"}],
    "locality": [{"question": "What is the capital of Cuba?", "answer": "Havana"}],
}


def without(data, *keys):
    return {key: value for key, value in data.items() if key not in keys}


# ---- what is read ----------------------------------------------------------------------------------
def test_easyedit_request():
    request = request_from_dict(EASYEDIT)
    assert (request.subject, request.prompt) == ("Egypt", "The capital of {} is")
    assert (request.target_new, request.ground_truth) == ("Alexandria", "Cairo")
    assert (request.cloze, request.question, request.narrative) == ("The capital of Egypt is", None, None)
    assert request.rephrase == (QuestionAnswer("Egypt's capital is", "Alexandria"),)
    assert request.locality == (QuestionAnswer("The capital of Cuba is", "Havana"),)


def test_mquake_rewrite():
    request = request_from_dict(MQUAKE)
    assert (request.target_new, request.ground_truth) == ("Alexandria", "Cairo")
    assert request.question == request.question_form == "What is the capital of Egypt?"
    assert request.narrative == "Water ran out in Cairo ."
    assert request.rephrase == (QuestionAnswer("Name Egypt's capital.", "Alexandria"),)
    assert request.learning == (QuestionAnswer("Which sea does Egypt's capital lie on?", "the Mediterranean"),)
    assert request.locality == (QuestionAnswer("What is the capital of Cuba?", "Havana"),)


def test_easyedit_lists_of_probes():
    probes = {
        "near": {"prompt": ["A is", "B is"], "ground_truth": ["a", "b"]},
        "far": {"prompt": "C is", "ground_truth": "c"},
    }
    request = request_from_dict({**EASYEDIT, "locality": probes, "rephrase_prompt": ["one?", "two?"]})
    assert [(p.question, p.answer) for p in request.locality] == [("A is", "a"), ("B is", "b"), ("C is", "c")]
    assert [p.question for p in request.rephrase] == ["one?", "two?"]


def test_an_easyedit_prompt_that_is_a_question():
    request = request_from_dict({**EASYEDIT, "prompt": "What is the capital of Egypt?"})
    assert request.question == "What is the capital of Egypt?"
    assert request.prompt == "What is the capital of {}?"


def test_a_cloze_alone_is_dressed_as_a_question():
    form = request_from_dict(EASYEDIT).question_form
    assert "The capital of Egypt is" in form
    assert form.endswith("?")


def test_the_old_answer_may_be_missing_or_a_list_of_one():
    assert request_from_dict({**EASYEDIT, "ground_truth": None}).ground_truth is None
    assert request_from_dict(without(EASYEDIT, "ground_truth")).ground_truth is None
    assert request_from_dict({**EASYEDIT, "ground_truth": ["Cairo"]}).ground_truth == "Cairo"


@pytest.mark.parametrize("key", ["narrative", "article"])
def test_the_narratives_two_names(key):
    request = request_from_dict({**EASYEDIT, key: "<p>The water ran out.</p>\n<br/>So they moved."})
    assert " ".join(request.narrative.split()) == "The water ran out. So they moved."


def test_html_is_stripped_and_comparisons_are_not():
    assert strip_html("a <i>b</i> c") == "a b c"
    assert strip_html("if 3 < 4 and 5 > 2") == "if 3 < 4 and 5 > 2"


def test_texts_are_trimmed():
    request = request_from_dict({**EASYEDIT, "target_new": " Alexandria ", "subject": "Egypt", "question": "  Where? "})
    assert (request.target_new, request.question) == ("Alexandria", "Where?")


def test_a_ready_request_is_returned_as_it_is():
    request = request_from_dict(EASYEDIT)
    assert request_from_dict(request) is request


def test_inputs_are_left_alone():
    for data in (EASYEDIT, MQUAKE):
        before = copy.deepcopy(data)
        request_from_dict(data)
        assert data == before


def test_whole_cases_rewrites_and_single_objects():
    case = {"case_id": 1, "requested_rewrite": [MQUAKE, {**MQUAKE, "subject": "Cuba", "question": "Which?"}]}
    assert [r.subject for r in requests_from_data([case, EASYEDIT])] == ["Egypt", "Cuba", "Egypt"]
    assert len(requests_from_data(EASYEDIT)) == 1
    assert len(requests_from_data(case)) == 2


def test_the_bundled_cases_are_read():
    cases = load_json(REPOSITORY / "data" / "causaledit-mini.json", "data")
    requests = requests_from_data(cases)
    assert len(requests) == sum(len(case["requested_rewrite"]) for case in cases)
    assert all(r.narrative and r.question and r.ground_truth for r in requests)


def test_to_dict_is_plain_data():
    data = request_from_dict(MQUAKE).to_dict()
    assert json.loads(json.dumps(data))["target_new"] == "Alexandria"


# ---- texts are normalised once, on the way in ------------------------------------------------------
VARIANTS = {
    "spaces around": {
        "prompt": " The capital of Egypt is  ", "subject": " Egypt ", "target_new": " Alexandria",
        "ground_truth": "Cairo ",
        "rephrase_prompt": " Egypt's capital is ",
        "locality": {"near": {"prompt": "The capital of Cuba is ", "ground_truth": " Havana "}},
    },
    "runs within": {"prompt": "The  capital of\tEgypt is", "target_new": "Alexandria\n"},
    "no-break and zero-width spaces": {"prompt": "The capital\u00a0of\u202fEgypt is", "subject": "\ufeffEgypt\u200b"},
    "lists": {"target_new": ["Alexandria"], "ground_truth": [["Cairo"]], "subject": "Egypt"},
    "a template": {"prompt": "The capital of {} is "},
    "a template with the space in the subject": {"prompt": "The capital of{}is", "subject": " Egypt "},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_every_spelling_of_a_request_is_the_same_edit(name):
    given = {**EASYEDIT, **VARIANTS[name]}
    before = copy.deepcopy(given)
    assert request_from_dict(given) == request_from_dict(EASYEDIT)
    assert given == before


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("The capital of Co\u0302te d'Ivoire is", "C\u00f4te d'Ivoire"),
        ("The capital of C\u00f4te d'Ivoire is", "Co\u0302te d'Ivoire"),
        ("The capital of Côte d’Ivoire is", "Côte d'Ivoire"),
        ("The capital of Côte d'Ivoire is", "Côte d’Ivoire"),
        ("The mayor of New\u00a0York is", "New York"),
        ("The mayor of New York is", "New\u00a0York"),
        ("The mayor of New York is", "New\nYork"),
        ("The mayor of New\u2009York is", "New\u2009York"),
        ("The capital of Guinea–Bissau is", "Guinea-Bissau"),
    ],
)
def test_a_subject_is_found_whatever_its_typography(prompt, subject):
    import unicodedata

    request = request_from_dict({"prompt": prompt, "subject": subject, "target_new": "Alexandria"})
    assert request.prompt.count("{}") == 1
    assert request.cloze == unicodedata.normalize("NFC", prompt).replace("\u00a0", " ")  # the prompt that was given


def test_a_subject_is_a_word_of_its_own_where_there_is_one():
    request = request_from_dict({"prompt": "The status of us is", "subject": "us", "target_new": "good"})
    assert request.prompt == "The status of {} is"
    assert (
        request_from_dict({"prompt": "西游记的作者是", "subject": "西游记", "target_new": "小明"}).prompt
        == "{}的作者是"
    )


def test_line_breaks_stay_and_requests_by_hand_are_normalised_too():
    prompt = "Q: Where is {}?\n    think\nA:\n"
    request = EditRequest(" Egypt", prompt, "Alexandria ", question="Where  is Egypt?")
    assert (request.subject, request.prompt) == ("Egypt", "Q: Where is {}?\n    think\nA:")
    assert (request.target_new, request.question) == ("Alexandria", "Where is Egypt?")


# ---- answers with aliases, and the shapes of probes ------------------------------------------------
@pytest.mark.parametrize(
    "answer",
    [["Denver", "Denver, CO"], [["Denver", "Denver, CO"]], [[["Denver", " Denver, CO "]]], ("Denver", "", "Denver, CO"),
     [{"str": "Denver"}, "Denver, CO"]],
)  # fmt: skip
def test_lists_are_an_answer_and_its_aliases(answer):
    request = request_from_dict({**EASYEDIT, "target_new": answer, "ground_truth": [["Chicago", "Chi-Town"]]})
    assert (request.target_new, request.target_aliases) == ("Denver", ("Denver, CO",))
    assert (request.ground_truth, request.ground_truth_aliases) == ("Chicago", ("Chi-Town",))


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"prompt": "A is", "ground_truth": "a"}, [("A is", ("a",))]),
        ({"prompt": "A is", "ground_truth": ["a", "b"]}, [("A is", ("a", "b"))]),
        ({"prompt": "A is", "ground_truth": [[["a", "b"]]]}, [("A is", ("a", "b"))]),
        ({"prompt": ["A is"], "ground_truth": [["a", "b"]]}, [("A is", ("a", "b"))]),
        ({"prompt": ["A is"], "ground_truth": "a"}, [("A is", ("a",))]),
        ({"prompt": ["A is", "B is"], "ground_truth": ["a", "b"]}, [("A is", ("a",)), ("B is", ("b",))]),
        ({"prompt": ["A is", "B is"], "ground_truth": [["a", "x"], "b"]}, [("A is", ("a", "x")), ("B is", ("b",))]),
        ({"prompt": ["A is", "B is"], "ground_truth": [[["a"], ["b"]]]}, [("A is", ("a",)), ("B is", ("b",))]),
        ([{"prompt": "A is", "ground_truth": [["a", "x"]]}, {"prompt": "B is", "ground_truth": "b"}],
         [("A is", ("a", "x")), ("B is", ("b",))]),
        ({"prompt": None, "ground_truth": None}, []),
        ({"prompt": [], "ground_truth": []}, []),
        (None, []),
    ],
)  # fmt: skip
def test_the_shapes_of_locality_and_portability(probe, expected):
    read = read_probe_groups({"key": probe}, "portability")
    assert [(p.question, p.answers) for p in read["key"]] == expected
    request = request_from_dict({**EASYEDIT, "locality": {"key": probe}})
    assert [(p.question, p.answers) for p in request.locality] == expected


# ---- without a subject -----------------------------------------------------------------------------
@pytest.mark.parametrize("subject", [..., None, "", "  "])
def test_a_method_that_needs_no_subject_takes_the_plain_prompt(subject):
    data = {"prompt": "The capital of Egypt is ", "target_new": "Alexandria", "subject": subject}
    data = {key: value for key, value in data.items() if value is not ...}
    request = request_from_dict(data, needs_subject=False)
    assert (request.subject, request.prompt, request.cloze) == (
        "",
        "The capital of Egypt is",
        "The capital of Egypt is",
    )
    for needed in (data, request):
        with pytest.raises(RequestError, match="subject"):
            request_from_dict(needed)
    with pytest.raises(RequestError, match=r"Request 2: .*subject"):
        requests_from_data([EASYEDIT, data])
    with pytest.raises(RequestError, match=r"holds `\{\}`"):
        request_from_dict({**data, "prompt": "The capital of {} is"}, needs_subject=False)
    with pytest.raises(RequestError, match="subject"):
        request_from_dict({**data, "subject": 3}, needs_subject=False)


# ---- what is refused: (change to a good request, words the message must hold) ----------------------
REFUSED = [
    ({"target_new": ...}, ["target_new", "missing"]),
    ({"target_new": ""}, ["target_new", "non-empty"]),
    ({"target_new": "   "}, ["target_new", "non-empty"]),
    ({"target_new": 7}, ["target_new", "7"]),
    ({"target_new": ["a", 7]}, ["target_new", "7", "text"]),
    ({"target_new": [[], [""]]}, ["target_new", "non-empty"]),
    ({"target_new": {"id": "Q1"}}, ["target_new", "non-empty"]),
    ({"subject": ...}, ["subject", "missing", "None"]),
    ({"subject": " "}, ["subject", "' '"]),
    ({"subject": 3}, ["subject", "3"]),
    ({"subject": "France"}, ["prompt", "The capital of Egypt is", "'France'", "{}"]),
    ({"prompt": ...}, ["prompt", "None"]),
    ({"prompt": ""}, ["prompt", "non-empty"]),
    ({"prompt": "{} and {}"}, ["prompt", "exactly one", "{} and {}"]),
    ({"ground_truth": "alexandria "}, ["target_new", "equals the old answer", "Alexandria", "another new answer"]),
    ({"ground_truth": 5}, ["ground_truth", "5"]),
    ({"narrative": ["a", "b"]}, ["narrative", "list"]),
    ({"rephrase_prompt": [3]}, ["rephrase_prompt", "3", "question"]),
    ({"rephrase_prompt": [{"text": "x"}]}, ["rephrase_prompt", "text", "question"]),
    ({"locality": [{"answer": "x"}]}, ["locality", "question"]),
    ({"locality": {"near": "The sky is"}}, ["locality", "near", "The sky is"]),
    ({"locality": {"near": {"prompt": ["A is", "B is"], "ground_truth": ["a"]}}}, ["locality", "near"]),
    (
        {"locality": {"near": {"prompt": ["A is"], "ground_truth": ["a", "b"]}}},
        ["locality['near']", "1 prompts", "2 answers"],
    ),
    ({"locality": {"near": {"prompt": ["A is", "B is"], "ground_truth": "a"}}}, ["locality['near']", "list of 2"]),
    (
        {"locality": {"near": {"prompt": ["A is", "B is"], "ground_truth": ["a", None]}}},
        ["['ground_truth'][1]", "None"],
    ),
    ({"locality": {"near": {"prompt": "A is", "ground_truth": None}}}, ["['ground_truth']", "None", "A is"]),
    ({"locality": {"near": {"prompt": "A is", "ground_truth": 7}}}, ["['ground_truth']", "7", 'as "7"']),
    ({"locality": {"near": {"prompt": ["A is", 3], "ground_truth": ["a", "b"]}}}, ["['prompt'][1]", "3"]),
    ({"locality": {"near": {"prompt": 3, "ground_truth": "b"}}}, ["locality['near']['prompt']", "3"]),
    ({"locality": {"near": {"prompt": "A is"}}}, ["locality['near']", "lacks `ground_truth`"]),
    (
        {"locality": {"near": [{"prompt": "A is", "ground_truth": "a"}, {"prompt": "B is"}]}},
        ["['near'][1]", "ground_truth"],
    ),
    ({"subject": "EGYPT"}, ["'EGYPT'", "differs only in upper and lower case"]),
    ({"subject": "Égypt"}, ["'Égypt'", "differs only in accents"]),
    ({"subject": "E-gypt"}, ["'E-gypt'", "differs only in spaces and punctuation"]),
    ({"subject": "Ｅgypt"}, ["differs only in the form of its letters"]),
]


@pytest.mark.parametrize(
    ("change", "words"), REFUSED, ids=[json.dumps(c, default=lambda _: "missing") for c, _ in REFUSED]
)
def test_refused(change, words):
    data = {**EASYEDIT, **change}
    data = {key: value for key, value in data.items() if value is not ...}
    with pytest.raises(RequestError) as caught:
        request_from_dict(data)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["empty"]),
        (5, ["list", "int"]),
        ("a text", ["list", "str"]),
        (None, ["list", "NoneType"]),
        ([EASYEDIT, "a text"], ["Request 2", "object", "str"]),
        ([EASYEDIT, EASYEDIT, without(EASYEDIT, "subject")], ["Request 3", "subject"]),
        ([{"requested_rewrite": [MQUAKE, {}]}], ["Request 2 (edit 2 of case 1)", "target_new"]),
        ([{"requested_rewrite": None}], ["requested_rewrite", "None"]),
    ],
    ids=["empty", "number", "text", "none", "not an object", "third of three", "inside a case", "case without edits"],
)
def test_refused_lists_count_from_one(data, words):
    with pytest.raises(RequestError) as caught:
        requests_from_data(data)
    for word in words:
        assert word in str(caught.value)


def test_a_request_built_by_hand_is_checked_too():
    good = EditRequest("Egypt", "The capital of {} is", "Alexandria")
    for change, word in (
        ({"prompt": "no place for the subject"}, "prompt"),
        ({"question": " "}, "question"),
        ({"narrative": 3}, "narrative"),
        ({"ground_truth": "ALEXANDRIA"}, "target_new"),
    ):
        with pytest.raises(RequestError, match=word):
            dataclasses.replace(good, **change)


def test_errors_are_ours_and_end_the_command_line_with_2():
    with pytest.raises(CausalEditError) as caught:
        requests_from_data([])
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_code == 2


# ---- files -----------------------------------------------------------------------------------------
def test_unusable_files_are_named(tmp_path):
    missing, broken, binary = tmp_path / "no.json", tmp_path / "broken.json", tmp_path / "binary.json"
    broken.write_text("{", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\x00[")
    for path, word in (
        (missing, "does not exist"),
        (broken, "not valid JSON"),
        (binary, "not valid JSON"),
        (tmp_path, "read"),
    ):
        with pytest.raises(RequestError) as caught:
            load_json(path, "`--requests`")
        assert "`--requests`" in str(caught.value)
        assert str(path) in str(caught.value)
        assert word in str(caught.value)


def test_a_narrative_that_is_broken_at_a_width_has_its_sentences_back():
    broken = (
        "Heading\nThe leases of the tower ran out in the same spring in which the new\n"
        "Test range on the plains opened. Engineers had asked for\nyears to sit beside it.\n\n"
        "The board moved.\n- a list\n- of two"
    )
    whole = (
        "Heading\nThe leases of the tower ran out in the same spring in which the new Test range on the plains opened. "
        "Engineers had asked for years to sit beside it.\n\nThe board moved.\n- a list\n- of two"
    )
    request = EditRequest(subject="Boeing", prompt="{} is in", target_new="Denver", narrative=broken)
    assert request.narrative == whole
    assert dataclasses.replace(request, narrative=whole).narrative == whole
