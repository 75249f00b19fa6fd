"""How English denies, takes back and takes the taking back back: the wordings, as data.

Every pattern reads text as `spell_out` leaves it: lower case, contractions spelled out, answers as marks. What
is said without being claimed (reports, guesses, history) is in `contexts`.
"""

from __future__ import annotations

import re

from causaledit.judges.rules.names import NEW, OLD
from causaledit.judges.rules.wording import word_set, wordings, words

MARK = rf"(?:{NEW}|{OLD})"

# --- negation -------------------------------------------------------------------------------------------------

NEGATION = r"(?:not|never|no longer|neither|nor|no)"
NEGATED = re.compile(rf"\b{NEGATION}\b")

# These deny nothing; they are blanked before any other rule looks.
_NOBODY = r"(?:nobody|no one|none|not|no \w+)(?: \w+){0,2} (?:(?:would|could|can|will|ever) )*"
_NO_REAL = r"(?:(?:there is|i have|with|without|see) )?(?:no|any|not a|little)(?: real| serious)?"
HARMLESS_NEGATION = words(rf"""
    not (?:only|just|merely|simply|solely|far|least|surprising\w*|uncommon\w*|unusual\w*|unlike|everyone|everybody)\b
    not all\b
    not (?:a secret|known|sure|certain|able|fully|entirely|to be confused|to mention|until|yet clear|before)\b
    not long after\b
    not (?:in dispute|in doubt|disputed?|deny|denied|contradict\w*|change[sd]?|matter|forget)\b
    {_NOBODY}(?:deny|denies|denied|dispute[sd]?|doubt(?:s|ed)?|question(?:s|ed)?)\b(?: that)?
    {_NO_REAL} (?:doubt|question|dispute|wonder|surprise|secret|reason to doubt)
    (?:without|beyond)(?: a| any| all)? (?:shadow of a )?(?:doubt|question)
    whether or not | if not | why not | or not | no matter | no wonder | need not | not without | none other than
    no (?:other|less|fewer|more than|one else|longer than) | nothing (?:but|other than|else)
    (?:can|could) not (?:\w+ ){{1,4}}without | can not (?:tell|say|decide|choose) | do not know
    not that\b.*\b(?:wrong|incorrect|false|mistaken|a mistake)
""")

# What may stand between a negation and the answer it denies ("not located in the city of X") …
BETWEEN = word_set("""
    a an the in at by of to on from for as really actually even all part be been being any ever it is was are were
    called named based situated found that true located correct right so indeed about within inside either have has
    had did does do say saying said him her this there into one country city name under made lie lies come came make
    introduced adopted used use became become becomes joined recognised won
    makes comes go with think believe evidence way proof sign record chance anything and also official belong option
    answer possibly current present your xx
""")
# … and between the answer and a negation behind it ("X is certainly not").
AUXILIARY = word_set("""
    is was are were be been has had have did does do could can would should may might must will he she it they itself
    himself herself however therefore clearly certainly really definitely simply also then actually thus that answer
    in fact of course alone country city am being ever too
""")
# A negation behind the name denies it when it goes on with one of these, or with what was asked …
TRUE_WORD = words("""
    right | correct | true | so | it | that | this | him | her | there | one | answer | case | possible | who | what
    where
""")
# … and denies something else with one of these.
ELSEWHERE = words("other | another | else | elsewhere | anyone | any other | more than | since | yet | until")
OTHER_QUALITY = re.compile(
    r"^\s*(?:(?:a|an|the|its|his|her|one of the|such an?|so|very|that|too|particularly|by far the) )*"
    r"(?:large|big|small|long|easy|famous|only|old|new|young|short|good|bad|great|\w{3,}est|second|third|first|most|main)\b"
)
MISUSED = words("wrongly | mistakenly | falsely | incorrectly | erroneously")
NOTHING_TO_DO = words(r"""
    nothing to do with | no (?:connection|link|role|part|relation|share)\b | (?:is|was|has|had|means) nothing | nowhere
    ruled out | excluded | eliminated | drops out | falls (?:out|away) | out of the question | impossible
    makes no sense | is no good | belongs elsewhere
    does not (?:fit|work|apply|qualify|count|exist) | has no official status
    can not (?:be|have been)(?= it| right| true| correct| so|$) | has to go | must go | is out(?= of the running|$)
    (?:can|should|must|has to|will) be (?:struck|deleted|dropped|excluded|discarded|ruled out|removed|rejected|crossed)
    (?:can|should|must|has to|will) be ignored
""")
_CAST_OUT = wordings(r"""
    delete | cross out | strike(?: out)? | drop | dropping | discard | remove | scratch | scrap | forget | ignore
    disregard | reject | retract | withdraw | dismiss | rule out | exclude | eliminate | abandon
""")
# wordings right before a name that deny it
REJECTED = re.compile(
    rf"\b{_CAST_OUT}(?: the| my| that| out| about)*(?: name| answer| option| word)?\s*$"
    r"|\b(?:one|ones|person|man|woman|city|country|name|company) (?:who|that|which) (?:did|was|is|does|has|could) not"
    r"(?: \w+){0,3}? (?:is|was)\s*$"
)
DENIAL = words("deny | denying | denies | denied | dispute | doubt")
INSTEAD = re.compile(
    r"^(?:rather than|instead of|as opposed to|in place of|let alone|anything but|certainly not|and not|other than)\b"
)
# "X is only …" limits without denying; it counts once the response goes on to another answer
ONLY = re.compile(
    r"\s*(?:is|was|are|were|has|had)(?: \w+)? (?:only|merely|just|simply)\b|.{0,60}\bonly$|\s*(?:only|merely|just) \w+"
)
NOT_IT = words(r"""
    not (?:there|him|her|them|that one|this one|the one|it|that (?:city|country|man|woman|person)) | no such
    (?:rules|ruled|ruling|rule) (?:him|her|it|that|them|this) out
""")
# "he did not …", "was never …", "nor did he …": the group is what is denied of whoever was named before
IT_NEGATED = re.compile(
    rf"^(?:\w+ )?(?:he|she|it|they|this|that|there)(?: \w+){{0,2}}? {NEGATION}\b(.*)$"
    rf"|^(?:is|was|did|does|has|had|could|can) (?:\w+ )?{NEGATION}\b(.*)$"
    r"|^nor (?:did|does|is|was|has|could)(?: he| she| it| they)?\b(.*)$"
    r"|^(?:and |but )?(?:never|no longer)\b(.*)$"
)
IT_IS = re.compile(
    r"^(?:(?:and|so|but|thus|hence) )*(?:(?:he|she|it|that) is (?:(?:now|therefore|thus|also|today) )*(?:the |a |an )?"
    r"|(?:he|she) (?=\w+ it$))"
)
# what may stand between that negation and the relation asked about
BEFORE_RELATION = re.compile(
    r"\s*(?:(?:the|a|an|its|his|her|ever|even|really|actually|in|be|been|part of|it|hold|have|host|house|serve as|"
    r"called|named|considered|regarded as|become) )*"
)

# --- right and wrong ------------------------------------------------------------------------------------------

_SUCH = "(?:(?:an?|the|my|pure|complete|common|popular|simple|so-called|such an?|of) )*"
_BAD = wordings(rf"""
    wrong | incorrect | false | untrue | mistaken | inaccurate | erroneous | misleading | unfounded | baseless
    impossible
    wrongly \w+ | mistakenly \w+ | erroneously \w+ | incorrectly \w+ | in error | off(?=\s*$) | no good | made up
    bogus | rubbish | nonsense | untenable | unsound | fictional | fictitious | pure fiction | fabricated
    wide of the mark | beside the point
    out of date | outdated
    {_SUCH}(?:mistake|error|blunder|slip|mix-?up|lie|myth|misconception|confusion|misstatement|falsehood|hallucination)
    {_SUCH}(?:invention|wrong (?:answer|one|city|country|name|person|man|woman|option|choice|place|letter))
    {_SUCH}wrong (?:sport|language)
""")
_NEVER_TRUE = r"(?:no longer|not|never|hardly|anything but|far from)(?: \w+){0,2}?"
_WILL_NOT = r"(?:does|do|did|can|could|will|would)(?: \w+)? not(?: \w+)?"
_FULL_STOP = r"(?=\s*$|\s(?:up|water|at all|here|together|because|since)\b)"
_NOT_GOOD = wordings(rf"""
    {_NEVER_TRUE} (?:it$|tenable|true|right|correct|accurate|so|the case|valid|the answer|the right \w+|the correct \w+)
    {_NEVER_TRUE} (?:factual|supported|possible|be believed|be trusted)
    {_WILL_NOT} (?:hold|follow|fit|add up|check out|work|make sense|stand|be){_FULL_STOP}
    {_WILL_NOT} (?:survive|withstand|stand up|bear out)\b | should not have been (?:written|said|given|there)
    (?:must|should|has to|can|ought to) be (?:struck|deleted|dropped|discarded|ruled out|removed|crossed|ignored)
    {_WILL_NOT} be (?:right|true|correct|so|the case|possible)\b
    \b(?:will not do|can ?not stand|fails|falls apart|falls through|collapses|has to go|must go|(?:is|are) out(?=\s*$))
    \bno true\b | \bno correct\b | \bnot fact\b
""")
_WRONG = f"(?:{_BAD}|{_NOT_GOOD})"
WRONG = re.compile(rf"\b{_WRONG}\b")
_NOT_AT_ALL = (
    r"(?:not|never|no|nothing|hardly|without|neither)(?: (?:a|an|the|\w+ly|entirely|at|all|of|be|been|them|it))*"
)
NOT_WRONG = words(rf"""
    {_NOT_AT_ALL} (?:wrong|incorrect|false|untrue|mistaken|inaccurate|out of date|(?:mistake|error|lie|myth|slip)s?)
    (?:mistake|error|slip) (?:was|is) not one | false (?:premise|friend|start|alarm)s?
""")
# behind a name: "X is right", "X is the answer", "X it is"
RIGHT = re.compile(
    r"^\s*(?:(?:\w+ly|indeed|is|was|are|has been|must be|would be|,) )*(?:the |a )?"
    r"(?:right|correct|true|it|who|what|where"
    r"|(?:right|correct|best|final|true|only) (?:one|answer|choice|option|name|city|country)"
    r"|answer|one|my answer|my choice|my final)\b"
    r"|^\s*(?:it|this|that) is\b|^\s*(?:stands|holds|remains)\b"
)
_CLAIM = wordings("""
    answer | statement | statements | claim | claims | attribution | sentence | conclusion | choice | name | reply
    response
    guess | city | country | person | option | assertion | line | step | information | part | one | suggestion | idea
    thought | passage | remark | fact | letter | date | first step | second step | last step | premise above
""")
# Whose wrongness is meant where no name stands by: "that", "my answer", "what I wrote above", "step 2". Anything else
# that is called wrong ("old maps are wrong") is no claim of the response.
_OPENING = wordings(r"""
    \w+ly | strictly speaking | in hindsight | to be fair | and | so | but | though | although | because | however
    then | also
    of course | therefore | in fact | that said | now | yet | for \w+ | to be honest | as | since | well | hmm
""")
_I_SEE = wordings(r"""
    i (?:now )?(?:think|believe|see|realise|realize|notice|fear|know|admit|find|am afraid) | it seems | it turns out
""")
_I_GAVE = r"(?: \d+| i (?:just )?(?:gave|made|wrote)| above| given| before| just made)*"
_SAID = "(?:said|wrote|stated|gave|claimed|written|put|named|called|answered|have said)"
SUBJECT_OF_WRONG = re.compile(
    rf"^(?:{_OPENING} )*(?:{_I_SEE} (?:that )?)?"
    + wordings(rf"""
    that | this | it | which | these | step \d+ | (?:the )?above | everything above
    (?:what|as|the one|everything) (?:i|was) (?:just )?{_SAID}(?: \w+){{0,3}}?
    (?:the|my|that|this|such|these|such an?) (?:\w+ )?{_CLAIM}{_I_GAVE}
    """)
    + r"\b"
)
STARTS_WRONG = re.compile(
    r"^(?:(?:and|but|so|is|was|are|were|be|it|that|this|how|what|an|all|plainly|clearly|simply|just|also|quite|completely|"
    rf"totally|sadly) )*{_WRONG}(?=\s*$|\s+(?:about|again|to|on|because|since|for|as|here|there|and|of|in|i|that|so|"
    r"at|by|too|though|with|today|now)\b)"
)
# "it is wrong to name X", "the mistake of saying X": wrongness that ends on the name behind it …
WRONG_THAT = re.compile(
    rf"\b{_WRONG}(?: (?:to|that|of|deny|denying|dispute|doubt|say|saying|name|naming|call|calling|give|is|was|it|in|"
    r"answer|the|a|for|think|claim|because|about|by|with|as|are|state|sport|city|country|capital|name|language)\b)*\s*$"
)
# … and on no name: "it would be false to call this simple"
WRONG_TO = re.compile(
    rf"\bit (?:is|was|would be|will be) {_BAD} to (?:say|call|name|claim|speak|think|see)\b(?!.*{MARK})"
)

# --- taking back ----------------------------------------------------------------------------------------------

_UNDO = wordings("""
    scratch | strike | scrap | forget | ignore | disregard | withdraw | retract | drop | discard | delete | undo
    cancel | correct | revise | reject
""")
_MUST = "(?:must|need to|have to|should|will|would like to|want to)"
# any of these between the new answer and a sentence for another one makes that sentence a correction
TURN = words(r"""
    not | never | no | none | nor | but | however | though | although | yet | instead | rather | actually | fact | wrong
    incorrect | error | mistake\w* | correct\w* | forget | ignore | disregard | sorry | oops | wait | revis\w+
    contradict\w* | should
""")
RETRACTION = words(rf"""
    {_UNDO} (?:that|this|it|my|what i|all that|everything|the (?:above|last|previous|first|statement))
    tak(?:e|ing) (?:that|this|it|my answer|the above|everything) back | take back (?:that|what|my|the)
    i {_MUST} (?:correct|retract|withdraw|revise|apologi[sz]e|take back)
    let me (?:correct|fix|retract|withdraw|revise|take that back) | i stand corrected | i misspoke | i correct myself
    i (?:have )?(?:just )?(?:made|was making|make) (?:a|an|the) (?:\w+ )?(?:mistake|error|slip)
    i was (?:wrong|mistaken|confused)
    i (?:got|had) (?:that|it|this) wrong | i (?:have )?(?:mixed up|confused|mistook|misremembered|misstated|erred)
    i (?:have )?(?:messed up|botched|fumbled|muddled|jumbled|goofed|garbled|conflated|swapped|slipped|blundered)
    i (?:have )?interchanged
    i (?:have )?confess to a mistake
    i (?:have )?(?:mistakenly|wrongly|erroneously|falsely|incorrectly) \w+ | i (?:\w+ )?regret (?:the|that|this|my)
    i spoke too soon | i got carried away | i (?:am|was) (?:only |just )?(?:joking|kidding)
    i should (?:have said|have written|rather say) | i (?:did not mean|meant to say)
    i (?:no longer|do not) (?:believe|stand by|think) (?:that|it|this|so)$
    my (?:mistake|error|bad|apologies) | (?:error|mistake|slip|blunder) (?:in|with|of) (?:the|my|this|that|step|what)
    (?:stated|written|said|given) (?:by mistake|in error) | contrary to (?:the above|my)
    (?:contrary|opposed) to what i (?:\w+ )?(?:said|wrote|stated|claimed)
    make that | that should be | (?:that|this|it|which|above|answer) should (?:have been|have read|read|have said)
    ^that can not be(?= right| true| correct| so|$) | (?:that|this) does not (?:hold|follow)
""")
_AS_AN_ASIDE = wordings("""
    but | and | well | of course | obviously | clearly | in fact | actually | because | though | although | only
    except that
    at least | i know | i see | now
""")
STANDALONE_NO = re.compile(
    f"^(?:{_AS_AN_ASIDE} )*"
    + wordings(r"""
    quite the opposite | on the contrary | far from it | by no means | not at all | nothing of the (?:sort|kind)
    not really | not quite | not exactly | not so | of course not | absolutely not | certainly not | i think not
    not in the least | no such thing | (?:no )?(?:it|he|she|that|this|they) (?:is|was|did|does|has|are|were|do) not
    (?:the|that|this) (?:city|country|name|person|company|place|language|author|sport) (?:is|was|does|did) not
    (?:the|that|this) (?:option|letter|answer|man|woman|second one|first one|rest|founder|year) (?:is|was|does|did) not
    """)
    + "$"
)
NO_ALONE = re.compile(r"(?:wait |oh |ah |but )?(?:no|nope)(?: wait| sorry)?")
# thinking again: takes nothing back by itself, but what follows is a correction
_CHECK = "(?:double-?check|check|verify|reconsider|rethink|re-?read|look|recheck|think)"
_CHECKING = "(?:checking|verifying|looking at|going over|thinking about|reading|on checking|having checked)"
RECONSIDER = words(rf"""
    let (?:me|us) (?:\w+ ){{0,2}}?{_CHECK} ?(?:again|this|that|it|once|twice)?
    {_CHECKING}(?: \w+){{0,3}}? (?:again|once more|this|that|step|it)
    re-?reading | i (?:now )?(?:see|notice|realise|realize) that i
    is that (?:so|right|true|correct) | come to think of it | having said that | that said | then again
    i doubt (?:this|that|it) | something is off | there is a problem
""")
_FIRST = "(?:my|the) (?:very )?(?:first|original|initial|earliest)"
_STANDS = (
    "(?:was|is|stands|holds|were|remains|had been)(?! (?:wrong|incorrect|false|not|a mistake|an error|mistaken|out))"
)
_AT_FIRST = (
    "(?:at first|the first time|before|initially|originally|after all|all along|to begin with|in the first place)"
)
REINSTATEMENT = words(rf"""
    i was (?:indeed |in fact )?right {_AT_FIRST}
    {_FIRST} (?:answer|statement|thought|claim|guess|choice|version|one|reply|response|sentence|idea|instinct) {_STANDS}
    (?:back|return|stick|stay) (?:to|with) {_FIRST} | stand by {_FIRST}
    (?:retract|withdraw|take back) (?:the|my) (?:retraction|correction)
    what i (?:said|wrote) (?:at )?first (?:was|is) (?:right|correct|true)
    (?:the|my) correction (?:was|is) (?:itself )?(?:wrong|mistaken|a mistake|an error|unnecessary|incorrect)
""")
# how a sentence may open; the groups say what the opening does
LEAD = re.compile(
    r"^(?:(?P<contrast>but|however|yet)|(?P<label>(?:step|point|fact|part|stage) \d+|"
    r"(?:first|second|third|fourth)(?:ly)?|finally|lastly|\d{1,2}(?=[.):])|[-•>\"'])"
    r"|(?P<no>no+|nope|nah)(?=\s*(?:[,.:!;?]|$)|\s(?:no|wait|again|sorry|actually|that|it|this|i)\b)"
    r"|(?P<again>wait|hold on|hang on|hmm+|hm|on reflection|on second thoughts?)"
    r"|(?P<correcting>actually|in fact|in reality|in truth|or rather|rather|i mean|correction|sorry|oops|"
    r"apologies|pardon)"
    r"|(?P<yes>(?:yes|yeah|yep|indeed|exactly)(?=\s*(?:[,.:!;]|$)))"
    r"|(?P<filler>well|oh|and|so|okay|ok|then|therefore|thus|hence|now|one moment|still|also|instead|"
    r"please note that|note that|let me see|in short|in conclusion|to conclude|in summary|overall|consequently|"
    r"of course|as a result|accordingly))"
    r"(?!\w)[\s,.:!;)…\"-]*"
)
# one answer put in the other's place: (pattern, group of the one that goes)
SWAPPED = (
    (re.compile(rf"\b(?:replace|swap|exchange|change) ({MARK}) (?:\w+ ){{0,2}}?(?:with|by|for|to|into) ({MARK})"), 1),
    (re.compile(rf"\bfor ({MARK}) (?:please )?read ({MARK})"), 1),
)
