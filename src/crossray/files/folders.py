"""Names of files in the folders of runs and models, and functions to find a model."""

from collections.abc import Sequence
from pathlib import Path

from crossray.errors import UserError

#: Name of the folder of the best model in the folder of a run.
BEST = "best"

#: Name of the file that identifies a model folder.
CONFIG = "config.json"

#: Files of a model folder that are uploaded to and downloaded from the hub.
MODEL_FILES = ("*.json", "*.safetensors")


def model_folder(folder: Path | str) -> Path:
    """The model folder for a name: `folder` itself, or the best model of the training run in it."""
    folder = Path(folder)
    best = folder / BEST
    return best if not (folder / CONFIG).exists() and (best / CONFIG).exists() else folder


def find_model(
    name: str, what: str, remedy: str, patterns: Sequence[str] = ("config.json", "model.safetensors")
) -> Path:
    """The folder of a saved model: `name` itself, the best model of a run in it, or a model from the hub.

    Args:
        name: folder, or name on the Hugging Face hub.
        what: the kind of model, for messages.
        remedy: advice for the error message.
        patterns: files to download from the hub.

    Raises:
        UserError: there is no such model.
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
        raise UserError(f"{what} '{name}': cannot be loaded ({reason}); {remedy}.") from error


def short_names(paths: Sequence[Path | str]) -> list[str]:
    """The shortest ends of paths that tell different ones apart, in the same order: `a/run`, `b/run`."""
    whole = [Path(path).resolve() for path in paths]
    depth = 1
    while len({path.parts[-depth:] for path in whole}) < len(set(whole)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in whole]
