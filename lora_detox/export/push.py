"""An exported folder -> a repository on the Hub, with errors that say what to do."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from lora_detox.errors import ExportError
from lora_detox.export.space import SPACE
from lora_detox.ownership import listed_files
from lora_detox.settings import ExportSettings

MERGED = "merged"


def check_token() -> str:
    """Who the token belongs to; asked before anything else is done.

    Returns:
        The account's name.

    Raises:
        ExportError: no token, a wrong one, or no hub.
    """
    try:
        account: dict[str, Any] = HfApi().whoami()
    except Exception as error:
        raise _explained(error, None) from error
    return str(account.get("name"))


def push_folder(folder: Path, export: ExportSettings) -> dict[str, str]:
    """Create the repository where it is missing, upload, and see that every file arrived.

    Args:
        folder: what `stage=export` wrote and checked.
        export: with `repo_id`.

    Returns:
        `repo`, `commit` and `url`.

    Raises:
        ExportError: the hub refused, cannot be reached, or holds something else afterwards.
    """
    api, repo_id = HfApi(), str(export.repo_id)
    try:
        api.create_repo(repo_id, private=export.private, exist_ok=True, repo_type="model")
        if export.revision:
            api.create_branch(repo_id, branch=export.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=export.revision,
            allow_patterns=[name for name, _ in folder_files(folder)],
            commit_message=export.commit_message,
        )
        info = api.model_info(repo_id, revision=commit.oid)
    except Exception as error:
        raise _explained(error, repo_id) from error
    arrived = {sibling.rfilename for sibling in info.siblings or []}
    missing = [name for name, _ in folder_files(folder) if name not in arrived]
    if missing:
        raise ExportError(
            f"export.repo_id: after the push {repo_id} lacks {', '.join(missing)}; push again"
        )
    return {"repo": repo_id, "commit": str(commit.oid), "url": str(commit.commit_url)}


def folder_files(folder: Path) -> list[tuple[str, int]]:
    """Files that are pushed, with their sizes in bytes, by name: those that an export wrote.

    A merged model and a Space stay here: a repository of an adapter holds the adapter alone.
    """
    apart = (f"{MERGED}/", f"{SPACE}/")
    names = [name for name in listed_files(folder) if not name.startswith(apart)]
    return [(name, (folder / name).stat().st_size) for name in names]


def _explained(error: Exception, repo_id: str | None) -> ExportError:
    """What the hub said, as one sentence with a way out; never with the token."""
    where = f"export.repo_id={repo_id}" if repo_id else "export.repo_id"
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    reply = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        why = "HF_HUB_OFFLINE=1 forbids it; unset it, or leave export.repo_id away"
    elif isinstance(error, LocalTokenNotFoundError):
        why = "no token was found; log in with `hf auth login`, or set HF_TOKEN"
    elif status == 401:
        why = "the hub does not know the token (401); log in again with `hf auth login`"
    elif status == 403 or isinstance(error, RepositoryNotFoundError):
        why = (
            f"the token may not write there ({status}: {reply}); want a token with write access to "
            "that name, or another export.repo_id"
        )
    elif isinstance(error, HfHubHTTPError):
        why = f"the hub answered {status}: {reply}"
    else:
        why = f"the hub at {constants.ENDPOINT} cannot be reached ({type(error).__name__}: {reply})"
    return ExportError(f"{where}: cannot push: {why}")
