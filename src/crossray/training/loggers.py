"""Experiment trackers: Lightning loggers that receive the rows of metrics.jsonl."""

from pathlib import Path
from typing import Literal, get_args

from lightning.pytorch import loggers
from lightning.pytorch.loggers import Logger

from crossray.errors import UserError, choose

LoggerName = Literal["none", "csv", "tensorboard", "wandb", "mlflow"]

#: Subfolder of a run to which local trackers write.
FOLDER = "logs"


def build_logger(name: LoggerName, out: Path) -> Logger | None:
    """Create the logger of a run; a resumed run continues in the same place.

    Metrics have names such as `train/loss` and `val/cider`, and are logged by optimizer step. Reports and names of
    studies are never logged.

    Args:
        name: name of the tracker; "none" for metrics.jsonl only.
        out: folder of the run. csv and tensorboard write to its subfolder `logs`, mlflow to `logs/mlruns` unless
            MLFLOW_TRACKING_URI is set; wandb stores its files in `logs` and uploads to the project "crossray".

    Raises:
        UserError: the tracker does not exist, or its package is not installed.
    """
    try:
        if name == "csv":
            return loggers.CSVLogger(out, name=FOLDER)  # a new folder after each resumption: it overwrites files
        if name == "tensorboard":
            return loggers.TensorBoardLogger(out, name=None, version=FOLDER)
        if name == "wandb":
            return loggers.WandbLogger(project="crossray", name=out.name, save_dir=out / FOLDER)
        if name == "mlflow":
            return loggers.MLFlowLogger("crossray", run_name=out.name, save_dir=str(out / FOLDER / "mlruns"))
    except ModuleNotFoundError:
        raise UserError(
            f"recipe field 'trainer.logger' is {name}, which is not installed; run `pip install 'crossray[{name}]'`."
        ) from None
    if name not in get_args(LoggerName):
        raise UserError(f"recipe field 'trainer.logger' is {name}; {choose(name, get_args(LoggerName))}.")
    return None
