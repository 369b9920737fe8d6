"""Where a run takes place: which device, how many processes, and whether those that share its stages are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from command_line.cluster import connected, usable_cores
from command_line.output import UserError
from image_experiments.engine.settings import Settings
from image_experiments.engine.stages import Place


def place_of(settings: Settings, device: str = "") -> tuple[Place, int]:
    """Where the run takes place, and in how many processes. device: if it was already chosen."""
    if settings.cluster is not None:
        first = workers_of(settings.cluster)
        chosen, card = device_on_cluster(settings.device, {name: found.model for name, found in first.items()}, settings.cluster)
        if chosen == "cuda":
            check_cards_apart(first, settings.cluster)
        return _place(settings, chosen, card), 1
    chosen, workers = choose_device(settings)
    device = device or chosen
    if device.startswith("cuda"):
        check_cards_alike(device, workers, [torch.cuda.get_device_name(card) for card in range(torch.cuda.device_count())])
        return _place(settings, device, torch.cuda.get_device_name(device)), workers
    return _place(settings, device), workers


def _place(settings: Settings, device: str, card: str = "") -> Place:
    assert settings.out is not None
    kind = card + ", TF32" * settings.tf32 if device.startswith("cuda") else f"cpu, {settings.threads} threads"
    return Place(settings.out, kind, device, settings.threads, settings.parts(), settings.tf32, settings.cudnn_benchmark)


def here(place: Place) -> Place:
    """The place with a device of this machine, for measurements: that of a cluster's workers may not be there."""
    known = place.device == "cpu" or int(place.device.partition(":")[2] or 0) < torch.cuda.device_count()
    return place if known else replace(place, device="cpu")


def not_deducted(settings: Settings) -> list[str]:
    """Ways of running that an estimate of the cost leaves out."""
    ways = [f"--{way} {value}" for way in ("processes", "cluster", "part") if (value := getattr(settings, way)) not in (None, 1)]
    return [f"{way}: not deducted; the cost is that of everything on this machine" for way in ways]


@dataclass(frozen=True)
class FirstCard:
    """What a worker of a cluster sees: the model of its first card, "" without one, which card that is, and how many there are."""

    model: str
    uuid: str
    cards: int


def workers_of(address: str) -> dict[str, FirstCard]:
    """{worker of a Dask cluster: its first card}. Raises UserError for a cluster that does not answer."""
    with connected(address, ("image_experiments", "contrastive_dp")) as client:
        found: dict[str, FirstCard] = client.run(_first_card)
    return found


def _first_card() -> FirstCard:
    if not torch.cuda.is_available():
        return FirstCard("", "", 0)
    told = torch.cuda.get_device_properties(0)
    return FirstCard(told.name, str(told.uuid), torch.cuda.device_count())


def check_cards_apart(workers: Mapping[str, FirstCard], address: str) -> None:
    """Raise UserError if workers see several cards and have the same one first, which all of them would take. One that was given a single
    card shares it on purpose."""
    seen: dict[str, str] = {}
    for name, card in workers.items():
        if card.cards > 1 and card.uuid in seen:
            raise UserError(
                f"--cluster {address}: {seen[card.uuid]} and {name} see {card.cards} GPUs and would both take the first; start each with "
                "a card of its own, CUDA_VISIBLE_DEVICES=K dask worker ..."
            )
        seen[card.uuid] = name


def device_on_cluster(device: str, cards: Mapping[str, str], address: str) -> tuple[str, str]:
    """(device, card) of a run on a cluster, by what its workers have, not this machine. Raises UserError for unlike workers."""
    if device == "cpu":
        return "cpu", ""
    kinds = dict.fromkeys(cards.values())
    if len(kinds) > 1:
        told = ", ".join(card or "no GPU" for card in kinds)
        raise UserError(f"--cluster {address}: its workers have unlike devices ({told}); stop some, or use --device cpu")
    (card,) = kinds
    if device != "auto" and not card:
        raise UserError(f"--device {device}: the workers of --cluster {address} have no GPU; use --device cpu")
    return ("cuda" if device == "auto" else device, card) if card else ("cpu", "")


def check_cards_alike(device: str, workers: int, names: Sequence[str]) -> None:
    """Raise UserError if workers would share stages among cards of different models, whose results differ in the last digits."""
    used = names[:workers] if device == "cuda" else []
    if len(set(used)) > 1:
        raise UserError(f"--workers {workers}: takes cards of different models ({', '.join(used)}); name one with --device cuda:N")


def check_places_alike(kinds: Sequence[str]) -> None:
    """Raise UserError if processes that share stages have cards of different models. kinds: of each process's place."""
    if len(set(kinds)) > 1:
        raise UserError(
            f"--processes {len(kinds)}: have unlike devices ({', '.join(dict.fromkeys(kinds))}); give them cards of one model"
        )


def choose_device(settings: Settings) -> tuple[str, int]:
    """The device, and the number of processes. Raises UserError for a device that does not exist."""
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    number = int(device.partition(":")[2] or 0)
    if device.startswith("cuda") and number >= torch.cuda.device_count():
        raise UserError(f"--device {settings.device}: torch finds {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if device.startswith("cuda"):
        return device, settings.workers or 1
    return device, settings.workers or max(usable_cores() // settings.threads, 1)
