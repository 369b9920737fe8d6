"""Classifiers: published sizes, normalisation, and files whose every key must match."""

import io

import pytest
import torch
from safetensors.torch import save_file

from image_experiments.models.classifier_files import load_classifier, mean_and_std, save_classifier
from image_experiments.models.classifiers import make_classifier


@pytest.mark.parametrize(
    ("network", "parameters"),
    [("wrn-28-10", 36_479_194), ("wrn-34-10", 46_160_474), ("preact-resnet-18", 11_172_170), ("linear", 30_730)],
)
def test_networks_have_the_published_numbers_of_parameters(network, parameters):
    """36.48 and 46.16 million (RobustBench's WRN-28-10 and WRN-34-10), 11.17 million (PreActResNet-18 with a last norm), 3072 x 10 + 10."""
    classifier = make_classifier(network, 10, (3, 32, 32), [0.5] * 3, [0.25] * 3)
    assert sum(p.numel() for p in classifier.parameters()) == parameters


@pytest.mark.parametrize("network", ["linear", "small-cnn-8", "preact-resnet-18", "wrn-10-1"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_normalisation_is_inside(network, shape):
    """With mean and std the network sees (x - mean) / std."""
    mean, std = [0.3] * shape[0], [0.2] * shape[0]
    plain = make_classifier(network, 4, shape, [0.0] * shape[0], [1.0] * shape[0], seed=2).eval()
    normalised = make_classifier(network, 4, shape, mean, std, seed=2).eval()
    x = torch.rand(5, *shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(normalised(x), plain((x - 0.3) / 0.2))
    assert plain(x).shape == (5, 4)
    assert plain(x).std() > 0


def test_wide_networks_use_silu_and_seeds_decide_weights():
    one, same, other = (make_classifier("wrn-10-1", 3, (3, 8, 8), [0.0] * 3, [1.0] * 3, seed=s) for s in (1, 1, 2))
    assert {type(m).__name__ for m in one.modules()} & {"ReLU", "SiLU"} == {"SiLU"}
    assert torch.equal(one.head.weight, same.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_mean_and_std_are_those_of_the_images():
    images = torch.randint(0, 256, (50, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = mean_and_std(images)
    flat = images.double().transpose(0, 1).reshape(3, -1) / 255
    assert mean == pytest.approx(flat.mean(dim=1).tolist())
    assert std == pytest.approx(flat.std(dim=1).tolist())


@pytest.fixture
def saved(tmp_path):
    classifier = make_classifier("small-cnn-8", 3, (1, 8, 8), [0.4], [0.2], seed=5).eval()
    save_classifier(tmp_path / "c.safetensors", classifier, "small-cnn-8", (1, 8, 8))
    return classifier, tmp_path


def test_a_saved_classifier_comes_back(saved):
    classifier, folder = saved
    back = load_classifier(folder / "c.safetensors", 3, (1, 8, 8))
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(back(x), classifier(x))
    assert not any(p.requires_grad for p in back.parameters())
    assert not back.training


@pytest.mark.parametrize("prefix", ["", "module.", "module.0."])
@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict"])
def test_weights_from_the_field_are_read_whatever_their_wrapping(saved, prefix, wrapper):
    classifier, folder = saved
    state = {prefix + name: tensor for name, tensor in classifier.state_dict().items()}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, folder / "c.pt")
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(load_classifier(folder / "c.pt", 3, (1, 8, 8), "small-cnn-8")(x), classifier(x))


def test_a_key_too_many_too_few_or_of_another_shape_is_refused(saved):
    classifier, folder = saved
    state = dict(classifier.state_dict())
    for change in ({"extra": torch.zeros(1)}, {"head.weight": None}, {"head.weight": torch.zeros(4, 128)}):
        torch.save({k: v for k, v in (state | change).items() if v is not None}, folder / "bad.pt")
        with pytest.raises(ValueError, match="does not hold the weights of small-cnn-8"):
            load_classifier(folder / "bad.pt", 3, (1, 8, 8), "small-cnn-8")


def test_other_architectures_and_files_are_refused_in_one_line(saved):
    _, folder = saved
    with pytest.raises(ValueError, match="3 classes"):
        load_classifier(folder / "c.safetensors", 10, (1, 8, 8))
    torch.save({"a": torch.zeros(1)}, folder / "c.pt")
    with pytest.raises(ValueError, match="name it"):
        load_classifier(folder / "c.pt", 3, (1, 8, 8))
    save_file({"a": torch.zeros(1)}, folder / "d.safetensors")
    with pytest.raises(ValueError, match="weights of linear"):
        load_classifier(folder / "d.safetensors", 3, (1, 8, 8), "linear")
    with pytest.raises(FileNotFoundError, match="check the path"):
        load_classifier(folder / "none.pt", 3, (1, 8, 8), "linear")
    with pytest.raises(ValueError, match="did you mean 'wrn-28-10'"):
        make_classifier("wrn-28-1O", 3, (1, 8, 8), [0.0], [1.0])


def test_weights_that_are_none_are_one_line(saved):
    classifier, folder = saved
    state = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    state["head.bias"][0] = float("nan")
    torch.save(state, folder / "nan.pt")
    torch.save({1: torch.zeros(1)}, folder / "numbers.pt")
    save_file({"a": torch.zeros(1)}, folder / "odd.safetensors", {"classifier": "[]"})
    for name, message in (
        ("nan.pt", "NaN or infinity in head.bias"),
        ("numbers.pt", "no plain weights"),
        ("odd.safetensors", "damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            load_classifier(folder / name, 3, (1, 8, 8), "small-cnn-8")


def test_a_pickle_with_code_is_never_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    stream = io.BytesIO()
    torch.save({"model": Harmful()}, stream)
    (tmp_path / "bad.pt").write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="no plain weights"):
        load_classifier(tmp_path / "bad.pt", 3, (1, 8, 8), "linear")
    assert not (tmp_path / "harmed").exists()
