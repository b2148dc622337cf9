"""`crossray convert`: converts published weights to folders without pickles."""

from pathlib import Path

from crossray.pages.terminal import console


def convert_chexbert(weights: Path, vocabulary: Path, out: Path) -> None:
    """Convert CheXbert's chexbert.pth, for `--labeler FOLDER` of evaluate, compare and label.

    Args:
        weights: the published chexbert.pth; only its tensors are read, no code in it is run.
        vocabulary: vocab.txt or tokenizer.json of bert-base-uncased, or a folder with one of them.
        out: folder to write, which must not exist.
    """
    from crossray.evaluation.labelers.chexbert_weights import convert_chexbert as convert

    with console().status("converting"):
        convert(weights, vocabulary, out)
    console().print(f"CheXbert in {out}")
