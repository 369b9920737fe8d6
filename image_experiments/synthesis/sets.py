"""Synthetic images of one method, shard by shard, on any number of processes or machines; then one file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrastive_dp import NoiseSchedule
from image_experiments.data.shards import ShardPlan, make_shards, merge, read_note, shard_path
from image_experiments.data.stored import RealImages
from image_experiments.engine.stages import StageRun, plain
from image_experiments.models.precision import prepared, prepared_unet
from image_experiments.synthesis.generation import GenerationSettings, make_guidance, sample_batch
from image_experiments.synthesis.methods import Method

Array = np.ndarray[Any, Any]


def generate_in_shards(
    run: StageRun,
    real: RealImages,
    network: nn.Module,
    schedule: NoiseSchedule,
    encoder: nn.Module | None,
    method: Method,
    settings: GenerationSettings,
    count: int,
    seed: int,
) -> bool:
    """Make this process's shards of `count` images, labels 0, 1, ..., K-1, 0, 1, ...; when all are there, the first process puts them
    together. Returns whether all are there.

    Every batch is full, and the last one cut: guidance compares the images of a batch.
    """
    classes, (channels, height, width) = len(real.classes), real.shape
    size = min(settings.batch_size, max(count, 2))
    about = {"method": method.text, "seed": seed, "count": count, "settings": plain(settings)}
    plan = ShardPlan(run.fingerprint, about, count, size, classes, (height, width, channels))

    sample = batch_maker(run.device, real, network, schedule, encoder, method, settings, size, seed)

    def make(batch: int) -> tuple[Array, Array]:
        made, asked = sample(batch)
        return made.numpy().transpose(0, 2, 3, 1), asked.numpy()

    k, n = run.part or (1, 1)
    mine = range(plan.shards)[k - 1 :: n][run.processes.rank :: run.processes.count]
    run.shards.mkdir(parents=True, exist_ok=True)
    make_shards(run.shards, plan, mine, make, lambda done: run.report(done, plan.batches))
    run.processes.all_of(None)  # wait for the others' shards
    paths = [shard_path(run.shards, number) for number in range(plan.shards)]
    if run.part is not None and any(read_note(path) is None for path in paths):
        return False
    if run.processes.first:
        merge(paths, run.outputs["images"], run.outputs["manifest"])
    return True


def batch_maker(
    device: torch.device,
    real: RealImages,
    network: nn.Module,
    schedule: NoiseSchedule,
    encoder: nn.Module | None,
    method: Method,
    settings: GenerationSettings,
    size: int,
    seed: int,
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """make(number of a batch) -> `size` images uint8 (n, C, H, W), labels going on 0, 1, ..., K-1, 0, 1, ... from batch to batch."""
    classes = len(real.classes)
    unet, guidance = prepared_unet(network.to(device), settings.compile), None
    if encoder is not None:
        x, y = real.train.x.to(device).float() / 127.5 - 1, real.train.y.to(device)
        guidance = make_guidance(method, settings, prepared(encoder.to(device), "no"), x, y, seed)

    def make(batch: int) -> tuple[Tensor, Tensor]:
        asked = torch.arange(batch * size, (batch + 1) * size) % classes
        return sample_batch(
            unet, schedule, method, guidance, settings, asked, real.shape, batch * size, seed, classes, device
        ), asked

    return make
