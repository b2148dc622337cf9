"""How a model writes reports, stored in its folder as `generation.json`."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.files.write import write_whole
from crossray.models.base import config_from_dict

FILE = "generation.json"


@dataclass(frozen=True)
class GenerationSettings:
    """The settings of generation, in addition to the weights.

    Attributes:
        decoding: the decoding settings.
        section: section of the report that the model learned to write.
        min_count: frequency threshold of a word-level vocabulary, for the protocol of scores; None if unknown.
    """

    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    section: str = "findings"
    min_count: int | None = None

    def save(self, folder: Path) -> None:
        """Write `generation.json` to a model folder."""
        write_whole(folder / FILE, json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, max_length: int) -> "GenerationSettings":
        """Read `generation.json`; a folder of version 0.1 has the same values in `provenance.json`.

        Args:
            folder: a model folder.
            max_length: maximum number of words, if the folder does not say.

        Raises:
            UserError: the file is damaged.
        """
        path = folder / FILE
        if path.exists():
            try:
                values: Any = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(f"{path}: cannot be read ({error}); copy the whole model folder again.") from None
            return config_from_dict(cls, values, str(path))
        recipe = _recipe(folder)
        data = recipe.get("data") if isinstance(recipe.get("data"), dict) else {}
        decoding = recipe.get("decoding")
        return cls.of_recipe(
            config_from_dict(DecodingConfig, decoding, str(folder / "provenance.json"))
            if decoding is not None
            else DecodingConfig(max_length=max_length),
            data or {},
        )

    @classmethod
    def of_recipe(cls, decoding: DecodingConfig, data: Any) -> "GenerationSettings":
        """Settings of a model that is trained with the data section `data` of a recipe, as a mapping."""
        words = data.get("tokenizer", "word") == "word"
        return cls(decoding, data.get("section", "findings"), data.get("min_count") if words else None)


def _recipe(folder: Path) -> dict[str, Any]:
    """The recipe that trained the model, if its provenance records it."""
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    recipe = provenance.get("recipe", {}) if isinstance(provenance, dict) else {}
    return recipe if isinstance(recipe, dict) else {}
