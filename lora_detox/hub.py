"""The Hugging Face hub: whether something is there, and what an error means."""

from collections.abc import Iterator
from typing import Literal

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TIMEOUT_SECONDS = 5.0
"""Of the one request by which a repository is looked for; libraries retry for half a minute."""


class HubError(Exception):
    """A repository that cannot be read; the message is a clause that gives the reason.

    Args:
        reason: that clause.
        answered: whether the hub answered: what is wrong is then the id, the revision or the token.
    """

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered


def hub_files(
    repo_id: str, revision: str | None, kind: Literal["model", "dataset"] = "model"
) -> list[str] | None:
    """Files of a repository, by one request with a short time-out.

    Args:
        repo_id: `owner/name` or `name`.
        revision: branch, tag or commit; None for the default branch.
        kind: of repository.

    Returns:
        Their names; None with HF_HUB_OFFLINE, where only the cache can tell.

    Raises:
        HubError: there is no such repository or revision for this token, or no hub.
    """
    if constants.HF_HUB_OFFLINE:
        return None
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        info = ask(repo_id, revision=revision, timeout=TIMEOUT_SECONDS)
    except Exception as error:
        reason = hub_reason(error, repo_id, revision)
        if any(isinstance(one, HfHubHTTPError) for one in _chain(error)):
            raise HubError(reason, answered=True) from error
        name = type(error).__name__
        raise HubError(name if reason == name else f"{name}: {reason}", answered=False) from error
    return [sibling.rfilename for sibling in info.siblings or []]


def hub_reason(error: Exception, repo_id: str, revision: str | None = None) -> str:
    """Why the hub did not give something; never with a token in it.

    Args:
        error: what huggingface_hub raised.
        repo_id: what was asked for.
        revision: at which revision, None for the default branch.

    Returns:
        A clause for a message.
    """
    # Transformers and datasets wrap what the hub said.
    error = next((one for one in _chain(error) if isinstance(one, HfHubHTTPError)), error)
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too, so it comes first
        return (
            f"{repo_id} is gated: accept its terms on {constants.ENDPOINT}/{repo_id}, then log in "
            "with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"{repo_id} has no revision {revision or 'main'!r}: want a branch, tag or commit of it"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"there is no {repo_id}, or it is private and the token (if any) may not see it: check "
            "the spelling, or log in with `hf auth login`"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if status == 401:
        return "the hub does not know the token (401): log in again with `hf auth login`"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {status}: {lines[-1]}"
    return lines[0]


def _chain(error: BaseException | None) -> Iterator[Exception]:
    """An error and what it was raised from."""
    while isinstance(error, Exception):
        yield error
        error = error.__cause__ or error.__context__
