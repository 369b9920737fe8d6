"""Size: as much memory and time for 10^7 images as for 10^4. Each measurement is a process of its own, whose peak the system tells."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from image_experiments.data.images import Images
from image_experiments.data.npz_files import ImageFile, stream_images
from image_experiments.data.shuffling import Permutation, batch_indices

ROOT = Path(__file__).resolve().parents[2]
GENERATE = """
import json, resource, sys
from pathlib import Path
import torch
from contrastive_dp import NoiseSchedule
from image_experiments.synthesis.generation import GenerationSettings, Networks, Sampler
from image_experiments.synthesis.methods import parse_method
from image_experiments.data.shards import ShardPlan, make_shards, merge, shard_path

folder, count = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
settings, schedule = GenerationSettings(steps=1, batch_size=1000), NoiseSchedule.cosine(1000)
network = torch.nn.Module()
network.forward = lambda x, t, labels: 0.9 * x
plan = ShardPlan("recipe", {}, count, 1000, 10, (8, 8, 3))

def make(batch):
    labels = torch.arange(1000) % 10
    method, cpu = parse_method("unguided"), torch.device("cpu")
    x = Sampler(Networks(network, schedule), method, None, settings, (3, 8, 8), 10, 0, cpu).sample(labels, batch * 1000)
    return x.numpy().transpose(0, 2, 3, 1), labels.numpy()

make_shards(folder, plan, range(plan.shards), make, lambda done: None)
merge([shard_path(folder, i) for i in range(plan.shards)], folder / "all.npz", folder / "all.json")
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
TRAIN = """
import json, resource, sys, time
from pathlib import Path
import torch
from image_experiments.training.adversarial_training import ClassifierSettings, TrainingImages, train_classifier
from image_experiments.data.images import Images
from image_experiments.models.classifiers import make_classifier
from image_experiments.training.attacks import Threat
from image_experiments.data.npz_files import ImageFile

torch.set_num_threads(1)
synthetic = Images.mapped(ImageFile(Path(sys.argv[1]), 10, (8, 8, 3)))
real = Images(torch.randint(0, 256, (100, 3, 8, 8), dtype=torch.uint8), torch.arange(100) % 10)
settings = ClassifierSettings(steps=150, batch_size=512, network="small-cnn", attack_steps=2, augmentation="none", checkpoint_every=50)
classifier = make_classifier("small-cnn", 10, (3, 8, 8), [0.5] * 3, [0.25] * 3)
times = []
on_step = lambda step, _loss: times.append(time.perf_counter())
images = TrainingImages(real, 10, synthetic)
train_classifier(classifier, images, Threat("linf", 0.03), settings, 0, checkpoint=Path(sys.argv[2]), on_step=on_step)
gaps = sorted(b - a for a, b in zip(times, times[1:]))
print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "seconds": gaps[len(gaps) // 2]}))
"""


def measured(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return json.loads(output.stdout.splitlines()[-1])


def write_file(path, count):
    """Images that differ from one another, repeated in pieces of 10^4."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (10_000, 8, 8, 3), dtype=np.uint8), np.arange(10_000) % 10
    return stream_images(path, count, (8, 8, 3), ((images, labels) for _ in range(count // 10_000)))


@pytest.mark.slow
def test_generating_a_million_images_takes_the_memory_of_ten_thousand(tmp_path):
    few, many = (tmp_path / name for name in ("few", "many"))
    for folder in (few, many):
        folder.mkdir()
    small, large = measured(GENERATE, few, 10_000), measured(GENERATE, many, 1_000_000)
    print(f"peak {small['peak']} KiB for 10^4, {large['peak']} KiB for 10^6")
    assert large["peak"] < 1.1 * small["peak"]
    assert len(ImageFile(many / "all.npz", 10, (8, 8, 3))) == 1_000_000


@pytest.mark.slow
def test_training_on_ten_million_images_takes_the_memory_of_ten_thousand(tmp_path):
    """The file of 10^7 images has 1.9 GB. Times are printed, and compared in `make bench`."""
    small = measured(TRAIN, write_file(tmp_path / "few.npz", 10_000), tmp_path / "few.pt")
    large = measured(TRAIN, write_file(tmp_path / "many.npz", 10_000_000), tmp_path / "many.pt")
    print(
        f"peak {small['peak']} KiB for 10^4, {large['peak']} KiB for 10^7; a step {small['seconds']:.4f} s, {large['seconds']:.4f} s"
    )
    assert large["peak"] < 1.1 * small["peak"]


@pytest.mark.parametrize("n", [1, 2, 3, 63, 64, 65, 1000, 70_001])
def test_a_permutation_has_every_number_once_and_its_key_decides_it(n):
    whole = Permutation(n, 3, 4)(np.arange(n))
    np.testing.assert_array_equal(np.sort(whole), np.arange(n))
    some = np.array([0, n // 2, n - 1])
    np.testing.assert_array_equal(Permutation(n, 3, 4)(some), whole[some])
    if n > 60:
        for other in (Permutation(n, 3, 5), Permutation(n, 4, 4)):
            assert (other(np.arange(n)) == whole).mean() < 0.2


def test_every_permutation_of_four_comes_equally_often():
    """12,000 keys over 24 permutations: chi^2 of 23 degrees of freedom, above 49.7 once in 1000 seeds; and so do places within 100."""
    orders = [tuple(Permutation(4, seed, 0)(np.arange(4))) for seed in range(2400)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7
    seen = np.zeros((100, 100))
    for seed in range(1000):
        seen[np.arange(100), Permutation(100, seed, 1)(np.arange(100))] += 1
    assert ((seen - 10) ** 2 / 10).sum() < 9801 + 3.1 * np.sqrt(2 * 9801)


def test_places_near_each_other_are_sent_far_apart():
    """Differences of neighbours are those of independent draws: mean |i - j| = (n + 1) / 3 within 4 standard errors."""
    n = 10**8
    first = np.arange(0, 40_000, 2)
    shuffled = Permutation(n, 1, 0)
    distance = np.abs(shuffled(first) - shuffled(first + 1)) / n
    assert abs(distance.mean() - 1 / 3) < 4 * np.sqrt(1 / 18 / len(first))


def test_mapped_images_go_to_a_device_in_pieces(tmp_path, monkeypatch):
    x, y = np.random.default_rng(1).integers(0, 256, (25, 4, 5, 3), dtype=np.uint8), np.arange(25) % 3
    stream_images(tmp_path / "a.npz", 25, x.shape[1:], [(x, y)])
    monkeypatch.setattr("image_experiments.data.images.PIECE", 10)
    images = Images.mapped(ImageFile(tmp_path / "a.npz", 3, (4, 5, 3)))
    held = images.held_on(torch.device("cpu"), 1e9)
    assert held.file is None
    assert held.x.is_contiguous()
    np.testing.assert_array_equal(held.x.numpy(), x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(held.y.numpy(), y)
    assert images.held_on(torch.device("cpu"), 1000.0) is images


def test_mapped_images_are_those_of_the_file_and_are_never_written(tmp_path):
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (50, 4, 5, 3), dtype=np.uint8), np.arange(50) % 3
    path = stream_images(tmp_path / "a.npz", 50, (4, 5, 3), [(images[:20], labels[:20]), (images[20:], labels[20:])])
    whole = path.read_bytes()
    mapped = Images.mapped(ImageFile(path, 3, (4, 5, 3)))
    index = batch_indices(50, 30, 1, 2)
    x, y = mapped.rows(index)
    np.testing.assert_array_equal(x.numpy(), images[index].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y.numpy(), labels[index])
    x[0] = 7
    mapped.x[0] = 7  # its own copy of the page
    assert path.read_bytes() == whole
    again = stream_images(tmp_path / "b.npz", 50, (4, 5, 3), [(images, labels)])
    assert again.read_bytes() == whole
    with pytest.raises(ValueError, match="20 images came, 50 were announced"):
        stream_images(tmp_path / "c.npz", 50, (4, 5, 3), [(images[:20], labels[:20])])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.npz", "b.npz"]
