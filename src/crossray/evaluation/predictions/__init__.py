"""Predictions on disk: the file of `crossray generate`, other people's files, and the protocol behind a score."""

from crossray.evaluation.predictions.file import (
    FORMAT,
    SHUFFLED,
    Prediction,
    PredictionFile,
    Provenance,
    scores_path,
    write_predictions,
)

__all__ = ["FORMAT", "SHUFFLED", "Prediction", "PredictionFile", "Provenance", "scores_path", "write_predictions"]
