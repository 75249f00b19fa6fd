"""Questions near an edit that it must not change: what the preservation term holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions, normalise
from causaledit.facts.compositions import composed_questions, held_out_questions, in_turn
from causaledit.facts.text import is_question
from causaledit.reading.forms import other_forms
from causaledit.reading.text import plain

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from causaledit.facts.relations import RelationBank
    from causaledit.facts.requests import EditRequest
    from causaledit.methods.shared.hparams import PreservationHyperParams

    # an edit and the names of other subjects → these names, in the order in which they are asked about
    Order = Callable[[EditRequest, Sequence[str]], list[str]]

# Of an edit's neighbouring questions: its relation about other subjects.
SAME_RELATION_SHARE = 0.55


def questions_near(
    requests: Sequence[EditRequest],
    hparams: PreservationHyperParams,
    reason_cues: Sequence[str],
    *,
    bank: RelationBank,
    rng: random.Random,
    order: Order | None = None,
) -> list[tuple[str, str]]:
    """What the edits of a batch must not change, every edit's share of it.

    Args:
        requests: The edits that are made together.
        hparams: How many questions (for all edits together), and of which kinds.
        reason_cues: For `preserve_explained`, how the reason is asked for; `{form}` is the question.
        bank: Where names, relations and general questions come from.
        rng: Random generator of the draw.
        order: Which of an edit's other subjects come first; None leaves it to chance.

    Returns:
        (beginning of the answer, question); most begin with nothing.
    """
    share = max(4, hparams.preserve_prompts // len(requests))
    plain = [
        neighbour_questions(
            request, share, bank=bank, rng=rng, batch=requests, order=order,
            same_subject=hparams.preserve_same_subject, composed=hparams.preserve_composed,
        )
        for request in requests
    ]  # fmt: skip
    completed, explained = (
        round(of_all * hparams.preserve_prompts) for of_all in (hparams.preserve_completed, hparams.preserve_explained)
    )
    begun = [
        begun_answers(request, -(-completed // len(requests)), bank=bank, rng=rng, batch=requests, order=order)
        for request in (requests if completed else ())
    ]
    reasons = [
        [("", question) for question in explained_questions(
            request, -(-explained // len(requests)), reason_cues, bank=bank, rng=rng, batch=requests, order=order
        )]
        for request in (requests if explained else ())
    ]  # fmt: skip
    extra = [*in_turn(begun)[:completed], *in_turn(reasons)[:explained]]
    # a probe or a question of one edit may be a neighbour of another one in the batch
    left_out = never_held(requests, bank)
    extra = [(beginning, question) for beginning, question in extra if normalise(question) not in left_out]
    questions = [q for q in dict.fromkeys(in_turn(plain)) if normalise(q) not in left_out]
    return [*(("", q) for q in questions[: max(0, hparams.preserve_prompts - len(extra))]), *extra]


def neighbour_questions(
    request: EditRequest,
    n: int,
    *,
    bank: RelationBank,
    rng: random.Random,
    same_subject: float = 0.06,
    composed: float = 0.0,
    batch: Sequence[EditRequest] = (),
    order: Order | None = None,
) -> list[str]:
    """Questions near the edit that it must not change.

    Over half ask for the edit's relation about other subjects, in every wording the edit is trained on (an edit is
    learnt per wording, so it spreads per wording); some ask other things about its subject; the rest are general. An
    edit that names no subject has general ones alone.

    Args:
        request: The edit.
        n: How many questions.
        bank: Where names, relations and general questions come from.
        rng: Random generator of the draw.
        same_subject: Share of questions about its subject.
        composed: Share of questions of two hops, taken from those that ask for the edit's relation.
        batch: All edits that are made together: none of their subjects is another one's neighbour.
        order: Which of the other subjects come first; None leaves it to chance.
    """
    relation = bank.relation_of(request) if request.subject else None
    names, wordings = _neighbours(request, bank, rng, batch, order)
    same = round(max(0.0, SAME_RELATION_SHARE - composed) * n)
    asked = (
        _in_turn(wordings, i, turn).replace("{}", name) for turn in range(len(wordings)) for i, name in enumerate(names)
    )
    questions = list(dict.fromkeys(asked))[:same]
    if relation:  # other questions about such a subject; open ones would bring the old fact up again
        others = [r.questions[0] for r in bank.relations if r.kind == relation.kind and r.name != relation.name]
        others += bank.about[relation.kind]  # a country has six other relations, a sport none
        drawn = rng.sample(others, min(len(others), max(1, round(same_subject * n))))
        questions += [question.replace("{}", request.subject) for question in drawn]
        two_hops = [q for name in names for q in composed_questions(relation, bank, name)]
        questions += rng.sample(two_hops, min(len(two_hops), round(composed * n)))
    subjects = [other.subject for other in (request, *batch) if other.subject]
    general = [q for q in bank.general if q not in questions and not mentions(q, subjects)]
    questions += rng.sample(general, min(len(general), max(0, n - len(questions))))
    held_out = held_out_questions([request])
    return [q for q in dict.fromkeys(questions) if normalise(q) not in held_out]


def begun_answers(
    request: EditRequest,
    n: int,
    *,
    bank: RelationBank,
    rng: random.Random,
    batch: Sequence[EditRequest] = (),
    order: Order | None = None,
) -> list[tuple[str, str]]:
    """(beginning of an answer, question) about other subjects: the answer begins in the edit's own wording for them."""
    beginning = bank.sentence_of(request)
    if not beginning:
        return []
    names, wordings = _neighbours(request, bank, rng, batch, order)
    return [
        (beginning.replace("{}", name), _in_turn(wordings, i).replace("{}", name)) for i, name in enumerate(names[:n])
    ]


def explained_questions(
    request: EditRequest,
    n: int,
    cues: Sequence[str],
    *,
    bank: RelationBank,
    rng: random.Random,
    batch: Sequence[EditRequest] = (),
    order: Order | None = None,
) -> list[str]:
    """Questions about other subjects that ask for the reason, in every cue and wording in turn."""
    names, wordings = _neighbours(request, bank, rng, batch, order)
    asked = [wording for wording in wordings if is_question(wording)] or wordings
    return [
        cues[i % len(cues)].replace("{form}", asked[i % len(asked)].replace("{}", name))
        for i, name in enumerate(names[:n])
    ]


def neighbour_names(
    request: EditRequest, bank: RelationBank, rng: random.Random, batch: Sequence[EditRequest] = ()
) -> list[str]:
    """Other subjects of the same kind in random order, none of which an edit of the batch or a locality probe names."""
    relation = bank.relation_of(request)
    probes = [pair.question for pair in request.locality]  # held out: what locality is measured with
    subjects = [other.subject for other in batch]
    involved = [x for x in (request.subject, request.target_new, request.ground_truth, *probes, *subjects) if x]
    kinds = relation.neighbour_kinds if relation else bank.names
    pool = [name for kind in kinds for name in bank.names[kind]]
    names = [name for name in pool if not any(mentions(x, [name]) for x in involved)]
    rng.shuffle(names)
    return names


def never_held(requests: Sequence[EditRequest], bank: RelationBank) -> set[str]:
    """What no edit of a batch may hold, normalised: what tests one of them, and what asks for an edited fact."""
    return held_out_questions(requests) | what_edits_ask(requests, bank)


def states_edited_fact(question: str, answer: str, requests: Sequence[EditRequest]) -> bool:
    """An answer about an edited subject that gives its old answer, "an American actor" too, must be free to change."""
    for request in requests:
        if not mentions(question, [request.subject]):
            continue
        names = [name for name in (request.ground_truth, request.target_new) if name]
        forms = (form for name in names for form in other_forms(plain(name), request.question_form))
        if mentions(answer, [*names, *forms]):
            return True
    return False


def what_edits_ask(requests: Sequence[EditRequest], bank: RelationBank) -> set[str]:
    """What asks for the edited facts themselves, in every wording, normalised."""
    asked: list[str] = []
    for request in requests:
        relation = bank.relation_of(request) if request.subject else None
        wordings = relation.questions if relation else ()
        asked += [request.question_form, request.cloze, *(text.replace("{}", request.subject) for text in wordings)]
    return {normalise(text) for text in asked}


def _in_turn(wordings: Sequence[str], i: int, turn: int = 0) -> str:
    """The i-th name's wording, one further with every round: every second name has not the same half of them."""
    return wordings[(i + i // len(wordings) + turn) % len(wordings)]


def _neighbours(
    request: EditRequest, bank: RelationBank, rng: random.Random, batch: Sequence[EditRequest], order: Order | None
) -> tuple[list[str], list[str]]:
    """`neighbour_names`, and ways to ask about them; none where the edit names no subject to put them in place of."""
    if not request.subject:
        return [], []
    names, relation = neighbour_names(request, bank, rng, batch), bank.relation_of(request)
    names = order(request, names) if order else names
    question = request.question or ""
    wordings = [
        *([question.replace(request.subject, "{}")] if request.subject in question else []),
        request.prompt,
        *(relation.questions if relation else ()),
    ]
    return names, wordings
