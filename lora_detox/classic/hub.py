"""Uploading what a `save_pretrained` writes."""

import tempfile
from collections.abc import Callable
from typing import Any

from huggingface_hub import HfApi


def upload(
    save: Callable[[str], Any],
    repo_id: str,
    *,
    token: Any = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload with lora_detox.classic",
    api_endpoint: str | None = None,
) -> str:
    """Write a folder and upload it as a model repository.

    Args:
        save: writes into the folder it is given.
        repo_id: `owner/name`; is created if need be.
        token: of the hub; None for the one that is logged in.
        private: visibility of a new repository.
        revision: branch.
        commit_message: of the upload.
        api_endpoint: another hub.

    Returns:
        Address of the commit.
    """
    api = HfApi(endpoint=api_endpoint, token=token)
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=revision
        )
    return str(commit.commit_url)
