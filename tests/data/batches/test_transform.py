import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import ImageTransform, transform_inputs

#: Leaves pixels as they are, in 0 to 255.
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image with structure at several scales, (height, width) uint8."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 12), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse, float) + generator.normal(0, 12, (height, width)), 0, 255).astype(np.uint8)


def batch(*images: np.ndarray, fill: int = 255) -> tuple[torch.Tensor, torch.Tensor]:
    """Images padded with `fill`: whatever lies in the padding must not matter."""
    sizes = torch.tensor([image.shape for image in images])
    height, width = sizes.amax(0).tolist()
    padded = torch.full((len(images), 1, height + 3, width + 5), fill, dtype=torch.uint8)
    for place, image in enumerate(images):
        padded[place, 0, : image.shape[0], : image.shape[1]] = torch.from_numpy(image.copy())
    return padded, sizes


def pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), np.float32)


SHAPES = [(256, 256), (256, 311), (400, 256), (90, 64), (224, 224), (700, 512)]


def test_squashed_evaluation_equals_pillow():
    images = [smooth(*shape, seed) for seed, shape in enumerate(SHAPES)]
    found = ImageTransform(size=224, **PLAIN).apply(*batch(*images), train=False)
    assert found.shape == (len(images), 3, 224, 224) and found.dtype == torch.float32
    for image, result in zip(images, found, strict=True):
        # Pillow rounds to whole gray values after each of its two passes
        np.testing.assert_allclose(result[0].numpy(), pillow(image, 224, 224), atol=1.01)
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])


def test_squashed_evaluation_equals_torch_interpolate():
    images = [smooth(*shape, seed) for seed, shape in enumerate(SHAPES)]
    found = ImageTransform(size=224, **PLAIN).apply(*batch(*images), train=False)
    for image, result in zip(images, found, strict=True):
        source = torch.from_numpy(image).float()[None, None]
        expected = F.interpolate(source, (224, 224), mode="bilinear", antialias=True, align_corners=False)
        torch.testing.assert_close(result[:1], expected[0], atol=2e-3, rtol=0)


def test_central_crop_equals_pillow():
    images = [smooth(*shape, seed) for seed, shape in enumerate([(300, 411), (523, 310), (256, 256)])]
    found = ImageTransform(size=224, resize=256, squash=False, **PLAIN).apply(*batch(*images), train=False)
    for image, result in zip(images, found, strict=True):
        short = min(image.shape)
        height, width = (256 * side // short for side in image.shape)
        top, left = round((height - 224) / 2), round((width - 224) / 2)
        expected = pillow(image, height, width)[top : top + 224, left : left + 224]
        np.testing.assert_allclose(result[0].numpy(), expected, atol=1.01)


def test_an_image_of_the_wanted_size_is_unchanged_whatever_is_beside_it():
    image, other = smooth(224, 224), smooth(256, 300, 1)
    plain = ImageTransform(size=224, **PLAIN)
    alone = plain.apply(*batch(image), train=False)[0]
    together = plain.apply(*batch(image, other), train=False)[0]
    assert torch.equal(alone[0], torch.from_numpy(image.copy()).float())
    assert torch.equal(together, alone)


def test_normalisation_is_that_of_the_channels():
    image = smooth(32, 32)
    transform = ImageTransform(size=32, resize=32)
    found = transform.apply(*batch(image), train=False)[0]
    for channel, (mean, std) in enumerate(zip(transform.mean, transform.std, strict=True)):
        expected = (torch.from_numpy(image.copy()).float() / 255 - mean) / std
        torch.testing.assert_close(found[channel], expected, atol=1e-5, rtol=1e-5)


def test_random_crops_are_windows_of_the_stored_image():
    image = smooth(40, 52)
    transform = ImageTransform(size=32, resize=0, **PLAIN)
    found = transform.apply(*batch(*[image] * 200), train=True, generator=torch.Generator().manual_seed(0))
    windows = {
        image[top : top + 32, left : left + 32].astype(np.float32).tobytes(): (top, left)
        for top in range(9)
        for left in range(21)
    }
    corners = [windows[crop[0].numpy().tobytes()] for crop in found]
    assert {top for top, _ in corners} == set(range(9))
    assert {left for _, left in corners} == set(range(21))


def test_random_crop_after_resizing_is_a_window_of_pillows_resized_image():
    image = smooth(300, 380)
    transform = ImageTransform(size=48, resize=64, **PLAIN)
    resized = pillow(image, 64, 64 * 380 // 300)
    for crop in transform.apply(*batch(*[image] * 8), train=True)[:, 0].numpy():
        errors = [
            np.abs(resized[top : top + 48, left : left + 48] - crop).max()
            for top in range(17)
            for left in range(resized.shape[1] - 47)
        ]
        assert min(errors) <= 1.01


def test_squash_train_gives_up_the_aspect_ratio():
    image = smooth(128, 256)
    transform = ImageTransform(size=112, resize=128, squash_train=True, **PLAIN)
    resized = pillow(image, 128, 128)
    crop = transform.apply(*batch(image), train=True)[0, 0].numpy()
    errors = [np.abs(resized[t : t + 112, s : s + 112] - crop).max() for t in range(17) for s in range(17)]
    assert min(errors) <= 1.01


@pytest.mark.parametrize("shape", [(32, 32), (64, 64)])
def test_flip_mirrors(shape):
    image = smooth(*shape)
    arguments = {"size": 32, "resize": 32, **PLAIN}
    kept = ImageTransform(**arguments).apply(*batch(image), train=True)
    flipped = ImageTransform(flip=1.0, **arguments).apply(*batch(image), train=True)
    torch.testing.assert_close(flipped, kept.flip(3), atol=1e-4, rtol=0)
    assert not torch.allclose(flipped, kept, atol=1)
    half = ImageTransform(flip=0.5, **arguments).apply(*batch(*[image] * 64), train=True)
    assert 10 < sum(torch.allclose(one, kept[0], atol=1e-3) for one in half) < 54


def test_zoom_and_shift_move_the_crop_over_black():
    image = np.full((64, 64), 200, np.uint8)
    zoomed = ImageTransform(size=64, resize=64, scale=0.5, **PLAIN).apply(*batch(image), train=True)[0, 0]
    expected = torch.zeros(64, 64)
    expected[16:48, 16:48] = 200
    torch.testing.assert_close(zoomed, expected, atol=1e-3, rtol=0)
    # a draw of 1 shifts by the whole share of the side to the right and down
    draws = torch.tensor([[0, 0, 0, 0.5, 1.0, 0.75]])
    shifted = ImageTransform(size=64, resize=64, translate=0.25, **PLAIN).apply(*batch(image), train=True, draws=draws)
    expected = torch.zeros(64, 64)
    expected[8:, 16:] = 200
    torch.testing.assert_close(shifted[0, 0], expected, atol=1e-3, rtol=0)


def test_rotation_equals_pillow_inside_the_circle():
    image = smooth(128, 128)
    transform = ImageTransform(size=128, resize=128, rotation=5, **PLAIN)
    draws = torch.tensor([[0, 0, 0, 1.0, 0.5, 0.5]])
    found = transform.apply(*batch(image), train=True, draws=draws)[0, 0].numpy()
    expected = [
        np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR), np.float32) for angle in (5, -5)
    ]
    rows, columns = np.mgrid[:128, :128] - 63.5
    inside = np.hypot(rows, columns) < 60
    errors = [np.abs(found - one)[inside].mean() for one in expected]
    assert min(errors) < 0.6 < 3 < max(errors)


def test_black_fills_what_rotation_brings_in_from_outside_the_crop():
    image = np.full((96, 96), 255, np.uint8)
    transform = ImageTransform(size=64, resize=0, rotation=45, **PLAIN)
    draws = torch.tensor([[0.5, 0.5, 0, 1.0, 0.5, 0.5]])
    found = transform.apply(*batch(image), train=True, draws=draws)[0, 0]
    assert found[0, 0] == found[-1, -1] == found[0, -1] == 0 and found[32, 32] == pytest.approx(255)


def test_augmentation_is_a_function_of_the_generator_and_of_each_image_alone():
    images, sizes = batch(smooth(60, 70), smooth(80, 64, 1), smooth(64, 64, 2))
    transform = ImageTransform(size=48, resize=56, flip=0.5, rotation=10, translate=0.1, scale=0.9)
    first = transform.apply(images, sizes, train=True, generator=torch.Generator().manual_seed(1))
    again = transform.apply(images, sizes, train=True, generator=torch.Generator().manual_seed(1))
    other = transform.apply(images, sizes, train=True, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    draws = transform.draw(3, torch.Generator().manual_seed(1))
    for place in range(3):
        alone = transform.apply(images[[place]], sizes[[place]], train=True, draws=draws[[place]])
        torch.testing.assert_close(alone[0], first[place], atol=1e-5, rtol=1e-5)


def test_evaluation_has_no_randomness():
    transform = ImageTransform(size=48, flip=1.0, rotation=40, translate=0.3, scale=0.5, resize=64)
    plain = ImageTransform(size=48, resize=64)
    images = batch(smooth(60, 70))
    assert torch.equal(transform.apply(*images, train=False), plain.apply(*images, train=False))


def test_an_image_smaller_than_the_model_is_enlarged():
    image = smooth(20, 30)
    for squash in (True, False):
        found = ImageTransform(size=32, resize=0, squash=squash, **PLAIN).apply(*batch(image), train=False)
        assert found[0, 0].min() >= image.min() - 1e-3 and torch.isfinite(found).all()
    assert ImageTransform(size=32, resize=0, **PLAIN).apply(*batch(image), train=True).shape[-1] == 32


def test_autocast_does_not_round_pixels():
    images = batch(smooth(60, 70))
    transform = ImageTransform(size=48, resize=56)
    with torch.autocast("cpu", torch.bfloat16):
        inside = transform.apply(*images, train=False)
    assert torch.equal(inside, transform.apply(*images, train=False))


@pytest.mark.parametrize(
    "fields", [{"size": 0}, {"size": 224, "resize": 200}, {"flip": 2.0}, {"scale": 0.0}, {"std": (1.0, 1.0, 0.0)}]
)
def test_impossible_fields_are_named(fields):
    with pytest.raises(ValueError, match=next(reversed(fields))):
        ImageTransform(**fields)


def test_inputs_keep_studies_and_views_apart():
    pixels, sizes = batch(smooth(40, 40), smooth(48, 44, 1), smooth(52, 40, 2))
    views = torch.zeros(2, 2, 1, *pixels.shape[2:], dtype=torch.uint8)
    views[0, 0], views[1, 0], views[1, 1] = pixels
    image_size = torch.zeros(2, 2, 2, dtype=torch.int64)
    image_size[0, 0], image_size[1, 0], image_size[1, 1] = sizes
    mask = torch.tensor([[True, False], [True, True]])
    inputs = Inputs(views, image_size, mask, torch.zeros(2, 2, dtype=torch.int64))
    transform = ImageTransform(size=32, resize=36)
    result = transform_inputs(inputs, transform, train=False).images
    expected = transform.apply(pixels, sizes, train=False)
    assert torch.equal(result[mask], expected)
    assert not result[0, 1].any()
    trained = transform_inputs(inputs, transform, True, torch.Generator().manual_seed(3)).images
    draws = transform.draw(4, torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        trained[mask], transform.apply(pixels, sizes, train=True, draws=draws[[0, 2, 3]]), atol=1e-5, rtol=1e-5
    )


def test_two_equal_views_are_augmented_independently():
    views = torch.from_numpy(smooth(40, 40).copy()).expand(1, 2, 1, 40, 40)
    inputs = Inputs(views, torch.full((1, 2, 2), 40), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2))
    result = transform_inputs(inputs, ImageTransform(size=24, resize=0), train=True).images
    assert not torch.equal(result[0, 0], result[0, 1])


def test_cached_features_pass_untouched():
    inputs = Inputs(
        torch.empty(1, 2, 1, 0, 0, dtype=torch.uint8),
        torch.zeros(1, 2, 2),
        torch.ones(1, 2, dtype=torch.bool),
        torch.zeros(1, 2),
        {"map": torch.ones(1, 2, 3)},
    )
    assert transform_inputs(inputs, ImageTransform(), train=True) is inputs


def test_fine_stripes_do_not_alias_when_the_image_is_halved():
    """Without a prefilter, stripes of one pixel come out black or white by their phase; they must come out gray."""
    stripes = np.tile(np.array([0, 255], np.uint8), (128, 64))
    found = ImageTransform(size=50, resize=50, **PLAIN).apply(*batch(stripes), train=False)[0, 0]
    assert (found[:, 2:-2] - 127.5).abs().max() < 40 and math.isclose(found.mean().item(), 127.5, abs_tol=1.5)
