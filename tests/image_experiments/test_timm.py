"""Networks of timm by name. timm needs torchvision, which has no build for every torch, so a stand-in with timm's names plays it here."""

import sys
import types
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from image_experiments.evaluate import main
from image_experiments.models.classifier_files import read_classifier

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A model with the five members of timm's models that are used."""

    def __init__(self, num_classes, in_chans, img_size=None, last=nn.Linear):
        super().__init__()
        self.stem, self.fc, self.img_size = nn.Conv2d(in_chans, 6, 3, stride=2), last(6, num_classes), img_size
        self.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}

    def get_classifier(self):
        return self.fc

    def forward_features(self, x):
        return self.stem(x).relu()

    def forward_head(self, x, pre_logits=False):
        x = x.mean(dim=(2, 3))
        return x if pre_logits else self.fc(x)


@pytest.fixture
def timm(monkeypatch):
    """Two models of any size, one of a fixed size, one with an unusual last layer."""
    made = types.ModuleType("timm")
    kinds = {"resnet_tiny": False, "resnet_small": False, "vit_tiny": True, "two_heads": False}

    def configuration(name):
        if name not in kinds:
            raise RuntimeError("Invalid pretrained tag")
        return SimpleNamespace(fixed_input_size=kinds[name])

    def create_model(name, num_classes, in_chans, **more):
        if name == "vit_tiny" and min(more["img_size"]) < 4:
            raise AssertionError("patches\nare too large")
        last = (lambda inside, out: nn.Sequential(nn.Linear(inside, out))) if name == "two_heads" else nn.Linear
        return Net(num_classes, in_chans, last=last, **more)

    for name, value in {
        "__version__": "1.0",
        "is_model": lambda name: name.partition(".")[0] in kinds,  # as timm, which looks at no tag
        "list_models": lambda: list(kinds),
        "get_pretrained_cfg": configuration,
        "create_model": create_model,
    }.items():
        setattr(made, name, value)
    monkeypatch.setitem(sys.modules, "timm", made)
    return made


def a_file(path, seed=0, prefix="", **more):
    """A model's weights in a file, and the model."""
    torch.manual_seed(seed)
    model = Net(10, 3)
    save_file({**{f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}, **more}, path)
    return model


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("name", ["resnet_tiny", "vit_tiny"])
def test_the_logits_are_timms(name, prefix, timm, tmp_path):
    model, x = a_file(tmp_path / "a.safetensors", prefix=prefix), torch.rand(4, *SHAPE)
    classifier, network, source = read_classifier(tmp_path / "a.safetensors", 10, SHAPE, f"timm:{name}")
    wide = [torch.tensor(model.pretrained_cfg[part]).reshape(1, 3, 1, 1) for part in ("mean", "std")]
    expected = model.forward_head(model.forward_features((x - wide[0]) / wide[1]))
    torch.testing.assert_close(classifier(x), expected, rtol=1e-6, atol=1e-6)
    assert (network, source, classifier.training) == (f"timm:{name}", "timm", False)
    assert classifier.body.model.img_size == ((8, 8) if name == "vit_tiny" else None)


def test_a_normalisation_in_the_file_or_by_name_wins(timm, tmp_path):
    x, mean, std = torch.rand(4, *SHAPE), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    model = a_file(tmp_path / "a.safetensors", mean=mean, std=std)
    for normalisation, source, pixels in (
        ("auto", "file", (x - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)),
        ("none", "none", x),
    ):
        classifier, _, told = read_classifier(tmp_path / "a.safetensors", 10, SHAPE, "timm:resnet_tiny", normalisation)
        torch.testing.assert_close(classifier(x), model.forward_head(model.forward_features(pixels)), rtol=1e-6, atol=1e-6)
        assert told == source


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("timm:resnet_tinny", SHAPE, "has no such model; did you mean 'resnet_tiny'"),
        ("timm:resnet_tiny.typo", SHAPE, "Invalid pretrained tag"),
        ("timm:two_heads", SHAPE, "is not one linear layer"),
        (
            "timm:vit_tiny",
            (3, 2, 2),
            r"does not make it for images \(3, 2, 2\) \(patches are too large\); check the name, or resize",
        ),
        ("timm:resnet_tiny", (1, 8, 8), r"stem.weight has shape \(6, 3, 3, 3\), not \(6, 1, 3, 3\)"),
    ],
)
def test_what_does_not_fit_is_one_line(network, shape, message, timm, tmp_path):
    a_file(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message) as error:
        read_classifier(tmp_path / "a.safetensors", 10, shape, network)
    assert "\n" not in str(error.value)


def test_weights_of_another_kind_are_told(timm, tmp_path):
    torch.save({"stem.weight": torch.zeros(6, 3, 3, 3), "odd": torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"it lacks fc.bias, fc.weight and 1 more; the network does not know odd"):
        read_classifier(tmp_path / "a.pt", 10, SHAPE, "timm:resnet_tiny")
    model = a_file(tmp_path / "b.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in model.state_dict().items()}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"NaN or infinity in (stem|fc)\."):
        read_classifier(tmp_path / "b.safetensors", 10, SHAPE, "timm:resnet_tiny")


def test_a_normalisation_of_other_channels_is_told(timm, tmp_path):
    torch.manual_seed(0)
    save_file({**Net(10, 1).state_dict(), "mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="its mean has 3 channels, the images have 1"):
        read_classifier(tmp_path / "a.safetensors", 10, (1, 8, 8), "timm:resnet_tiny")


def test_without_timm_the_command_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    a_file(tmp_path / "a.safetensors")
    flags = [str(tmp_path / "a.safetensors"), "--dataset", "digits", "--network", "timm:resnet18", "--out", str(tmp_path / "out")]
    assert main(flags) == 1
    assert "timm is not installed; pip install timm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_timm_is_evaluated(timm, tmp_path, capsys):
    torch.manual_seed(0)
    save_file(Net(10, 1).state_dict(), tmp_path / "a.safetensors")
    flags = [str(tmp_path / "a.safetensors"), "--dataset", "digits", "--network", "timm:resnet_tiny", "--test", "20"]
    assert main([*flags, "--attacks", "pgd", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "timm:resnet_tiny, pixels normalised as timm says" in said
    assert "| timm:resnet_tiny | digits, linf" in said
