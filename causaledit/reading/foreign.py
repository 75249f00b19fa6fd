"""Other languages, read with what most of them share: a negation near the name denies it, any other naming gives it."""

from __future__ import annotations

import re

from causaledit.facts.text import is_question
from causaledit.reading.acts import Act, Event
from causaledit.reading.names import NEW, OLD
from causaledit.reading.text import plain
from causaledit.reading.wording import wordings, words

_MARK = re.compile(rf"\b({NEW}|{OLD})\b")
_WORDS = re.compile(
    r"(?<!\w)"
    + wordings("""
    el | los | las | es | una | del | que | por | le | les | est | une | des | du | dans | der | die | das | ist | und
    wurde | von | eine?r? | nicht
    il | lo | gli | della | di | nella | os | uma | nao | het | een | och | ar | av | og | jest | nie | je | na | la
    en | de | c'est | sono | era | war
    """)
    + r"(?!\w)"
)
_ENGLISH = words("""
    the | is | was | of | it | that | this | not | are | were | by | and | he | she | to | but | wrong | has | have
    answer | for | i | you | a | an | so
    with | from | be
""")
_NEGATION = re.compile(
    r"(?<!\w)"
    + wordings("""
    no | non | nicht | keine?[rsmn]? | n'est pas | pas | nunca | jamais | mai | nie | niemals | nao | nem | niet
    geen | ikke | inte
    ej | ni | не | нет | никогда
    """)
    + r"(?!\w)"
)
_WRONG = re.compile(
    r"(?<!\w)"
    + wordings("""
    falsch | faux | fausse | falso | falsa | incorrecto | incorrect | errado | sbagliato | errore | error | erreur
    fehler | inexact
    onjuist | fout | forkert | fel | blednie | nieprawda | stimmt nicht | неверно | неправильно | ошибка
    """)
    + r"(?!\w)|"
    + plain("错误|不对|不正确|間違い|違います|틀렸")
)
_NO = re.compile(r"\s*(?:no|non|nein|nee|nej|nao|нет|不)\W*")
_SPACELESS_NEGATION = re.compile(plain("不是|并非|而非|没有|不在|不|非|では(?:ない|ありません)|じゃない|아니"))


def foreign_events(text: str) -> tuple[Event, ...] | None:
    """The events of a sentence that is not English; None where it is.

    Args:
        text: Spelled out, with the answers' names as marks.
    """
    without = _MARK.sub(" ", text)
    letters = [c for c in without if c.isalpha()]
    other_script = sum(not c.isascii() for c in letters) * 2 > len(letters) > 0
    english = len(_ENGLISH.findall(without))
    foreign = len(_WORDS.findall(without)) > english
    wrong = _WRONG.search(without)
    if not (other_script or foreign or (wrong and wrong[0] != "incorrect" and not english)):  # that is English, too
        return None
    events: list[Event] = []
    asked = is_question(text)
    for clause in re.split(r"[,;:，、；：]|\s-\s", text):
        marks = list(_MARK.finditer(clause))
        if _WRONG.search(clause):
            events += [Event(Act.DENY, m[1]) for m in marks] or [Event(Act.RETRACT)]
            continue
        if not marks and _NO.fullmatch(clause):
            events.append(Event(Act.LEAD_RETRACT))
        for mark in marks:
            near = clause[max(0, mark.start() - 30) : mark.start()].split()[-4:]
            behind = clause[mark.end() :].split()[:4]
            negated = _NEGATION.search(" ".join(near)) or _NEGATION.search(" ".join(behind))
            if other_script:
                window = clause[max(0, mark.start() - 5) : mark.start()] + clause[mark.end() : mark.end() + 9]
                negated = negated or _SPACELESS_NEGATION.search(window)
            act = Act.DENY if negated else Act.ASK if asked else Act.ASSERT
            events.append(Event(act, mark[1]))
    return tuple(events)
