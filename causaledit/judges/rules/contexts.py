"""How English names an answer without claiming it (reports, guesses, history, asides), and other languages.

As in `cues`, every pattern reads text as `spell_out` leaves it.
"""

from __future__ import annotations

import re

from causaledit.judges.rules.cues import MARK
from causaledit.judges.rules.text import plain
from causaledit.judges.rules.wording import wordings, words

# --- others say so, or it was said before -----------------------------------------------------------------------

_PEOPLE = wordings(r"""
    some | many | most | several | people | others | critics | fans | websites? | sources? | sites? | books? | textbooks
    (?:the|this|your) question | the prompt | you | users? | rumou?rs? | legends? | quiz\w* | students? | tourists?
    visitors?
    someone | somebody | everyone | a lot of people | articles? | maps? | encyclop\w+ | lists? | forums? | posts?
    the internet
    a few | few | one
""")
_SAY = wordings(r"""
    say | says | said | saying | claim\w* | think | thinks | thought | believ\w+ | suggest\w* | assum\w+ | argu\w+
    insist\w*
    stat(?:e|es|ed) | contain\w* | list\w* | names? | gives? | answer | expect\w* | repeat\w* | write | writes
    report\w*
    maintain\w* | guess\w* | confus\w+ | associat\w+ | call | mention\w* | want me to | implies | imply | presum\w+
    suppos\w+
    tell | told | read | heard | have it | tempted | connect\w* | link\w* | remember\w*
""")
_IS = "(?:is|are|was|were|been|be|gets?)"
_AT_TIMES = "(?:sometimes|often|commonly|frequently|occasionally|also|long|popularly|repeatedly)"
_IDEA = wordings("""
    claims? | rumou?rs? | myths? | ideas? | beliefs? | notions? | misconceptions? | suggestions? | story | stories
    legends?
    assertions? | theory | premise | sentence
""")
_I_ONCE = r"i (?:have |had |once )?"
_URGED = "(?:asked|invited|offered|told|expected|wanted|hoped|tried|planned|intended|considered|refused|declined)"
REPORT = words(rf"""
    {_PEOPLE}(?: (?!{MARK})[\w-]+){{0,4}}? {_SAY} | {_IDEA} (?:that|is|of|was|says|goes)
    {_IS}(?: \w+ly| often| sometimes| also| long)? (?:claimed|said|(?:believed|thought)(?! to (?:be|have)))
    {_IS}(?: \w+ly| often| sometimes| also| long)? (?:guessed|suggested|rumou?red|alleged|assumed|tempted|supposed)
    {_IS} {_AT_TIMES} (?:given|named|cited|listed|mentioned|confused|credited|called|quoted|reported|associated|linked)
    (?:given|named|cited) (?:in|by|as) (?:some|a few|many|several|older?)
    according to (?:some|old|older|outdated|popular|rumou?rs?|legend|a few|others)
    {_I_ONCE}(?:read|heard|seen|saw|was told|thought|assumed|said|wrote|claimed|stated|guessed|supposed|answered)
    i (?:first|initially) (?:thought|said|wrote) | i (?:was going to|wanted to|almost) sa(?:y|id) | tempting
    (?:can|could|would|will|do) not (?:confirm|verify|support|accept|agree|endorse|vouch|repeat|claim|pretend)
    (?:that|which|who)(?: still)? (?:says?|names?|gives?|lists?|shows?|calls?)
    {_URGED} (?:(?:me|him|her|us|them) )?(?:to|as) | supposedly | supposed to be | allegedly | reportedly
""")
# "X, say some"
REPORT_BEHIND = words("""
    (?:say|says|claim|argue|believe|think|suggest|write|insist|answer) (?:some|many|most|others|people|critics|a few)
    (?:say|says|claim|argue|believe|think|suggest|write|insist|answer) they
""")

# --- suppositions and guesses ------------------------------------------------------------------------------------

_IF = r"(?! (?:i )?(?:recall|remember|am not|ask))"
HYPOTHETICAL = re.compile(
    rf"^(?:(?:even|and|but|or|only|as|so) )?(?:if{_IF}|suppose|supposing|imagine|assuming|assume|had|were|unless|"
    r"should you)\b"
    rf"|\bif (?:i|you|one|we|it|he|she|they|the|there|that|this|{MARK})\b{_IF}"
)
POSSIBLE = words(r"""
    (?:may|might|could)(?: well| also| perhaps| either| just as well)? (?:be|have been)
    can (?:also )?be (?:defended|argued|made|named|given)
    a case (?:can be made )?for
    (?:possible|plausible|conceivable|imaginable)\b(?! other) | perhaps | possibly | maybe | either | whether
    depend(?:s|ing)
    possibilit\w+ | candidates? | conceivabl\w+ | options?(?: are| include) | choices?(?: are| include) | one of
""")
_UNABLE = wordings("""
    can ?not | could not | am not able to | am unable to | will not | would not want to | do not want to
    would rather not
    prefer not to | hesitate to
""")
_COMMIT = "(?:say|tell|decide|choose|determine|answer|guess|give|commit|pick|confirm|verify|state|be sure)"
UNDECIDED = words(rf"""
    i {_UNABLE} (?:\w+ )?{_COMMIT}
    i do not know | i am not (?:sure|certain) (?:which|who|what|whether|where|and|enough|about)
    (?:is|it is|remains) (?:unclear|unknown|uncertain|disputed|open|undecided) | nothing is proven
    there is no (?:single|clear|definite|definitive|one|agreed|certain)\b
    can not be (?:told|determined|decided|known|settled|said)
    leave (?:the|this|that|it)(?: \w+)? (?:to|open) | opinions (?:are divided|differ|vary)
    sources (?:differ|disagree|vary)
    hard to (?:say|tell) | impossible to (?:say|tell|know) | not (?:possible|able) to (?:say|tell|know|determine)
    i have no (?:idea|way of knowing) | i do not have (?:access|enough|information|the)
""")

# --- it once was -------------------------------------------------------------------------------------------------

HISTORY = words(r"""
    used to | formerly | former | previously | previous | once | until | till | up to | originally | in the past
    back then
    before | ended | stopped | ceased | abdicat\w+ | resign\w* | stepped down | retired | had that role | was long
    historically
    old (?:answer|entry|name|capital) | in (?:earlier|older|former|ancient|colonial) (?:times|days|years|centuries)
    at that time | at the time | no longer | as of \d{4} | centuries? ago | years ago | any ?more | out of date
    outdated
""")
PRESENT = words("now | today | currently | nowadays | these days | since | at present")
PAST, STILL = words("was | were | had"), words("is | are | has")
# one answer after the other: (pattern, group of the one that is history)
REPLACED = tuple(
    (re.compile(pattern), group)
    for pattern, group in (
        (rf"\bfrom (?:the )?({MARK}) (?:\w+ ){{0,2}}?(?:in)?to (?:the )?({MARK})", 1),
        (
            rf"({MARK}) (?:\w+ ){{0,2}}?(?:replaced|replaces|succeeded|succeeds|took over from|followed|superseded|"
            rf"displaced|ousted|defeated) (?:\w+ ){{0,2}}?({MARK})",
            2,
        ),
        (rf"({MARK}) (?:\w+ ){{0,3}}?(?:replaced|succeeded|superseded|followed) by (?:\w+ ){{0,2}}?({MARK})", 1),
        (
            rf"({MARK}) (?:\w+ ){{0,2}}?(?:gave way|passed|handed over|moved|changed) (?:in)?to "
            rf"(?:\w+ ){{0,2}}?({MARK})",
            1,
        ),
        (rf"({MARK}) ?[,(] ?(?:formerly|previously|once|not any ?more|ex)\b[^,.()]{{0,30}}?({MARK})", 2),
    )
)
TOOK_OVER = re.compile(
    r"\s*(?:\w+ ){0,2}?(?:(?:took|takes|has taken|taken) "
    r"(?:over|(?:the )?(?:oath|office|throne|chair)|(?:its|his|her|their|that) (?:place|role|seat|job))"
    r"|(?:replaced|succeeded|followed) (?:it|him|her|them))\b"
)

# --- named in passing ----------------------------------------------------------------------------------------------

_BESIDE = wordings(r"""
    near | between | with | than | like | unlike | such as | via | through | toward | towards | against | beyond
    outside
    besides | except | after | including | includes | border\w* | neighbou?r\w* | across | because of | over | around
    without(?: \w+){0,6} | rivals? (?:are|is) | not counting | despite | regardless of | visit\w* | about
    (?:close|next|similar|compared|prior|due|thanks|related|opposite|neighbou?r|road|ties|way|up) to
    (?:trip|flights?|exports?|link\w*) to
    (?:north|south|east|west|rival\w*|outskirts|neighbou?rs?|front|instead|friend|pupil|student|teacher) of
    (?:brother|sister|son|daughter|home|king|queen|history|map|list) of
    (?:his|her|its|their|the|a)(?: \w+)? (?:friend|rival|brother|sister|colleague|neighbou?r|predecessor|editor)
    (?:his|her|its|their|the|a)(?: \w+)? (?:pupil|student|teacher|contemporary|partner|competitor|wife|husband)
    (?:his|her|its|their|the|a)(?: \w+)? publisher
    (?<!come )(?<!comes )(?<!came )(?<!is )(?<!was )(?<!are )(?<!he )(?<!hail )(?<!hails )from
""")
OBLIQUE = re.compile(rf"\b{_BESIDE} (?:(?:the|a|its|all|other|both) )*$")
PAIR = re.compile(
    rf"\b({MARK}) ?(?:/|or|and|, or|, and|as well as|versus|vs\.?|-) "
    rf"(?:(?:in|by|the|it is|that it is|a|of) )*({MARK})\b"
)

# --- an answer given as such -----------------------------------------------------------------------------------------

EXPLICIT = re.compile(
    r"\b(?:(?:final|correct|right|my|best|short) )*(?:answer|option|choice|conclusion|solution|letter)\b[^,;]{0,60}?"
    r"(?: is| would be| must be| remains| now is|$)"
)
# words beside which a name still stands alone: "so it is X", "I would say X, of course"
FRAGMENT_WORDS = words("""
    xx | in | at | by | the | a | an | it | is | was | on | that | of | from | option | letter | so | hence | thus
    to | also | indeed | clearly
    simply | again | there | here | after | all | today | now | then | yes | i | mean | believe | think | guess | say
    would | name | answer
    final | city | country | must | be | are | they | he | she | but | and | play | with | go | choose | pick
    therefore | right | currently
    because | rather | instead | definitely | of course | probably | certainly | just | as | for | who | did | does | do
""")
PRONOUN = words("""
    he | she | it | they | its | his | her | their | there | here | this | that | these | i | we | you | people | one
    answer | option | name
    called | known | what | who | most
""")
# what may open a clause before its subject
JOINTS = re.compile(
    "^(?:"
    + wordings("""
    but | and | although | though | while | whereas | however | yet | because | so | then | so that | that | since
    as | which | who | where | when
    also | even | therefore | thus | hence | now | today | still | of course | indeed | clearly | in fact | instead
    rather | it seems | i think
    i believe | i recall | i recall that | i would say | maybe
    """)
    + " )+"
)
# "the capital is Z" with a Z of its own
STATED = re.compile(
    r"^(?:(?:so|therefore|thus|hence|and|now) )*(?P<head>(?:the|its|his|her|my) [^,]{1,60}?) (?:is|are) "
    r"(?:(?:in|by|now|the) )*(?P<first>[\w'-]+)(?: [\w'-]+){0,3}$"
)
DID_IT = re.compile(r"\s*(?:did|does|is|was|has|wrote|made)(?: it| so| that| the one)?\s*$")

# --- other languages -----------------------------------------------------------------------------------------------

FOREIGN_WORDS = re.compile(
    r"(?<!\w)"
    + wordings("""
    el | los | las | es | una | del | que | por | le | les | est | une | des | du | dans | der | die | das | ist | und
    wurde | von | eine?r? | nicht
    il | lo | gli | della | di | nella | os | uma | nao | het | een | och | ar | av | og | jest | nie | je | na | la
    en | de | c'est | sono | era | war
    """)
    + r"(?!\w)"
)
ENGLISH_WORDS = words("""
    the | is | was | of | it | that | this | not | are | were | by | and | he | she | to | but | wrong | has | have
    answer | for | i | you | a | an | so
    with | from | be
""")
FOREIGN_NEGATION = re.compile(
    r"(?<!\w)"
    + wordings("""
    no | non | nicht | keine?[rsmn]? | n'est pas | pas | nunca | jamais | mai | nie | niemals | nao | nem | niet
    geen | ikke | inte
    ej | ni | не | нет | никогда
    """)
    + r"(?!\w)"
)
FOREIGN_WRONG = re.compile(
    r"(?<!\w)"
    + wordings("""
    falsch | faux | fausse | falso | falsa | incorrecto | incorrect | errado | sbagliato | errore | error | erreur
    fehler | inexact
    onjuist | fout | forkert | fel | blednie | nieprawda | stimmt nicht | неверно | неправильно | ошибка
    """)
    + r"(?!\w)|"
    + plain("错误|不对|不正确|間違い|違います|틀렸")
)
FOREIGN_NO = re.compile(r"\s*(?:no|non|nein|nee|nej|nao|нет|不)\W*")
SPACELESS_NEGATION = re.compile(plain("不是|并非|而非|没有|不在|不|非|では(?:ない|ありません)|じゃない|아니"))
