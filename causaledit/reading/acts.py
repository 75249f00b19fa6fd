"""What a clause does with an answer: the events that a response comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Act(Enum):
    """What an event does."""

    ASSERT = auto()  # gives the answer
    DENY = auto()  # says it is not the answer
    HISTORY = auto()  # says it once was
    REPORT = auto()  # says that somebody says so, or that it was said before
    ASK = auto()  # asks whether it is
    MENTION = auto()  # names it, and says nothing of it as an answer
    RETRACT = auto()  # takes back the last claim, whatever it was
    LEAD_RETRACT = auto()  # the same by a mere "No," or "Correction:"
    DENY_IT = auto()  # "he did not write it": denies whoever was named last
    REINSTATE = auto()  # goes back to the first answer
    CONFIRM = auto()  # "Yes."
    GIVE_IT = auto()  # "so she is the president": gives whoever was named last
    UNDECIDED = auto()  # declines to choose
    DOUBT = auto()  # thinks again: "Wait.", "Let me check."
    QUALIFY = auto()  # a negation or an "only" about an answer that by itself denies nothing asked


@dataclass(frozen=True)
class Event:
    """One step of a response.

    Attributes:
        who: A mark, or empty where the event needs its context.
        strong: Whether the wording leaves no doubt that the event is about what was asked.
        aside: Whether it is said of somebody or something else than what was asked about, as far as the words go: it
            then replaces no answer that stands.
        bare: Whether an option is picked without a sentence ("(B)"): a choice, which corrects nothing.
    """

    act: Act
    who: str = ""
    strong: bool = True
    bare: bool = False
    aside: bool = False
