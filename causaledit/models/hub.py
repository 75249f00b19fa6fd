"""Push a saved model to the Hub: what can be refused is refused before an edit, and nothing saved is lost after one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from causaledit.errors import PushError, SaveError, one_line

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class HubTarget:
    """A repository that a model will be pushed to.

    Attributes:
        repo: `owner/name`.
        private: Whether it is made private, if it does not exist yet.
        endpoint: Address of the Hub; None means the library's own (`HF_ENDPOINT`).
    """

    repo: str
    private: bool = False
    endpoint: str | None = None

    @property
    def _api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, library_name="causaledit")

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self._api.endpoint}/{self.repo}"

    def push(self, folder: Path) -> str:
        """Create the repository where it does not exist, and upload a folder to it.

        Returns:
            The repository's page.

        Raises:
            SaveError: The Hub refuses it or cannot be reached, or Ctrl-C; the message says where the model is and how
                to go on.
        """
        try:
            self._api.create_repo(self.repo, private=self.private or None, exist_ok=True)
            self._api.upload_folder(
                repo_id=self.repo, folder_path=folder, commit_message="Edited model, saved by causaledit"
            )
        except (Exception, KeyboardInterrupt) as error:  # of whatever kind: the model that is saved must be named
            raise SaveError(
                f"--push-to-hub {self.repo!r}: {_reason(error, self._api.endpoint)}. The model is saved in "
                f"{str(folder)!r}; push it with `hf upload {self.repo} {shlex.quote(str(folder))}`."
            ) from None
        return self.url


def find_target(repo: str, *, private: bool = False, endpoint: str | None = None) -> HubTarget:
    """A repository that can be pushed to, as far as the Hub says so before anything is uploaded.

    Args:
        repo: `owner/name`, or `name` for one of the token's owner.
        private: As in `HubTarget`.
        endpoint: As in `HubTarget`.

    Raises:
        PushError: The name has another form, there is no token, the Hub refuses it, or it cannot be reached.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PushError(f"--push-to-hub {repo!r} is no repository's name (owner/name): {one_line(error)}") from None
    token = get_token()
    if token is None:
        raise PushError(f"--push-to-hub {repo!r} needs a token: run `hf auth login`, or set HF_TOKEN.")
    api = HfApi(endpoint=endpoint)
    try:
        owner: dict[str, Any] = api.whoami(token)
    except Exception as error:  # httpx's, httpx2's, the library's own
        raise PushError(f"--push-to-hub {repo!r}: {_reason(error, api.endpoint)}. Nothing was edited.") from None
    if ((owner.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
        raise PushError(
            f"--push-to-hub {repo!r}: the token may only read: make one that may write at "
            f"{api.endpoint}/settings/tokens. Nothing was edited."
        )
    target = HubTarget(repo if "/" in repo else f"{owner['name']}/{repo}", private, endpoint)
    if private and _is_public(api, target.repo):
        raise PushError(
            f"--private: {target.url} exists and is public: give another name, or no --private. Nothing was edited."
        )
    return target


def _is_public(api: HfApi, repo: str) -> bool:
    """Whether a repository exists that anybody may read."""
    try:
        return not api.model_info(repo).private
    except HfHubHTTPError:  # it does not exist yet; what else is wrong is said when it is made
        return False


def _reason(error: BaseException, endpoint: str) -> str:
    """Why the Hub cannot be used, in one line that does not end as a sentence."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    while error.__cause__ is not None and not isinstance(error, HfHubHTTPError) and isinstance(error, RuntimeError):
        error = error.__cause__  # the uploads' own wrapper
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return f"{endpoint} refuses the token (401): run `hf auth login --force`, or set HF_TOKEN to one that may write"
    if status == 403:
        return "the token may not write there (403): give a repository of your own, or another token"
    if status is not None:
        return f"{endpoint} answers {status}: {_first_line(error)}"
    if type(error).__module__.startswith("httpx"):  # or httpx2, by the library's version
        return f"{endpoint} cannot be reached ({type(error).__name__}): check the network, or HF_ENDPOINT"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .:")
