"""The items of the bundled tasks, as lm-eval asks for them: read from the JSON-lines files beside this one."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any


def _load(kind: str, **_: Any) -> dict[str, Any]:
    from datasets import Dataset

    text = (Path(__file__).parent / f"{kind}.jsonl").read_text(encoding="utf-8")
    return {"test": Dataset.from_list([json.loads(line) for line in text.splitlines()])}


arithmetic = functools.partial(_load, "arithmetic")
comparison = functools.partial(_load, "comparison")
entailment = functools.partial(_load, "entailment")
facts = functools.partial(_load, "facts")
instructions = functools.partial(_load, "instructions")
reading = functools.partial(_load, "reading")
sentiment = functools.partial(_load, "sentiment")
