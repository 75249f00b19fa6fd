"""The two answers in a text, whatever they are called there: each mention becomes one mark.

Aliases, surnames, option letters and nested names ("South Korea" and "Korea") are settled here, so that the
rules behind it read `NEW` and `OLD` only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from causaledit.facts.text import is_spaceless
from causaledit.reading.forms import other_forms, same_faith
from causaledit.reading.text import plain
from causaledit.reading.wording import pairs, word_set

NEW, OLD, OTHER = "xnewx", "xoldx", "xothx"
# the same for an adjective or an agent noun that gives an answer in some wordings only ("a Polish citizen")
ADJECTIVES = {"xanewx": NEW, "xaoldx": OLD}
# a word of a marked text → the answer it stands for
MARKS = {NEW: NEW, OLD: OLD, **ADJECTIVES}
_ADJECTIVE_OF = {who: mark for mark, who in ADJECTIVES.items()}

_PERSON = re.compile(
    r"\b(who|whom|whose|person|author|founder|head of|president|monarch|king|queen|minister|chancellor|ceo|"
    r"chief executive|chairperson|leader|governor|coach|spouse|husband|wife|father|mother|child|son|daughter|"
    r"composer|painter|director|writer|inventor|developer|mayor|singer|actor|actress|politician)\b",
    re.IGNORECASE,
)
_NAME_OF = re.compile(r"\bnames? of\b", re.IGNORECASE)
_AT_WHICH = re.compile(r"\b(?:in|on|at|from|to|of|for|under) (?:which|what)\b", re.IGNORECASE)
# what before the first person of a question says that something else is asked for: "in which city was the president …",
# "which university did the president …", "the capital of the country of the author …"
_OF_A_PERSON = re.compile(
    r"\b(?:where|when|how|of)\b"
    rf"|{_AT_WHICH.pattern}"
    r"|\b(?:which|what) (?!is|are|was|were)[\w'-]+ (?:[\w'-]+ )*?(?:is|are|was|were|did|does|do|has|had|have|will)\b"
    r"|\b(?:country|city|town|place|capital|continent|company|language|religion|sport)\b(?!')",
    re.IGNORECASE,
)
_NOT_A_SURNAME = re.compile(r"^(?:[IVX]+|Jr|Sr|\w{1,3}|[a-z].*|.*\d.*)$")
# "New England" is not England, "South Vietnam" not Vietnam, "York University" not York
_LARGER_BEFORE = re.compile(
    r"\b(?:North|South|East|West|New|Port|Fort|San|Santa|Upper|Lower|"
    r"Equatorial|Inner|Outer)\s$"
)
_WATERS = re.compile(r"\b(?:river|lake|gulf of|bay of|strait of)\s$", re.IGNORECASE)
_MOUNTAINS = re.compile(r"\b(?:Mount|Mt\.?)\s$")
_ASKS_FOR_WATERS = re.compile(r"\b(?:rivers?|lakes?|flows?|sea|gulf|bay)\b", re.IGNORECASE)
_ASKS_FOR_MOUNTAINS = re.compile(r"\b(?:mountains?|mount|peaks?|summits?|volcano(?:es)?)\b", re.IGNORECASE)
_LARGER_NAMES = frozenset(("american samoa", "northern ireland", "northern cyprus", "western sahara", "western samoa"))
# countries and states whose name with "City" is another place; "New York City" is New York
_WITH_A_CITY = word_set("mexico kansas oklahoma guatemala panama kuwait quebec belize iowa")
_TITLE = re.compile(r"^(?:king|queen) ")
# what may stand with a capital before a surname and is nobody's first name
_BEFORE_A_SURNAME = word_set("""
    a after also although american and as at author because before british but by can ceo chairman chancellor
    coach composer could dame did director doctor does dr emperor famous for former founder from general governor had
    has he her his how however if in inventor is it judge justice king lady later lord madam mayor minister
    miss mister mr mrs ms mx no not novelist now of oh on only or painter poet pope president prime prince princess prof
    professor queen rev saint secretary senator she since sir so st still that the then there they thus to today until
    was well what when where while who why will with writer yes
""")
_NICKNAMES = pairs("""
    bill: william | billy: william | bob: robert | bobby: robert | dick: richard | ted: edward, theodore
    liz: elizabeth | beth: elizabeth | tony: anthony | jack: john | harry: henry, harold | hank: henry
    chuck: charles | peggy: margaret | sasha: alexander | kate: catherine | mike: michael | meg: margaret
""")
_FIRST_NAME = re.compile(r"(?:(?P<first>[A-Z][\w'-]*) )?(?P<word>[A-Z][a-z][\w-]*) (?:[A-Z]\. )*$")
_CONTINENTS = word_set("africa asia europe oceania antarctica")
_LARGER_AFTER = re.compile(
    r"\s(?:University|College|Institute|Airport|Times|Street|Cosmos|Herald|Post|Museum|Conference|School)\b"
)
_FUNCTION_WORDS = word_set("""
    a all am an and are as at be been but by can de did do does du el en es et for he her his i if in is it la le li
    me my no nor not of on one or our re she so the to un us was we who will you
""")
# scripts without spaces between words
_PAREN_OPTION = re.compile(r"\(([A-Ha-h])\)\s*([^\n()]{1,120}?)\s*(?=\(|\n|$|[,;?])")
_LINE_OPTION = re.compile(r"^[ \t]*([A-H])[.):][ \t]+([^\n]{1,120}?)[ \t]*$", re.MULTILINE)


def _asks_for_a_person(question: str) -> bool:
    """Whether an answer may be a surname alone: "who …", "the president of …", not "where was the president … born"."""
    named = _NAME_OF.search(question)
    asked = question[named.end() :] if named else question
    if (person := _PERSON.search(asked)) is None:
        return named is not None and not _OF_A_PERSON.search(asked)
    behind = asked[person.end() :] if person[0].casefold() not in ("who", "whom", "whose") else ""
    return not _OF_A_PERSON.search(asked[: person.start()]) and not _AT_WHICH.search(behind)


@dataclass(frozen=True)
class Names:
    """Finds both answers in text.

    Attributes:
        pattern: Matches any name of either, longest first, in plain text with its case kept.
        marks: The mark of each matched text, folded.
        letters: The mark of each option letter, in upper case; empty where the prompt offers no options.
        waters: Whether rivers or lakes are asked for, so that "the river Niger" is an answer.
        mountains: Whether mountains are, so that "Mount Olympus" is one.
        own: The other words of the names that end in a surname, by surname: "Janet Jackson" is no Michael Jackson.
        options: The prompt's text behind each option letter, folded; the last one's with what the prompt goes on with.
    """

    pattern: re.Pattern[str]
    marks: dict[str, str]
    letters: dict[str, str]
    waters: bool = False
    mountains: bool = False
    options: dict[str, str] = field(default_factory=dict)
    own: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def parts(self) -> frozenset[str]:
        """The words of the new answer's names, folded."""
        return frozenset(word for name, mark in self.marks.items() if mark == NEW for word in name.split())

    def is_option(self, letter: str, text: str) -> bool:
        """Whether a text behind an option letter is that option and nothing more: the prompt's words or a name."""
        if self.mark(plain(text)).strip(" .,:;\"'").strip() in MARKS:
            return True
        folded, option = _bare(text), self.options.get(letter, "")
        return bool(folded) and (option == folded or option.startswith(f"{folded} "))

    def mark(self, text: str) -> str:
        """Replace every mention by its mark; the text is plain, its case is kept."""

        def replace(match: re.Match[str]) -> str:
            start, end = match.span()
            if self._larger_before(text, start, match.group()) or _LARGER_AFTER.match(text, end):
                return f" {OTHER} "
            key = _key(match.group())
            key = key if key in self.marks else _TITLE.sub("", key)
            if key in self.own and _of_another(text[max(0, start - 40) : start], self.own[key]):
                return f" {OTHER} "
            return f" {self.marks.get(key, OTHER)} "

        marked = self.pattern.sub(replace, text)
        if self.letters:
            marked = self._mark_letters(marked)
        return re.sub(r"[ \t]{2,}", " ", marked)

    def _larger_before(self, text: str, start: int, name: str) -> bool:
        """Whether the word before a match makes another name of it."""
        before = text[max(0, start - 12) : start]
        if name.casefold() in _CONTINENTS:  # West Africa is a part of Africa
            return False
        if name.casefold() in _WITH_A_CITY and text.startswith(" City", start + len(name)):
            return True
        if (not self.waters and _WATERS.search(before)) or (not self.mountains and _MOUNTAINS.search(before)):
            return True
        larger = f"{before.strip().split(' ')[-1]} {name}".casefold()
        return bool(_LARGER_BEFORE.search(before)) or larger in _LARGER_NAMES

    def _mark_letters(self, text: str) -> str:
        for shape in _letter_shapes("".join(self.letters)):
            text = shape.sub(self._replace_letter, text)
        # "(A) baht" is one mention; where letter and text disagree, the text counts
        return _LETTER_AND_TEXT.sub(r"\1", text).replace("xletx", "")

    def _replace_letter(self, match: re.Match[str]) -> str:
        start, end = match.start(1) - match.start(), match.end(1) - match.start()
        head, tail = match.group()[:start], match.group()[end:]
        return f"{head.rstrip('(')} xletx{self.letters[match.group(1).upper()]} {tail.lstrip(')')}"


_LETTER_AND_TEXT = re.compile(rf"xletx(?:{NEW}|{OLD}|{OTHER})\s{{1,2}}[.:)]?\s?({NEW}|{OLD})\b")


@lru_cache(maxsize=32)
def _letter_shapes(letters: str) -> tuple[re.Pattern[str], ...]:
    """How an option is named by its letter; a bare letter counts only where it cannot be a word."""
    either = f"[{letters}{letters.lower()}]"
    return tuple(
        re.compile(shape)
        for shape in (
            rf"\(({either})\)",
            rf"(?<![\w(])({either})\)",
            rf"^\W{{0,3}}({either})(?=\W{{0,3}}$)",
            rf"^\W{{0,3}}([{letters}])(?=[.:]\s)",
            rf"(?i:\b(?:option|answer|choice|letter)(?: is|:)?\s+)\(?({either})\b\)?(?!\s+[a-z]{{3,}}ing\b)",
            rf"(?i:\b(?:pick|choose|select|go with|is|be|to|on|not|no|with|say))\s({_but_a(letters)})"
            r"(?=\W*$|[.,;]\s|\s(?i:is|was)\b)",
            rf"(?<!amin )(?<!itis )(?<!lan )(?<!lass )\b({_but_a(letters)})(?=\s(?i:is|was|can|must|it)\b|\W{{0,2}}$)",
            rf"\b([{letters}])(?=\s(?i:is|was)\s(?i:not|wrong|right|incorrect|correct|false|the|a mistake|an error)\b)",
        )
    )


def _of_another(before: str, own: frozenset[str]) -> bool:
    """Whether what stands before a surname is somebody else's first name.

    Args:
        before: The text in front of it.
        own: The other words of the names that end in it, folded.
    """
    found = _FIRST_NAME.search(before)
    if not found:
        return False
    word = found["word"].casefold()
    if word in _BEFORE_A_SURNAME or word.endswith("ly") or (found["first"] or "").casefold() in own:
        return False
    # another form of the same name: "Steve" and "Stephen", "Bill" and "William"
    return not (any(word[0] == one[0] for one in own) or set(_NICKNAMES.get(word, ())) & own)


def _key(name: str) -> str:
    """A name as its mark is looked up: folded, without full stops and commas, hyphens as spaces."""
    return " ".join(re.sub(r"[.,]", "", name.casefold().replace("&", " and ")).replace("-", " ").split())


def _but_a(letters: str) -> str:
    """Option letters that are no English word."""
    return f"[{letters.replace('A', '').replace('I', '') or letters}]"


@lru_cache(maxsize=1024)
def names_for(new: tuple[str, ...], old: tuple[str, ...], question: str, prompt: str) -> Names:
    """Compile the names of one edit.

    Args:
        new: The new answer and its aliases; a name that both answers carry counts as the new one's.
        old: The old answer and its aliases.
        question: Tells whether surnames are wanted, and which larger names hold an answer's name.
        prompt: Where option letters are looked up.
    """
    person = _asks_for_a_person(question)
    table: dict[str, str] = {}
    shapes: dict[str, _Shape] = {}
    for mark, given in ((NEW, new), (OLD, old)):
        faiths = tuple(faith for name in given if name for faith in same_faith(plain(name).strip(), question))
        for name, cased in _variants((*given, *faiths), person):
            folded = _key(name)
            if folded not in table:
                table[folded] = mark
                shapes[folded] = _shape(name, cased, titled=person)
    for mark, given in ((NEW, new), (OLD, old)):
        for form in (form for name in given if name for form in other_forms(plain(name).strip(), question)):
            if _key(form) not in table:
                table[_key(form)] = _ADJECTIVE_OF[mark]
                shapes[_key(form)] = _shape(form, form[0].isupper())
    if not shapes:
        return Names(re.compile(r"(?!)"), {}, {})
    pattern = _alternatives(shapes)
    for phrase in _larger_names(plain(question), pattern, table):
        table[_key(phrase)] = OTHER
        shapes[_key(phrase)] = _shape(phrase, False)
        pattern = _alternatives(shapes)
    waters, mountains = bool(_ASKS_FOR_WATERS.search(question)), bool(_ASKS_FOR_MOUNTAINS.search(question))
    own = _own_words((*new, *old)) if person else {}
    options = _options(prompt)
    letters = _letters(Names(pattern, table, {}), options)
    texts = {letter: _bare(text) for letter, text in options.items()}
    return Names(pattern, table, letters, waters, mountains, texts, own)


def _own_words(given: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Of each surname the other words of the names that end in it; of one that is a name by itself none."""
    found: dict[str, frozenset[str]] = {}
    for name in (plain(raw).casefold().split() for raw in given if raw):
        if len(name) > 1:
            found[name[-1]] = found.get(name[-1], frozenset()) | frozenset(name[:-1])
    return found


def _alternatives(shapes: dict[str, _Shape]) -> re.Pattern[str]:
    """One pattern for all names, longest first."""
    order = sorted(shapes, key=len, reverse=True)

    def bodies(spaceless: bool, ascii_only: bool) -> str:
        kept = [s for s in (shapes[n] for n in order) if s.spaceless == spaceless and s.body.isascii() == ascii_only]
        free = "|".join(s.body for s in kept if not s.cased)
        cased = "|".join(s.body for s in kept if s.cased)
        return "|".join(part for part in (f"(?i:{free})" if free else "", cased) if part)

    # a Latin name may stand directly beside Chinese or Thai, which count as word characters
    latin, others, spaceless = bodies(False, True), bodies(False, False), bodies(True, False)
    parts = (
        rf"(?<![0-9A-Za-z_])(?:{latin})(?![0-9A-Za-z_])" if latin else "",
        rf"(?<!\w)(?:{others})(?!\w)" if others else "",
        spaceless,
    )
    return re.compile("|".join(part for part in parts if part))


def _variants(given: tuple[str, ...], person: bool) -> list[tuple[str, bool]]:
    """Each name in plain spelling, and whether it matches in its own case only."""
    found: list[tuple[str, bool]] = []
    for raw in given:
        name = " ".join(plain(raw).replace(" ; ", " - ").split()).strip(" .,") if raw else ""
        if not name:
            continue
        letters = name.replace(".", "")
        short = len(letters) <= 3 and letters.isascii() and letters.isalpha()
        if short and name.islower() and (len(letters) < 3 or name in _FUNCTION_WORDS):
            continue  # a language code such as "it" is found in every text
        found.append((name, short and name.isupper()))
        words = name.split()
        if person and 2 <= len(words) <= 5 and not _NOT_A_SURNAME.match(words[-1]):
            found.append((words[-1], True))
        if ", " in name:
            found.append((name.split(", ")[0], False))
        if words[0].casefold() == "the" and len(words) > 1:
            found.append((" ".join(words[1:]), False))
    full = {name.casefold() for name, cased in found if not cased}
    return [(name, cased) for name, cased in found if not cased or name.casefold() not in full]


# Korean writes particles behind a name without a space
_HANGUL = re.compile("[\u1100-\u11ff\uac00-\ud7af]")


@dataclass(frozen=True)
class _Shape:
    """A name as a pattern: in its own case only, or in a script without spaces between words."""

    body: str
    cased: bool
    spaceless: bool


def _shape(name: str, cased: bool, titled: bool = False) -> _Shape:
    """The pattern of a name: "Port au Prince" is "Port-au-Prince", "U.K." is "UK", "&" is "and".

    Args:
        name: In plain spelling.
        cased: Whether it matches in its own case only.
        titled: Whether a king's or queen's title before it is a part of it.
    """
    spaceless = is_spaceless(name) or bool(_HANGUL.search(name))
    words = name.split() if spaceless else re.split(r"[\s-]+", name)
    letters = name.replace(".", "")
    if cased and letters.isupper() and letters.isalpha() and len(letters) <= 3:
        body = r"\.?".join(letters)
    else:
        # "Washington DC" is "Washington, D.C."
        parts = ((r"(?:,?\s+|-)" if _INITIALS.match(w) else r"(?:\s+|-)") + _word_shape(w) for w in words[1:])
        body = _word_shape(words[0]) + "".join(parts)
    if titled and not spaceless:
        body = rf"(?:(?:King|Queen)\s+)?{body}"
    return _Shape(body, cased, spaceless)


_INITIALS = re.compile(r"(?:[A-Z]\.?){2,3}$")


def _word_shape(word: str) -> str:
    if word.casefold() in ("and", "&"):
        return "(?:and|&)"
    if _INITIALS.match(word):
        return r"\.?".join(word.replace(".", ""))
    return re.escape(word).replace(r"\.", r"\.?").replace(",", ",?")


def _larger_names(question: str, pattern: re.Pattern[str], known: dict[str, str]) -> list[str]:
    """Capitalised phrases of the question that hold an answer's name: "Bank of America" is not America."""
    phrases = re.findall(r"[A-Z][\w'-]*(?:\s(?:of|the|de|and)(?=\s[A-Z])|\s[A-Z][\w'-]*)+", question)
    return [p for p in phrases if _key(p) not in known and pattern.search(p)]


def _options(prompt: str) -> dict[str, str]:
    """The prompt's text behind each option letter."""
    found = _PAREN_OPTION.findall(prompt) or _LINE_OPTION.findall(prompt)
    return {letter.upper(): text for letter, text in found}


def _letters(names: Names, options: dict[str, str]) -> dict[str, str]:
    letters: dict[str, str] = {}
    for letter, text in options.items():
        marked = names.mark(plain(text).strip())
        letters[letter] = NEW if NEW in marked else OLD if OLD in marked else OTHER
    return letters if len(letters) > 1 else {}


def _bare(text: str) -> str:
    """A text in lower case, with its words alone."""
    return " ".join(re.findall(r"\w+", plain(text).casefold()))
