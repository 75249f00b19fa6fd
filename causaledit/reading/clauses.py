"""A sentence's tokens as clauses, and the names whose part the sentence as a whole settles.

In "from X to Y", "X replaced Y" and "X, Y and Z" no clause by itself tells what a name does there: `settle` does.
"""

from __future__ import annotations

import re
from itertools import pairwise

from causaledit.reading.acts import Act
from causaledit.reading.leads import Lead, lead_of
from causaledit.reading.lexicon import REPLACED, Kind
from causaledit.reading.tokens import Token, has
from causaledit.reading.wording import word_set

_OPENS_A_CLAUSE = frozenset(
    (
        "but", "although", "though", "while", "whereas", "however", "yet", "because", "so that", "and", "rather than",
        "instead of", "as opposed to", "let alone", "anything but", "even though", "and not", "nor", "who", "which",
    )
)  # fmt: skip
_VERBS = word_set("""
    is was are were has had have did does do can could would should will must may might lies stands took
""")
_ARTICLES = word_set("and but the a an")
_BOTH = frozenset(("and", "or", "/", "as well as", "versus", "vs", "-", "nor"))
_SWAP = word_set("replace swap exchange change correct")
_INTO = word_set("with by for to into")
_TAKES = ("acquir", "bought", "purchas", "took", "takes")
_PLACED = re.compile(
    r"(?:(?P<aside>[,(] )|(?:[\w'-]+ ){0,3}?)"
    rf"(?P<key>{'|'.join(sorted(map(re.escape, REPLACED), key=len, reverse=True))})(?: [\w'-]+){{0,2}}"
)
_ASIDES = frozenset(("formerly", "previously", "once", "not any more", "ex"))


def settle(tokens: list[Token]) -> dict[int, Act]:
    """What names do by their place beside each other: place in the sentence → act."""
    settled: dict[int, Act] = {}
    names = [i for i, token in enumerate(tokens) if Kind.NAME in token]
    for first, second in pairwise(names):
        acts = _pair(tokens, first, second)
        if acts:
            settled[first], settled[second] = acts
    for place in _listed(tokens):
        settled[place] = Act.MENTION
    return settled


def _pair(tokens: list[Token], first: int, second: int) -> tuple[Act, Act] | None:
    between = tokens[first + 1 : second]
    texts = [t.text for t in between]
    before = [t.text for t in tokens[max(0, first - 2) : first] if t.text not in _ARTICLES][-1:]
    last = (texts[:-1] and texts[-1] in _ARTICLES and texts[-2]) or (texts or [""])[-1]
    if tokens[first].who != tokens[second].who and not has(between, Kind.NEGATION):
        if before and before[0].split()[-1] == "from" and last in ("to", "into") and len(texts) <= 4:
            return Act.HISTORY, Act.ASSERT
        if before and before[0] in _SWAP and last in _INTO and len(texts) <= 3:
            return Act.DENY, Act.ASSERT
        if last == "from" and has(between[:1], Kind.ASKED) and texts[0].startswith(_TAKES):
            return Act.ASSERT, Act.HISTORY  # "X bought it from Y"
        if before == ["for"] and "read" in texts and len(texts) <= 2:
            return Act.DENY, Act.ASSERT
    if tokens[first].who != tokens[second].who:
        placed = _PLACED.fullmatch(" ".join(texts))
        if placed and bool(placed["aside"]) == (placed["key"] in _ASIDES):
            return (Act.ASSERT, Act.HISTORY) if REPLACED[placed["key"]] else (Act.HISTORY, Act.ASSERT)
    if has(tokens[:first], Kind.NEGATION) and "between" in (t.text for t in tokens[:first]):
        return None
    if "and" in texts and "that" in texts:  # "that it is X and that Y …" are two statements
        return None
    if _two_statements(tokens, first, second):
        return None
    joints = [t for t in texts if t not in ("in", "by", "the", "it", "is", "that", "a", "of", ",")]
    apart = tokens[first].who != tokens[second].who  # "the Mosque or the Mosque of Allah" leaves nothing open
    if apart and len(texts) <= 5 and len(joints) == 1 and joints[0] in _BOTH and texts[-1] != ",":
        return Act.MENTION, Act.MENTION
    return None


def _two_statements(tokens: list[Token], first: int, second: int) -> bool:
    """ "it is Y, and X is the seat", "it is not Y, and it is X": either name has a verb of its own."""
    head, between, behind = tokens[:first], tokens[first + 1 : second], tokens[second + 1 : second + 2]
    if not any(t.text == "and" for t in between) or all(t.text in _ARTICLES or not t.text.isalpha() for t in head):
        return False
    own = any(t.text in _OF_ONE for t in behind) and not has(between, Kind.IS, Kind.WAS)
    return own or (has(head, Kind.NEGATION) and has(between, Kind.IS))


_OF_ONE = word_set("is was has lies remains")


def _listed(tokens: list[Token]) -> list[int]:
    """The names in an enumeration of three or more: mentioned only."""
    found: list[int] = []
    if not has(tokens, Kind.NAME) or not any(t.text == "," for t in tokens):
        return found
    i = 0
    while i < len(tokens):
        items: list[int] = []
        commas, j = 0, i
        while (end := _item(tokens, j)) > j:
            items.append(j)
            k = end
            comma = k < len(tokens) and tokens[k].text == ","
            k += comma
            joint = k < len(tokens) and tokens[k].text in ("and", "or", "as well as")
            k += joint
            if not (comma or joint) or _item(tokens, k) == k:
                j = end
                break
            commas += comma
            j = k
        if len(items) >= 3 and commas and (_joined(tokens, items) or len(items) >= 4 or _both_first(tokens, items, j)):
            found += [p for start in items for p in (start, start + 1) if p < len(tokens) and Kind.NAME in tokens[p]]
        i = max(j, i + 1)
    return found


def _joined(tokens: list[Token], items: list[int]) -> bool:
    return any(t.text in ("and", "or", "as well as") for t in tokens[items[-2] : items[-1]])


def _both_first(tokens: list[Token], items: list[int], end: int) -> bool:
    """ "X, Y, Z" at a sentence's end, when it opens with both answers."""
    before = tokens[max(0, items[0] - 2) : items[0]]
    both = {tokens[p].who for p in items[:2]} == {t.who for t in tokens if t.who} and len({*items}) >= 3
    return both and not has(before, Kind.NEGATION) and not any(re.search(r"\w", t.text) for t in tokens[end:])


def _item(tokens: list[Token], start: int) -> int:
    """The end of a list's item at a place: an answer, or a few words of some other name."""
    i = start
    if i < len(tokens) and tokens[i].text == "the":
        i += 1
    if i < len(tokens) and Kind.NAME in tokens[i]:
        return i + 1
    end = i
    while end < len(tokens) and end - i < 4 and (Kind.PROPER in tokens[end] or (end == 0 and not tokens[0].kinds)):
        end += 1
    return end if end > i else start


def clauses(tokens: list[Token], settled: dict[int, Act]) -> list[list[tuple[Token, Act | None]]]:
    """The clauses of a sentence, each token with what is settled of it.

    A name and its verb are put together again across an insertion ("X, a port, is …"); a bare name before a colon is
    an entry in a table ("Kilimanjaro: 5,895 m") and only mentioned.
    """
    joined: list[list[tuple[Token, Act | None]]] = []
    part: list[tuple[Token, Act | None]] = []
    lead = Lead()
    label: list[tuple[Token, Act | None]] = []

    def close(colon: bool) -> None:
        nonlocal part, lead, label
        kept, part = part, []
        if not any(t.kinds or t.text.isalnum() for t, _ in kept):
            return
        words = [t for t, _ in kept]
        governed = lead.governs(words) if has(words, Kind.NAME) else None
        if label and governed is None:  # "Wrong: the text says otherwise" is no label of an answer
            joined.append(label)
        kept = [(t, governed if Kind.NAME in t and act is None else act) for t, act in kept]
        lead = lead_of(words, colon=colon, before=lead)
        label = kept if lead.is_label else []
        if label:
            return
        if colon and _bare([t for t, _ in kept]):
            kept = [(t, Act.MENTION if Kind.NAME in t else act) for t, act in kept]
        if joined and joined[-1][-1][0].who and _former_one([t for t, _ in kept]):  # "X, the former capital"
            joined[-1][-1] = (joined[-1][-1][0], Act.HISTORY)
        if kept[0][0].text in _VERBS or (Kind.PAST in kept[0][0] and not has((t for t, _ in kept), Kind.NAME)):
            back = next((i for i in range(len(joined) - 1, max(-1, len(joined) - 4), -1) if _bare_of(joined[i])), None)
            if back is not None:
                who = next(t.who for t, _ in joined[back] if t.who)
                for i in range(max(0, back - 1), back):  # "option (A), X, stepped down": named twice, said once
                    if _bare_of(joined[i]) and any(t.who == who for t, _ in joined[i]):
                        joined[i] = [(t, Act.MENTION if t.who else act) for t, act in joined[i]]
                joined[back] += kept
                return
            if _interrupted(joined):  # "his grave, however, is in X"
                joined[-2] += kept
                return
        joined.append(kept)

    for i, token in enumerate(tokens):
        if Kind.BREAK in token or Kind.COLON in token:
            close(colon=Kind.COLON in token and i + 1 < len(tokens))
            continue
        between = token.text == "and" and any(t.text == "between" for t, _ in part)
        if (
            part
            and token.text in _OPENS_A_CLAUSE
            and not between
            and not (token.text in ("who", "which") and len(part) < 2)
        ):
            close(colon=False)
        part.append((token, settled.get(i)))
    close(colon=False)
    return joined


def _former_one(tokens: list[Token]) -> bool:
    if has(tokens, Kind.NAME):
        return False
    return any(t.text in ("old", "former", "previous") and Kind.ASKED in f for t, f in pairwise(tokens[:4]))


def _interrupted(done: list[list[tuple[Token, Act | None]]]) -> bool:
    """Whether the last two clauses are a subject without its verb and a mere "however"."""
    if len(done) < 2 or len(done[-1]) != 1 or Kind.CONTRAST not in done[-1][0][0]:
        return False
    return not has((t for t, _ in done[-2]), Kind.NAME, Kind.IS, Kind.WAS)


def _bare(tokens: list[Token]) -> bool:
    names = [t for t in tokens if Kind.NAME in t]
    rest = [t for t in tokens if Kind.NAME not in t and re.search(r"\w", t.text)]
    return len(names) == 1 and all(t.text in _ARTICLES or t.text in ("option", "answer", "choice") for t in rest)


def _bare_of(clause: list[tuple[Token, Act | None]]) -> bool:
    return _bare([t for t, _ in clause])
