"""What systems tell analyses: where memory positions lie in the image, vectors of images and reports, memories."""

import dataclasses

import pytest
import torch
from tests.models.tiny import make_batch, make_inputs, take, tiny

from crossray.models.base import system_class
from crossray.models.parts.backbones import joined_cells, square_cells
from crossray.models.registry import list_models

every_system = pytest.mark.parametrize("system", list_models())

#: Systems in which images and reports never meet in one space.
WITHOUT_EMBEDDINGS = ["baseline", "revtaf"]

every_system_with_embeddings = pytest.mark.parametrize(
    "system", [system for system in list_models() if system not in WITHOUT_EMBEDDINGS]
)


def test_tokens_are_numbered_row_by_row_and_a_class_token_lies_nowhere() -> None:
    assert square_cells(4).tolist() == [0, 1, 2, 3]
    assert square_cells(5).tolist() == [-1, 0, 1, 2, 3]
    assert joined_cells(2, 8).tolist() == [[0, 1, 2, 3, -1, -1, -1, -1], [-1, -1, -1, -1, 0, 1, 2, 3]]


@every_system
def test_every_cell_of_every_view_has_one_position(system: str) -> None:
    model = tiny(system)
    with torch.no_grad():
        positions = model.encode(make_inputs()).memory.shape[1]
    cells = model.memory_cells(2, positions)
    assert cells is not None
    assert cells.shape == (2, positions)
    for view in cells:
        placed = view[view >= 0].tolist()
        assert placed == list(range(len(placed)))
        assert round(len(placed) ** 0.5) ** 2 == len(placed) > 0


@every_system
@pytest.mark.parametrize("view", [0, 1])
def test_a_cell_lies_where_pixels_change_its_position_most(system: str, view: int) -> None:
    """The image itself is the oracle: pixels of a corner are changed, and the memory says which position felt it."""
    size = 128
    fixed = "image_size" in {field.name for field in dataclasses.fields(system_class(system).config_class)}
    model = tiny(system, **({"image_size": size} if fixed else {}))
    before = make_inputs(1, size=size)
    with torch.no_grad():
        memory = model.encode(before).memory
        cells = model.memory_cells(2, memory.shape[1])
        assert cells is not None
        side = round((int(cells.max()) + 1) ** 0.5)
        pixels = size // side
        for row, column in ((0, 0), (0, side - 1), (side - 1, 0), (side - 1, side - 1)):
            area = slice(row * pixels, (row + 1) * pixels), slice(column * pixels, (column + 1) * pixels)
            change = torch.zeros(memory.shape[1])
            for factor, added in ((1, 4), (-3, 0), (0, 0), (0, -9), (0, 9)):  # discrete tokens do not feel every change
                after = make_inputs(1, size=size)
                after.images[0, view, :, area[0], area[1]] *= factor
                after.images[0, view, :, area[0], area[1]] += added
                change += (model.encode(after).memory - memory)[0].norm(dim=-1)
            felt = int(cells[view, change.masked_fill(cells[view] < 0, 0).argmax()])
            # receptive fields reach over the border of their cell
            assert max(abs(felt // side - row), abs(felt % side - column)) <= 1, (row, column, felt)


@pytest.mark.parametrize("system", WITHOUT_EMBEDDINGS)
def test_no_embeddings_where_there_is_no_common_space(system: str) -> None:
    assert tiny(system).embeddings(make_batch()) is None


@every_system_with_embeddings
def test_embeddings_of_a_study_depend_on_it_alone(system: str) -> None:
    model, batch = tiny(system), make_batch()
    with torch.no_grad():
        found = model.embeddings(batch)
        alone = model.embeddings(take(batch, [1]))
    assert found is not None
    assert alone is not None
    for together, one in zip(found, alone, strict=True):
        assert together.shape[0] == 4
        assert together.shape == (4, found[0].shape[1])
        torch.testing.assert_close(together[1:2], one, rtol=1e-4, atol=1e-5)


@every_system_with_embeddings
def test_the_text_embedding_reads_the_report_and_the_image_embedding_the_image(system: str) -> None:
    model, batch = tiny(system), make_batch()
    with torch.no_grad():
        first = model.embeddings(batch)
        batch.targets.tokens[0, 3] = 4 + (batch.targets.tokens[0, 3] - 3) % 30
        batch.inputs.images[1] += (
            torch.randn_like(batch.inputs.images[1]) * batch.inputs.view_mask[1][:, None, None, None]
        )
        second = model.embeddings(batch)
    assert first is not None
    assert second is not None
    changed = [(a - b).abs().amax(dim=1) > 1e-6 for a, b in zip(first, second, strict=True)]
    assert changed[0].tolist() == [False, True, False, False]
    assert changed[1].tolist() == [True, False, False, False]


@every_system
def test_memories_are_matrices(system: str) -> None:
    for matrix in tiny(system).memories().values():
        assert matrix.dim() == 2
        assert len(matrix) > 1
