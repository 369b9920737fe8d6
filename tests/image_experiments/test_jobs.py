"""What the stages hand over: which images, which seeds, which networks. Each stage's own work is stood in for."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from image_experiments.data.images import Images
from image_experiments.data.npz_files import stream_images
from image_experiments.data.stored_dataset import SplitDataset
from image_experiments.engine import jobs
from image_experiments.synthesis.selection import SelectionSettings
from image_experiments.training.adversarial_training import ClassifierSettings
from image_experiments.training.attacks import Threat
from image_experiments.training.diffusion_training import DiffusionSettings


@pytest.fixture
def real(monkeypatch):
    """Training, validation and test images that are told apart by their grey: 10, 20 and 30."""
    parts = [Images(torch.full((4, 1, 8, 8), grey, dtype=torch.uint8), torch.arange(4) % 2) for grey in (10, 20, 30)]
    found = SplitDataset(*parts, ("a", "b"))
    monkeypatch.setattr(jobs, "_real", lambda _run: found)
    return found


def test_each_network_sees_its_images_and_draws_numbers_of_its_own(real, monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "_train_and_save", lambda _r, _d, images, _s, _t, seed: calls.append((images, seed)) or {})
    run, of = SimpleNamespace(inputs={}), (ClassifierSettings(), Threat("linf", 0.1), 3)
    jobs.train_encoder(run, *of)
    jobs.train_judge(run, *of)
    for number in range(3):
        jobs.train_labeller(run, *of, number)
    jobs.train_compared(run, *of)
    assert len({seed for _, seed in calls}) == 6
    for i, (images, _) in enumerate(calls):  # the judge alone learns from validation images, and no other takes part in it
        assert set(images.real.x.unique().tolist()) == ({10, 20} if i == 1 else {10})
        assert images.validation is (None if i == 1 else real.validation)


def test_selection_compares_with_training_images(real, monkeypatch):
    class Seen(Exception):
        pass

    def scores(_criterion, by, *_):
        raise Seen(by.real)

    for name, value in (("open_synthetic", lambda *_: real.test), ("_classifier", lambda *_: None), ("scores", scores)):
        monkeypatch.setattr(jobs, name, value)
    run = SimpleNamespace(inputs={"generated": {"images": None}}, results={"generated": {"conditional": True}})
    with pytest.raises(Seen) as caught:
        jobs.select(run, SelectionSettings(surplus=2, criterion="density"), 2, 0)
    assert caught.value.args[0] is real.train


def test_soft_labels_of_all_rounds_stay_with_their_images(real, tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8), np.array([0, 1, 1, 0, 1, 0])
    soft = rng.dirichlet([0.5] * 2, 6).astype(np.float32)
    for role, part in (("earlier", slice(0, 4)), ("made", slice(4, 6))):
        stream_images(tmp_path / f"{role}.npz", len(labels[part]), (8, 8, 1), [(images[part], labels[part])], soft[part])
    inputs = {role: {"images": tmp_path / f"{role}.npz"} for role in ("earlier", "made")}
    jobs.gather(SimpleNamespace(inputs=inputs, outputs={"images": tmp_path / "all.npz"}))
    with np.load(tmp_path / "all.npz", allow_pickle=False) as content:
        for name, expected in (("image", images), ("label", labels), ("soft_label", soft)):
            np.testing.assert_array_equal(content[name], expected)


def test_the_weaker_model_is_read_from_its_own_folder(real, monkeypatch):
    monkeypatch.setattr(jobs, "read_diffusion", lambda _s, folder, *_: (folder, None, True))
    run = SimpleNamespace(inputs={role: {"index": Path(role) / "index.json"} for role in ("diffusion", "weaker")})
    found = jobs._networks(run, DiffusionSettings(), real)
    assert (found.unet, found.weaker) == (Path("diffusion"), Path("weaker"))
