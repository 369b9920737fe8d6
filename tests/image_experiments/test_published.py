"""Published checkpoints: weights in each layout give the logits of that layout's public code, written here again as plain functions."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from image_experiments.models.classifier_files import load_classifier, read_classifier, save_classifier
from image_experiments.models.classifiers import make_classifier
from image_experiments.models.published import pixels, twin_of

SHAPE = (3, 32, 32)
MEAN, STD = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)))


def images():
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(4))


class Weights(dict):
    """Distinct random weights, made the first time their name is asked for: a layout's file and its public code's pass at once."""

    def __init__(self, seed):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, name, *shape, scale=1.0, shift=0.0):
        if name not in self:
            self[name] = torch.randn(shape, generator=self.generator) * scale + shift
        return self[name]

    def conv(self, name, x, outside, kernel, stride=1, padding=0):
        weight = self.random(f"{name}.weight", outside, x.shape[1], kernel, kernel, scale=(x.shape[1] * kernel**2) ** -0.5)
        return F.conv2d(x, weight, stride=stride, padding=padding)

    def norm(self, name, x):
        n = x.shape[1]
        mean = self.random(f"{name}.running_mean", n, scale=0.1)
        variance = self.setdefault(f"{name}.running_var", 0.5 + torch.rand(n, generator=self.generator))
        weight, bias = self.random(f"{name}.weight", n, scale=0.1, shift=1.0), self.random(f"{name}.bias", n, scale=0.1)
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    def linear(self, name, x, classes):
        weight = self.random(f"{name}.weight", classes, x.shape[1], scale=x.shape[1] ** -0.5)
        return F.linear(x, weight, self.random(f"{name}.bias", classes))


def dm_wrn(w, x, depth=16, width=2, classes=10, act=F.silu):
    out = w.conv("init_conv", x, 16, 3, padding=1)
    for group in range(3):
        for block in range((depth - 4) // 6):
            at, outside, stride = f"layer.{group}.block.{block}", 16 * width * 2**group, 2 if group and not block else 1
            hidden = act(w.norm(f"{at}.batchnorm_0", out))
            padded = F.pad(hidden, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
            inner = act(w.norm(f"{at}.batchnorm_1", w.conv(f"{at}.conv_0", padded, outside, 3, stride)))
            inner = w.conv(f"{at}.conv_1", inner, outside, 3, padding=1)
            out = inner + (w.conv(f"{at}.shortcut", hidden, outside, 1, stride) if out.shape[1] != outside else out)
    return w.linear("logits", F.avg_pool2d(act(w.norm("batchnorm", out)), 8).flatten(1), classes)


def dm_preact(w, x, act=F.silu):
    out = w.conv("conv_2d", x, 64, 3, padding=1)
    for group, outside in enumerate((64, 128, 256, 512)):
        for block in range(2):
            at, stride = f"layer_{group}.{block}", 2 if group and not block else 1
            pad = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
            inner = w.conv(f"{at}.conv_2d_1", F.pad(act(w.norm(f"{at}.batchnorm_0", out)), pad), outside, 3, stride)
            inner = w.conv(f"{at}.conv_2d_2", act(w.norm(f"{at}.batchnorm_1", inner)), outside, 3, padding=1)
            changes = stride > 1 or out.shape[1] != outside
            out = inner + (w.conv(f"{at}.shortcut", F.pad(out, pad), outside, 3, stride) if changes else out)
    return w.linear("logits", F.avg_pool2d(act(w.norm("batchnorm", out)), 4).flatten(1), 10)


def trades_wrn(w, x, depth=10, width=3, classes=10):
    out = w.conv("conv1", x, 16, 3, padding=1)
    for group in range(3):
        for block in range((depth - 4) // 6):
            at, outside, stride = f"block{group + 1}.layer.{block}", 16 * width * 2**group, 2 if group and not block else 1
            hidden = w.norm(f"{at}.bn1", out).relu()
            inner = w.norm(f"{at}.bn2", w.conv(f"{at}.conv1", hidden, outside, 3, stride, 1)).relu()
            inner = w.conv(f"{at}.conv2", inner, outside, 3, padding=1)
            out = inner + (w.conv(f"{at}.convShortcut", hidden, outside, 1, stride) if out.shape[1] != outside else out)
    return w.linear("fc", F.avg_pool2d(w.norm("bn1", out).relu(), 8).flatten(1), classes)


def carmon_wrn(w, x):
    """The same with a group of blocks that nothing uses."""
    w.random("sub_block1.layer.0.conv1.weight", 4, 4, 3, 3)
    return trades_wrn(w, x, 16, 1)


def preact(w, x, ending, first="bn", activated=None):
    activated = ending if activated is None else activated
    out = w.conv("conv1", x, 64, 3, padding=1)
    for group, outside in enumerate((64, 128, 256, 512)):
        for block in range(2):
            at, stride = f"layer{group + 1}.{block}", 2 if group and not block else 1
            hidden = w.norm(f"{at}.bn1", out).relu()
            changes = stride > 1 or out.shape[1] != outside
            kept = w.conv(f"{at}.shortcut.0", hidden if activated else out, outside, 1, stride) if changes else out
            inner = w.norm(f"{at}.bn2", w.conv(f"{at}.conv1", hidden, outside, 3, stride, 1)).relu()
            out = kept + w.conv(f"{at}.conv2", inner, outside, 3, padding=1)
    out = w.norm(first, out).relu() if ending else out
    return w.linear("linear", F.avg_pool2d(out, 4).flatten(1), 10)


def rice_preact(w, x):
    return preact(w, x, True)


def wong_preact(w, x):
    return preact(w, x, False)


def kuangliu_preact(w, x):
    return preact(w, x, False, activated=True)


def resnet(w, x, shortcut="shortcut", head="linear"):
    out = w.norm("bn1", w.conv("conv1", x, 64, 3, padding=1)).relu()
    for group, outside in enumerate((64, 128, 256, 512)):
        for block in range(2):
            at, stride = f"layer{group + 1}.{block}", 2 if group and not block else 1
            inner = w.norm(f"{at}.bn1", w.conv(f"{at}.conv1", out, outside, 3, stride, 1)).relu()
            inner = w.norm(f"{at}.bn2", w.conv(f"{at}.conv2", inner, outside, 3, padding=1))
            changes = stride > 1 or out.shape[1] != outside
            kept = w.norm(f"{at}.{shortcut}.1", w.conv(f"{at}.{shortcut}.0", out, outside, 1, stride)) if changes else out
            out = (inner + kept).relu()
    return w.linear(head, F.avg_pool2d(out, 4).flatten(1), 10)


def resnet_downsample(w, x):
    return resnet(w, x, "downsample", "fc")


LAYOUTS = {
    "dm-wrn-16-2": (dm_wrn, True),
    "dm-preact-resnet-18": (dm_preact, True),
    "wrn-10-3-relu": (trades_wrn, False),
    "wrn-16-1-relu": (carmon_wrn, False),
    "preact-resnet-18": (rice_preact, True),
    "wong-preact-resnet-18": (wong_preact, True),
    "resnet-18": (resnet, False),
    "resnet-18 downsample": (resnet_downsample, False),
}
"""Network: (pass of the public code on normalised pixels, whether that code normalises them)."""
PREFIXES = ("", "module.", "module.0.", "_orig_mod.", "ema_model.")
CONTAINERS = (None, "model", "net", "state_dict", "model_state_dict", "state_dict_ema")


def made(name, prefix="", seed=0):
    """(weights under the layout's names, logits of its public code)."""
    forward, normalised = LAYOUTS[name]
    weights = Weights(seed)
    x = (images() - MEAN) / STD if normalised else images()
    logits = forward(weights, x)
    return {prefix + key: value for key, value in weights.items()}, logits


def known(weights):
    """Weights that are there, for another pass."""
    again = Weights(0)
    again.update(weights)
    return again


def saved(path, weights, container=None):
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save(dict(weights) if container is None else {container: dict(weights), "epoch": 3, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, ".pt") for name in LAYOUTS), *(("dm-wrn-16-2", suffix) for suffix in (".pth", ".pth.tar", ".safetensors"))],
)
def test_every_layout_gives_the_logits_of_its_public_code(name, suffix, tmp_path):
    weights, logits = made(name)
    loaded, network, source = read_classifier(saved(tmp_path / f"c{suffix}", weights), 10, SHAPE)
    assert network == name.partition(" ")[0]
    assert source == ("cifar10" if LAYOUTS[name][1] else "none")
    assert not loaded.training
    assert logits.std() > 0.05  # or equal logits would say nothing
    torch.testing.assert_close(loaded(images()), logits, rtol=1e-4, atol=1e-5)
    assert (torch.linalg.vector_norm(loaded(images()) - loaded(images().flip(-1)), dim=1) > 1e-3).all()


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_wrapping_of_a_layout_is_read(prefix, container, tmp_path):
    weights, logits = made("dm-wrn-16-2", prefix)
    loaded = load_classifier(saved(tmp_path / "c.pt", weights, container), 10, SHAPE)
    torch.testing.assert_close(loaded(images()), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("names", [("mu", "sigma"), ("mean", "std"), ("0.mean", "0.std"), ("normalize.mean", "normalize.std")])
def test_a_normalisation_in_the_file_is_used(names, tmp_path):
    """As buffers of the network, of a first layer of a Sequential, or of one called normalize."""
    mean, std = torch.tensor([0.3, 0.5, 0.6]).reshape(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).reshape(3, 1, 1)
    weights = Weights(3)
    logits = trades_wrn(weights, (images() - mean) / std)
    prefix = {"0.mean": "1.", "normalize.mean": "model."}.get(names[0], "")
    content = {prefix + key: value for key, value in weights.items()} | dict(zip(names, (mean, std), strict=True))
    loaded, _, source = read_classifier(saved(tmp_path / "c.pt", content), 10, SHAPE)
    assert source == "file"
    torch.testing.assert_close(loaded(images()), logits, rtol=1e-4, atol=1e-5)
    other, _, source = read_classifier(tmp_path / "c.pt", 10, SHAPE, normalisation="none")
    assert source == "none"
    torch.testing.assert_close(other(images()), trades_wrn(weights, images()), rtol=1e-4, atol=1e-5)


def test_relu_in_place_of_silu_is_said_by_name(tmp_path):
    """No key tells them apart."""
    weights = Weights(5)
    logits = dm_wrn(weights, (images() - MEAN) / STD, act=F.relu)
    loaded = load_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE, "dm-wrn-16-2-relu")
    torch.testing.assert_close(loaded(images()), logits, rtol=1e-4, atol=1e-5)


def test_a_hundred_classes_have_their_own_normalisation(tmp_path):
    weights = Weights(6)
    mean, std = torch.tensor([0.5071, 0.4865, 0.4409]).reshape(3, 1, 1), torch.tensor([0.2673, 0.2564, 0.2762]).reshape(3, 1, 1)
    logits = dm_wrn(weights, (images() - mean) / std, classes=100)
    loaded, _, source = read_classifier(saved(tmp_path / "c.pt", weights), 100, SHAPE)
    assert source == "cifar100"
    torch.testing.assert_close(loaded(images()), logits, rtol=1e-4, atol=1e-5)


def test_old_files_without_counters_of_batch_norm_load(tmp_path):
    weights, logits = made("wrn-10-3-relu")
    content = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    torch.testing.assert_close(
        load_classifier(saved(tmp_path / "c.pt", content), 10, SHAPE)(images()), logits, rtol=1e-4, atol=1e-5
    )


def test_a_published_network_that_was_loaded_is_saved_and_comes_back(tmp_path):
    weights, _ = made("dm-preact-resnet-18")
    loaded, network, _ = read_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE)
    save_classifier(tmp_path / "ours.safetensors", loaded, network, SHAPE)
    assert torch.equal(load_classifier(tmp_path / "ours.safetensors", 10, SHAPE)(images()), loaded(images()))


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("preact-resnet-18", SHAPE),
        ("small-cnn", SHAPE),
        ("small-cnn", (1, 8, 8)),
        ("small-cnn-5", (1, 28, 28)),
        ("linear", (1, 8, 8)),
    ],
)
def test_our_own_bare_weights_are_recognised(network, shape, tmp_path):
    ours = make_classifier(network, 10, shape, [0.4] * shape[0], [0.3] * shape[0], seed=2).eval()
    loaded, found, source = read_classifier(saved(tmp_path / "c.pt", dict(ours.state_dict())), 10, shape)
    assert (found, source) == (network, "file")
    x = torch.rand(2, *shape)
    assert torch.equal(loaded(x), ours(x))


@pytest.mark.parametrize("network", ["wrn-16-2", "wrn-16-2-relu", "dm-wrn-16-2"])
def test_what_no_weight_shows_is_asked_for(network, tmp_path):
    """Activation and padding: a name, or the model card that export.py writes beside."""
    ours = make_classifier(network, 10, SHAPE, [0.4] * 3, [0.3] * 3, seed=2).eval()
    path = saved(tmp_path / "c.pt", dict(ours.state_dict()))
    with pytest.raises(ValueError, match=r"those of wrn-16-2, wrn-16-2-relu, dm-wrn-16-2, dm-wrn-16-2-relu: name it"):
        read_classifier(path, 10, SHAPE)
    assert torch.equal(read_classifier(path, 10, SHAPE, network)[0](images()), ours(images()))
    (tmp_path / "c.json").write_text(json.dumps({"architecture": network}))
    assert torch.equal(read_classifier(path, 10, SHAPE)[0](images()), ours(images()))


def test_a_layout_that_has_relu_alone_is_not_read_with_silu(tmp_path):
    weights, logits = made("wrn-10-3-relu")
    path = saved(tmp_path / "c.pt", weights)
    with pytest.raises(ValueError, match="does not hold the weights of wrn-10-3: it is a wrn-10-3-relu, name that"):
        read_classifier(path, 10, SHAPE, "wrn-10-3")
    torch.testing.assert_close(read_classifier(path, 10, SHAPE, "wrn-10-3-relu")[0](images()), logits, rtol=1e-4, atol=1e-5)


ODD = torch.tensor([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mu": ODD}, "a mean of the pixels and no std"),
        ({"std": ODD}, "a std of the pixels and no mean"),
        ({"mean": 255 * MEAN, "std": 255 * STD}, "divide both by 255"),
        ({"mean": MEAN, "std": torch.zeros(3)}, "which images in .0, 1. do not have"),
        ({"mean": MEAN, "std": STD, "teacher.mean": ODD}, "several normalisations of pixels, teacher.mean is one"),
    ],
)
def test_a_normalisation_that_cannot_be_is_named(more, message, tmp_path):
    weights, _ = made("wrn-10-3-relu")
    with pytest.raises(ValueError, match=message):
        read_classifier(saved(tmp_path / "c.pt", {**weights, **more}), 10, SHAPE)


@pytest.mark.parametrize("name", ["dm-wrn-16-2", "wrn-10-3-relu", "preact-resnet-18", "resnet-18"])
def test_a_file_that_lacks_any_key_or_holds_it_in_another_shape_is_one_line(name, tmp_path):
    weights, _ = made(name)
    keys = [key for key in weights if not key.endswith("num_batches_tracked")]
    for key in [keys[0], keys[len(keys) // 2], keys[-1]]:
        for content in (without(key, weights), weights | {key: torch.ones(())}):
            with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
                read_classifier(saved(tmp_path / "c.pt", content), 10, SHAPE)


def test_two_networks_with_the_same_names_are_twins():
    """Wong's PreActResNet-18 and pytorch-cifar's: the same names and shapes, and logits that differ by more than a tenth."""
    weights, logits = made("wong-preact-resnet-18")
    other = kuangliu_preact(known(weights), (images() - MEAN) / STD)
    assert float((other - logits).abs().max()) > 0.1
    assert twin_of("dm-wrn-28-10") == "dm-wrn-28-10-relu"
    assert twin_of("dm-wrn-28-10-relu") == "dm-wrn-28-10"
    assert twin_of("preact-resnet-18") is None
    assert twin_of(twin_of("wong-preact-resnet-18")) == "wong-preact-resnet-18"


@pytest.mark.parametrize(
    ("network", "forward"), [("wong-preact-resnet-18", wong_preact), ("kuangliu-preact-resnet-18", kuangliu_preact)]
)
def test_each_of_two_networks_of_one_layout_can_be_named(network, forward, tmp_path):
    weights, _ = made("wong-preact-resnet-18")
    loaded, found, source = read_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE, network)
    kuangliu = network.startswith("kuangliu")
    assert (found, source) == (network, "pytorch-cifar" if kuangliu else "cifar10")
    std = torch.tensor([0.2023, 0.1994, 0.2010]).reshape(1, 3, 1, 1) if kuangliu else STD  # as its main.py has them
    torch.testing.assert_close(loaded(images()), forward(known(weights), (images() - MEAN) / std), rtol=1e-4, atol=1e-4)


def test_weights_of_one_network_under_any_two_keys_are_refused(tmp_path):
    weights, _ = made("wrn-10-3-relu")
    content = {
        "state_dict": dict(weights),
        "swa_state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
        "epoch": 3,
    }
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="several weights, under state_dict, swa_state_dict: save those to use alone"):
        read_classifier(tmp_path / "c.pt", 10, SHAPE)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lr_mult": lambda w: dict.fromkeys(w, 1.0), "shapes": lambda w: {name: [2] for name in w}}, None),
        ({"masks": dict}, r"under state_dict, masks: .*torch.load\(FILE\)\['state_dict'\]"),
        ({"averaged": dict}, r"under state_dict, averaged: .*torch.load\(FILE\)\['averaged'\]"),
    ],
)
def test_what_stands_beside_weights_is_weights_or_not(more, message, tmp_path):
    weights, logits = made("wrn-10-3-relu")
    torch.save({"state_dict": dict(weights), **{key: of(weights) for key, of in more.items()}}, tmp_path / "c.pt")
    if message is not None:
        with pytest.raises(ValueError, match=message):
            read_classifier(tmp_path / "c.pt", 10, SHAPE)
        return
    torch.testing.assert_close(read_classifier(tmp_path / "c.pt", 10, SHAPE)[0](images()), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("content", [{"params": {0: torch.ones(1)}}, {"state_dict": {0: torch.ones(1), "x": 1}}])
def test_tensors_without_names_are_one_line(content, tmp_path):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="holds no plain weights by name"):
        read_classifier(tmp_path / "c.pt", 10, SHAPE)


def test_our_own_weights_of_wongs_network_are_recognised(tmp_path):
    ours = make_classifier("wong-preact-resnet-18", 10, SHAPE, [0.4] * 3, [0.2] * 3).eval()
    torch.save(ours.state_dict(), tmp_path / "c.pt")
    assert read_classifier(tmp_path / "c.pt", 10, SHAPE)[1] == "wong-preact-resnet-18"


def test_weights_beside_unaveraged_ones_are_the_averaged(tmp_path):
    weights, logits = made("wrn-10-3-relu")
    raw = {name: tensor + 1 for name, tensor in weights.items()}
    torch.save(
        {"unaveraged_model_state_dict": raw, "model_state_dict": dict(weights), "optimizer": {"state": {0: 1}}}, tmp_path / "c.pt"
    )
    torch.testing.assert_close(read_classifier(tmp_path / "c.pt", 10, SHAPE)[0](images()), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dataset", "mean", "std"), [("cifar10", MEAN, STD), ("svhn", 0.5, 0.5), (None, MEAN, STD)])
def test_pixels_are_normalised_as_for_the_data_set(dataset, mean, std, tmp_path):
    weights, _ = made("dm-wrn-16-2")
    loaded, _, source = read_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE, dataset=dataset)
    assert source == ("half" if dataset == "svhn" else "cifar10")
    torch.testing.assert_close(loaded(images()), dm_wrn(known(weights), (images() - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dataset", ["images", "stl10", "gtsrb"])
def test_ten_classes_are_not_taken_for_cifar(dataset, tmp_path):
    weights, _ = made("dm-wrn-16-2")
    with pytest.raises(
        ValueError, match="its code normalises pixels by numbers that are not in the file; add tensors mean and std"
    ):
        read_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE, dataset=dataset)
    assert read_classifier(tmp_path / "c.pt", 10, SHAPE, normalisation="half", dataset=dataset)[2] == "half"


def without(name, weights):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "classes", "network", "normalisation", "message"),
    [
        (lambda w: w, 100, None, "auto", "dm-wrn-16-2 for these data: it knows 10 classes, they have 100"),
        (lambda w: w, 10, "wrn-28-10", "auto", "does not hold the weights of wrn-28-10: it is a dm-wrn-16-2, name that"),
        (lambda w: without("logits.bias", w), 10, None, "auto", "it lacks logits.bias.*it is incomplete"),
        (lambda w: w | {"extra.weight": torch.ones(1)}, 10, None, "auto", "the network does not know extra.weight"),
        (lambda w: without("layer.1.block.0.conv_0.weight", w), 10, None, "auto", "it lacks layer.1.block.0.conv_0.weight"),
        (
            lambda w: {k: v for k, v in w.items() if not k.startswith("layer.2")},
            10,
            None,
            "auto",
            "wide residual network of .2, 2. blocks",
        ),
        (lambda w: without("init_conv.weight", w), 10, None, "auto", "nearest to those of dm-wrn: name it"),
        (
            lambda w: {k.replace("init_conv", "stem"): v for k, v in w.items()},
            *(10, None, "auto", "nearest to those of dm-wrn, but for stem.weight: name it"),
        ),
        (lambda w: w | {"logits.bias": torch.full((10,), torch.nan)}, 10, None, "auto", "NaN or infinity in logits.bias"),
        (
            lambda w: w,
            10,
            None,
            "imagenet",
            "normalisation 'imagenet' is unknown: use cifar10, pytorch-cifar, cifar100, half, none",
        ),
        (
            lambda w: w | {"logits.weight": torch.ones(7, 128), "logits.bias": torch.ones(7)},
            7,
            None,
            "auto",
            "name them, --normalisation",
        ),
        (lambda _: {"fc.weight": torch.ones(10, 3)}, 10, None, "auto", "does not say which network it holds"),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_why(change, classes, network, normalisation, message, tmp_path):
    weights, _ = made("dm-wrn-16-2")
    path = saved(tmp_path / "c.pt", change(dict(weights)))
    with pytest.raises(ValueError, match=message) as caught:
        read_classifier(path, classes, SHAPE, network, normalisation)
    assert "\n" not in str(caught.value)
    assert re.match(rf"{re.escape(str(path))}|normalisation", str(caught.value))


def test_more_layers_than_are_known_are_named(tmp_path):
    weights, _ = made("dm-preact-resnet-18")
    weights["layer_2.2.conv_2d_1.weight"] = torch.ones(1)
    with pytest.raises(ValueError, match=r"dm-preact-resnet with \[2, 2, 3, 2\] blocks"):
        load_classifier(saved(tmp_path / "c.pt", weights), 10, SHAPE)


def test_several_weights_in_a_file_are_not_chosen_from(tmp_path):
    """As timm saves them: the averaged ones are those whose accuracy is published."""
    first, second = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    torch.save({"state_dict": first, "state_dict_ema": second, "epoch": 3}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"holds several weights, under state_dict, state_dict_ema: save those to use alone"):
        read_classifier(tmp_path / "c.pt", 10, SHAPE)


def test_pixels_of_half_are_one_of_the_normalisations():
    mean, std = pixels("half", 3)
    assert mean.flatten().tolist() == std.flatten().tolist() == [0.5, 0.5, 0.5]
