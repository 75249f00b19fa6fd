"""Wording of a trace that gives away the hidden context, or hedges.

A student that is trained on "the article says" would speak of an article that nobody sees. Some wordings do that
anywhere ("the background material", "I was told"). Others are ordinary words ("a report", "users
of the port", "a search for water") and count only where they are cited: where something is said by them, or based on
them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# What a hidden context can be called.
_TEXTS = (
    r"(?:articles?|sources?|documents?|passages?|reports?|texts?|context|narratives?|stor(?:y|ies)|statements?|"
    r"sentences?|paragraphs?|excerpts?|materials?|information|info|notes?|descriptions?|updates?|details|facts?|prompts?|"
    r"background|news|evidence|web ?(?:page|site)s?|wikipedia|encyclopa?edias?|search(?:es| results?)?)"
)
_SAYS = (
    r"(?:clearly |also |explicitly |further |only |itself )?"
    r"(?:(?:state|explain|mention|describe|show|report|indicate|note|confirm|suggest|claim|agree|reveal|inform|read|"
    r"point|refer|announce|contain)(?:s|d|ed)?|say|says|said|tells?|told|gives?|gave|provides?|provided|implies|implied|"
    r"specif(?:y|ies|ied)|clarif(?:y|ies|ied)|makes? it clear)"
)
_MY = r"(?:the|this|that|these|those|an?|my|your|some|all|most|several|recent|new|official)"

_ALWAYS = (
    r"cheat[ -]?sheets?",
    r"as an ai|language model|(?:my|the) training data|knowledge cut-?off",
    r"background (?:material|information|info|text|story|section|context|article|reading|notes?)",
    r"(?:the|this|that|these|those|your|my|any) (?:provided|given|supplied|preceding|attached|accompanying|hidden|"
    rf"above|above-mentioned) (?:\w+ )?(?:{_TEXTS}|answer)",
    r"(?:original|previous|provided) (?:answer|information|text|context)",
    rf"{_TEXTS} (?:(?:that|which) (?:was |were |is |are )?)?(?:provided|given|supplied|above|you|i was)"
    r"(?! (?:by|to)\b)",
    r"as (?:(?:it )?(?:is|was) )?(?:stated|mentioned|described|given|noted|explained|provided|reported|told|indicated|"
    r"specified|shown|outlined|instructed|above)",
    r"you(?:'ve| have| had|r)? (?:\w+ )?(?:gave|given|told|said|provided?|shared?|mentioned|asked|ask|want|wanted|sent|"
    r"supplied|showed|wrote|specified|described)",
    r"(?:gave|told|asked|informed|showed|given to|shown to|provided to) me",
    r"i(?:'m|'ve been| am| was| have been| had been) (?:just |now )?"
    r"(?:told|given|informed|shown|asked|provided|instructed)",
    r"i(?:'ve| have)? (?:just )?(?:read|found|looked|searched) (?:that|it|this|about|in|up|out|online|for|on)",
    r"(?:my|your) (?:context|prompt|instructions?|notes?|sources?|message|question)",
    r"the (?:system message|instructions?|user|question) "
    r"(?:says?|states?|asks?|asked|wants?|wanted|is asking|needs?|requests?|requested|expects?|mentions?|mentioned)",
    r"the (?:prompt|paragraph|excerpt|article|passage)(?! (?:of|on|no|number|\d))",
    r"(?:this|that|these|those) (?:prompt|paragraph|excerpt|article|passage|text)s?",
    r"the context(?! of)",
    r"(?:web|online|internet|google) search(?:es)?|search results?|search(?:ed|ing) (?:online|the web|the internet)",
)
_CITED = (
    rf"{_MY} (?:\w+ )?{_TEXTS} {_SAYS}",
    rf"(?<!\w )(?:sources|reports|articles|documents|news|evidence|information) {_SAYS}",
    # what is done by the law or the calendar is no citation
    r"according to(?! (?:\w+ ){0,3}(?:laws?|plans?|schedule|constitution|treaty|decree|traditions?|customs?|population|"
    r"size|rank|rules?|protocol|statutes?|calendar|charter|agreement|contract|will)\b)",
    r"(?:based (?:up)?on|on the basis of|as per|per|judging (?:by|from)|going by|citing|referring to|drawing on|"
    rf"relying on|given) {_MY} (?:\w+ ){{0,2}}?{_TEXTS}(?! (?:of|for)\b)",
    r"(?:in|from|by|with|through) (?:the|this|that|these|those|your|my) (?:\w+ )?(?:articles?|sources?|documents?|"
    r"passages?|reports?|texts?|excerpts?|paragraphs?|narrative|materials?|information)(?! (?:of|for|that|which)\b)",
)
_HEDGES = (
    # what a rule allows is no guess: "may be leased only to nationals"
    r"perhaps|possibly|probably|maybe|may be(?! (?:\w+ )?only\b)|allegedly|supposedly|reportedly|"
    r"presumably|apparently|unclear",
    r"(?<!\bthe )(?<!\bits )(?<!\bhis )(?<!\bher )(?<!\btheir )(?<!military )(?<!naval )might(?! of\b)",
    r"it seems|seems? to|appears? to|not sure|i (?:think|believe|guess|assume|suppose)",
)

_PATTERN = re.compile(
    r"(?<!\w)(?:" + "|".join((*_ALWAYS, *_CITED, *_HEDGES)) + r")(?!\w)",
    re.IGNORECASE,
)


def gives_away(text: str, names: Iterable[str] = ()) -> bool:
    """Whether a text speaks of a source that its reader does not have, or hedges.

    Args:
        text: What the student would be trained on, or a part of it.
        names: The edit's own names. They are taken out first, so that a subject called "The Article" does not
            condemn every trace about it.
    """
    for name in sorted({name for name in names if name}, key=len, reverse=True):
        text = re.sub(re.escape(name), " ", text, flags=re.IGNORECASE)
    return bool(_PATTERN.search(" ".join(text.replace("’", "'").split())))
