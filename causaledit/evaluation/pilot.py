"""The pilot study: on the unedited model, does a forced new answer survive its own explanation?

Data flow: cases → **hop-wise and conflict probes whose assistant turn opens with the new answer**, closed-book and
with the narrative before the question → a run's files → judge → SRR of both, paired by edit.

Source: the idealised intervention of CODE (arXiv 2605.28303); published SRR 95.6 % closed-book, 6.6 % with the
narrative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.evaluation.metrics import SOURCES, RunMetrics, Source
from causaledit.evaluation.runs import PRE_EDITED, Plan, RunArguments, make_plan
from causaledit.evaluation.statistics import PairedTable, Rate

if TYPE_CHECKING:
    from collections.abc import Mapping

TAG = "pilot"


def make_pilot_plan(
    *,
    datatype: str,
    model_type: str,
    hparams_path: str | None = None,
    max_cases: int = 200,
    hop: int | None = None,
    **further: Any,
) -> Plan:
    """Check the arguments and plan the run; `runs.execute` carries it out, atomically, and resumes it.

    Args:
        datatype: A data set with narratives, or the path of one.
        model_type: Name of an hparams file that names the model, or a model.
        hparams_path: An hparams file instead.
        max_cases: At most so many cases.
        hop: Only cases of so many hops.
        further: `shuffle_seed`, `output_root`, `run_id`, `device`, `max_new_tokens`, `token_budget`: see
            `RunArguments`.

    Raises:
        RunError, DatasetError, HparamsError, ModelError, SaveError: As in `make_plan`; also, no narratives.
    """
    return make_plan(
        RunArguments(
            editing_method=PRE_EDITED, datatype=datatype, model_type=model_type, hparams_path=hparams_path,
            max_cases=max_cases, hop=hop, exp_tag=TAG, probes=("forced",), **further,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class BookComparison:
    """One source of SRR, closed-book against open-book.

    Attributes:
        closed_book: Edits with a self-refuting response, of those whose hop-wise responses assert the new answer.
        open_book: The same with the narrative before the question.
        paired: Edits that are in both denominators; "this" is open-book, "other" closed-book: repaired is what the
            narrative puts right.
    """

    closed_book: Rate
    open_book: Rate
    paired: PairedTable

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "closed_book": self.closed_book.to_dict(),
            "open_book": self.open_book.to_dict(),
            "paired": self.paired.to_dict(),
        }


def compare_books(figures: RunMetrics) -> Mapping[Source, BookComparison]:
    """SRR closed-book and open-book by source, paired by edit.

    Args:
        figures: Of a run whose prompts were asked both ways: the pilot study's, or any with open-book twins.

    Returns:
        One comparison per source; empty where the run has no open-book twins.
    """
    if figures.open_book_self_refutation is None:
        return {}
    pairs = [pair for s in figures.scores for pair in zip(s.edits, s.open_book_edits, strict=False)]
    compared = {}
    for source in SOURCES:
        outcomes = [
            # whether an edit belongs into the denominators may itself be unknown
            (None, None) if None in (o.asserted, c.asserted) else (o.refutes[source], c.refutes[source])
            for c, o in pairs
            if source in c.refutes and source in o.refutes and c.asserted is not False and o.asserted is not False
        ]
        compared[source] = BookComparison(
            closed_book=figures.self_refutation[source].conditional,
            open_book=figures.open_book_self_refutation[source].conditional,
            paired=PairedTable.of(outcomes, yes_is_good=False),
        )
    return compared
