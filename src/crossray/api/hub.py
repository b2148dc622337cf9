"""Uploads a model folder to the Hugging Face hub."""

from fnmatch import fnmatch
from pathlib import Path

from crossray.errors import UserError
from crossray.files.folders import MODEL_FILES

#: Name of the model card on the hub.
CARD = "README.md"


def upload(folder: Path, card: str, repository: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload the files of a model folder and its card in one commit.

    Args:
        folder: model folder; only the files that `crossray.load` reads are uploaded.
        card: model card in Markdown.
        repository: "user/name"; created if it does not exist.
        private: whether a new repository is private.
        token: access token of the hub; by default, the one stored by `hf auth login`.

    Returns:
        URL of the commit.

    Raises:
        UserError: the hub rejects the upload.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    files = sorted(path for path in folder.iterdir() if path.is_file() and _belongs(path.name))
    operations = [CommitOperationAdd(path.name, str(path)) for path in files]
    operations.append(CommitOperationAdd(CARD, card.encode("utf-8")))
    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        commit = api.create_commit(repository, operations, commit_message="Upload a CrossRay model")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{repository}: cannot be uploaded ({reason}); see `hf auth login`.") from error
    return str(commit.commit_url)


def _belongs(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in MODEL_FILES)
