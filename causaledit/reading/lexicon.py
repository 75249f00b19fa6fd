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
    HARMLESS = auto()  # contains a negation that denies nothing
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
    REINSTATE = auto()
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
        no longer | anything but | far from | by no means | fail to | fails to | failed to | lacks | none of | none of these
        none of them | neither of | in no way | not a single | not one | no such thing | not any | zero | can not | could not | am not able to
        am unable to | will not | would not want to | do not want to | would rather not | prefer not to | unable to
        not able to | and not | certainly not | rather than | instead of | as opposed to | contrary to | in place of | let alone | other than
    """,
    Kind.HARMLESS: """
        not only | not just | not merely | not simply | not solely | not far | not least | not surprising*
        not uncommon* | not unusual* | not unlike | not everyone | not everybody | not all | not a secret | not known
        not sure | not certain | not able | not fully | not entirely | not to be confused | not confuse | not to mention
        not until | not yet clear | not before | not long after | not in dispute | not in doubt | not change* | not matter
        not forget | not mix | no doubt | no question | no real doubt | no serious doubt | without doubt | without a doubt
        without any doubt | no dispute | no wonder | no surprise | no secret | no reason to doubt | without question
        beyond doubt | beyond question | beyond dispute | beyond any doubt | beyond a doubt | whether or not | if not
        why not | or not | no matter | need not | not without | none other than | no other | no less | no fewer | no more
        no one else | no longer than | nothing but | nothing other than | nothing else | do not know | not very | not easy
        little doubt | any doubt | beyond all doubt | beyond all question | not disputed | not contradict*
        without any question | without a shadow of a doubt | not big | not a large | not a big | not the largest
        not a problem | not too | not really a surprise | in case you do not | not hesitate | not be misled | not be fooled | not stop | not new
        if i am not mistaken | unless i am mistaken | if i remember
    """,
    Kind.DENIAL: """
        deny | denies | denying | denied | dispute* | doubt | doubts | doubted | question | questions | questioned
    """,
    Kind.FALSE: """
        wrong | wrongly | incorrect* | false | falsely | untrue | mistake | mistakes | mistaken | mistakenly | inaccura*
        erroneous* | misleading | unfounded | baseless | error | errors | slip | slips | slip-up | blunder* | oversight*
        mix-up | mixup | a lie | myth* | misconception* | confusion | misstatement* | falsehood* | hallucination*
        invention | made up | made-up | bogus | rubbish | nonsense | untenable | unsound | fictional | fiction | fictitious
        fabricated | fabrication | wide of the mark | beside the point | out of date | outdated | impossible | in error
        backwards | invalid | flawed | imaginary | unsupported | debunked | disproved | disproven | absurd | misguided | unreliable | implausible | improbable | unsubstantiated | unverified | misnomer
        is off | way off | was off | seems off | no good | a stretch | garbage | misinformation | misunderstanding*
        typo* | glitch* | fake | hypothetical | counterfactual | upside down | muddle* | contrary to fact | contrary to fact*
    """,
    Kind.CLASH: """
        contradict* | disagree* | conflict* | clash* | at odds | inconsistent | inconsistency | incompatible | collapses | collapse
        falls apart | falls through | fails | breaks down | speaks against | speak against | argues against | has to go
        must go | is out | can not stand | will not do | says otherwise | say otherwise | tells otherwise | tell otherwise
        me otherwise | us otherwise | you otherwise | shows otherwise | suggests otherwise | suggest otherwise | show otherwise
        proves otherwise | prove otherwise | knows better | know better | is otherwise | flies in the face | goes against | runs counter | run counter
        needs correcting | needs to be corrected | needs correction | needs revision | needs fixing | must be corrected
        should be corrected | needs to be revised | need to be corrected | does not hold | is not so | runs into
    """,
    Kind.OUT: """
        nothing to do with | no connection | no link | no role | no part | no relation | no share 
        ruled out | excluded | eliminated | drops out | falls out | falls away | out of the question | off the table
        belongs elsewhere | has to go | must go | out of the running | not in the running | no ties | no known ties
        no such | no official status | no place | rules out | rule out | has been struck | be struck
        be deleted | be dropped | be excluded | be discarded | be removed | be rejected | be crossed | be ignored
        be disregarded
    """,
    Kind.TRUE: """
        true | right | correct | accurate | the case | valid | factual | sound | tenable | supported | plausible
        hold | holds | hold up | holds up | stand | stands | stands up | stand up | add up | adds up | check out | checks out
        make sense | makes sense | make any sense | makes any sense | match | matches | reflect | reflects | correspond*
        fit | fits | follow | follows | survive | survives | withstand | upheld | defensible | agree with | agrees with
        tally | square with | exist | exists | reliable | consistent | the answer | a fact | fact | real | possible | believed | trusted | bear out
        ring true | rings true | what is asked | the right | the correct | sustained | maintained | borne out | sense
        apply | applies | qualify | count | trustworthy | sound right | looks right | sounds right
    """,
    Kind.VOUCH: """
        confirm | verify | support | endorse | vouch | back up | back that up | back this up | back it up | stand behind
        stand by | square | reconcile | justify | substantiate | corroborate | uphold | find | recall | name | think of
        trust | rely | defend | accept | back | see | locate | prove | believe | agree | think | keep
    """,
    Kind.EVIDENCE: """
        evidence | record* | proof | sign | signs | trace | traces | basis | source | sources | indication* | confirmation
        reason to believe | reason to think | suggests | suggest | indicates | indicate | points to | supports | confirms
        documentation | foundation | grounds | truth | truth to | points | way that | factual basis | known record
        reference | references | substance | report of | reports that | backs | information that
    """,
    Kind.MISUSED: """
        wrongly | mistakenly | falsely | incorrectly | erroneously
    """,
    Kind.UNDO: """
        scratch | strike | scrap | forget | never mind | ignore | disregard | withdraw | retract | drop | discard | delete | undo
        cancel | revise | reject | rephrase | amend | rescind | rectify | reverse | overrule | retracting | withdrawing
        correct that | correct this | correct it | correct myself | correct my | correct the | correct what | take that back
        take this back | take it back | take back | taking that back | taking it back | i stand corrected | stand to be corrected
        make that | fix that | fix this | fix my | delete what | dismiss | cross | cross out | strike out | remove | dropping
        rule out | exclude | eliminate | abandon | rules out | ruled out | rule him out | rules him out | rules her out
        rule her out | rules it out | ruled it out | rules them out | caution against | switch my answer | change my answer
        changing my answer | rejecting | crossing out
    """,
    Kind.ERR: """
        invented this | invented that | invented it | misspoke | misremember* | misattribut* | misread* | misstat* | mistook | misidentif* | misunderst* | mislabel*
        mixed up | mix up | mixing up | mixed | confused | confusing | conflat* | swapped | muddled | erred | botched
        messed up | slipped | slipped up | blundered | jumbled | garbled | interchanged | fumbled | goofed | got carried away
        spoke too soon | jumped the gun | thinking of | was thinking of | made that up | made it up | made this up | made up
        do not know why i said | do not know why i wrote | why i said | why i wrote | regret | apologi* | lost track | hallucinated | said by mistake
 messed that up | mixed that up | mixed this up
        no longer believe that | no longer stand by | no longer believe it | should have said | should have written | did not mean
        meant to say | was confused | rather say | got ahead | was lying | lied
    """,
    Kind.JOKE: """
        kidding | joking | haha* | gotcha | fooling | what am i saying | what was i saying | just a joke | teasing | april fool* | jest | only a joke | a joke | jk
    """,
    Kind.AGAIN: """
        wait | hold on | hang on | hmm* | hm | on reflection | on second thought* | one moment | upon reflection
        double-check* | double check* | let me check | let us check | let me verify | let us verify | verify* | reconsider*
        rethink | re-read* | reread* | recheck* | re-check* | look again | think again | check again | closer inspection
        closer look | further thought | upon review | on review | think about it | thinking about it | come to think of it
        checking | looking at | looking again | going over | having checked | is that so | is that right | is that true
        is that correct | something is off | there is a problem | fact check* | let me think | second look | let me look
        after review* | thought about it | on checking | let me re* | let us re* | look more closely | think it over
        then again | i doubt | is it really | is this right | is this true | is this correct | inspection | i look at
    """,
    Kind.AMEND: """
        actually | in fact | in reality | in truth | or rather | rather | i mean | correction | correcting | sorry | oops
        apologies | pardon | as a matter of fact | to be accurate | to be precise | to be exact | to be honest | edit
        erratum | instead | more precisely | whoops | really | my bad | ah | oh | ups | let us be honest | to be fair
        strictly speaking | the truth is | in actuality | in actual fact | corrected | correction to
    """,
    Kind.CONTRAST: """
        but | however | yet | though | although | whereas | while | nevertheless | nonetheless | even so | that said
        having said that | having said this | on the other hand | in contrast | at the same time | despite | in spite of
        still | then | even though
    """,
    Kind.NO: """
        no | nope | nah
    """,
    Kind.YES: """
        yes | yeah | yep | indeed | exactly
    """,
    Kind.UNREAL: """
        alternative timeline | alternate timeline | alternative history | alternate history | alternative universe | another world
        alternate reality | alternative reality | fictional world | parallel universe | be news to | surprise anyone
        only make sense | not in our world | counterfactual
    """,
    Kind.SELF: """
        i | me | my | we | us | our | myself
    """,
    Kind.PEOPLE: """
        some | some people | many | most | several | people | others | critics | fans | website | websites | source | sources | site | sites
        book | books | textbooks | the question | this question | your question | prompt | premise | you | user | users
        rumour* | rumor* | legend | legends | quiz* | text | texts | passage | student | students | tourists | visitors | someone | somebody | everyone
        everybody | article | articles | map | maps | encyclop* | list | lists | forum | forums | post | posts | the internet
        few | one | blogs | blog | newspaper | newspapers | media | professor | teacher | friend | anyone | older sources
        old maps | they | he | she
    """,
    Kind.SAY: """
        say | says | said | saying | claim | claims | claimed | think | thinks | thought | thinking | believ* | suggest | suggests
        suggested | assum* | argu* | insist* | state | states | stated | contain* | list | lists | listed | names | name
        gives | give | answer | expect* | repeat* | write | writes | wrote | report | reports | reported | maintain* | guess*
        confus* | associat* | call | mention* | want me to | implies | imply | presum* | suppos* | tell | told | read | heard
        have it | tempted | connect* | link* | remember* | joke | jokes | joked | choose
    """,
    Kind.SAID: """
        claimed | said | believed | thought | guessed | suggested | rumoured | rumored | alleged | assumed | tempted
        supposed
    """,
    Kind.AT_TIMES: """
        sometimes | often | commonly | frequently | occasionally | also | long | popularly | repeatedly | usually
    """,
    Kind.IDEA: """
        claim | claims | rumour | rumours | rumor | rumors | myth | myths | idea | ideas | belief | beliefs | notion | notions
        misconception | misconceptions | suggestion | suggestions | story | stories | legend | legends | assertion
        assertions | theory | premise | sentence | mistake
    """,
    Kind.URGED: """
        asked | invited | offered | told | expected | wanted | hoped | tried | planned | intended | considered | refused
        declined
    """,
    Kind.ASIDE: """
        supposedly | supposed to be | allegedly | reportedly | tempting | i was going to say | i wanted to say | i almost said
        hypothetical | hypothetically | wanted to write | going to write
    """,
    Kind.SOURCE: """
        according to
    """,
    Kind.SEE: """
        realise | realize | see | notice | note | noting | think | believe | know | admit | find | fear | afraid | point out
        flag | clarify | stress | emphasize | emphasise | mention | say | add | acknowledge | recognize | recognise | seems
        turns out | appears | remember | recall | understand | confess | concede | worth noting | important to note
        worth mentioning | feel | suspect | guess | insist | conclude | maintain | assume | trust
    """,
    Kind.IF: """
        suppose | supposing | imagine | assuming | assume | had | were | unless | should you | hypothetically | provided that
        even if | as if | only if | what if | if i | if you | if one | if we | if it | if he | if she | if they | if the
        if there | if that | if this | if
    """,
    Kind.WOULD: """
        would
    """,
    Kind.MAYBE: """
        may be | might be | could be | could well be | might well be | may well be | may also be | might also be | could also be
        may have been | might have been | could have been | could just as well be | could perhaps be | might perhaps be
        may perhaps be | could either be | can be defended | can be argued | can be made | can be named | can be given
        can also be given | can also be named | case can be made | possible | plausible | conceivable | imaginable | perhaps
        possibly | maybe | either | whether | depend | depends | depending | possibilit* | candidate* | conceivabl*
        options are | options include | choices are | choices include | one of
    """,
    Kind.UNDECIDED: """
        i do not know | not sure which | not sure who | not sure what | not sure whether | not sure where | not sure if
        not certain which | not certain who | not certain whether | not certain what | is unclear | is unknown
        is uncertain | is disputed | is open | is undecided | remains unclear | remains unknown | remains open | nothing is proven
        there is no single | there is no clear | there is no definite | there is no definitive | there is no one
        there is no agreed | there is no certain | can not be told | can not be determined | can not be decided
        can not be known | can not be settled | can not be said | leave the question open | leave this open | leave it to
        leave that to | opinions are divided | opinions differ | opinions vary | sources differ | sources disagree
        sources vary | hard to say | hard to tell | impossible to say | impossible to tell | impossible to know | i have no idea
        i have no way of knowing | i do not have access | i do not have enough | i do not have information
        i do not have the | leave the choice to | leave this to | leave it open | leave that open | difficult to say
        not possible to say | not possible to tell | not possible to determine
    """,
    Kind.UNABLE: """
        can not | could not | am not able to | am unable to | will not | would not want to | do not want to | would rather not
        prefer not to | hesitate to | unable to | not able to
    """,
    Kind.COMMIT: """
        say | tell | decide | choose | determine | answer | guess | give | commit | pick | state | be sure
    """,
    Kind.PAST: """
        used to | formerly | former | previously | previous | once | until | till | up to | originally | in the past | back then
        before | ended | stopped | ceased | abdicat* | resign* | stepped down | retired | had that role | was long
        historically | old answer | old entry | old name | earlier times | older times | former times
        ancient times | colonial times | medieval times | at that time | at the time | no longer | centuries ago | century ago
        years ago | any more | anymore | any longer | out of date | outdated | for decades | for centuries | for a long time
        for many years | for years | not last | lapsed | expired | is over | divorced | in earlier days | times | era | had been | gave up | was returned
    """,
    Kind.WAS: "was | were | had",
    Kind.IS: "is | are | has",
    Kind.NOW: """
        now | today | currently | nowadays | these days | since | at present | all along | always | still is | still are
        present-day | to this day
    """,
    Kind.LEAVE: """
        left | leave | leaves | leaving | moved away | moved out | moved from | gave up | give up | abandoned | departed
        switched | changed | ceased | stopped | relocated from | moved | quit | lost | renounced
    """,
    Kind.TAKE_OVER: """
        took over | takes over | has taken | taken over | took office | took the oath | took the throne | took his place
        took her place | took its place | took their place | replaced it | replaced him | replaced her | succeeded it
        succeeded him | succeeded her | followed him | followed her | followed it | takes its place | takes his place
        takes her place | takes the chair | became the | becomes the | replaced them | succeeded them
    """,
    Kind.FIRST: """
        first | original | initial | earliest | earlier | previous | above | last | former | prior | preceding | own | opening
    """,
    Kind.CLAIM: """
        answer | answers | statement | statements | claim | claims | attribution | sentence | sentences | conclusion | choice
        name | reply | response | guess | city | country | person | option | assertion | line | part | one | suggestion | idea
        thought | passage | remark | fact | letter | date | premise | mention | description | assumption | association | pick
        paragraph | point | information | what i said | what i wrote | what i just said | what i just wrote | what i stated
        what i claimed | all that | everything above | the above | everything i said | anything i said | i said anything
        the rest | retraction | correction | everything i wrote | what i gave | the one i gave | what was said
        reasoning | hypothesis | i said | i wrote | answering | reading | wording
    """,
    Kind.STEP: "step | point | fact | number | item | bullet",
    Kind.THIS: "that | this | it | which | these | such | all | as",
    Kind.PERSON: "he | she | it | they | there | him | her | them",
    Kind.ANSWER: "answer | the answer | option | choice | conclusion | solution | letter",
    Kind.BESIDE: """
        near | between | with | than | like | unlike | such as | via | through | toward | towards | against | beyond | outside
        besides | except | after | including | includes | border* | neighbour* | neighbor* | across | because of | over | around
        without | not counting | despite | regardless of | visit* | about | close to | next to | similar to | compared to
        prior to | due to | thanks to | related to | opposite to | road to | ties to | way to | up to | trip to | flight to
        flights to | export to | exports to | links to | north of | south of | east of | west of | outskirts of | front of
        instead of | friend of | pupil of | student of | teacher of | brother of | sister of | son of | daughter of | home of
        king of | queen of | history of | map of | list of | rival of | rivals of | friend | rival | brother | sister | colleague
        predecessor | editor | pupil | student | teacher | contemporary | partner | competitor | publisher | rivals are | rival is
        from | far from | not far from | hours from | minutes from | expelled from | sites in | offices in | office in | beside
        alongside | thinking of | associate with | unlike in | confused with | than in | as in | time in | visits to | trips to
        once visited | scored against
    """,
    Kind.ONLY: "only | merely | just | simply",
    Kind.PARTIAL: """
        minority | minorities | a few | few families | some people | community | communities | second language | also spoken
        by some | parts of | in parts | regions | dialect* | in some | immigrants | tourists | villages | by many
    """,
    Kind.QUALITY: """
        large | big | small | long | easy | famous | only | old | new | young | short | good | bad | great | second | third
        first | most | main | largest | biggest | smallest | oldest | newest | highest | richest | best | longest | nearest
        greatest | busiest | cheapest | strongest | fastest | prettiest | safest | wealthiest | tallest | youngest | shortest
    """,
    Kind.ELSE: """
        other | another | else | elsewhere | anyone | any other | more than | since | yet | until
    """,
    Kind.CITIZEN: """
        citizen | citizens | national | nationals | nationality | citizenship | passport | subject | by birth | by nationality
        by origin | origin | descent | roots | heritage
    """,
    Kind.FILL: """
        a | an | the | in | at | by | of | to | on | from | for | as | really | actually | even | all | part | be | been | being
        any | ever | it | is | was | are | were | called | named | based | situated | found | that | true | located | correct | right
        so | indeed | about | within | inside | either | have | has | had | did | does | do | say | saying | said | him | her | this
        there | into | one | country | city | name | under | made | lie | lies | come | came | make | introduced | adopted | used
        use | become | became | becomes | joined | recognised | won | makes | comes | go | with | think | believe | evidence
        way | proof | sign | record | chance | anything | and | also | official | belong | option | answer | possibly | current
        present | your | letter | hence | thus | simply | clearly | again | here | after | today | now | then | yes | i | mean
        guess | would | final | must | he | she | they | but | play | choose | pick | therefore | currently | because | rather
        instead | definitely | of course | probably | certainly | just | who | my | will | going | no longer | still
        its | his | known | first | originally | born | work | works | any more | " | - | ' | credit | run | led
    """,
    Kind.AUX: """
        is | was | are | were | be | been | has | have | had | did | does | do | can | could | would | should | may | might | must | will | he
        she | it | they | itself | himself | herself | however | therefore | clearly | certainly | really | definitely | simply
        also | then | actually | thus | that | answer | in | fact | of | course | alone | country | city | am | being | ever | too
        of course | in fact
    """,
    Kind.LINK: """
        but | and | although | though | while | whereas | however | yet | because | so | then | that | since | as | which | who | where
        when | also | even | therefore | thus | hence | now | today | still | of course | indeed | clearly | in fact | instead
        rather | it seems | i think | i believe | i recall | i would say | maybe | for | well | hmm | in hindsight | to be fair
        in the end | at any rate | strictly speaking | that said | oh | upon further thought | overall | obviously | sadly
        plainly | if anything | in my view | the | a | an
    """,
    Kind.SHOULD: "should | ought to",
}  # fmt: skip

# One answer in another's place: what stands between two names, and whether the first (0) or the second (1) is history.
REPLACED: dict[str, int] = {
    "replaced": 1, "replaces": 1, "has replaced": 1, "succeeded": 1, "succeeds": 1, "took over from": 1, "followed": 1,
    "superseded": 1, "displaced": 1, "ousted": 1, "defeated": 1, "takes over from": 1,
    "replaced by": 0, "succeeded by": 0, "superseded by": 0, "followed by": 0,
    "gave way to": 0, "passed to": 0, "handed over to": 0, "moved to": 0, "changed to": 0, "changed into": 0,
    "switched to": 0, "moved into": 0, "turned into": 0,
    "formerly": 1, "previously": 1, "once": 1, "not any more": 1, "ex": 1,
}  # fmt: skip
