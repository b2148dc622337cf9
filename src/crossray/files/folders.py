"""Names of the files in the folder of a training run and of a model, and how to find a model from either."""

from collections.abc import Sequence
from pathlib import Path

from crossray.errors import UserError

#: Folder of the best model within the folder of a run.
BEST = "best"

#: File that makes a folder a model folder.
CONFIG = "config.json"

#: Files of a model folder that travel to the hub and back.
MODEL_FILES = ("*.json", "*.safetensors")


def model_folder(folder: Path | str) -> Path:
    """The model folder that is meant: `folder` itself, or the best model of the training run that lies there."""
    folder = Path(folder)
    best = folder / BEST
    return best if not (folder / CONFIG).exists() and (best / CONFIG).exists() else folder


def find_model(
    name: str, what: str, remedy: str, patterns: Sequence[str] = ("config.json", "model.safetensors")
) -> Path:
    """The folder of a saved model: `name` itself, the best model of a run there, or one from the hub.

    Args:
        name: folder, or name on the Hugging Face hub.
        what: the kind of model, for messages.
        remedy: what to give instead, for messages.
        patterns: files that are taken from the hub.

    Raises:
        UserError: there is none.
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
