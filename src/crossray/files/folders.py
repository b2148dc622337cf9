"""File names in the folders of runs and models, and functions that find a model."""

from collections.abc import Sequence
from pathlib import Path

from crossray.errors import UserError

#: Subfolder of a run with its best model.
BEST = "best"

#: Name of the file that identifies a model folder.
CONFIG = "config.json"

#: Files of a model folder that are uploaded to and downloaded from the hub.
MODEL_FILES = ("*.json", "*.safetensors")


def model_folder(folder: Path | str) -> Path:
    """Return the model folder for a path: `folder` itself, or the best model if it is the folder of a run."""
    folder = Path(folder)
    best = folder / BEST
    return best if not (folder / CONFIG).exists() and (best / CONFIG).exists() else folder


def find_model(
    name: str, what: str, remedy: str, patterns: Sequence[str] = ("config.json", "model.safetensors")
) -> Path:
    """Return the folder of a saved model: a model folder, the best model of a run, or a download from the hub.

    Args:
        name: folder, or name on the Hugging Face hub.
        what: type of model, or option that names it, for messages.
        remedy: end of the error message.
        patterns: files to download from the hub.

    Raises:
        UserError: the model does not exist or cannot be downloaded.
    """
    folder = model_folder(name)
    if (folder / CONFIG).is_file():
        return folder
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"{what} '{name}': no config.json there; {remedy}.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{what} '{name}': there is no such folder, and the hub does not have it or cannot be reached ({reason}); "
            f"{remedy}."
        ) from error


def short_names(paths: Sequence[Path | str]) -> list[str]:
    """Shorten paths to their last parts, as few as keep different paths distinct.

    Example:
        >>> short_names(["/data/a/run", "/data/b/run"])
        ['a/run', 'b/run']
    """
    whole = [Path(path).resolve() for path in paths]
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(set(whole)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]
