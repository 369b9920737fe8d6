"""Small images whose truth is known: Gaussian mixtures on few pixels, drawings of two classes, archives of them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from image_experiments.data.images import Images

SPREAD = 0.05  # one standard deviation of a class on the [0, 1] scale: all of it stays clear of 0 and 1


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of draws from the global generator, which depend on the tests before
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def short_calibration(monkeypatch):
    """A dry run measures for a tenth of a second a quantity; Probe has tests of its own."""
    monkeypatch.setattr("image_experiments.engine.cost.BUDGET", 0.1)


def mixture_images(mixture, n, seed):
    """x = 0.5 + SPREAD z in 5 x 5 "images" with z from a BinaryMixture in 25 dimensions; labels 0, 1 for y = -1, +1."""
    z, y = mixture.sample(n, np.random.default_rng(seed))
    x = torch.from_numpy(0.5 + SPREAD * z).reshape(n, 1, 5, 5).float()
    return x, torch.from_numpy((y > 0).astype(np.int64))


def as_uint8(x, y):
    return Images((x * 255).round().clamp(0, 255).to(torch.uint8), y)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return stream.getvalue()


def drawings(rng, n, size=8, channels=3):
    """Two classes: a bright left or a bright right half, noise on top."""
    labels = np.arange(n) % 2
    images = rng.integers(0, 90, (n, size, size, channels))
    for image, label in zip(images, labels, strict=True):
        half = slice(0, size // 2) if label == 0 else slice(size // 2, size)
        image[:, half] += 140
    return images.astype(np.uint8), labels


def write_folder(folder, rng, train=24, test=12, size=8):
    """A folder train/CLASS/*.png, test/CLASS/*.png; returns {relative name: array}."""
    written = {}
    for part, n in (("train", train), ("test", test)):
        for i, (image, label) in enumerate(zip(*drawings(rng, n, size), strict=True)):
            name = f"{part}/{('left', 'right')[label]}/{i:03d}.png"
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
            written[name] = image
    return written
