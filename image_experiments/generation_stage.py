"""Synthetic images of one method, batch by batch; each batch is a file of its own until all are made."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from contrastive_dp import NoiseSchedule
from image_experiments.generated import read_images, write_images
from image_experiments.generation import GenerationSettings, make_guidance, sample_batch
from image_experiments.methods import Method
from image_experiments.real_images import RealImages
from image_experiments.stages import StageRun


def generate_in_parts(
    run: StageRun,
    real: RealImages,
    network: nn.Module,
    schedule: NoiseSchedule,
    encoder: nn.Module | None,
    method: Method,
    settings: GenerationSettings,
    count: int,
    seed: int,
) -> None:
    """Write `count` images, labels 0, 1, ..., K-1, 0, 1, ...

    Every batch is full, and the last one cut: guidance compares the images of a batch.
    """
    classes, (channels, height, width) = len(real.classes), real.shape
    network, guidance = network.to(run.device), None
    if encoder is not None:
        x, y = real.train.x.to(run.device).float() / 127.5 - 1, real.train.y.to(run.device)
        guidance = make_guidance(method, settings, encoder.to(run.device), x, y, seed)
    size = min(settings.batch_size, max(count, 2))
    images, labels = [], []
    batches = -(-count // size)
    for batch in range(batches):
        path = run.scratch / f"batch-{batch:06d}.npz"
        if not path.is_file():
            asked = torch.arange(batch * size, (batch + 1) * size) % classes
            made = sample_batch(
                network, schedule, method, guidance, settings, asked, real.shape, batch * size, seed, classes, run.device
            )
            write_images(path, made.numpy().transpose(0, 2, 3, 1), asked.numpy())
            run.report(batch + 1, batches)
        found, of = read_images(path, classes, (height, width, channels))
        images.append(found)
        labels.append(of)
    write_images(run.outputs["images"], np.concatenate(images)[:count], np.concatenate(labels)[:count])
