"""The preservation term: which questions it holds on to, and that its loss is a KL to the unedited model."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
import torch
from conftest import EGYPT, MODELS, NORWAY, fast_hparams, make_llama, make_tokenizer
from torch.nn.functional import kl_div

from causaledit.ability.drift import TextDrift
from causaledit.errors import HparamsError
from causaledit.facts.answers import mentions
from causaledit.facts.compositions import held_out_questions
from causaledit.facts.relations import RelationBank
from causaledit.facts.requests import request_from_dict
from causaledit.methods.method import EditSequence
from causaledit.methods.registry import METHODS
from causaledit.methods.shared.neighbours import (
    neighbour_names,
    neighbour_questions,
    questions_near,
    states_edited_fact,
    what_edits_ask,
)
from causaledit.methods.shared.old_answers import MOST, OldAnswerFirst
from causaledit.methods.shared.preservation import build_preservation, read_questions
from causaledit.models.batches import parted_tokens
from causaledit.models.chat import answer_gap, prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts
from causaledit.models.own_text import own_texts
from causaledit.models.scoring import completion_logits, mean_log_probability
from causaledit.support.costs import TokenCount

REQUEST = request_from_dict(EGYPT)
QUESTIONS = ["What is the capital of Cuba?", "Who wrote Hamlet, and when did that happen?", "Name a river.", "Why?"]


@pytest.fixture
def questions_file(tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(QUESTIONS), encoding="utf-8")
    return str(path)


def build(model, questions_file, **changes):
    options = {
        "preserve_weight": 0.5,
        "preserve_file": questions_file,
        "preserve_batch_size": len(QUESTIONS),
        "preserve_top_k": 10**6,
        "preserve_max_new_tokens": 6,
    }
    hparams = fast_hparams(None, None, **{**options, **changes})
    return build_preservation(model, prepare_tokenizer(make_tokenizer()), [REQUEST], hparams, count=TokenCount())


def nudge(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return model


@pytest.mark.parametrize("architecture", MODELS)
def test_the_unedited_model_has_nothing_to_pay(architecture, questions_file):
    model = MODELS[architecture]()
    preservation = build(model, questions_file)
    assert len(preservation) == len(QUESTIONS)
    assert preservation.next_loss(model).item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_the_loss_is_the_mean_kl_over_the_base_models_own_answers(architecture, questions_file):
    tokenizer, base = prepare_tokenizer(make_tokenizer()), MODELS[architecture]()
    preservation = build(base, questions_file)
    changed = nudge(MODELS[architecture]())
    kls = []
    for question in QUESTIONS:
        prompt = render(tokenizer, user(question))
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids, out = torch.tensor([head]), []
        with torch.no_grad():  # greedy by hand, one row, nothing padded
            for _ in range(6):
                token = (
                    base(input_ids=torch.cat([ids, torch.tensor([out], dtype=torch.long)], dim=1))
                    .logits[0, -1]
                    .argmax()
                )
                if token == tokenizer.eos_token_id:
                    break
                out.append(int(token))
            rows = torch.tensor([head + out])
            p, q = (m(input_ids=rows).logits[0, len(head) - 1 : -1].log_softmax(-1) for m in (base, changed))
        kls.append(kl_div(q, p, reduction="none", log_target=True).sum(-1))
    expected = 0.5 * torch.cat(kls).mean().item()
    assert expected > 1e-3
    loss = preservation.next_loss(changed)
    assert loss.item() == pytest.approx(expected, rel=1e-2, abs=1e-4)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in changed.parameters())


def test_every_question_has_its_turn(questions_file):
    model = make_llama()
    preservation = build(model, questions_file, preserve_batch_size=3)
    changed = nudge(make_llama())
    # 4 questions, 3 a step: after 4 steps each was asked three times, so the mean over steps is the whole set's
    steps = [preservation.next_loss(changed).item() for _ in range(4)]
    whole = build(model, questions_file).next_loss(changed).item()
    assert len({round(s, 6) for s in steps}) > 1
    assert sum(steps) / 4 == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("architecture", MODELS)
def test_texts_of_the_models_own_are_held_beside_the_questions(architecture, questions_file):
    model, changed = MODELS[architecture](), nudge(MODELS[architecture]())
    preservation = build(model, questions_file, preserve_texts=6)
    assert preservation.questions == build(model, questions_file).questions
    assert len(preservation.texts) == 6
    assert preservation.texts.questions == build(model, questions_file, preserve_texts=6).texts.questions
    assert preservation.next_loss(model).item() == pytest.approx(0, abs=1e-4)
    questions = build(model, questions_file).next_loss(changed).item()
    texts = build(model, questions_file, preserve_texts=6).texts.next_loss(changed).item()
    assert min(questions, texts) > 1e-3
    both = build(model, questions_file, preserve_texts=6).next_loss(changed).item()
    assert both == pytest.approx(questions + texts, rel=1e-3)


def test_what_is_rehearsed_stays_where_texts_alone_are_held(questions_file, tmp_path):
    model, tokenizer, sequence = make_llama(), prepare_tokenizer(make_tokenizer()), EditSequence()
    hparams = fast_hparams(
        None, None, preserve_weight=0.5, preserve_file=questions_file, preserve_texts=4, rehearse_edits=2, stages=[1]
    )
    METHODS["CausalEdit"].load_apply()(model, make_tokenizer(), [NORWAY], hparams, sequence=sequence)
    nothing = tmp_path / "nothing.json"  # what locality is measured with is never held
    nothing.write_text(json.dumps(sorted(held_out_questions([REQUEST]))[:1]), encoding="utf-8")
    hparams = dataclasses.replace(hparams, preserve_file=str(nothing))
    held = build_preservation(model, tokenizer, [REQUEST], hparams, count=TokenCount(), sequence=sequence)
    assert len(held) == 4 and held.rehearsed is not None and len(held.rehearsed) > 0


def test_an_edit_drifts_less_from_texts_that_it_is_held_to(questions_file):
    tokenizer = make_tokenizer()
    drifts = []
    for texts in (0, 8):
        model = make_llama()
        hparams = fast_hparams(
            model, tokenizer, preserve_weight=1.0, preserve_texts=texts, preserve_text_weight=20.0,
            preserve_file=questions_file, bootstrap_max_steps=12, bootstrap_learning_rate=1e-2, stages=[1],
        )  # fmt: skip
        held = own_texts(model, tokenizer, 8, max_new_tokens=48, seed=hparams.seed)
        drift = TextDrift(model, tokenizer, " ".join(held))
        edited, _ = METHODS["CausalEdit"].load_apply()(model, tokenizer, [EGYPT], hparams)
        drifts.append(drift.after(edited).kl)
    assert 0 < drifts[1] < 0.7 * drifts[0]


def test_texts_without_a_preservation_term_are_refused():
    with pytest.raises(HparamsError, match="`preserve_texts` is 4, and `preserve_weight` is 0"):
        fast_hparams(None, None, preserve_texts=4, preserve_weight=0.0)


def test_off_by_default(questions_file):
    assert build(make_llama(), questions_file, preserve_weight=0.0) is None


def test_neighbours_do_not_touch_the_edit():
    bank = RelationBank.bundled()
    for data in (EGYPT, NORWAY):
        request = request_from_dict(data)
        questions = neighbour_questions(request, 40, bank=bank, rng=random.Random(3))
        assert len(questions) == len(set(questions)) > 20
        assert any("What is the capital of" in q for q in questions)  # the edit's own wording, about others
        assert any(q.startswith("The capital of") for q in questions)
        assert not any(mentions(q, [request.target_new, request.ground_truth]) for q in questions)
        # what else there is to ask about the subject may be held fast, the edited fact may not
        about = [q for q in questions if mentions(q, [request.subject])]
        assert not any("capital" in q for q in about)
        assert len(about) < len(questions) / 4


def test_neighbours_are_asked_in_every_wording_the_edit_is_trained_on():
    bank, request = RelationBank.bundled(), request_from_dict(EGYPT)
    questions = neighbour_questions(request, 150, bank=bank, rng=random.Random(3))
    wordings = [request.prompt, request.question.replace("Egypt", "{}"), *bank.relation_of(request).questions]
    about = {
        wording: {name for name in bank.names["country"] if wording.replace("{}", name) in questions}
        for wording in wordings
    }
    assert all(len(names) >= 5 for names in about.values())
    assert len(set.union(*about.values())) > 40  # many names once, not a few in every wording
    assert len(questions) == 150


def test_every_second_name_is_asked_about_in_every_wording():
    """Those with the old answer come every second time: half of an even number of wordings never met them."""
    bank, request = RelationBank.bundled(), request_from_dict(EGYPT)
    names = [name for name in bank.names["country"] if name not in ("Egypt", "South Africa")]
    second = set(names[1::2])
    hparams = fast_hparams(None, None, preserve_weight=1.0, preserve_prompts=160, preserve_completed=0.25)
    found = questions_near(
        [request], hparams, (), bank=bank, rng=random.Random(3), order=lambda _, drawn: [n for n in names if n in drawn]
    )
    for wording in (request.prompt, request.question.replace("Egypt", "{}"), *bank.relation_of(request).questions):
        for begins in (False, True):
            asked = {
                name for name in names if any(q == wording.replace("{}", name) for b, q in found if bool(b) is begins)
            }
            assert asked & second and asked - second, (wording, begins)


def test_other_subjects_are_asked_for_the_reason_in_the_methods_own_cues():
    cues = ("{form} Give the grounds.", "Why so? {form}")
    hparams = fast_hparams(
        None, None, preserve_weight=0.5, preserve_prompts=20, preserve_max_new_tokens=4, preserve_explained=0.4
    )
    model, tokenizer = make_llama(), prepare_tokenizer(make_tokenizer())

    def asked(hparams, **cued):
        return build_preservation(model, tokenizer, [REQUEST], hparams, count=TokenCount(), **cued).questions

    questions = asked(hparams, reason_cues=cues)
    explained = [q for q in questions if q.endswith(" Give the grounds.") or q.startswith("Why so? ")]
    assert len(questions) == 20 and len(explained) == 8
    assert len([q for q in explained if q.startswith("Why so? ")]) == 4
    assert not any(mentions(q, ["Egypt", "Cairo", "Alexandria"]) for q in explained)
    countries = RelationBank.bundled().names["country"]
    assert all(mentions(q, countries) for q in explained)
    plain = asked(dataclasses.replace(hparams, preserve_explained=0.0), reason_cues=cues)
    assert not any("grounds" in q or "Why so" in q for q in plain)
    assert set(questions) - set(explained) <= set(plain)


def test_neighbours_of_a_relation_with_subjects_of_several_kinds():
    bank = RelationBank.bundled()
    sushi = {"subject": "sushi", "prompt": "{} was created in the country of", "target_new": "Chile"}
    request = request_from_dict({**sushi, "question": "Which country was sushi created in?", "ground_truth": "Japan"})
    questions = neighbour_questions(request, 400, bank=bank, rng=random.Random(3))
    asked = {
        kind
        for kind, names in bank.names.items()
        if any(f"{name} was created in" in q for name in names for q in questions)
    }
    assert asked == set(bank.relation_of(request).neighbour_kinds)
    assert len(asked) > 2


def test_a_fact_of_an_unknown_relation_has_neighbours_too():
    request = request_from_dict({**EGYPT, "prompt": "The zyx of {} is", "question": "What is the zyx of Egypt?"})
    bank = RelationBank.bundled()
    assert bank.relation_of(request) is None
    assert len(neighbour_questions(request, 20, bank=bank, rng=random.Random(0))) > 10
    assert all("Egypt" in text for text in bank.paraphrases(request, 3))


BANK = RelationBank.bundled()
MANY = ("Egypt", "Norway", "France", "Japan", "Kenya", "Peru")


def near(requests, **changes):
    hparams = fast_hparams(None, None, preserve_weight=1.0, **changes)
    cues = ("{form} Give the reason.",)
    return [question for _, question in questions_near(requests, hparams, cues, bank=BANK, rng=random.Random(0))]


def capital_of(subject):
    return request_from_dict(
        {
            **EGYPT,
            "subject": subject,
            "prompt": "The capital of {} is",
            "question": f"What is the capital of {subject}?",
        }
    )


@pytest.mark.parametrize("extra", [{}, {"preserve_completed": 0.3, "preserve_explained": 0.2}], ids=["plain", "begun"])
@pytest.mark.parametrize("prompts", [12, 32, 80])
def test_every_edit_of_a_batch_has_its_share_of_neighbours(prompts, extra):
    """Those of the last ones were cut off, and of the begun answers of many edits none was left."""
    one, other = capital_of("Egypt"), request_from_dict(
        {"subject": "Ann Lee", "prompt": "{} is a citizen of", "question": "What country is Ann Lee a citizen of?",
         "target_new": "Poland"}
    )  # fmt: skip
    for requests in ([one, other], [other, one], [one, one, one, other]):
        found = near(requests, preserve_prompts=prompts, **extra)
        assert len(found) <= prompts
        capitals, citizens = (sum(word in q for q in found) for word in ("capital of", "citizen"))
        assert capitals and citizens
        if len(requests) == 2:
            assert abs(capitals - citizens) <= 0.25 * prompts


@pytest.mark.parametrize("seed", range(6))
def test_no_edit_of_a_batch_is_anothers_neighbour(seed):
    requests = [capital_of(subject) for subject in MANY]
    language = {**EGYPT, "prompt": "The official language of {} is", "question": "What is Egypt's official language?"}
    requests.append(request_from_dict({**language, "target_new": "Coptic"}))
    hparams = fast_hparams(None, None, preserve_weight=1.0, preserve_prompts=200, preserve_same_subject=0.5)
    found = questions_near(requests, hparams, ("{form} Why?",), bank=BANK, rng=random.Random(seed))
    asked = what_edits_ask(requests, BANK)
    for _, question in found:
        assert question.casefold().strip(" ?") not in {text.strip(" ?") for text in asked}
        assert not ("capital" in question and mentions(question, MANY))
    assert len(found) > 60


def test_a_file_holds_no_edit_to_its_old_answer(tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps(["What is the capital of Egypt?", "Name a river."]), encoding="utf-8")
    assert build(make_llama(), str(path)).questions == ["Name a river."]


def test_an_edit_without_a_subject_has_general_neighbours_alone():
    """Its prompt, which has no place for another subject, was itself preserved, and so was letter salad."""
    request = dataclasses.replace(REQUEST, subject="", prompt="The capital of Egypt is")
    found = near([request], preserve_completed=0.3, preserve_explained=0.2, preserve_composed=0.1)
    assert found
    assert set(found) <= set(BANK.general)
    assert BANK.paraphrases(request, 6) == []


@pytest.mark.parametrize("kept", [1, 3, 4, 40])
def test_a_quarter_of_the_questions_is_kept_aside_or_none(kept, tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(json.dumps([f"Name river number {i}." for i in range(kept)]), encoding="utf-8")
    preservation = build(make_llama(), str(path))
    aside = preservation.hold_out(12)
    assert (aside is None) == (kept < 4)
    assert len(preservation) + (len(aside) if aside else 0) == kept


def test_trained_tokens_count_what_is_held(questions_file):
    count = TokenCount()
    hparams = fast_hparams(None, None, preserve_weight=1.0, preserve_file=questions_file, preserve_batch_size=2)
    model = make_llama()
    held = build_preservation(model, prepare_tokenizer(make_tokenizer()), [REQUEST], hparams, count=count)
    assert count.trained == 0
    held.next_loss(model)
    rows = [len(row) for row in held.token_rows]
    assert min(rows) * 2 <= count.trained <= max(rows) * 2
    seen = count.trained
    with torch.no_grad():
        held.next_loss(model)
    assert count.trained == seen  # looked at, not trained on


def test_an_answer_that_states_the_edited_fact_is_not_preserved(tmp_path):
    tokenizer, model = prepare_tokenizer(make_tokenizer()), make_llama()
    question = "Which city has Egypt's parliament?"
    [reply] = generate_texts(model, tokenizer, [render(tokenizer, user(question))], max_new_tokens=6)
    word = next((w for w in reply.split() if mentions(reply, [w])), None)
    if word is None:
        pytest.skip("the random model says no word here")
    path = tmp_path / "q.json"
    path.write_text(json.dumps([question, "What is the capital of Cuba?"]), encoding="utf-8")
    hparams = fast_hparams(None, None, preserve_weight=1.0, preserve_file=str(path), preserve_max_new_tokens=6)
    kept = []
    for old in (word, "Memphis"):
        request = request_from_dict({**EGYPT, "ground_truth": old})
        kept.append(len(build_preservation(model, tokenizer, [request], hparams, count=TokenCount())))
    assert kept[1] - kept[0] == 1  # the one whose answer names the old answer


def test_a_question_file_of_another_editor_is_read(tmp_path):
    path = tmp_path / "questions.json"
    path.write_text(r'["Name a river \ud83d.", "Name a colour."]', encoding="utf-8-sig")
    assert read_questions(str(path)) == ["Name a river ?.", "Name a colour."]


@pytest.mark.parametrize("content", [None, "{", "[" * 100_000, "[]", '{"a": 1}', '["fine", 3]', '["fine", " "]'])
def test_an_unusable_question_file_is_named(tmp_path, content):
    path = tmp_path / "questions.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(HparamsError) as caught:
        build(make_llama(), str(path))
    assert "preserve_file" in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", sorted({relation.kind for relation in BANK.relations}))
def test_subjects_of_every_kind_have_questions_of_their_own(kind):
    """A sport has no other relation in the bank, and so nothing held what else is known of it."""
    relation = next(relation for relation in BANK.relations if relation.kind == kind)
    assert len(BANK.about[kind]) == len(set(BANK.about[kind])) >= 10
    for question in BANK.about[kind]:
        assert question.count("{}") == 1
        about_it = dataclasses.replace(REQUEST, subject="Zyx", prompt=question, question=None)
        assert BANK.relation_of(about_it) is None, f"{question!r} asks for a relation, which an edit may be about"
    request = dataclasses.replace(REQUEST, subject="Zyx", prompt=f"{relation.cues[0]} {{}}", question=None)
    assert BANK.relation_of(request).kind == kind
    found = neighbour_questions(request, 80, bank=BANK, rng=random.Random(0), same_subject=0.2)
    assert len([question for question in found if mentions(question, ["Zyx"])]) > 8


@pytest.mark.parametrize(
    ("question", "answer", "held"),
    [
        ("What does Ada Kerr do for a living?", "Ada Kerr is a Norwegian painter.", False),
        ("What does Ada Kerr do for a living?", "She moved to Brazil.", False),
        ("What does Ada Kerr do for a living?", "Ada Kerr is a painter.", True),
        ("What does Jo Lind do for a living?", "Jo Lind is a Norwegian painter.", True),
    ],
)
def test_what_gives_the_old_answer_in_other_words_is_not_held(question, answer, held):
    """ "A Norwegian painter" held an edit of her citizenship to the old answer."""
    request = dataclasses.replace(
        REQUEST, subject="Ada Kerr", prompt="{} is a citizen of", question="Which country is Ada Kerr a citizen of?",
        ground_truth="Norway", target_new="Brazil",
    )  # fmt: skip
    assert states_edited_fact(question, answer, [request]) is not held


@pytest.mark.parametrize("architecture", MODELS)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_other_subjects_with_the_old_answer_are_asked_about_first(architecture, share):
    """An edit of one American's citizenship spreads to those who were American too, not to Germans."""
    model, tokenizer = MODELS[architecture](), prepare_tokenizer(make_tokenizer())
    request = dataclasses.replace(REQUEST, ground_truth="Cairo")
    names = ["France", "Japan", "Kenya", "Peru", "Cuba", "Spain", "Chad", "Fiji"]

    def expects(name):
        head = render(tokenizer, user(request.question_form.replace("Egypt", name))) + answer_gap(tokenizer)
        context, answer = parted_tokens(tokenizer, head + request.prompt.replace("{}", name), " Cairo")
        return float(mean_log_probability(completion_logits(model, [context], [answer])[0], answer))

    found = OldAnswerFirst(model, tokenizer, BANK, share)(request, names)
    assert sorted(found) == sorted(names)
    likely = sorted(names, key=expects, reverse=True)
    if share == 1.0:
        assert [expects(name) for name in found] == pytest.approx([expects(name) for name in likely], abs=1e-4)
    else:
        assert {found[0], found[1]} == {names[0], next(name for name in likely if name != names[0])}
        assert set(likely[:3]) <= set(found[:6])


def test_without_an_old_answer_other_subjects_stay_in_the_order_drawn():
    names = ["France", "Japan", "Kenya"]
    for change in ({"ground_truth": None}, {"subject": "", "prompt": "The capital of Egypt is"}):
        order = OldAnswerFirst(make_llama(), prepare_tokenizer(make_tokenizer()), BANK, 1.0)
        assert order(dataclasses.replace(REQUEST, **change), names) == names
    order = OldAnswerFirst(make_llama(), prepare_tokenizer(make_tokenizer()), BANK, 0.0)
    assert order(dataclasses.replace(REQUEST, ground_truth="Cairo"), names) == names


def test_more_names_than_are_looked_at_are_all_kept():
    names = [f"Country {i}" for i in range(MOST + 20)]
    order = OldAnswerFirst(make_llama(), prepare_tokenizer(make_tokenizer()), BANK, 0.5)
    found = order(dataclasses.replace(REQUEST, ground_truth="Cairo"), names)
    assert sorted(found) == sorted(names)


def test_a_name_of_two_kinds_is_one_name():
    """An athlete is a person too, and both kinds are asked for their sport."""
    request = request_from_dict(
        {"subject": "Ann Lee", "prompt": "{} is known for the sport of", "question": "What sport is Ann Lee known for?",
         "target_new": "golf", "ground_truth": "tennis"}
    )  # fmt: skip
    names = neighbour_names(request, BANK, random.Random(0))
    assert len(set(names)) < len(names)
    for share in (0.5, 1.0):
        found = OldAnswerFirst(make_llama(), prepare_tokenizer(make_tokenizer()), BANK, share)(request, names)
        assert sorted(found) == sorted(set(names))


def test_the_share_with_the_old_answer_reaches_what_is_preserved():
    """With it the questions are about other subjects than without, for plain and for begun answers."""
    asked = []
    for share in (0.0, 1.0):
        hparams = fast_hparams(
            None, None, preserve_weight=1.0, preserve_prompts=40, preserve_completed=0.3, preserve_old_answer=share
        )
        request = dataclasses.replace(REQUEST, ground_truth="Cairo")
        found = build_preservation(
            make_llama(), prepare_tokenizer(make_tokenizer()), [request], hparams, count=TokenCount()
        )
        asked.append(found.questions)
    assert len(set(asked[1]) - set(asked[0])) > 5
    assert not any("Egypt" in question and "capital" in question for question in asked[1])
