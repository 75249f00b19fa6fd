"""The words a sentence is read by, as data: which kind of token each one makes.

One block per kind; a new line or "|" separates two wordings, and a trailing "*" stands for any ending. Words are
those that `text.spell_out` leaves: lower case, contractions spelled out. The longest wording that fits wins, so that
"not only" is no negation. What follows from the order of the kinds (a negation before a word of truth, a falsehood
said of "that") is not here but in `clauses` and `stance`: a new wording belongs here only where no structure finds it.
"""

from __future__ import annotations

from enum import IntEnum, auto


class Kind(IntEnum):
    """What a token does in its sentence."""

    NAME = auto()  # an answer (which one: `Token.who`)
    ADJECTIVE = auto()  # beside NAME: a demonym or another form that gives the answer in some wordings only
    PROPER = auto()  # a name of something else
    ASKED = auto()  # a word of the relation that is asked about
    SUBJECT = auto()  # a word of the subject that is asked about
    BREAK = auto()  # a comma and the like: the end of a clause
    COLON = auto()
    # denial
    NEGATION = auto()
    HARMLESS = auto()  # contains a negation, or a word of falsehood, that denies nothing
    DENIAL = auto()  # deny, doubt
    FALSE = auto()  # wrong, a mistake
    CLASH = auto()  # contradicts, falls apart: as good as wrong
    OUT = auto()  # ruled out, nothing to do with
    TRUE = auto()  # right, the case, fits: with a negation as good as wrong
    VOUCH = auto()  # confirm, stand behind: what somebody cannot do for a claim that is wrong
    EVIDENCE = auto()  # what there is none of for a claim that is wrong
    MISUSED = auto()
    # taking back
    UNDO = auto()  # scratch, withdraw
    ERR = auto()  # I mixed up, I misspoke
    JOKE = auto()
    AGAIN = auto()  # wait, let me check: a second thought
    AMEND = auto()  # actually, correction: what follows is meant instead
    CONTRAST = auto()
    NO = auto()
    YES = auto()
    UNREAL = auto()  # in another world
    # who says so, and how surely
    SELF = auto()
    PEOPLE = auto()
    SAY = auto()
    SAID = auto()  # its participle
    AT_TIMES = auto()
    IDEA = auto()
    URGED = auto()
    ASIDE = auto()  # supposedly: others say so
    SOURCE = auto()  # according to
    SEE = auto()  # I see, I must admit: opens what the response says itself
    IF = auto()
    WOULD = auto()
    MAYBE = auto()
    UNDECIDED = auto()
    UNABLE = auto()
    COMMIT = auto()
    # when
    PAST = auto()  # used to, formerly
    WAS = auto()
    IS = auto()
    NOW = auto()
    LEAVE = auto()  # moved away from
    TAKE_OVER = auto()
    # what is spoken of
    FIRST = auto()  # my first, the above
    CLAIM = auto()  # statement, answer: something the response said
    STEP = auto()
    THIS = auto()  # that, this, it: what was said
    PERSON = auto()  # he, she, it, they: who was named
    ANSWER = auto()  # final answer
    BESIDE = auto()  # near: what follows is named in passing
    ONLY = auto()
    PARTIAL = auto()  # spoken by a minority
    QUALITY = auto()  # large, famous: a negation of it denies nothing that was asked
    ELSE = auto()
    CITIZEN = auto()  # makes an adjective an answer
    FILL = auto()  # may stand between a negation and its name
    AUX = auto()  # may stand between a name and its negation
    LINK = auto()  # joints a clause may open with
    SHOULD = auto()


LEXICON: dict[Kind, str] = {
    Kind.BREAK: """
        , | ; | ( | ) | ... | … | . | ! | ?
    """,
    Kind.COLON: ": ",
    Kind.NEGATION: """
        not | never | no | none | nobody | no one | nothing | nowhere | neither | nor | hardly | barely | scarcely
        no longer | anything but | far from | by no means | fail to | fails to | failed to | lacks | none of
        none of these | none of them | neither of | in no way | not a single | not one | no such thing | not any
        zero | can not | could not | am not able to | am unable to | will not | would not want to | do not want to
        would rather not | prefer not to | unable to | not able to | and not | certainly not | rather than
        instead of | as opposed to | contrary to | in place of | let alone | other than
    """,
    Kind.HARMLESS: """
        not only | not just | not merely | not simply | not least | not unusual* | not everyone | not all
        not a secret | not known | not sure | not certain | not able | not fully | not to be confused | not confuse
        not to mention | not until | not in dispute | not change* | not matter | not mix | no doubt | no question
        without a doubt | no wonder | no surprise | no secret | if not | or not | need not | none other than
        no other | no one else | no longer than | nothing but | nothing other than | nothing else | not easy
        not contradict* | not be misled |
        not every | not everything |
        fictional city | fictional town | fictional village | fictional country | fictional nation
        fictional kingdom | fictional land | fictional island | fictional world | fictional universe | fictional place
        fictional planet | fictional character* | fictional person* | fictional detective* | fictional hero*
        fictional company | fictional organi* | fictional school | fictional work* | fictional novel*
        science fiction | historical fiction | work of fiction | works of fiction | fiction novel* | fiction writer*
        fiction author* | fiction book* | fiction film* | fiction series
    """,
    Kind.DENIAL: """
        deny | denies | denying | denied | dispute* | doubt | doubts | doubted | question | questions | questioned
    """,
    Kind.FALSE: """
        wrong | wrongly | incorrect* | false | falsely | untrue | mistake | mistakes | mistaken | mistakenly
        inaccura* | erroneous* | misleading | unfounded | baseless | error | errors | slip | slips | slip-up
        blunder* | oversight* | mix-up | mixup | a lie | myth* | misconception* | confusion | misstatement*
        falsehood* | hallucination* | invention | made up | made-up | bogus | rubbish | nonsense | untenable
        unsound | fictional | fiction | fictitious | fabricated | fabrication | wide of the mark | beside the point
        out of date | outdated | impossible | backwards | invalid | flawed | imaginary | unsupported | debunked
        disproved | disproven | absurd | misguided | unreliable | implausible | improbable | unsubstantiated
        unverified | misnomer | is off | no good | garbage | misinformation | misunderstanding* | typo* | glitch*
        fake | hypothetical | counterfactual | muddle* | in error | way off
    """,
    Kind.CLASH: """
        contradict* | disagree* | conflict* | clash* | at odds | inconsistent | inconsistency | incompatible
        collapses | collapse | fails | speaks against | speak against | has to go | is out | can not stand
        knows better | needs correcting | does not hold | is not so | otherwise | falls apart | breaks down
        goes against | runs counter | departed from | depart from
    """,
    Kind.OUT: """
        nothing to do with | no part | ruled out | excluded | eliminated | drops out | has to go | no known ties
        no such | no official status | rule out | be struck | be rejected | out of the question | off the table
        no connection | no link | no relation
    """,
    Kind.TRUE: """
        true | right | correct | accurate | the case | valid | factual | sound | tenable | supported | plausible
        hold | holds | stand | stands | match | matches | reflect | reflects | correspond* | fit | fits | follow
        follows | survive | survives | withstand | upheld | defensible | agree with | tally | exist | exists
        reliable | consistent | the answer | a fact | fact | real | possible | believed | trusted | the right
        the correct | sustained | maintained | sense | apply | applies | qualify | count | trustworthy | sound right
        add up | adds up | check out | checks out | make sense | makes sense | bear out | ring true | hold up
        stand up |
        to be accurate
    """,
    Kind.VOUCH: """
        confirm | verify | support | endorse | vouch | back this up | stand behind | stand by | square | reconcile
        justify | substantiate | corroborate | uphold | find | recall | name | trust | rely | defend | accept | back
        see | locate | prove | believe | agree | think | keep
    """,
    Kind.EVIDENCE: """
        evidence | record* | proof | sign | signs | trace | traces | basis | source | sources | indication*
        confirmation | suggests | suggest | indicates | indicate | supports | confirms | documentation | foundation
        grounds | truth | points | reference | references | substance | backs
    """,
    Kind.MISUSED: """
        wrongly | mistakenly | falsely | incorrectly | erroneously
    """,
    Kind.UNDO: """
        scratch | strike | scrap | forget | ignore | disregard | withdraw | retract | drop | discard | delete | undo
        cancel | revise | reject | rephrase | amend | rescind | rectify | reverse | overrule | retracting
        withdrawing | correct that | correct this | correct myself | correct the | take that back | take it back
        taking it back | i stand corrected | stand to be corrected | dismiss | cross | remove | dropping | rule out
        exclude | eliminate | abandon | ruled out | rules him out | rules her out | rejecting | deleted | dropped
        discarded | excluded | eliminated | removed | rejected | struck | crossed | ignored | disregarded
        withdrawn | retracted | corrected | revised | rectified | correcting | fixing | revision | make that
        make it
    """,
    Kind.ERR: """
        invented this | misspoke | misremember* | misattribut* | misread* | misstat* | mistook | misidentif*
        misunderst* | mislabel* | mixed up | mixed | confused | confusing | conflat* | swapped | muddled | erred
        botched | slipped | blundered | jumbled | garbled | interchanged | fumbled | goofed | spoke too soon
        thinking of | made that up | made it up | made up | why i said | regret | apologi* | hallucinated
        was lying | lied | should have said | should have written | meant to say | did not mean | got carried away
        jumped the gun | no longer believe | no longer stand by
    """,
    Kind.JOKE: """
        kidding | joking | haha* | gotcha | fooling | what am i saying | teasing | jest | a joke | jk
    """,
    Kind.AGAIN: """
        wait | hold on | hang on | hmm* | hm | on reflection | on second thought* | one moment | double-check*
        double check* | let me check | let me verify | let us verify | verify* | reconsider* | rethink | re-read*
        reread* | recheck* | re-check* | come to think of it | checking | looking at | going over | is that so
        there is a problem | let me think | thought about it | on checking | let me re* | then again | i doubt
        inspection | upon reflection | upon further reflection | on further reflection | upon further consideration
        upon consideration | on second thoughts | upon second thought | upon checking | upon review
    """,
    Kind.AMEND: """
        actually | in fact | in reality | in truth | or rather | rather | i mean | correction | correcting | sorry
        oops | apologies | pardon | as a matter of fact | to be accurate | edit | erratum | instead | whoops
        really | ah | oh | ups | strictly speaking | corrected | correction to | erm | um | uh | er | to be precise
        to be exact | the truth is | in point of fact
    """,
    Kind.CONTRAST: """
        but | however | yet | though | although | whereas | while | nevertheless | nonetheless | even so | that said
        having said that | having said this | on the other hand | in contrast | at the same time | despite
        in spite of | still | then | even though
    """,
    Kind.NO: """
        no | nope | nah
    """,
    Kind.YES: """
        yes | yeah | yep | indeed | exactly
    """,
    Kind.UNREAL: """
        alternative timeline | alternate history | be news to | surprise anyone | only make sense | counterfactual
    """,
    Kind.SELF: """
        i | me | my | we | us | our | myself
    """,
    Kind.PEOPLE: """
        some | some people | many | most | several | people | others | critics | fans | website | websites | source
        sources | site | sites | book | books | textbooks | the question | your question | prompt | premise | you
        user | users | rumour* | rumor* | legend | legends | quiz* | text | texts | passage | student | students
        tourists | visitors | someone | somebody | everyone | everybody | article | articles | map | maps
        encyclop* | list | lists | forum | forums | post | posts | the internet | few | one | blogs | blog
        newspaper | newspapers | media | professor | teacher | friend | anyone | they | he | she | reader | readers
        training data
    """,
    Kind.SAY: """
        say | says | said | saying | claim | claims | claimed | think | thinks | thought | thinking | believ*
        suggest | suggests | suggested | assum* | argu* | insist* | state | states | stated | contain* | list
        lists | listed | names | name | gives | give | answer | expect* | repeat* | write | writes | wrote | report
        reports | reported | maintain* | guess* | confus* | associat* | call | mention* | implies | imply | presum*
        suppos* | tell | told | read | heard | have it | tempted | connect* | link* | remember* | joke | jokes
        joked | choose | object | objects | protest | note | notes |
        presuppos* |
        show | shows | showed
    """,
    Kind.SAID: """
        claimed | said | believed | thought | guessed | suggested | rumoured | rumored | alleged | assumed | tempted
        supposed
    """,
    Kind.AT_TIMES: """
        sometimes | often | commonly | frequently | occasionally | also | long | popularly | repeatedly | usually
    """,
    Kind.IDEA: """
        claim | claims | rumour | rumours | rumor | rumors | myth | myths | idea | ideas | belief | beliefs | notion
        notions | misconception | misconceptions | suggestion | suggestions | story | stories | legend | legends
        assertion | assertions | theory | premise | sentence | mistake
    """,
    Kind.URGED: """
        asked | invited | offered | told | expected | wanted | hoped | tried | planned | intended | considered
        refused | declined
    """,
    Kind.ASIDE: """
        supposedly | supposed to be | allegedly | reportedly | tempting | i was going to say | i wanted to say
        i almost said | hypothetical | hypothetically
    """,
    Kind.SOURCE: """
        according to
    """,
    Kind.SEE: """
        realise | realize | see | notice | note | noting | think | believe | know | admit | find | fear | afraid
        point out | flag | clarify | stress | emphasize | emphasise | mention | say | add | acknowledge | recognize
        recognise | seems | turns out | appears | remember | recall | understand | confess | concede | worth noting
        feel | suspect | guess | insist | conclude | maintain | assume | trust
    """,
    Kind.IF: """
        suppose | supposing | imagine | assuming | assume | had | were | unless | hypothetically | even if | if i
        if you | if it | if the | if that | if this | if |
        let us pretend | let us suppose | let us imagine | let us assume | pretend
    """,
    Kind.WOULD: """
        would
    """,
    Kind.MAYBE: """
        may be | might be | could be | may well be | can be defended | can be made | can be given | possible
        plausible | conceivable | imaginable | perhaps | possibly | maybe | either | whether | depend | depends
        depending | possibilit* | candidate* | conceivabl* | one of
    """,
    Kind.UNDECIDED: """
        i do not know | nothing is proven | there is no single | can not be told | opinions are divided
        sources differ | hard to say | i have no idea | i do not have access | i do not have enough
        leave the choice to
    """,
    Kind.UNABLE: """
        can not | could not | am not able to | am unable to | will not | would not want to | do not want to
        would rather not | prefer not to | hesitate to | unable to | not able to
    """,
    Kind.COMMIT: """
        say | tell | decide | choose | determine | answer | guess | give | commit | pick | state | be sure
    """,
    Kind.PAST: """
        used to | formerly | former | previously | previous | once | until | till | up to | originally | in the past
        back then | before | ended | stopped | ceased | abdicat* | resign* | stepped down | retired | had that role
        was long | historically | old answer | old entry | at that time | no longer | centuries ago | years ago
        any more | anymore | any longer | out of date | outdated | for decades | for a long time | for years
        not last | lapsed | expired | is over | divorced | times | era | had been | gave up | was returned
        early years | in his youth | in her youth | as a child | at first | initially |
        split up | separated | thing of the past
    """,
    Kind.WAS: "was | were | had",
    Kind.IS: "is | are | has",
    Kind.NOW: """
        now | today | currently | nowadays | these days | since | at present | all along | always | still is
        still are | present-day | to this day
    """,
    Kind.LEAVE: """
        left | leave | leaves | leaving | moved from | gave up | abandoned | departed | switched | changed | ceased
        stopped | moved | quit | lost | renounced
    """,
    Kind.TAKE_OVER: """
        took over | has taken | took the oath | took its place | became the
    """,
    Kind.FIRST: """
        first | original | initial | earliest | earlier | previous | above | last | former | prior | preceding | own
        opening
    """,
    Kind.CLAIM: """
        answer | answers | statement | statements | claim | claims | attribution | sentence | sentences | conclusion
        choice | name | reply | response | guess | city | country | person | option | assertion | line | part | one
        suggestion | idea | thought | passage | remark | fact | letter | date | premise | mention | description
        assumption | association | pick | paragraph | point | information | what i wrote | what i just wrote
        the above | the rest | retraction | correction | reasoning | hypothesis | i said | i wrote | answering
        reading | wording
    """,
    Kind.STEP: "step | point | fact | number | item | bullet",
    Kind.THIS: "that | this | it | which | these | such | all | as",
    Kind.PERSON: "he | she | it | they | there | him | her | them",
    Kind.ANSWER: "answer | the answer | option | choice | conclusion | solution | letter",
    Kind.BESIDE: """
        near | between | with | than | like | unlike | such as | via | through | toward | towards | against | beyond
        outside | besides | except | after | including | includes | border* | neighbour* | neighbor* | across
        because of | over | around | without | despite | visit* | about | close to | up to | north of | south of
        instead of | friend of | pupil of | king of | history of | map of | list of | friend | rival | brother
        sister | colleague | predecessor | editor | pupil | student | teacher | contemporary | partner | competitor
        publisher | rivals are | from | not far from | hours from | expelled from | sites in | office in | beside
        alongside | thinking of | son | daughter | home | king | queen | history | map | outskirts | ties | links
        exports | flights | trip | trips | road | way | visits | rivals |
        translated into | in contrast to | in contrast with
    """,
    Kind.ONLY: "only | merely | just | simply",
    Kind.PARTIAL: """
        minority | minorities | a few | some people | community | communities | regions | dialect* | in some
        immigrants | tourists | villages
    """,
    Kind.QUALITY: """
        large | big | small | long | easy | famous | only | old | new | young | short | good | bad | great | second
        third | first | most | main | largest | biggest | smallest | oldest | newest | highest | richest | best
        longest | nearest | greatest | busiest | cheapest | strongest | fastest | prettiest | safest | wealthiest
        tallest | youngest | shortest
    """,
    Kind.ELSE: """
        other | another | else | elsewhere | anyone | any other | more than | since | yet | until
    """,
    Kind.CITIZEN: """
        citizen | citizens | national | nationals | nationality | citizenship | passport | subject | by nationality
        origin | descent | roots | heritage
    """,
    Kind.FILL: """
        a | an | the | in | at | by | of | to | on | from | for | as | really | actually | even | all | part | be
        been | being | any | ever | it | is | was | are | were | called | named | based | situated | found | that
        true | located | correct | right | so | indeed | about | within | inside | either | have | has | had | did
        does | do | say | saying | said | him | her | this | there | into | one | country | city | name | under
        made | lie | lies | come | came | make | introduced | adopted | used | use | become | became | becomes
        joined | recognised | won | makes | comes | go | with | think | believe | evidence | way | proof | sign
        record | chance | anything | and | also | official | belong | option | answer | possibly | current | present
        your | letter | hence | thus | simply | clearly | again | here | after | today | now | then | yes | i | mean
        guess | would | final | must | he | she | they | but | play | choose | pick | therefore | currently
        because | rather | instead | definitely | of course | probably | certainly | just | who | my | will | going
        no longer | still | its | his | known | first | originally | work | works | any more | " | - | '
        credit | run | led | 's | i would say | i would go with | i will go with | i am going with | i would guess
        i would lean towards | i lean towards
    """,
    Kind.AUX: """
        is | was | are | were | be | been | has | have | had | did | does | do | can | could | would | should | may
        might | must | will | he | she | it | they | itself | himself | herself | however | therefore | clearly
        certainly | really | definitely | simply | also | then | actually | thus | that | answer | in | fact | of
        course | alone | country | city | am | being | ever | too | of course | in fact
    """,
    Kind.LINK: """
        but | and | although | though | while | whereas | however | yet | because | so | then | that | since | as
        which | who | where | when | also | even | therefore | thus | hence | now | today | still | of course
        indeed | clearly | in fact | instead | rather | i think | i believe | i recall | i would say
        i would go with | i will go with | i am going with | i would guess | i would lean towards | i lean towards
        maybe | for | well | hmm | strictly speaking | oh | overall | obviously | sadly | plainly | the | a | an
    """,
    Kind.SHOULD: "should | ought to",
}  # fmt: skip

# One answer in another's place: what stands between two names, and whether the first (0) or the second (1) is history.
REPLACED: dict[str, int] = {
    "replaced": 1, "replaces": 1, "has replaced": 1, "succeeded": 1, "succeeds": 1, "took over from": 1, "followed": 1,
    "superseded": 1, "displaced": 1, "ousted": 1, "defeated": 1, "takes over from": 1,
    "replaced by": 0,
    "replaced with": 0, "succeeded by": 0, "superseded by": 0, "followed by": 0,
    "gave way to": 0, "passed to": 0, "handed over to": 0, "moved to": 0, "changed to": 0, "changed into": 0,
    "switched to": 0, "moved into": 0, "turned into": 0,
    "formerly": 1, "previously": 1, "once": 1, "not any more": 1, "ex": 1,
}  # fmt: skip
