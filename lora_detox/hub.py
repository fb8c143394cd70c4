"""What the Hugging Face hub means by its errors, in one sentence with a way out."""

from collections.abc import Iterator

from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)


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
