"""A local chat model that writes or checks narratives: in this process, or in workers on Ray."""

from __future__ import annotations

import functools
import hashlib
import threading
from typing import TYPE_CHECKING, Any

from causaledit.support.costs import TokenCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from causaledit.models.chat import Messages
    from causaledit.support.ray_cluster import RayCluster


class LocalModel:
    """A loaded chat model and its replies.

    What it samples depends on the conversations and the seed alone, not on what was sampled before, so that the same
    texts are written in one process and in several, and by a command that is run again.

    Args:
        name: Folder, hub name, GGUF file or embedded name.
        device: As for `load_model`.
        seed: For sampling.
    """

    def __init__(self, name: str, *, device: Any = "auto", seed: int = 0) -> None:
        from causaledit.models.chat import prepare_tokenizer
        from causaledit.models.loading import load_model

        loaded = load_model(name, device=device, argument="--generate_model_name, --verify_model_name")
        self._model, self._tokenizer, self._seed = loaded.model, prepare_tokenizer(loaded.tokenizer), seed

    def reply(
        self, conversations: list[Messages], max_new_tokens: int, temperature: float | None
    ) -> tuple[list[str], int]:
        """One reply per conversation, and how many tokens were generated.

        Args:
            temperature: None for greedy decoding.
        """
        from causaledit.narratives.generate import local_generate
        from causaledit.support.seeding import seeded

        digest = hashlib.sha256(repr((self._seed, conversations)).encode()).digest()
        count = TokenCount()
        with seeded(int.from_bytes(digest[:4], "big")):
            generate = local_generate(self._model, self._tokenizer, temperature=temperature, count=count)
            return generate(conversations, max_new_tokens), count.generated


class LocalModels:
    """The local models of a command by name, each loaded once in this process, or once in each worker.

    Args:
        cluster: The workers; None does the work here.
        device, seed: As for `LocalModel`.

    Attributes:
        tokens: What was generated.
    """

    def __init__(self, cluster: RayCluster | None = None, *, device: Any = "auto", seed: int = 0) -> None:
        self.tokens = TokenCount()
        self._cluster, self._device, self._seed = cluster, device, seed
        self._here: dict[str, LocalModel] = {}
        self._lock = threading.Lock()

    def generate(self, name: str, temperature: float | None) -> Callable[[list[Messages], int], list[str]]:
        """What maps conversations to replies, as `LocalWriter` and `LocalVerifier` take it."""
        make = functools.partial(LocalModel, name, device=self._device, seed=self._seed)
        if self._cluster is None:
            self._here[name] = self._here.get(name) or make()

        def replies(conversations: list[Messages], max_new_tokens: int) -> list[str]:
            arguments = (conversations, max_new_tokens, temperature)
            if self._cluster is None:
                texts, generated = self._here[name].reply(*arguments)
            else:
                texts, generated = self._cluster.call(f"local:{name}", make, "reply", *arguments)
            with self._lock:
                self.tokens.generated += generated
            return texts

        return replies
