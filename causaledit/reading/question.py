"""What a question asks for, as word stems: a sentence that uses none of them says something else.

"Ford makes the Mustang" does not answer "Which company makes the Corvette?".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from causaledit.reading.text import plain, spell_out
from causaledit.reading.wording import word_set, words

# One line per relation: what asks for it | by what else an answer may speak of it. A word of four letters or more
# stands for all that begin with it.
RELATIONS = (
    "capital | seat govern parliament ministr",
    "headquarter hq head | main offic base run corporate seat sits resid",
    "found founded founder formed creat establish start | launch set brainchild began begun start co-founder behind",
    "author wrote written write writer wrot | writ pen penned novelist book novel play story poem text publish",
    "compos music | score symphon opera wrote writ",
    "paint painter | artist portrait canvas picture brush work",
    "develop creat design theor | invent devis formulat came propos",
    "make makes made manufactur produc maker | build built product launch sell sells sold",
    "citizen nationality national citizenship | passport naturali held hold holds country",
    "locat situat lies | lie stand within site belong sits country found resid",
    "where country | locat situat lies lie stands belong",
    "born birth birthplace native | came world native hail raised brought",
    "live lived lives living resid home | house dwell based settled",
    "raised grow brought upbringing childhood | grew up bred spent",
    "died death die buried | dead passed",
    "language speak spoke spoken | tongue idioma sprache written wrote",
    "religio faith | worship practis practic follow believ",
    "currenc money | pay coin banknote tender",
    "sport athlete | play plays played practis practic compet athlet game famous known player",
    "known famous | known renown career sport",
    "monarch king queen president ruler sovereign | reign throne head office state crown rule rules",
    "head minister premier chancellor government | govern office leader power president",
    "own owns owner owned | acqui bought buy belong parent buyer",
    "invent inventor | patent discover came",
    "discover discoverer | found isolat detect",
    "represent | play plays race races compet flag citizen",
    "employ employer work works worked | job staff hired",
    "educat educated attend attended university stud alma | went enrol studied graduat degree school college taught",
    "spouse married wife husband marri | wed wedding",
    "child children son daughter | parent father mother",
    "father mother parent parents | son daughter child",
    "perform performer performed sang singer sung | sing record artist band",
    "instrument | play plays played player",
    "position | play plays played",
    "broadcast broadcaster network | air aired channel show",
    "direct director directed | film filmmaker movie made shot",
    "won win winner | champion title beat victor trophy",
    "high highest tall tallest | mountain height peak",
    "large largest big biggest longest | populous size",
    "ceo chief chair chairperson chairman executive | run runs ran lead leads manag boss head",
    "coach manag | train trains bench",
    "mayor | city hall",
    "origin originat from come comes belong | came creat start hail began invent born native raised grew",
    "ingredient | made contain",
    "club team union | sign signed join play plays league",
    "flow river | empt mouth delta drain sea",
    "genre style | kind type play",
    "party member | belong join politic",
)
# verbs of further relations: a clause with one of them, and with nothing asked for, is about something else
FOREIGN = words(r"""
    born | died | stud(?:y|ied) | married | visit\w* | lived | lives | living in
    resid(?:es|ed) | raised | grew up | brought up | childhood | bapti[sz]ed | attended | travel\w*
    wrote | written | paint\w* | invent\w* | founded | bred
    acquired | bought | purchased | translat\w* | adapted
    directed | compos\w* | trained | worked | met | fled | buried | (?:went|goes)(?! back) | moved | stayed | taught
    returned
    arrived | emigrated | toured | performed | border\w* | inspired | influenced | rival\w*
""")
_STOP = word_set("""
    a about after also an and answer are as at be been before by called can choose city company country current
    currently did do does explain first for from give had has have how if in is it its job kind let letter like many
    me most much name named now of on one option or out person right say step tell that the their them then there
    these they thing think this those to type us was were what when where which who whom whose why will with work
    would you your
""")


@dataclass(frozen=True)
class Question:
    """What is asked, as patterns over folded text.

    Attributes:
        asked: A word of the relation asked about.
        subject: A word of the subject.
        past: Whether the question is about the past ("Who wrote …"), so that past tense is no history.
        roots: How longer words of the subject begin.
        deed: Whether a country is asked for as the one that did something ("Which country developed …").
        chained: Whether it names more than one relation ("the citizenship of the author of …").
        titles: What it quotes or writes in capitals, of several words each: "Never Let Me Go" lets nothing go.
        posts: The head of a country who is asked for, and the one who is not: of the state, and of its government.
        language: Whether a language is asked for: "a French citizen" speaks of none.
        writing: Whether it is that of something written, which "a French novel" tells.
    """

    asked: re.Pattern[str]
    subject: re.Pattern[str]
    past: bool
    roots: tuple[str, ...] = ()
    deed: bool = False
    chained: bool = False
    titles: tuple[str, ...] = ()
    posts: tuple[re.Pattern[str], re.Pattern[str]] | None = None
    language: bool = False
    writing: bool = False

    def about(self, word: str) -> bool:
        """Whether a word names the subject, or comes from its name: "Brazilian" of Brazil."""
        return bool(self.subject.fullmatch(word) or (len(word) > 4 and self.roots and word.startswith(self.roots)))

    def concerns(self, clause: str) -> bool:
        """Whether a clause speaks of what is asked, or of whom."""
        return bool(self.asked.search(clause) or self.subject.search(clause))


@lru_cache(maxsize=1024)
def question_for(text: str) -> Question:
    """Read a question.

    Args:
        text: The question without cues; a cloze works as well.
    """
    text = plain(text)
    words = re.findall(r"[\w'-]+", text)
    subject = {w.casefold().removesuffix("'s") for w in words[1:] if w[:1].isupper() or w[:1].isdigit()} - _STOP
    content = {w.casefold() for w in words} - subject
    asking = {word: lines for word in content if (lines := _lines_of(word))}
    stems = {stem for line in set().union(*asking.values()) for part in _LINES[line] for stem in part}
    stems.update(w for w in content - _STOP if len(w) > 3)
    stems.update(content & {"city", "country", "continent"})
    stems -= {"where", "from"}
    past = _asks_of_the_past([w for w in words if w.casefold().removesuffix("'s") not in subject])
    roots = tuple(sorted({w[:4] for w in subject if len(w) > 4}))
    deed, chained = bool(_DEED.search(text)), _relations(asking) + ("continent" in content) > 1
    titles = tuple(dict.fromkeys(" ".join(spell_out(found).split()) for found in _TITLE.findall(text)))
    pairs = (_HEADS, _HEADS[::-1])
    posts = next((pair for pair in pairs if pair[0].search(text) and not pair[1].search(text)), None)
    return Question(
        _stems(stems), _stems(subject, whole=True), past, roots, deed, chained, titles, posts, "language" in content,
        bool(content & _WRITING),
    )  # fmt: skip


_WRITING = {"write", "written", "wrote", "work", "works", "published", "composed", "book", "novel", "poem", "play"}
# of a state, and of its government; a president may be both
_HEADS = (
    re.compile(r"\b(?:heads? of (?:the )?state|monarch|king|queen|emperor)\b", re.I),
    re.compile(r"\b(?:heads? of (?:the )?government|prime minister|premier|chancellor)\b", re.I),
)


_TITLE = re.compile(
    r"(?<=\")\w[^\"]*\s[^\"]*(?=\")"
    r"|[A-Z0-9][\w'-]*(?:\s(?:(?:a|an|and|at|for|in|of|on|or|the|to|with)\s)*[A-Z0-9][\w'-]*)+"
)


# of each line of `RELATIONS` what asks for it, and by what else an answer may speak of it
_LINES = tuple(tuple(part.split() for part in line.split("|")) for line in RELATIONS)


def _lines_of(word: str) -> set[int]:
    """The lines of `RELATIONS` that a word asks for."""
    return {i for i, (triggers, _) in enumerate(_LINES) if any(_same(stem, word) for stem in triggers)}


def _relations(asking: dict[str, set[int]]) -> int:
    """How many relations words ask for, those that can ask for one and the same taken together.

    Args:
        asking: The words, each with its lines.
    """
    groups: list[set[int]] = []
    for lines in (lines for word, lines in asking.items() if word not in _OF_ANY_RELATION):
        joined = [group for group in groups if group & lines]
        groups = [group for group in groups if not group & lines] + [lines.union(*joined)]
    return len(groups)


_OF_ANY_RELATION = word_set("where country")


def _asks_of_the_past(words: list[str]) -> bool:
    """Whether the finite verb is past: "was", "did"; "founded" in "Who founded …", and not in "is located in".

    Args:
        words: The question's, without those of its subject.
    """
    present = False
    for word in (w.casefold() for w in words):
        if word in _PAST_AUXILIARIES:
            return True
        present = present or word in _PRESENT
        if not present and (word in _PAST_VERBS or re.fullmatch(r"\w{2,}[^e]ed", word)):
            return True
    return False


_DEED = re.compile(
    r"\b(?:which|what) (?:country|nation|continent) (?:first |originally )?(?!need)"
    r"(?:\w{2,}ed|won|made|led|sent|built)\b",
    re.I,
)
_PAST_AUXILIARIES = word_set("was were did had")
_PRESENT = word_set("is are be been being has have do does can could would will should")
_PAST_VERBS = word_set("wrote won made led sang came began held became ran built drew taught")


def _same(stem: str, word: str) -> bool:
    return word.startswith(stem) if len(stem) > 3 else word == stem


def _stems(stems: set[str], whole: bool = False) -> re.Pattern[str]:
    if not stems:
        return re.compile(r"(?!)")
    bodies = [
        re.escape(s) + (r"\w{0,6}" if len(s) > 3 and not whole else "") for s in sorted(stems, key=len, reverse=True)
    ]
    return re.compile(rf"(?<!\w)(?:{'|'.join(bodies)})(?!\w)")
