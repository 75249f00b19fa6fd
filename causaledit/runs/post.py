"""The keys of the published metrics files, from the answers of a case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.facts.answers import alias_match
from causaledit.probes.portability import PORTABILITY_VERSION, paper_match, scores, tagged_answer
from causaledit.probes.sets import CONFLICT, HOP, PROBE_SET_VERSION, CaseProbe
from causaledit.support.statistics import mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causaledit.mquake.cases import Case
    from causaledit.probes.trained import TrainedPrompts


# published keys, in published order; ours is the last (and `portability_probe`, where that protocol is asked)
POST_KEYS = (
    "hop_wise", "hop_wise_pred", "accuracy", "accuracy_pred", "conflict_probe", "old_knowledge_probe",
    "causal_enhanced_hop_wise_pred", "causal_enhanced_conflict_probe", "locality_probe",
)  # fmt: skip


def assemble_post(
    case: Case,
    probes: Sequence[CaseProbe],
    predictions: Sequence[str],
    before: Mapping[str, str],
    trained: TrainedPrompts,
) -> dict[str, Any]:
    """The `post` of metrics.json from the answers to a case's probes.

    Args:
        case: The case.
        probes: What was asked.
        predictions: The answers, in the same order.
        before: Answers of the unedited model to the locality prompts.
        trained: What the method trained on; such predictions are marked.
    """
    post: dict[str, Any] = {key: [] for key in POST_KEYS}
    asked = {(probe.kind, probe.open_book) for probe in probes}
    if ("hop", False) in asked:
        post["hop_wise_pred"] = _empty_hops(case, probes, open_book=False)
        if not any(probe.prefix for probe in probes):  # a forced answer does not count as a hit
            post["hop_wise"] = [[False] * len(hop) for hop in post["hop_wise_pred"]]
    if ("hop", True) in asked:
        post["causal_enhanced_hop_wise_pred"] = _empty_hops(case, probes, open_book=True)
    if ("conflict", True) in asked:  # eight places per edit; an edit without a narrative leaves its own empty
        post["causal_enhanced_conflict_probe"] = [None] * (len(CONFLICT) * len(case.edits))
    for probe, text in zip(probes, predictions, strict=True):
        entry: dict[str, Any] = {"q": probe.q, "prompt": probe.prompt, "ref": list(probe.ref), "pred": text}
        if probe.edit is not None:
            entry["edit"] = probe.edit
        if probe.rivals:
            entry["rivals"] = list(probe.rivals)
        if probe.prefix:
            entry["forced_prefix"] = probe.prefix
        if probe.prompt in trained:
            entry["trained"] = True
        if probe.kind == "hop" and probe.open_book:
            post["causal_enhanced_hop_wise_pred"][probe.hop][probe.slot] = entry
        elif probe.kind == "hop":
            post["hop_wise_pred"][probe.hop][probe.slot] = entry
            if post["hop_wise"]:
                post["hop_wise"][probe.hop][probe.slot] = alias_match(text, probe.ref)
        elif probe.kind == "multi_hop":
            post["accuracy_pred"].append(entry)
            post["accuracy"].append(alias_match(text, probe.ref))
        elif probe.kind == "conflict" and probe.open_book and probe.edit is not None:
            post["causal_enhanced_conflict_probe"][len(CONFLICT) * probe.edit + probe.slot] = entry
        elif probe.kind == "conflict":
            post["conflict_probe"].append(entry)
        elif probe.kind == "old_knowledge":
            post["old_knowledge_probe"].append(entry)
        elif probe.portability is not None:
            entry |= {"kind": probe.portability.kind.key, "hit": paper_match(text, probe.portability)}
            if probe.portability.shape:
                entry["shape"] = probe.portability.shape
            if len(probe.portability.parts) > 1:
                entry["parts"] = [list(names) for names in probe.portability.parts]
            post.setdefault("portability_probe", []).append(entry)
        elif probe.kind == "locality":
            post["locality_probe"].append({**entry, "pred_before": before[probe.prompt]})
    return post


def _empty_hops(case: Case, probes: Sequence[CaseProbe], *, open_book: bool) -> list[list[Any]]:
    """Three places per hop of the new chain; none for a hop that is not asked about."""
    asked = {probe.hop for probe in probes if probe.kind == "hop" and probe.open_book == open_book}
    return [[None] * len(HOP) if hop in asked else [] for hop in range(len(case.hops))]


def case_averages(item: Mapping[str, Any]) -> dict[str, float | None]:
    """Quick averages of one case by alias match; None where nothing was asked."""
    post = item.get("post") or {}
    hops = [sum(hop) / len(hop) for hop in post.get("hop_wise", ()) if hop]
    accuracy = [float(hit) for hit in post.get("accuracy", ())]
    local = [p for p in post.get("locality_probe", ()) if alias_match(p["pred_before"], p["ref"])]
    old = [alias_match(p["pred"], p["ref"]) for p in post.get("old_knowledge_probe", ())]
    return {
        "hop_wise": mean(hops),
        "accuracy": mean(accuracy),
        "any_right_accuracy": float(any(accuracy)) if accuracy else None,
        "old_knowledge": mean([float(hit) for hit in old]),
        "locality": mean([float(alias_match(p["pred"], p["ref"])) for p in local]),
    }


def averages(
    items: Sequence[Mapping[str, Any]], per_case: Sequence[Mapping[str, float | None]] | None = None
) -> dict[str, Any]:
    """The content of res.json: means over cases by alias match, with how many cases each is over.

    Locality is the share of answers that were right before the edit and still are. These are quick averages;
    the verdicts of a judge are what counts (`causaledit analyze`).

    Args:
        items: The cases of metrics.json.
        per_case: Their `case_averages`, where they are known.
    """
    known = [case_averages(item) for item in items] if per_case is None else per_case
    done = [item for item in items if "error" not in item]
    counted = [of_case for item, of_case in zip(items, known, strict=True) if "error" not in item]
    result: dict[str, Any] = {
        "cases": len(done),
        "failed": len(items) - len(done),
        "edits": sum(len(item["requested_rewrite"]) for item in done),
        "hits_by": "alias match",
        "probe_set_version": PROBE_SET_VERSION,
    }
    for name in ("hop_wise", "accuracy", "any_right_accuracy", "old_knowledge", "locality"):
        values = [value for of_case in counted if (value := of_case[name]) is not None]
        result[name] = mean(values)
        result[f"{name}_cases"] = len(values)
    if answers := [p for item in done for p in item["post"].get("portability_probe", ())]:
        result |= {
            "portability_version": PORTABILITY_VERSION,
            "portability": scores([(p["kind"], p["hit"]) for p in answers]),
            "portability_answers": len(answers),
            "portability_tagged": sum(tagged_answer(p["pred"]) is not None for p in answers),
        }
    result["time"] = mean([item["time"] for item in done])
    return result
