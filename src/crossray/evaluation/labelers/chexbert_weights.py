"""Converts CheXbert's published weights (`chexbert.pth`) to a folder without pickles.

The file is a checkpoint of the published training: `model_state_dict` contains the tensors, whose names begin with
`module.` because the model was wrapped in `DataParallel`. Unpickling can run code, so only tensors are read; the sizes
of the network are inferred from their shapes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossray.errors import UserError
from crossray.evaluation.labelers.chexbert import HEAD_WIDTH, CheXbert, CheXbertConfig, config_values, word_pieces
from crossray.files.digest import file_digest
from crossray.files.pytorch_files import PyTorchFileError, float_copies, named_tensors, read_pytorch
from crossray.files.write import replace_folder
from crossray.text.vocabulary import read_vocabulary, vocabulary_file

# Unused tensors of the file: the heads use the hidden state directly, and positions are computed.
_UNUSED = ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "bert.embeddings.position_ids")

_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")
#: Maximum number of layers in weights that are read; the published file has 12.
_MOST_LAYERS = 64

_PUBLISHED = "give the published chexbert.pth"


def convert_chexbert(weights: Path | str, vocabulary: Path | str, out: Path | str) -> None:
    """Convert the weights to a folder for `CheXbertLabeler.from_pretrained`.

    Args:
        weights: the published `chexbert.pth`.
        vocabulary: bert-base-uncased's `vocab.txt` or `tokenizer.json`, or a folder with one of them.
        out: folder to write: `config.json`, `model.safetensors`, `tokenizer.json`, and `provenance.json` with the
            digests of both sources. A failed conversion leaves no folder.

    Raises:
        UserError: the folder exists, the weights contain more than tensors or are not those of CheXbert, or the
            vocabulary does not match them.
    """
    weights, out = Path(weights), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already; name a new folder, or remove it")
    vocabulary = vocabulary_file(Path(vocabulary))
    pieces = read_vocabulary(vocabulary)
    tensors = read_weights(weights)
    config = infer_config(tensors, weights)
    if len(pieces) != config.vocabulary:
        raise UserError(
            f"{vocabulary}: it has {len(pieces)} pieces, but {weights} has {config.vocabulary} embeddings; "
            "give the vocabulary of bert-base-uncased"
        )
    provenance = {name: file_digest(path) for name, path in (("weights", weights), ("vocabulary", vocabulary))}

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file(tensors, folder / "model.safetensors")
        word_pieces(pieces).save(str(folder / "tokenizer.json"))
        for name, values in (("config.json", config_values(config)), ("provenance.json", provenance)):
            (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    replace_folder(out, write)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors that the network uses from a checkpoint, by their names without `module.`.

    They are copies in float32. If the file is a zip, it is memory-mapped instead of read.

    Raises:
        UserError: the file is missing, contains anything but tensors and plain values, or is not such a checkpoint.
    """
    try:
        checkpoint: Any = read_pytorch(path)
        state = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
        if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise UserError(f"{path}: model_state_dict is missing or not a table of tensors; {_PUBLISHED}")
        named = {name.removeprefix("module."): tensor for name, tensor in named_tensors(state).items()}
        return float_copies({name: tensor for name, tensor in named.items() if name not in _UNUSED})
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_PUBLISHED}") from None
    except PyTorchFileError:
        raise UserError(
            f"{path}: not PyTorch weights, or more than weights, of which nothing was run; {_PUBLISHED}"
        ) from None


def infer_config(tensors: Mapping[str, Tensor], path: Path) -> CheXbertConfig:
    """Infer the sizes of the network from its tensors.

    Args:
        tensors: result of `read_weights`.
        path: file of the tensors, for error messages.

    Raises:
        UserError: a tensor is missing, unexpected, or of a shape that does not match the others.
    """
    layers = {int(found[1]) for found in map(_LAYER.match, tensors) if found}
    sizes = {
        name: _matrix(tensors, f"bert.{place}.weight", path)
        for name, place in (
            ("words", "embeddings.word_embeddings"),
            ("positions", "embeddings.position_embeddings"),
            ("segments", "embeddings.token_type_embeddings"),
            ("inner", "encoder.layer.0.intermediate.dense"),
        )
    }
    config = CheXbertConfig(
        vocabulary=sizes["words"][0],
        width=sizes["words"][1],
        layers=min(len(layers), _MOST_LAYERS),
        inner_width=sizes["inner"][0],
        positions=sizes["positions"][0],
        segments=sizes["segments"][0],
    )
    if config.width % HEAD_WIDTH or not config.width:
        raise UserError(f"{path}: width {config.width} is not a multiple of {HEAD_WIDTH}, as in BERT; {_PUBLISHED}")
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in CheXbert(config).state_dict().items()}
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise UserError(f"{path}: tensor {name} is missing; {_PUBLISHED}")
        if name not in expected:
            raise UserError(f"{path}: tensor {name} does not belong to CheXbert; {_PUBLISHED}")
        if tensors[name].shape != expected[name]:
            found, right = tuple(tensors[name].shape), tuple(expected[name])
            raise UserError(f"{path}: tensor {name} is {found}, but the other tensors need {right}; {_PUBLISHED}")
    return config


def _matrix(tensors: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, int]:
    """Shape of a tensor with two dimensions."""
    if name not in tensors:
        raise UserError(f"{path}: tensor {name} is missing; {_PUBLISHED}")
    if tensors[name].dim() != 2:
        raise UserError(f"{path}: tensor {name} has {tensors[name].dim()} dimensions, not 2; {_PUBLISHED}")
    rows, columns = tensors[name].shape
    return rows, columns
