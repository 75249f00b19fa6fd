"""Names, lengths, sentences and questions in every script, through the functions that the package asks."""

from __future__ import annotations

import unicodedata

import pytest

from causaledit.facts.answers import alias_match, is_code, mentions
from causaledit.facts.text import (
    bare_sentence,
    ends_sentence,
    is_question,
    is_spaceless,
    normalise,
    sentences,
    unquoted,
    whole_sentences,
    word_count,
)
from causaledit.facts.twins import difference, twin_file, twin_of
from causaledit.reading.commitment import gives_answer

NAMED = [
    ("西游记的作者是小明。", "小明"),
    ("首都は大阪です。", "大阪"),
    ("ザ・首都は、オーサカ。", "オーサカ"),
    ("首都是Denver市", "Denver"),
    ("首都はＤｅｎｖｅｒです", "Denver"),
    ("The capital is 大阪.", "大阪"),
    ("作者は村上春樹です", "村上 春樹"),
    ("他叫阿尔伯特·爱因斯坦。", "阿尔伯特・爱因斯坦"),
    ("答案是猫。", "猫"),
    ("答えは猫です。", "猫"),
    ("เมืองหลวงคือเชียงใหม่", "เชียงใหม่"),
    ("ນະຄອນຫຼວງແມ່ນວຽງຈັນ", "ວຽງຈັນ"),
    ("រាជធានីគឺភ្នំពេញ។", "ភ្នំពេញ"),
    ("မြို့တော်မှာ မန္တလေးဖြစ်သည်။", "မန္တလေး"),
    ("수도는 서울입니다.", "서울"),
    ("서울은 크다", "서울"),
    ("서울에서는 안 된다", "서울"),
    ("والقاهرة مدينة كبيرة", "القاهرة"),
    ("هو للقاهرة", "القاهرة"),
    ("يسكن بدمشق", "دمشق"),
    ("الشاعر أحمد", "احمد"),
    ("הוא גר בירושלים.", "ירושלים"),
    ("ומירושלים", "ירושלים"),
    ("भारत की राजधानी दिल्ली है।", "दिल्ली"),
    ("Столица — Київ.", "Київ"),
    ("Es ist die STRASSE.", "Straße"),
    ("Diyarbakır'da", "Diyarbakir"),
    ("İSTANBUL", "istanbul"),
    ("Côte d’Ivoire", "Cote d'Ivoire"),
    ("New\u00a0York", "New York"),
    ("Al\u2011Iskandariyya", "Al-Iskandariyya"),
    ("It is _Denver_ now", "Denver"),
    ("Łódź", "Lodz"),
    ("zero\u200bwidth: Den\u00adver", "Denver"),
]
NOT_NAMED = [
    ("インドネシア", "インド"),
    ("バリ島", "パリ"),
    ("ハリ", "パリ"),
    ("熊猫", "猫"),
    ("인도네시아", "인도"),
    ("한국어", "한국"),
    ("서울대학교", "서울"),
    ("दिल्ली", "दिल"),
    ("กรุงเทพ", "กรงเทพ"),
    ("กาน", "กานา"),
    ("เมืองปูน", "เมืองป"),  # the next sign belongs to its last letter
    ("Alexandrian", "Alexandria"),
    ("Denverite", "Denver"),
    ("предмосква", "москва"),
    ("مكان", "كان"),
]


@pytest.mark.parametrize(("text", "name"), NAMED)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_named(text, name, form):
    assert mentions(unicodedata.normalize(form, text), [name])
    assert mentions(text, [unicodedata.normalize(form, name)])
    assert alias_match(text, [name])


@pytest.mark.parametrize(("text", "name"), NOT_NAMED)
def test_not_named(text, name):
    assert not mentions(text, [name])
    assert not mentions(unicodedata.normalize("NFD", text), [name])


@pytest.mark.parametrize(
    ("text", "name", "rival"),
    [
        ("作者是王小明。", "小明", "王小明"),
        ("首都は東京都です。", "京都", "東京"),  # overlaps, and begins later
        ("South Korea", "Korea", "South Korea"),
        ("ประเทศไทยแลนด์", "ไทย", "ไทยแลนด์"),
    ],
)
def test_a_rivals_longer_name_keeps_its_letters(text, name, rival):
    assert mentions(text, [name])  # without the rival it cannot be told
    assert not mentions(text, [name], [rival])
    assert mentions(f"{text} / {name}", [name], [rival])
    assert not alias_match(text, [name], [rival])


def test_answers_are_read_in_scripts_without_spaces():
    assert gives_answer("西游记的作者是小明。", ["小明"], ["吴承恩"])
    assert not gives_answer("西游记的作者是吴承恩。", ["小明"], ["吴承恩"])
    assert gives_answer("首都は大阪です。", ["大阪"], ["東京"])
    assert not gives_answer("首都は東京です。", ["大阪"], ["東京"])
    assert gives_answer("首都不是东京，而是大阪。", ["大阪"], ["东京"])
    assert gives_answer("수도는 부산입니다.", ["부산"], ["서울"])
    assert gives_answer("العاصمة هي الإسكندرية.", ["الإسكندرية"], ["القاهرة"])
    assert gives_answer("राजधानी मुंबई है।", ["मुंबई"], ["दिल्ली"])


def test_codes_are_short_for_their_script():
    assert [is_code(x) for x in ("US", "Rio", "США", "日", "🇵🇱", " it ")] == [True] * 6
    assert not any(is_code(x) for x in ("大阪", "عمان", "서울", "Oslo", "ยะลา"))
    assert alias_match("答案是US。", ["US"]) and not alias_match("tell us", ["US", "us"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("The capital — of Egypt", 5),  # as `split` counts
        ("西游记的作者是小明。", 9),
        ("首都是Denver市", 5),
        ("数都 は 大阪", 5),
        ("수도는 서울입니다", 2),
        ("เมือง", 4),  # letters; the vowel sign above one is a part of it
    ],
)
def test_length_in_words(text, words):
    assert word_count(text) == words
    assert is_spaceless("西游记 by Wu") and not is_spaceless("Wu wrote 西游") and not is_spaceless("서울은")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("首都は大阪です。東京ではない。", ["首都は大阪です。", "東京ではない。"]),
        ("「大阪です。」と言った。", ["「大阪です。」", "と言った。"]),
        ("什么？小明！好", ["什么？", "小明！", "好"]),
        ("दिल्ली है। हाँ।", ["दिल्ली है।", "हाँ।"]),
        ("ما هي؟ القاهرة.", ["ما هي؟", "القاهرة."]),
        ("یہ لاہور ہے۔ ہاں", ["یہ لاہور ہے۔", "ہاں"]),
        ("ភ្នំពេញ។ ទេ។", ["ភ្នំពេញ។", "ទេ។"]),
        ("Dr. Who met H. C. Andersen. He left.", ["Dr. Who met H. C. Andersen.", "He left."]),
        ("It costs 3.5 million, approx. ten times more. Yes", ["It costs 3.5 million, approx. ten times more.", "Yes"]),
        ('He said "No." Then\nhe left', ['He said "No."', "Then", "he left"]),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def test_a_stop_inside_a_given_name_ends_nothing():
    assert sentences("It is Yahoo! Inc. today. Yes.", ["Yahoo! Inc."]) == ["It is Yahoo! Inc. today.", "Yes."]


def test_whole_sentences():
    assert [ends_sentence(t) for t in ("Yes.", 'He said "yes."', "大阪です。", "दिल्ली।", "เชียงใหม่")] == [True] * 5
    assert not ends_sentence("Yes, and") and not ends_sentence("大阪")
    assert whole_sentences("It moved. Then the mini") == "It moved."
    assert whole_sentences("大阪です。東京") == "大阪です。"
    assert whole_sentences("no end") == ""
    assert whole_sentences("เมื่อ พ.ศ. 2563 ย้ายไปเชียงใหม่") == "เมื่อ พ.ศ. 2563 ย้ายไปเชียงใหม่"


@pytest.mark.parametrize(
    "text",
    [
        "What?",
        "什么？",
        "ما هي؟",
        'Who is "it?"',
        "Ποια είναι;",
        "¿Cuál es?",
        "どこですか",
        "首都は何ですか。",
        "是吗",
        "Ո՞ր",
        "ምን ነው፧",
    ],
)
def test_questions(text):
    assert is_question(text)


@pytest.mark.parametrize("text", ["", "Paris.", "one; two;", "首都は大阪です。", "The capital of {} is"])
def test_no_questions(text):
    assert not is_question(text)


def test_quotation_marks_and_final_stops():
    assert unquoted("「大阪」") == "大阪" and unquoted("“Paris”") == "Paris"
    assert unquoted('"A" and "B"') == '"A" and "B"'
    assert bare_sentence("「大阪」。") == "大阪" and bare_sentence("Washington, D.C.") == "Washington, D.C."


@pytest.mark.parametrize(
    ("a", "b", "what"),
    [
        ("Café", "Cafe\u0301", "Unicode form"),
        ("New York", "New\u00a0York", "spaces"),
        ("d'Or", "d’Or", "apostrophe"),
        ("paris", "Paris", "capital"),
        ("Denver", "Ｄｅｎｖｅｒ", "full-width"),
        ("Cafe", "Café", "accents"),
    ],
)
def test_what_keeps_two_spellings_apart(a, b, what):
    assert what in difference(a, b)
    assert what in twin_of(a, ["Rome", b])
    assert normalise(a) == normalise(b)


def test_other_words_are_no_twins(tmp_path):
    assert difference("a", "b") is None and difference("a", "a") is None and twin_of("a", ["b"]) == ""
    (tmp_path / unicodedata.normalize("NFD", "é.json")).touch()
    assert "Unicode form" in twin_file(tmp_path / unicodedata.normalize("NFC", "é.json"))
    assert twin_file(tmp_path / "missing" / "x") == ""
