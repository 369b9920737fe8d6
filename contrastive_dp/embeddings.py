"""Embeddings for the contrastive losses: features of a classifier, a projection head on top, and the embeddings of real samples.

Diffusion models take images in [-1, 1], classifiers in [0, 1]. The helpers here convert, freeze and check.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from contrastive_dp._checks import (
    batch_labels,
    count,
    normal_tensor,
    one_of,
    positive,
    real_samples,
    signed_images,
    warn_if_training,
)
from contrastive_dp.files import read_safetensors, write_safetensors
from contrastive_dp.guidance import Embed
from contrastive_dp.losses import ContrastiveLoss, SupervisedContrastive
from contrastive_dp.randomness import mixed_seed, seeded
from contrastive_dp.transfer import sent


def frozen(module: nn.Module) -> nn.Module:
    """A copy of `module` in evaluation mode whose parameters need no gradient; the original is unchanged."""
    with torch.inference_mode(False):  # a copy made in the caller's inference mode could not be differentiated later
        copied = copy.deepcopy(module).eval()
        for part in copied.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None and parameter.is_inference():
                    part._parameters[name] = nn.Parameter(normal_tensor(parameter.data))
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = normal_tensor(buffer)
        return copied.requires_grad_(False)


def in_type_of(network: nn.Module, x: Tensor) -> Tensor:
    """x in the floating type of the network's first such parameter: somebody else's sampler may go on in double or half precision."""
    first = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    return x if first is None else x.to(first.dtype)


class OnUnitRange(nn.Module):
    """A frozen copy of a network for [0, 1] that takes x in [-1, 1]: network((x + 1) / 2). uint8 images are mapped to [-1, 1] first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = frozen(network)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network((in_type_of(self.network, _in_range(x)) + 1) / 2)
        return out


class ClassifierFeatures(nn.Module):
    """Penultimate features of a classifier, (n, ...) in [-1, 1] -> (n, k): the input of its last linear layer.

    classifier: takes images in [0, 1] (value_range=(0, 1), the field's convention) and ends in a linear layer; it is copied and frozen.
    layer: name of that layer in classifier.named_modules(); by default the last nn.Linear.
    value_range: inputs that the classifier expects for x = -1 and x = 1; (-1, 1) passes x on unchanged: use it for vectors.
    uint8 images (0..255) are mapped to [-1, 1] first. Raises ValueError if there is no such layer, or its input is not (n, k).
    """

    def __init__(self, classifier: nn.Module, layer: str | None = None, value_range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        if isinstance(classifier, nn.DataParallel):
            raise ValueError(
                "classifier is in nn.DataParallel, whose copies would overwrite each other's features: give classifier.module"
            )
        self.classifier = frozen(classifier)
        linear = [name for name, module in self.classifier.named_modules() if isinstance(module, nn.Linear)]
        if layer is None and not linear:
            raise ValueError(
                f"{type(classifier).__name__} has no nn.Linear: name the layer whose input is the embedding, layer=..."
            )
        self.layer = linear[-1] if layer is None else one_of(layer, "layer", [name for name, _ in self.classifier.named_modules()])
        self.low, self.high = value_range
        self._captured: Tensor | None = None
        self.classifier.get_submodule(self.layer).register_forward_pre_hook(self._capture)

    def _capture(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._captured = inputs[0]

    def _taken(self) -> Tensor | None:
        return self._captured

    def forward(self, x: Tensor) -> Tensor:
        self._captured = None
        unchanged = (self.low, self.high) == (-1, 1)
        images = in_type_of(self.classifier, x if unchanged and x.dtype != torch.uint8 else _in_range(x))
        self.classifier(images if unchanged else (images + 1) * ((self.high - self.low) / 2) + self.low)
        features, self._captured = self._taken(), None
        if features is None or features.ndim != 2:
            found = "nothing" if features is None else f"shape {tuple(features.shape)}"
            raise ValueError(f"layer {self.layer!r} was fed {found}: name the last linear layer, fed (n, k), with layer=...")
        return features


def _in_range(x: Tensor) -> Tensor:
    """The input of a wrapped classifier: uint8 images are mapped to [-1, 1]; raises ValueError for other types of images in [0, 255].

    States that guidance differentiates are not checked: intermediate estimates may have any value, and no step should wait for the device.
    """
    looked_at = x.dtype == torch.uint8 or not (x.requires_grad or x.is_cuda)
    return signed_images(x, "x") if looked_at else x


@torch.inference_mode(False)
@torch.no_grad()
def embed_anchors(embed: Embed, x: Tensor, batch_size: int = 512) -> Tensor:
    """Unit-norm embeddings (m, k) of real samples x (m, ...), for ClassAnchored.

    x: images in [-1, 1], or uint8 images, which are mapped to it. Raises ValueError for NaN, and for other types of images in [0, 255].
    """
    warn_if_training(embed, "embed")
    pieces = (signed_images(piece, "x") for piece in real_samples(x, "x").split(count(batch_size, "batch_size")))
    return F.normalize(torch.cat([_wide(embed(piece)) for piece in pieces]), dim=1)


def _wide(features: Tensor) -> Tensor:
    """Features of half precision as float32: Adam's small numbers are 0 in float16."""
    return features.float() if features.dtype.itemsize < 4 else features


class ProjectionHead(nn.Module):
    """Linear-ReLU-Linear from k features to `dim` (Chen et al. 2020), as in the paper's code, but trained before sampling, and saved."""

    def __init__(self, features: int, dim: int = 128, hidden: int | None = None) -> None:
        super().__init__()
        self.shape = {"features": features, "dim": dim, "hidden": hidden or features}
        self.layers = nn.Sequential(nn.Linear(features, hidden or features), nn.ReLU(), nn.Linear(hidden or features, dim))

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.layers(in_type_of(self, z))
        return out

    def save(self, path: str | Path) -> Path:
        """Write weights and shape to a safetensors file, atomically."""
        return write_safetensors(path, self.state_dict(), {"projection_head": json.dumps(self.shape)})

    @classmethod
    def load(cls, path: str | Path) -> ProjectionHead:
        """Read a file written by `save`; the head is frozen. Raises ValueError for another kind of file or weights that do not fit."""
        tensors, metadata = read_safetensors(path)
        if "projection_head" not in metadata:
            raise ValueError(f"{path} holds no projection head: give a file written by ProjectionHead.save")
        try:
            head = cls(**json.loads(metadata["projection_head"])).to(next(iter(tensors.values())).dtype)
            head.load_state_dict(tensors)
        except (TypeError, RuntimeError, StopIteration, json.JSONDecodeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not hold the weights of a projection head ({reason}): save it again") from None
        return head.eval().requires_grad_(False)


@torch.inference_mode(False)
def train_projection_head(
    embed: Embed,
    x: Tensor,
    labels: Tensor,
    dim: int = 128,
    loss: ContrastiveLoss | None = None,
    *,
    steps: int = 500,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> ProjectionHead:
    """Train a head on the features of real labelled samples by a contrastive loss (SupervisedContrastive by default), before sampling.

    embed: frozen features (n, ...) -> (n, k), computed once. x: (m, ...), images in [-1, 1] or uint8. labels: (m,) int. Batch i depends on
    (seed, i) alone. Returns the frozen head; use it as `lambda x: head(embed(x))` or nn.Sequential(embed, head), and `head.save(path)`.
    Raises ValueError for bad numbers, labels or samples that do not fit, and a loss of previous states, which real samples do not have.
    """
    steps, batch_size = count(steps, "steps"), count(batch_size, "batch_size")
    positive(learning_rate, "learning_rate")
    batch_labels(labels, len(x))
    warn_if_training(embed, "embed")
    objective = loss or SupervisedContrastive()
    if getattr(objective, "needs_previous", False):
        name = type(objective).__name__
        raise ValueError(f"loss={name} compares with previous states, which real samples do not have: use SupervisedContrastive")
    with torch.no_grad():
        features = torch.cat([_wide(embed(signed_images(piece, "x"))) for piece in real_samples(x, "x").split(512)])
    with seeded(seed):
        head = ProjectionHead(features.shape[1], dim)
    head, classes = head.to(features), labels.to(features.device)
    optimiser = torch.optim.Adam(head.parameters(), lr=learning_rate)
    generator = torch.Generator()
    for step in range(steps):
        generator.manual_seed(mixed_seed(seed, step))
        index = sent(torch.randint(len(x), (min(batch_size, len(x)),), generator=generator), features.device)
        value = objective(F.normalize(head(features[index]), dim=1), None, classes[index]) / len(index)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return head.eval().requires_grad_(False)
