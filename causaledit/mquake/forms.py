"""The forms of data sets that people compare on, each read into cases of one edit.

    CounterFact · ZsRE (MEND's) · KnowEdit · WikiBio · QAEdit · AKEW's WikiUpdate · EasyEdit's requests → MQuAKE cases

A case made from such a file has no multi-hop questions, its chain is the edit alone, and the old answer may be missing;
`source_form` says what it was. MQuAKE's own files, MQuAKE-Remastered's, AKEW's MQuAKE-CF and the `-cake` files are
MQuAKE already. docs/datasets.md says where each form comes from.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import RequestError
from causaledit.facts.request_probes import read_probe_groups
from causaledit.facts.request_texts import place_subject, read_answers
from causaledit.facts.rewrites import text_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

SOURCE = "source_form"  # key of a case that was made from another form
UNREADABLE = "unreadable"  # key of such a case that has no edit: why its entry cannot be read
_NATURAL_QUESTION = "nq question: "  # before the locality questions of MEND's ZsRE


@dataclass(frozen=True)
class Form:
    """One form of file.

    Attributes:
        name: As messages call it.
        keys: What an entry has; they tell the form from the others.
        read: An entry → a rewrite of MQuAKE with `rephrase_prompt` and `locality`; None for an entry without an edit.
            None where a file of this form is MQuAKE's, or cannot be read. A field that is not of the form raises a
            `RequestError`.
        why_not: Why a file of this form cannot be read.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], dict[str, Any] | None] | None = None
    why_not: str = ""

    def fits(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry has all of its keys."""
        return all(key in entry for key in self.keys)


# ---- the readers -----------------------------------------------------------------------------------
def _counterfact(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Meng et al.'s, and AKEW's with a paragraph (`fact_new_uns`), which is its narrative."""
    rewrite = _rewrite(entry)
    near, old = _list(entry, "neighborhood_prompts"), text_in(rewrite.get("target_true"))
    return {
        **rewrite,
        "rephrase_prompt": _list(entry, "paraphrase_prompts"),
        "locality": [{"question": prompt, "answer": old} for prompt in near if isinstance(prompt, str)],
    }


def _wiki_update(entry: Mapping[str, Any]) -> dict[str, Any]:
    rewrite = _rewrite(entry)
    return {
        **rewrite,
        "target_new": rewrite.get("answer_new"),
        "target_true": rewrite.get("answer_true"),
        "rephrase_prompt": [],
        "locality": _pair(entry.get("loc"), entry.get("loc_ans")),
    }


def _zsre(entry: Mapping[str, Any]) -> dict[str, Any] | None:
    """MEND's split as EasyEdit has it: `alt` is the new answer, and an entry without one is no edit."""
    if not entry["alt"]:
        return None
    asked = entry.get("loc")
    asked = (asked if isinstance(asked, str) else "").removeprefix(_NATURAL_QUESTION)
    asked = asked if not asked or asked.endswith("?") else f"{asked}?"
    return {
        **_placed(entry["src"], entry.get("subject")),
        "target_new": entry["alt"],
        "target_true": entry.get("answers"),
        "rephrase_prompt": entry.get("rephrase"),
        "locality": _pair(asked, entry.get("loc_ans")),
    }


def _knowedit(entry: Mapping[str, Any]) -> dict[str, Any]:
    """wiki_recent, wiki_counterfact and ZsRE of KnowEdit; answers are nested lists with aliases."""
    return {
        **_placed(entry["prompt"], entry.get("subject")),
        "target_new": entry["target_new"],
        "target_true": entry.get("ground_truth"),
        "rephrase_prompt": entry.get("rephrase_prompt") or entry.get("rephrase"),
        "locality": _groups(entry.get("locality")),
    }


def _wikibio(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_placed(entry["text"], entry["concept"]),
        "target_new": entry["labels"],
        "target_true": None,
        "rephrase_prompt": [],
        "locality": _groups(entry.get("locality")),
    }


def _qaedit(entry: Mapping[str, Any]) -> dict[str, Any]:
    local = _list(entry, "locality")
    if wrong := [part for part in local if not isinstance(part, Mapping)]:
        raise RequestError(f"`locality` must be a list of objects with `loc` and `loc_ans`, got {wrong[0]!r} in it")
    return {
        **_placed(entry["prompt"], entry.get("subject")),
        "target_new": entry["target"],
        "target_true": None,
        "rephrase_prompt": entry.get("rephrase"),
        "locality": [pair for part in local for pair in _pair(part.get("loc"), part.get("loc_ans"))],
    }


def _easyedit(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_placed(entry["prompt"], entry.get("subject")),
        "target_new": entry["target_new"],
        "target_true": entry.get("ground_truth"),
        "rephrase_prompt": entry.get("rephrase_prompt"),
        "locality": _pair(entry.get("locality_prompt"), entry.get("locality_ground_truth")),
    }


def _rewrite(entry: Mapping[str, Any]) -> dict[str, Any]:
    rewrite = entry["requested_rewrite"]
    if not isinstance(rewrite, Mapping):
        raise RequestError(f"`requested_rewrite` must be an object, got {rewrite!r}")
    return dict(rewrite)


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    """A list, which may be missing or null."""
    value = entry.get(key)
    if not isinstance(value, list | None):
        raise RequestError(f"`{key}` must be a list, got {value!r}")
    return list(value or ())


def _placed(prompt: Any, subject: Any) -> dict[str, Any]:
    """Prompt and subject of a rewrite; as they are where the prompt does not name the subject."""
    if not isinstance(prompt, str) or not isinstance(subject, str) or "{}" in prompt:
        return {"prompt": prompt, "subject": subject}
    try:
        placed, spelled = place_subject(prompt, subject)
    except RequestError:
        found = re.search(re.escape(subject), prompt, re.IGNORECASE)
        if not subject or found is None:
            return {"prompt": prompt, "subject": subject}
        placed, spelled = f"{prompt[: found.start()]}{{}}{prompt[found.end() :]}", found[0]
    return {
        "prompt": placed,
        "subject": spelled,
        **({"question": prompt} if prompt.rstrip().endswith("?") else {}),
    }


def _pair(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [{"question": question, "answer": answer}] if isinstance(question, str) and question and answer else []


def _groups(value: Any) -> list[dict[str, Any]]:
    """Locality by kind, as KnowEdit has it; a group that cannot be read asks nothing."""
    try:
        groups = read_probe_groups(value, "locality")
    except RequestError as error:
        logger.debug("a locality group is left out: %s", error)
        return []
    return [{"question": pair.question, "answer": list(pair.answers)} for group in groups.values() for pair in group]


# ---- which form a file has -------------------------------------------------------------------------
MQUAKE = Form("MQuAKE", ("requested_rewrite", "new_single_hops"))
FORMS = (
    MQUAKE,
    Form("CounterFact", ("requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"), _counterfact),
    Form("AKEW's WikiUpdate", ("requested_rewrite", "loc", "loc_ans"), _wiki_update),
    Form("ZsRE", ("src", "alt", "rephrase", "loc", "loc_ans"), _zsre),
    Form("WikiBio (KnowEdit)", ("text", "labels", "concept"), _wikibio),
    Form("QAEdit", ("prompt", "target", "subject", "rephrase"), _qaedit),
    Form("KnowEdit", ("prompt", "subject", "target_new", "locality"), _knowedit),
    Form("EasyEdit's requests", ("prompt", "subject", "target_new"), _easyedit),
    Form("a metrics file of a run", ("requested_rewrite", "post"), None, "it holds answers: give it to `analyze`"),
    Form("UnKEBench", ("question", "answer", "para_question"), None, "its answers are whole texts without a fact"),
)  # fmt: skip


def form_of(data: Sequence[Any]) -> Form | None:
    """The form of a file's entries; None where it is none of these. MQuAKE also where it is MQuAKE with flaws."""
    entry = next((item for item in data if isinstance(item, Mapping)), None)
    if entry is None:
        return MQUAKE
    fitting = next((form for form in FORMS if form.fits(entry)), None)
    if fitting is None and isinstance(entry.get("requested_rewrite"), list):
        return MQUAKE
    return fitting


def name_of(cases: Sequence[Any]) -> str:
    """What to call the form of a file that was read: MQuAKE's variants by what they have beside it."""
    case = next((item for item in cases if isinstance(item, Mapping)), {})
    if SOURCE in case:
        return str(case[SOURCE])
    listed = case.get("requested_rewrite")
    rewrites = [r for r in (listed if isinstance(listed, list) else ()) if isinstance(r, Mapping)]
    for name, found in (
        ("AKEW's MQuAKE-CF", any("fact_new_uns" in rewrite for rewrite in rewrites)),
        ("MQuAKE-Remastered", "split" in case),
        ("MQuAKE with CaKE's questions", any("learning_prompt" in rewrite for rewrite in rewrites)),
    ):
        if found:
            return name
    return MQUAKE.name


def unknown_form(data: Sequence[Any]) -> str:
    """What to say of entries of no known form: their keys, and the form that they look most like."""
    entry = next(item for item in data if isinstance(item, Mapping))
    shares = [(sum(key in entry for key in form.keys) / len(form.keys), form) for form in FORMS]
    best, nearest = max(shares, key=lambda share: share[0])
    keys = ", ".join(sorted(map(str, entry))[:8]) or "none"
    like = ""
    if best > 0:
        missing = ", ".join(key for key in nearest.keys if key not in entry)
        like = f" It looks most like {nearest.name}, but lacks {missing}."
    known = ", ".join(form.name for form in FORMS if form.read or form is MQUAKE)
    return f"its entries are of no known form (they have {keys}).{like} Known: {known}"


def cases_from(data: Sequence[Any], form: Form) -> list[dict[str, Any]]:
    """MQuAKE cases of one edit each, from entries of another form; an entry without an edit is left out.

    An entry that is not of the form becomes a case without an edit that says why (`UNREADABLE`): a flawed one.

    Args:
        data: The entries.
        form: With a `read`.
    """
    ids = [_id(entry, number) for number, entry in enumerate(data)]
    unique = max(Counter(map(str, ids)).values(), default=1) == 1
    cases: list[dict[str, Any]] = []
    for number, entry in enumerate(data):
        case_id = ids[number] if unique else number
        try:
            rewrite = _read(entry, form)
        except RequestError as error:
            reason = str(error).rstrip(".")
            cases.append({"case_id": case_id, SOURCE: form.name, "requested_rewrite": [], UNREADABLE: reason})
            continue
        if rewrite is not None:
            cases.append(_case(case_id, rewrite, form.name))
    if left_out := len(data) - len(cases):
        logger.info("%d of %d entries have no new answer and are left out", left_out, len(data))
    return cases


def _read(entry: Any, form: Form) -> dict[str, Any] | None:
    """The rewrite of an entry, None for one without an edit. Raises `RequestError` where it is not of the form."""
    assert form.read is not None
    if not isinstance(entry, Mapping):
        raise RequestError(f"must be an object, got {entry!r}")
    if missing := [key for key in form.keys if key not in entry]:
        raise RequestError(f"is not of the form {form.name} as the others are: it lacks {', '.join(missing)}")
    return form.read(entry)


def _id(entry: Any, number: int) -> Any:
    found = (
        next((entry[key] for key in ("case_id", "id") if key in entry), None) if isinstance(entry, Mapping) else None
    )
    return number if found is None or isinstance(found, bool) or not isinstance(found, int | str) else found


def _case(case_id: Any, rewrite: dict[str, Any], form: str) -> dict[str, Any]:
    prompt, subject = str(rewrite.get("prompt") or ""), str(rewrite.get("subject") or "")
    cloze = prompt.replace("{}", subject)
    new, aliases = _answers(rewrite.get("target_new"))
    old, old_aliases = _answers(rewrite.get("target_true"))
    rewrite = {key: value for key, value in rewrite.items() if value is not None}
    asked = rewrite.get("question") or cloze
    hop = {"question": asked, "cloze": cloze}
    return {
        "case_id": case_id,
        SOURCE: form,
        "requested_rewrite": [rewrite],
        "questions": [],
        "answer": old,
        "new_answer": new,
        "new_single_hops": [{**hop, "answer": new, "answer_alias": aliases}],
        "single_hops": [{**hop, "answer": old, "answer_alias": old_aliases}] if old else [],
    }


def _answers(value: Any) -> tuple[str, list[str]]:
    try:
        first, *others = read_answers(value, "answer") or ("",)
    except RequestError:
        return "", []
    return first, others
