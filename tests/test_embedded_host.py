"""The embedded host: what it is given is read whole before anything is done, and its arguments are EasyEdit's."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import logging
import os
from pathlib import Path

import pytest
import torch
from conftest import EGYPT, FAST, NORWAY, edit, fast_hparams, make_llama, make_tokenizer, same_weights, weights_of

from causaledit.errors import HostError, RequestError, SaveError
from causaledit.facts.requests import EditRequest, request_from_dict
from causaledit.hosts.embedded import EmbeddedEditor
from causaledit.hosts.generated_answers import exact_match, first_phrase, ngram_entropy
from causaledit.hosts.measuring import Measurement
from causaledit.methods.in_turn import edit_all
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.models.edited import WeightsEdit

PERU = edit("Peru", "The capital of {} is", "What is the capital of Peru?", "Lima", "Cusco")


def editor_of(method="FT", model=None, **changes):
    method = METHODS[method]
    pair = (model or make_llama(), make_tokenizer())
    return EmbeddedEditor.from_hparams(method.load_hparams()(model_name=pair, **{**FAST[method.name], **changes}))


def numbers(metrics):
    """Everything measured, without the requests and the times."""
    return [(item["pre"], item["post"]) for item in metrics]


def untouched(editor, call, error, *words):
    """A call is refused with these words, before the model was run."""
    weights = weights_of(editor.model)

    def computed(*args):
        raise AssertionError("the model was run before the input was refused")

    handle = editor.model.register_forward_pre_hook(computed)
    with pytest.raises(error) as caught:
        call(editor)
    handle.remove()
    for word in words:
        assert word in str(caught.value)
    assert same_weights(weights_of(editor.model), weights)


# ---- texts -----------------------------------------------------------------------------------------
SPELLINGS = {
    "answer with a space before": {"target_new": " Alexandria", "ground_truth": " Cairo"},
    "answer with a space behind": {"target_new": "Alexandria "},
    "prompt that ends in a space": {"prompt": "The capital of Egypt is "},
    "template that ends in a space": {"prompt": "The capital of {} is "},
    "subject with spaces": {"subject": " Egypt "},
    "no-break space": {"prompt": "The capital\u00a0of Egypt is"},
    "nested answer": {"target_new": [[["Alexandria"]]]},
    "probes with spaces": {
        "rephrase_prompt": " Today, the capital of Egypt is ",
        "locality": {"neighbour": {"prompt": "The longest river of Egypt is ", "ground_truth": " the Nile"}},
        "portability": {"hop": {"prompt": ["People who govern Egypt work in "], "ground_truth": [[" Alexandria"]]}},
    },
}


@pytest.mark.parametrize(("method", "chat"), [("ROME", False), ("FT", True), ("IKE", False)])
def test_every_spelling_gives_the_same_numbers_and_the_same_weights(method, chat):
    expected = editor_of(method, use_chat_template=chat)
    metrics, _, _ = expected.edit_requests([EGYPT], sequential_edit=True)
    for spelling, changes in SPELLINGS.items():
        given = {**copy.deepcopy(EGYPT), **copy.deepcopy(changes)}
        before = copy.deepcopy(given)
        editor = editor_of(method, use_chat_template=chat)
        found, _, _ = editor.edit_requests([given], sequential_edit=True)
        assert numbers(found) == numbers(metrics), spelling
        assert same_weights(weights_of(editor.model), weights_of(expected.model)), spelling
        assert given == before == found[0]["requested_rewrite"]


def test_a_model_that_says_the_answer_has_all_right_in_every_probe_and_by_any_alias():
    model, tokenizer = make_llama(tie_word_embeddings=False), make_tokenizer()
    texts = [
        "The capital of Egypt is Alexandria",
        "Today, the capital of Egypt is Alexandria",
        "Its seat is Alexandria",
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    for _ in range(80):
        optimizer.zero_grad()
        sum(model(input_ids=row, labels=row).loss for row in rows).backward()
        optimizer.step()
    request = {
        "prompt": "The capital of Egypt is ",
        "subject": "Egypt",
        "target_new": [[" Alexandria", "Al-Iskandariyya"]],
        "rephrase_prompt": ["Today, the capital of Egypt is "],
        "portability": {"seat": {"prompt": "Its seat is", "ground_truth": [[["Iskandariyya", "Alexandria "]]]}},
        "locality": {"same": {"prompt": ["Its seat is"], "ground_truth": [["Cairo", "Alexandria"]]}},
    }
    editor = editor_of("IKE", model)
    metrics, _, _ = editor.edit_requests([request])
    pre = metrics[0]["pre"]
    assert pre["rewrite_acc"] == pre["rephrase_acc"] == pre["portability"]["seat_acc"] == [1.0]
    assert len(metrics[0]["post"]["locality"]["same_acc"]) == 1


# ---- everything is read first ----------------------------------------------------------------------
BAD = {
    "no subject": ({"subject": None}, ["subject"]),
    "no target": ({"target_new": ""}, ["target_new"]),
    "a number as target": ({"target_new": 7}, ["target_new", "7"]),
    "nothing to edit": ({"target_new": " oslo"}, ["equals the old answer"]),
    "subject elsewhere": ({"subject": "Sweden"}, ["'Sweden'"]),
    "subject twice": ({"prompt": "Norway, the Norway of fjords, has the capital"}, ["2 times"]),
    "locality of another shape": ({"locality": {"near": "The Nile"}}, ["locality['near']"]),
    "portability without answers": ({"portability": {"hop": {"prompt": "x"}}}, ["portability['hop']", "ground_truth"]),
    "more answers than prompts": (
        {"portability": {"hop": {"prompt": ["x"], "ground_truth": ["a", "b"]}}}, ["portability['hop']", "2 answers"]),
    "a number as answer": ({"locality": {"near": {"prompt": "x", "ground_truth": 7}}}, ["locality['near']", "7"]),
    "portability no object": ({"portability": ["x"]}, ["portability"]),
    "a paraphrase that is none": ({"rephrase_prompt": [7]}, ["rephrase_prompt[0]", "7"]),
    "a probe beyond the window": (
        {"locality": {"near": {"prompt": "Oslo " * 5000, "ground_truth": "x"}}},
        ["locality['near']", "window", "4096"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("sequential", [False, True])
def test_the_third_of_three_requests_is_bad(fault, sequential):
    changes, words = BAD[fault]
    requests = [EGYPT, NORWAY, {**NORWAY, **changes}]
    for call in ("edit_requests", "generate_edit"):
        untouched(
            editor_of("ROME"),
            lambda editor, call=call: getattr(editor, call)(requests=requests, sequential_edit=sequential),
            RequestError, "Request 3", *words,
        )  # fmt: skip


def test_doubles_in_a_later_batch_are_named_by_their_place():
    editor = editor_of("MEMIT", batch_size=2)
    cuba = {"prompt": "The capital of Cuba is", "subject": "Cuba", "target_new": "Trinidad"}
    again = {**cuba, "target_new": "Holguín"}
    untouched(
        editor, lambda e: e.batch_edit(requests=[EGYPT, NORWAY, cuba, again]), RequestError, "3 and 4", "same fact"
    )


def columns(**changes):
    return {
        "prompts": [EGYPT["prompt"], NORWAY["prompt"]],
        "target_new": ["Alexandria", "Bergen"],
        "subject": ["Egypt", "Norway"],
        **changes,
    }


@pytest.mark.parametrize("group", ["locality", "portability"])
@pytest.mark.parametrize(
    ("probe", "asked"),
    [
        ({"prompt": ["A is", None], "ground_truth": ["a", None]}, [1, 0]),
        ({"prompt": [[], ["A is", "B is"]], "ground_truth": [[], ["a", "b"]]}, [0, 2]),
        ({"prompt": ["A is", ["B is"]], "ground_truth": ["a", [[["b", "c"]]]]}, [1, 1]),
        ({"prompt": None, "ground_truth": None}, [0, 0]),
        ({"prompt": ("A is", "B is"), "ground_truth": (("a", "x"), "b")}, [1, 1]),
    ],
)
def test_shapes_of_probes_that_work(group, probe, asked):
    given = {"key": copy.deepcopy(probe)}
    metrics, _, _ = editor_of("IKE").edit(**columns(**{f"{group}_inputs": given}))
    assert given == {"key": probe}
    assert [len(item["post"][group].get("key_acc", [])) for item in metrics] == asked


@pytest.mark.parametrize("group", ["locality", "portability"])
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"key": {"prompt": ["A is"], "ground_truth": ["a"]}}, ["['key']", "1 prompts", "2 edits"]),
        ({"key": {"prompt": "A is", "ground_truth": "a"}}, ["['key']", "1 prompts"]),
        ({"key": {"prompt": ["A is", "B is"], "ground_truth": ["a"]}}, ["['key']", "2 prompts", "1 answers"]),
        ({"key": {"prompt": ["A is", "B is"], "ground_truth": "a"}}, ["['key']['ground_truth']", "list"]),
        ({"key": {"prompt": ["A is", "B is"], "ground_truth": None}}, ["['key']['ground_truth']", "None"]),
        ({"key": {"prompt": ["A is", "B is"], "ground_truth": ["a", None]}}, ["Request 2", "['key']", "None"]),
        ({"key": {"prompt": ["A is", "B is"], "ground_truth": ["a", 7]}}, ["Request 2", "['key']", "7"]),
        ({"key": {"prompt": ["A is", 7], "ground_truth": ["a", "b"]}}, ["Request 2", "['key']['prompt']", "7"]),
        ({"key": {"prompt": ["A is", ["B", "C"]], "ground_truth": ["a", "b"]}}, ["Request 2", "['key']", "2 prompts"]),
        ({"key": {"prompt": ["A is", ["B"]], "ground_truth": ["a", ["b", "c"]]}}, ["Request 2", "2 answers"]),
        ({"key": {"prompt": ["A is", "B is"]}}, ["['key']", "lacks `ground_truth`"]),
        ({"key": ["A is", "B is"]}, ["['key']", "object"]),
        (["A is"], ["_inputs", "key"]),
        ("A is", ["_inputs", "key"]),
    ],
)
def test_shapes_of_probes_that_are_refused(group, inputs, words):
    untouched(editor_of(), lambda editor: editor.edit(**columns(**{f"{group}_inputs": inputs})), RequestError, *words)


def test_texts_for_one_edit_may_come_with_lists_for_it():
    metrics, _, _ = editor_of("IKE").edit(
        EGYPT["prompt"], ["Alexandria", "Al-Iskandariyya"], ground_truth="Cairo", subject="Egypt",
        rephrase_prompts=["Egypt's capital is", "Egypt is governed from"], question="What is the capital of Egypt?",
    )  # fmt: skip
    assert len(metrics) == 1
    assert len(metrics[0]["post"]["rephrase_acc"]) == 2
    assert metrics[0]["requested_rewrite"]["question"] == "What is the capital of Egypt?"


def test_ready_requests_and_whole_cases_are_edited():
    ready = request_from_dict(EGYPT)
    case = {"case_id": 7, "requested_rewrite": [NORWAY]}
    metrics, _, _ = editor_of("IKE").edit_requests([ready, case])
    assert isinstance(metrics[0]["requested_rewrite"], EditRequest)
    assert metrics[0]["pre"]["rewrite_acc"] == editor_of("IKE").edit_requests([EGYPT])[0][0]["pre"]["rewrite_acc"]
    assert metrics[1]["requested_rewrite"] == NORWAY


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_subject_is_needed_where_the_method_says_so(method):
    plain = {"prompt": "The capital of Egypt is", "target_new": "Alexandria", "ground_truth": "Cairo"}
    editor = editor_of(method.name)
    if method.needs_subject:
        untouched(editor, lambda e: e.edit_requests([plain]), RequestError, "Request 1", "subject")
        return
    with_subject = editor_of(method.name)
    metrics, edited, _ = editor.edit(**{"prompts": plain["prompt"], "target_new": "Alexandria"}, sequential_edit=True)
    expected, other, _ = with_subject.edit_requests([{**plain, "subject": "Egypt"}], sequential_edit=True)
    assert numbers(metrics) == numbers(expected)
    if method.name != "ICE":  # one of its contexts names the subject
        assert same_weights(weights_of(edited), weights_of(other))


# ---- EasyEdit's arguments --------------------------------------------------------------------------
def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "causaledit.hosts" in r.name]


@pytest.mark.parametrize("call", ["edit", "batch_edit", "edit_requests", "generate_edit"])
def test_unknown_arguments_give_one_warning_with_the_nearest_name(call, caplog):
    editor = editor_of("IKE")
    getattr(editor, call)(requests=[EGYPT], locality_input={}, subjcet="Egypt", nothing_like_it=1)
    said = [text for text in warnings(caplog) if "does not have" in text]
    assert len(said) == 1
    assert "`locality_input`. Did you mean 'locality_inputs'?" in said[0]
    assert "`subjcet`. Did you mean 'subject'?" in said[0]
    assert "`nothing_like_it`" in said[0]
    assert said[0].count("Did you mean") == 2


def test_the_constructors_arguments(caplog):
    hparams = fast_hparams(make_llama(), make_tokenizer())
    EmbeddedEditor.from_hparams(hparams, devise="cpu")
    assert ["devise" in text for text in warnings(caplog)] == [True]
    with pytest.raises(HostError, match=r"hparams.*Did you mean 'hparams'"):
        EmbeddedEditor(hparam=hparams)


def test_arguments_without_effect_say_so_once(caplog):
    editor = editor_of("IKE")
    for _ in range(2):
        editor.edit_requests([EGYPT], keep_original_weight=True, metric_kwargs=[{}])
    assert sum("keep_original_weight" in text and "sequential_edit" in text for text in warnings(caplog)) == 1
    assert sum("metric_kwargs" in text for text in warnings(caplog)) == 1


def test_of_kept_edits_that_contradict_each_other_the_later_one_wins_and_is_said_once(caplog):
    again = {**EGYPT, "target_new": "Luxor"}

    def said():
        return [r.getMessage() for r in caplog.records if "contradict" in r.getMessage()]

    editor = editor_of(steps=25)
    editor.edit_requests([EGYPT, NORWAY], sequential_edit=True)
    assert not said()
    metrics, _, _ = editor.edit_requests([again], sequential_edit=True)
    [text] = said()
    assert "The capital of Egypt is: Alexandria, then Luxor" in text and "the later one wins" in text
    editor.edit_requests([again], sequential_edit=True)  # the same again is no contradiction
    assert len(said()) == 1
    assert metrics[0]["post"]["rewrite_acc"][0] > 0.9 > editor_of(model=editor.model).edit_requests(
        [EGYPT])[0][0]["pre"]["rewrite_acc"][0]  # fmt: skip
    caplog.clear()
    both = editor_of("MEMIT", batch_size=2)
    both.batch_edit(requests=[EGYPT, NORWAY, again], sequential_edit=True)  # in batches, one after the other
    assert len(said()) == 1
    caplog.clear()
    editor_of().edit_requests([EGYPT, again])  # each alone, on the unedited model
    assert not said()


def test_that_the_unedited_model_comes_back_is_said_once(caplog):
    editor = editor_of()
    for _ in range(2):
        _, edited, _ = editor.edit_requests([EGYPT])
        assert edited is editor.model
    assert sum("sequential_edit=True" in text for text in warnings(caplog)) == 1
    caplog.clear()
    editor_of().edit_requests([EGYPT], sequential_edit=True)
    editor_of("LoRA", merge_adapter=False).edit_requests([EGYPT])  # what it gives back carries its adapter
    editor_of("IKE").edit_requests([EGYPT])  # and this its context
    assert not warnings(caplog)


def test_metrics_before_the_edits_are_those_of_the_model_as_it_was_and_can_be_kept(tmp_path):
    file = tmp_path / "pre.json"
    editor = editor_of(steps=25)
    metrics, _, _ = editor.edit_requests([EGYPT, NORWAY], sequential_edit=True, pre_file=file)
    kept = json.loads(file.read_text())
    alone, _, _ = editor_of().edit_requests([NORWAY])
    assert metrics[1]["pre"] == alone[0]["pre"]  # not of the model that has Egypt's edit
    assert kept[1]["pre"]["rewrite_acc"] == alone[0]["pre"]["rewrite_acc"]
    again, _, _ = editor_of(steps=25).edit_requests([EGYPT, NORWAY], sequential_edit=True, pre_edit=copy.deepcopy(kept))
    assert numbers(again) == numbers(metrics)
    for wrong in (kept[:1], {"pre": {}}, [{"post": {}}] * 2):
        untouched(
            editor_of(), lambda e, w=wrong: e.edit_requests([EGYPT, NORWAY], pre_edit=w), RequestError, "pre_edit"
        )
    (tmp_path / "file").write_text("")
    bad = tmp_path / "file" / "pre.json"
    untouched(editor_of(), lambda e: e.edit_requests([EGYPT], pre_file=str(bad)), SaveError, "pre_file")


def test_perplexity_instead_of_accuracy():
    metrics, _, _ = editor_of(steps=25).edit_requests([EGYPT], eval_metric="ppl")
    pre, post = metrics[0]["pre"], metrics[0]["post"]
    assert pre["rewrite_ppl"] > post["rewrite_ppl"] > 1
    assert "rewrite_acc" not in pre
    assert "rephrase_ppl" in pre
    assert len(post["locality"]["neighbour_acc"]) == 1  # as in EasyEdit, the rest is as ever
    for name in ("token_em", "exact match", None):
        same, _, _ = editor_of("IKE").edit_requests([EGYPT], eval_metric=name)
        assert "rewrite_acc" in same[0]["pre"]
    untouched(editor_of(), lambda e: e.edit_requests([EGYPT], eval_metric="ood_ppl"), HostError, "ood_ppl", "token_em")


@pytest.mark.parametrize("given_in", ["the call", "the hyper-parameters"])
def test_free_generation(given_in):
    for evaluation, scored in (("generate-text", False), ("LLM-judge", True)):
        editor, arguments = editor_of("FT", steps=25), {}
        if given_in == "the call":
            arguments["evaluation_type"] = evaluation
        else:
            editor.hparams.evaluation_type = evaluation
        metrics, _, _ = editor.edit_requests([EGYPT], **arguments)
        for phase in ("pre", "post"):
            measured = metrics[0][phase]
            assert isinstance(measured["rewrite_gen_content"][0], str)
            assert isinstance(measured["portability"]["hop_gen_content"][0], str)
            assert ("rewrite_acc" in measured) is ("hop_acc" in measured["portability"]) is scored
            assert len(measured["locality"]["neighbour_gen_content"]) == 1
        pre, post = (metrics[0][phase]["locality"]["neighbour_gen_content"] for phase in ("pre", "post"))
        assert metrics[0]["post"]["locality"]["neighbour_acc"] == [float(pre == post)]
    untouched(editor_of(), lambda e: e.edit_requests([EGYPT], evaluation_type="x"), HostError, "'x'", "generate-text")


def test_phrases_and_matches():
    assert first_phrase("  Denver. It moved.") == first_phrase("Denver\nIt moved") == "Denver"
    assert exact_match("the Denver!", ("Denver",)) == 1.0
    assert exact_match("Denver, Colorado", ("Denver",)) == 0.0
    assert exact_match("Mile-High City", ("Denver", "mile high city")) == 0.0
    assert exact_match("A mile high city", ("Denver", "mile high city")) == 1.0


def test_fluency_on_request():
    metrics, _, _ = editor_of("IKE").edit_requests([EGYPT], test_generation=True)
    first = metrics[0]["post"]["fluency"]["ngram_entropy"]
    assert first > 0
    again, _, _ = editor_of("IKE").edit_requests([EGYPT], test_generation=True)
    assert again[0]["post"]["fluency"]["ngram_entropy"] == first  # drawn with a seed
    assert ngram_entropy("no no no no no no") == 0.0
    # four bigrams and three trigrams, each once
    assert ngram_entropy("a b c d e") == pytest.approx((2 / 3 * 2 + 4 / 3 * 1.584962500721156) / 2)


def test_whole_answers():
    metrics, _, _ = editor_of("FT", steps=25).generate_edit(
        EGYPT["prompt"], "Alexandria", "Cairo", subject="Egypt", rephrase_prompts="Egypt's capital is",
        portability_inputs={"por_hop": {"prompt": [["A is", "B is"]], "ground_truth": [["a", "b"]]}},
        locality_inputs={"loc_hop": {"prompt": ["C is"], "ground_truth": ["c"]}},
    )  # fmt: skip
    for phase in ("pre", "post"):
        assert isinstance(metrics[0][phase]["rewrite_ans"], str)
        lengths = {k: len(v) for k, v in metrics[0][phase].items() if k != "rewrite_ans"}
        assert lengths == {"rephrase_ans": 1, "portability_ans": 2, "locality_ans": 1}


def test_editing_without_measuring():
    editor = editor_of("FT", batch_size=1)
    weights = weights_of(editor.model)
    prompts, targets = [EGYPT["prompt"], NORWAY["prompt"]], ["Alexandria", "Bergen"]
    metrics, _, originals = editor.normal_edit(prompts, targets)
    assert metrics is None
    assert originals
    assert same_weights(weights_of(editor.model), weights)
    _, edited, _ = editor.normal_edit(prompts, targets, sequential_edit=True)
    both = editor_of("FT", batch_size=2)
    both.batch_edit(prompts, targets, sequential_edit=True)
    assert same_weights(weights_of(edited), weights_of(both.model))


# what a sequence's later edits read of its earlier ones: AlphaEdit's keys, rows to rehearse and taken directions
REMEMBERING = {
    "AlphaEdit": {"v_num_grad_steps": 2},
    "LoRA": {
        "steps": 4, "lora_dropout": 0.0, "lora_rank": 2, "orthogonal_edits": True, "rehearse_edits": 8,
        "preserve_weight": 0.5, "preserve_prompts": 4, "preserve_max_new_tokens": 3,
    },
}  # fmt: skip


@pytest.mark.parametrize("earlier", [[], [PERU]], ids=["the first edit", "a later edit"])
@pytest.mark.parametrize("method", REMEMBERING)
def test_a_sequence_forgets_an_edit_that_ctrl_c_undid(method, earlier, monkeypatch):
    """After Ctrl-C in measuring, the next edit is the one that it would have been without the undone one."""
    editor, other = (editor_of(method, **REMEMBERING[method]) for _ in range(2))
    for known in (editor, other):
        known.edit_requests(earlier or [EGYPT], sequential_edit=bool(earlier), verbose=False)
    weights = weights_of(editor.model)
    real, calls = Measurement.__call__, []

    def interrupted(self, model, request):
        calls.append(request)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, model, request)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Measurement, "__call__", interrupted)
        editor.edit_requests([EGYPT], sequential_edit=True, verbose=False)
    assert same_weights(weights_of(editor.model), weights)
    for known in (editor, other):
        known.edit_requests([NORWAY], sequential_edit=True, verbose=False)
    assert same_weights(weights_of(editor.model), weights_of(other.model))


@pytest.mark.parametrize("method", REMEMBERING)
def test_a_sequence_forgets_edits_in_turn_of_which_one_failed(method):
    """The first of two edits was made and remembered; the second is refused, and both are undone."""
    one_by_one = dataclasses.replace(METHODS[method], batched=False)
    found = []
    for failing in (True, False):
        model, sequence = make_llama(), EditSequence()
        hparams = one_by_one.load_hparams()(**{**FAST[method], **REMEMBERING[method]})
        make = functools.partial(edit_all, one_by_one, model, make_tokenizer(), hparams=hparams, sequence=sequence)
        make([PERU]).keep()
        weights = weights_of(model)
        if failing:
            with pytest.raises(RequestError):
                make([EGYPT, {"prompt": "Nothing is known"}])
        assert same_weights(weights_of(model), weights)
        make([NORWAY]).keep()
        found.append(weights_of(model))
    assert same_weights(*found)


REACHED = []


def notes_its_call(model, tokenizer, edits, hparams, call):
    """A method that changes nothing and notes what it was called with."""
    REACHED.append(call.extra)
    return WeightsEdit(model, {})


def test_a_training_set_reaches_the_method():
    editor = editor_of("FT")
    editor.method = dataclasses.replace(editor.method, edit=f"{__name__}:notes_its_call")
    editor.edit_requests([EGYPT], train_ds=[NORWAY])
    assert REACHED == [{"train_ds": [NORWAY]}]


# ---- a model's name --------------------------------------------------------------------------------
def test_a_path_names_a_model(tiny_model_folder, tmp_path):
    from causaledit.methods.method import MethodReport
    from causaledit.models.saving import save_result

    for merged in (True, False):
        hparams = METHODS["LoRA"].load_hparams()(
            model_name=Path(tiny_model_folder), merge_adapter=merged, **FAST["LoRA"]
        )
        assert hparams.to_dict()["model_name"] == os.fspath(tiny_model_folder)
        editor = EmbeddedEditor.from_hparams(hparams)
        assert editor.model_name == os.fspath(tiny_model_folder)
        metrics, edited, _ = editor.edit_requests([EGYPT])
        out = save_result(tmp_path / f"out-{merged}", edited, editor.tok, hparams, MethodReport(), metrics)
        card = json.loads((out / "causaledit.json").read_text())
        assert card["hparams"]["model_name"] == os.fspath(tiny_model_folder)
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_model_folder)
