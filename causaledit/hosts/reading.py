"""Read what an editor is given: EasyEdit's parallel lists into requests, and requests into what is asked and edited.

Everything is read before the first measurement, so that a list with one unusable request changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from causaledit.errors import RequestError
from causaledit.facts.request_probes import QuestionAnswer, group_sides, no_prompts, read_probe_groups
from causaledit.facts.request_texts import items
from causaledit.facts.requests import EditRequest, read_each, refuse_doubles, request_from_dict

Probes = dict[str, tuple[QuestionAnswer, ...]]


@dataclass(frozen=True)
class HostRequest:
    """One request as a host needs it.

    Attributes:
        given: What the user handed over, as it is.
        edit: The edit that a method makes of it.
        locality: By key, what the edit must not change.
        portability: By key, what follows from the edit.
    """

    given: Mapping[str, Any] | EditRequest
    edit: EditRequest
    locality: Probes = field(default_factory=dict)
    portability: Probes = field(default_factory=dict)

    @property
    def rewrite(self) -> tuple[QuestionAnswer, ...]:
        """The edit's own prompt with the new answer."""
        return (QuestionAnswer(self.edit.cloze, self.edit.target_new),)

    @property
    def rephrase(self) -> tuple[QuestionAnswer, ...]:
        """The paraphrases, each with the new answer."""
        return tuple(QuestionAnswer(pair.question, self.edit.target_new) for pair in self.edit.rephrase)


def read_request(data: Any, *, needs_subject: bool) -> HostRequest:
    """One request with its probes.

    Raises:
        RequestError: A text, answer or probe is unusable.
    """
    edit = request_from_dict(data, needs_subject=needs_subject)
    if isinstance(data, EditRequest):
        return HostRequest(data, edit)
    locality = data.get("locality")
    return HostRequest(
        data,
        edit,
        # questions in the form of MQuAKE have no key to stand under
        locality=read_probe_groups(locality, "locality") if isinstance(locality, Mapping) else {},
        portability=read_probe_groups(data.get("portability"), "portability"),
    )


def read_batches(requests: Any, size: int | None, *, needs_subject: bool) -> list[list[HostRequest]]:
    """Every request, in batches of `size`; None puts all into one.

    Raises:
        RequestError: One is unusable, or two of a batch change the same fact; the message gives the place in the list.
    """
    read = read_each(requests, lambda item: read_request(item, needs_subject=needs_subject))
    size = size or len(read)
    batches = [read[i : i + size] for i in range(0, len(read), size)]
    for number, batch in enumerate(batches):
        refuse_doubles([request.edit for request in batch], first=number * size + 1)
    return batches


# ---- parallel lists --------------------------------------------------------------------------------
def requests_from_columns(
    columns: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """One request per prompt from the host's parallel lists.

    Args:
        columns: `prompt` and further keys of a request with a list of one value per prompt, or None. Where `prompt` is
            a text, each of the others is the value for it.
        groups: `locality` and `portability`: `{key: {"prompt": […], "ground_truth": […]}}` with one entry per prompt,
            where None and `[]` leave a prompt without that probe.

    Raises:
        RequestError: Their lengths do not agree, or a group has another shape.
    """
    single = isinstance(columns["prompt"], str)
    lists = {name: _column(name, values, single=single) for name, values in columns.items() if values is not None}
    if "prompt" not in lists:
        raise RequestError("`prompts` is None: give a text or a list of texts.")
    count = len(lists["prompt"])
    for name, values in lists.items():
        if len(values) != count:
            raise RequestError(
                f"`{name}` has {len(values)} entries, but there are {count} prompts: give one for each (None where an "
                "edit has none)."
            )
    requests: list[dict[str, Any]] = [
        {name: values[i] for name, values in lists.items()} | {"locality": {}, "portability": {}} for i in range(count)
    ]
    for group, inputs in groups.items():
        if inputs is not None and not isinstance(inputs, Mapping):
            raise RequestError(f"`{group}_inputs` must be {{key: {{prompt, ground_truth}}}}, got {inputs!r}.")
        for key, probe in (inputs or {}).items():
            for request, (asked, answers) in zip(
                requests, _entries(probe, count, f"{group}_inputs[{key!r}]"), strict=True
            ):
                if not no_prompts(asked):
                    request[group][key] = {"prompt": asked, "ground_truth": answers}
    return requests


def _column(name: str, values: Any, *, single: bool) -> list[Any]:
    listed = items(values)
    if single:
        return listed if listed is not None and len(listed) == 1 else [values]
    if listed is None:
        if not isinstance(values, str):
            raise RequestError(f"`{name}` must be a text or a list with one entry per edit, got {values!r}.")
        return [values]
    return listed


def _entries(probe: Any, count: int, place: str) -> list[tuple[Any, Any]]:
    """Prompts and answers of one key, per edit."""
    asked, answers = group_sides(probe, place)
    if isinstance(asked, str):
        asked, answers = [asked], [answers]
    sides = {"prompt": items(asked), "ground_truth": items(answers)}
    if sides["prompt"] is None or sides["ground_truth"] is None:
        if asked is None and answers is None:
            return [(None, None)] * count
        wrong = next(side for side, values in sides.items() if values is None)
        raise RequestError(
            f"`{place}[{wrong!r}]` must be a list with one entry for each of the {count} edits, got "
            f"{probe[wrong]!r}: an entry may itself be a list, or None."
        )
    lengths = {side: len(values) for side, values in sides.items() if values is not None}
    if set(lengths.values()) != {count}:
        raise RequestError(
            f"`{place}` has {lengths['prompt']} prompts and {lengths['ground_truth']} answers; one of each is needed "
            f"for every one of the {count} edits. Several for one edit go into a list of their own; None leaves an "
            "edit out."
        )
    return list(zip(sides["prompt"], sides["ground_truth"], strict=True))
