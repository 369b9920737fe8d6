"""Networks of timm by name, where timm is installed (it needs torchvision, so it is none of this project's requirements)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from image_experiments.models.classifiers import Normalised

PREFIX = "timm:"


class Features(nn.Module):
    """What a model of timm gives to its last layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model.forward_head(self.model.forward_features(x), pre_logits=True)
        return out


def timm_classifier(network: str, classes: int, shape: tuple[int, int, int], load: Callable[[nn.Module], None]) -> Normalised:
    """timm's model of this name ("timm:resnet18"), normalised as its configuration there says. load: puts weights into the bare model.

    shape: (C, H, W). A model of fixed size is made for these images.
    Raises ValueError where timm is not installed, for a name that it lacks, for images that the model does not take, and for a model whose
    last layer is not one linear layer; and what `load` raises.
    """
    name = network.removeprefix(PREFIX)
    try:
        import timm  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ValueError(f"network {network}: timm is not installed; pip install timm (it brings torchvision)") from None
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        raise ValueError(
            f"network {network}: timm {timm.__version__} has no such model" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    try:
        config = timm.get_pretrained_cfg(name)
        size = {"img_size": shape[1:]} if config is not None and config.fixed_input_size else {}
        model = timm.create_model(name, num_classes=classes, in_chans=shape[0], **size)
    except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"network {network}: timm does not make it for images {shape} ({reason}); check the name, or resize with --image-size"
        ) from None
    head = model.get_classifier()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"network {network}: its last layer is not one linear layer; pass the module to evaluate() from Python")
    load(model)
    mean, std = (list(model.pretrained_cfg[name]) for name in ("mean", "std"))
    if len(mean) != shape[0]:
        mean, std = [sum(mean) / len(mean)] * shape[0], [sum(std) / len(std)] * shape[0]
    return Normalised(Features(model), head, mean, std)
