"""diffusers models as noise predictions, and guidance inside diffusers' schedulers (DPM-Solver++, UniPC, DDIM, ...).

diffusers is imported only to load a model; a U-Net or scheduler object made by the caller needs no import here.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from contrastive_dp._checks import count, one_of, per_sample, wide_type
from contrastive_dp.files import bare_names, check_names, read_safetensors, write_safetensors
from contrastive_dp.guidance import Guidance
from contrastive_dp.nan_watch import Watch
from contrastive_dp.randomness import SampleNoise
from contrastive_dp.samplers import NoisePrediction, OnStep, bound_of, checked_batch, denoised, predict
from contrastive_dp.schedules import NoiseSchedule

DDPM_TYPE = re.compile(r"(DDPM|DDIM|PNDM|DPMSolver|UniPC|DEIS|LMS|Euler|Heun|KDPM2)\w*Scheduler")
"""Schedulers whose models were trained on x_t = sqrt(a) x_0 + sqrt(1-a) noise, for any solver."""
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
WEIGHTS = "diffusion_pytorch_model.safetensors"


class DiffusersNoisePrediction(nn.Module):
    """A diffusers UNet2DModel as noise_prediction(x, t[, labels]).

    prediction_type: what the network was trained to predict; v = sqrt(a) eps - sqrt(1-a) x_0 and x_0 are converted to
    eps = sqrt(a) v + sqrt(1-a) x and eps = (x - sqrt(a) x_0) / sqrt(1-a). A second half of output channels (learned variance) is dropped.
    The network gets labels only if it was made with classes; null_label replaces missing ones. Guidance always gets the labels.
    """

    def __init__(
        self, unet: nn.Module, schedule: NoiseSchedule, prediction_type: str = "epsilon", null_label: int | None = None
    ) -> None:
        super().__init__()
        self.unet, self.schedule, self.null_label = unet, schedule, null_label
        self.prediction_type = one_of(prediction_type, "prediction_type", PREDICTION_TYPES)
        config: Any = unet.config
        self.conditional = bool(config.get("num_class_embeds") or config.get("class_embed_type"))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        t, classes = per_sample(t, x), None
        if self.conditional:
            if labels is None and self.null_label is None:
                raise ValueError(
                    "this U-Net is class-conditional: pass labels=..., or null_label=... for unconditional predictions"
                )
            classes = torch.full_like(t, self.null_label or 0) if labels is None else labels
        out: Tensor = self.unet(x, t, class_labels=classes).sample[:, : x.shape[1]]
        if self.prediction_type == "epsilon":
            return out
        a = self.schedule.alpha_bar_on(x.device)[t].reshape(-1, *[1] * (x.ndim - 1))
        signal, noise = a.sqrt().to(x.dtype), (1 - a).sqrt().to(x.dtype)  # 1 - a in double precision: in half precision it can be 0
        if self.prediction_type == "v_prediction":
            return signal * out + noise * x
        return (x - signal * out) / noise


class EDMNoisePrediction(nn.Module):
    """A network in EDM's parametrisation (Karras et al. 2022) as noise_prediction(x, t[, labels]).

    denoiser(y, sigma, class_labels) estimates x_0 from y = x_0 + sigma noise, sigma (n,), class_labels one-hot (n, classes) or None. With
    x_t = sqrt(a) x_0 + sqrt(1-a) noise: y = x_t / sqrt(a), sigma = sqrt((1-a) / a), eps = (y - denoiser(y, sigma)) / sigma.

    classes: number of classes, 0 for an unconditional network. null_label: the label for "no class", whose one-hot vector is zero.
    """

    def __init__(self, denoiser: nn.Module, schedule: NoiseSchedule, classes: int = 0, null_label: int | None = None) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.classes, self.null_label = denoiser, schedule, classes, null_label

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        one_hot = None
        if self.classes:
            one_hot = x.new_zeros(len(x), self.classes)
            if labels is not None:
                none = torch.zeros_like(labels, dtype=torch.bool) if self.null_label is None else labels == self.null_label
                one_hot = torch.nn.functional.one_hot(labels.masked_fill(none, 0), self.classes).to(x.dtype)
                one_hot = one_hot.masked_fill(
                    none[:, None], 0
                )  # not by a mask as an index, for which the device would have to stop
        a = self.schedule.alpha_bar_on(x.device)[per_sample(t, x)]
        sigma = ((1 - a) / a).sqrt().to(wide_type(x))  # half precision would turn the sines of its embedding
        each = [-1] + [1] * (x.ndim - 1)
        y = x / a.sqrt().to(x.dtype).reshape(each)
        denoised: Tensor = self.denoiser(y, sigma, one_hot).to(x.dtype)
        return (y - denoised) / sigma.to(x.dtype).reshape(each)


def load_diffusers(folder_or_id: str | Path, null_label: int | None = None) -> tuple[DiffusersNoisePrediction, NoiseSchedule]:
    """Noise prediction and schedule of a diffusers pipeline, from a folder on disk or by its name on the Hugging Face hub.

    Reads the U-Net and the scheduler's settings, in folders unet/ and scheduler/ or together in one folder (as in google/ddpm-cifar10-32).
    Weights are read only from safetensors files. The U-Net is in evaluation mode and frozen.
    Raises FileNotFoundError for a missing folder or configuration, ValueError for weights that are missing, and for anything unreadable,
    ModuleNotFoundError without diffusers.
    """
    try:
        from diffusers import DDIMScheduler, DDPMScheduler
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; load_diffusers needs it: pip install diffusers", name=error.name) from None

    folder = find_pipeline(folder_or_id)
    _check_pixels(folder)
    parts = {name: folder / name if (folder / name).is_dir() else folder for name in ("unet", "scheduler")}
    for part, file in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        if not (parts[part] / file).is_file():
            raise FileNotFoundError(
                f"{parts[part] / file} is missing: give the folder of a diffusers pipeline (unet and scheduler)"
            )
    named = _class_of(parts["scheduler"] / "scheduler_config.json", "DDPMScheduler")
    if not DDPM_TYPE.fullmatch(named) or "Wuerstchen" in named:
        raise ValueError(f"{folder_or_id} has a {named}, whose models know other noise levels: give a pipeline of DDPM type")
    kind = _class_of(parts["unet"] / "config.json", "UNet2DModel")
    if kind != "UNet2DModel":
        raise ValueError(
            f"{folder_or_id} holds a {kind}, which works in another space or takes text: give a pipeline with a UNet2DModel"
        )
    try:
        kind_of: Any = DDPMScheduler if named == "DDPMScheduler" else DDIMScheduler
        scheduler = kind_of.from_pretrained(parts["scheduler"])
        unet = _load_unet(parts["unet"])
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder_or_id} cannot be loaded as a U-Net with safetensors weights: {reason}") from None
    kind = unet.config.get("class_embed_type")
    if kind is not None:
        raise ValueError(
            f"{folder_or_id} takes custom class embeddings (class_embed_type={kind!r}), not class numbers: give a model "
            "with num_class_embeds, or wrap it yourself as a function of (x, t, labels)"
        )
    for field, meant in (("rescale_betas_zero_snr", False), ("timestep_type", "discrete")):
        if (value := scheduler.config.get(field, meant)) != meant:
            raise ValueError(
                f"{folder_or_id} has {field}={value!r}, and its levels or times are others: give a model with {meant!r}"
            )
    schedule = _levels_of(scheduler)
    kind = scheduler.config.get("prediction_type", "epsilon")
    return DiffusersNoisePrediction(unet.eval().requires_grad_(False), schedule, kind, null_label), schedule


def _check_pixels(folder: Path) -> None:
    """Raise ValueError for a pipeline whose U-Net works on latents, which would pass for images of its size."""
    try:
        named = set(json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        named = set()
    for part in ("vae", "vqvae", "movq"):
        if part in named or (folder / part).is_dir():
            raise ValueError(f"{folder} has a {part}: its U-Net makes latents, not images; give a pipeline of pixels")


def _load_unet(folder: Path) -> Any:
    """The U-Net of a folder; the file must hold exactly its weights. Raises ValueError, or an error of diffusers."""
    from diffusers import UNet2DModel
    from diffusers.utils import logging

    whole = folder / WEIGHTS
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it would continue with random weights and list hundreds of names
    try:
        unet, about = UNet2DModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
        if about["missing_keys"] and whole.is_file():  # names with the prefix of torch.compile or a wrapper
            with TemporaryDirectory() as copy:
                write_safetensors(Path(copy) / WEIGHTS, bare_names(read_safetensors(whole)[0]), {"format": "pt"})
                shutil.copyfile(folder / "config.json", Path(copy) / "config.json")
                unet, about = UNet2DModel.from_pretrained(copy, use_safetensors=True, output_loading_info=True)
    finally:
        logging.set_verbosity(verbosity)
    check_names(about["missing_keys"], about["unexpected_keys"])
    odd = next((name for name, tensor in unet.state_dict().items() if not torch.isfinite(tensor).all()), None)
    if odd is not None:
        raise ValueError(f"{odd} holds NaN or infinity: its training failed; give another")
    return unet


def find_pipeline(folder_or_id: str | Path) -> Path:
    """The folder itself, or the downloaded folder of the pipeline with that name on the Hugging Face hub.

    Raises FileNotFoundError if it is neither.
    """
    folder = Path(folder_or_id)
    return folder if folder.is_dir() else _download(str(folder_or_id))


def _class_of(config: Path, usual: str) -> str:
    """The class named in a diffusers configuration, or `usual` if it names none. Raises ValueError for a damaged file."""
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("_class_name", usual))
    except (ValueError, AttributeError):
        raise ValueError(f"{config} is damaged: get the folder again") from None


def reason_of(error: BaseException) -> str:
    """Why the hub could not be reached, in one line: its own answer if it gave one, else the first cause, without a client's advice."""
    from huggingface_hub.errors import HfHubHTTPError

    chain, one = [error], error
    while (earlier := one.__cause__ or (None if one.__suppress_context__ else one.__context__)) and earlier not in chain:
        chain.append(earlier)
        one = earlier
    answer = next((each for each in chain if isinstance(each, HfHubHTTPError)), None)
    lines = [" ".join(line.split()) for line in str(answer or chain[-1]).splitlines() if line.strip()]
    return (" ".join(lines[:2]) if answer else " ".join(lines))[:200] or type(chain[-1]).__name__


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub's client raises many different exceptions: no such name, no network, no permission
        raise FileNotFoundError(
            f"{name} is neither a folder nor reachable on the hub ({reason_of(error)}): check the name or the network"
        ) from None


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The NoiseSchedule of a diffusers scheduler that takes noise predictions, for guidance in your own loop.

    Raises ValueError for schedulers without alphas_cumprod (flow matching), or that expect v or x_0, to which guidance does not apply.
    """
    kind = getattr(scheduler, "config", {}).get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise ValueError(
            f"this scheduler expects {kind!r}, guidance acts on noise: wrap the U-Net in DiffusersNoisePrediction and make the scheduler "
            "with from_config(scheduler.config, prediction_type='epsilon'), or use diffusers_sample"
        )
    schedule = _levels_of(scheduler)  # first: schedulers of flows have no init_noise_sigma
    _check_scaling(scheduler)
    _check_kind(scheduler)
    return schedule


KNOWN_SOLVERS = {
    f"{name}Scheduler"
    for name in ("DDIM", "DDPM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver")
} | {"DDIMParallelScheduler", "DDPMParallelScheduler"}
"""Schedulers that were tested here against exact classes; their subclasses are accepted too."""


STOCHASTIC = {"DDPMScheduler", "DDPMParallelScheduler", "SASolverScheduler"}


def _draws_noise(scheduler: Any) -> bool:
    """Whether a scheduler, or one that it inherits from, draws noise in its steps."""
    names = {base.__name__ for base in type(scheduler).__mro__}
    return bool(STOCHASTIC & names) or str(scheduler.config.get("algorithm_type")).startswith("sde")


def _check_kind(scheduler: Any) -> None:
    """Raise ValueError for schedulers that run in the other direction, need another network, or were never tested."""
    if not KNOWN_SOLVERS & {base.__name__ for base in type(scheduler).__mro__}:
        raise ValueError(
            f"{type(scheduler).__name__} is not known to sample from noise predictions: use DDIM, DDPM, DPMSolverMultistep, UniPC or DEIS"
        )


def _check_scaling(scheduler: Any) -> None:
    if float(scheduler.init_noise_sigma) != 1.0:
        raise ValueError(f"{type(scheduler).__name__} rescales its states: use DDIM, DDPM, DPMSolverMultistep, UniPC or DEIS")


def _prepared(scheduler: Any, steps: int) -> tuple[Any, list[int]]:
    """A copy of the scheduler that takes noise predictions, and the timesteps it visits. Raises ValueError if any is repeated."""
    if scheduler.config.get("use_beta_sigmas"):
        raise ValueError(
            f"{type(scheduler).__name__} with use_beta_sigmas goes from much noise to none in its last step, and shrinks what it makes: "
            "leave it out, or take use_karras_sigmas"
        )
    fed_with: dict[str, Any] = {"prediction_type": "epsilon"}  # a noise prediction returns epsilon, for any model
    if "clip_sample" in scheduler.config:
        fed_with["clip_sample"] = False  # the sampler's own bound decides, and changes eps with x0_hat
    if "variance_type" in scheduler.config and str(scheduler.config.variance_type).startswith("learned"):
        fed_with["variance_type"] = "fixed_small"  # a noise prediction has no variance output
    solver = type(scheduler).from_config(scheduler.config, **fed_with)
    solver.set_timesteps(steps)
    # on the CPU and read once, so that no step waits for the device to read its own number
    timesteps = [int(t) for t in solver.timesteps.tolist()]
    _check_scaling(solver)
    _check_kind(solver)
    _check_spacing(solver, steps)
    twice = next((t for t, after in itertools.pairwise(timesteps) if t == after), None)
    if twice is not None and hasattr(solver, "sigmas"):  # without sigmas, PNDM evaluates some timesteps twice by design
        raise ValueError(
            f"{type(scheduler).__name__} visits timestep {twice} twice in {steps} steps: its noise levels lie closer together than the "
            "schedule's; leave out use_karras_sigmas, use_lu_lambdas and their like, or take fewer steps"
        )
    return solver, timesteps


def _check_spacing(solver: Any, steps: int) -> None:
    """Raise ValueError where diffusers' solver goes to other levels than those of its timesteps: these step by T // steps, however their
    timesteps are spaced."""
    if not {"DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler"} & {base.__name__ for base in type(solver).__mro__}:
        return
    total, spacing = solver.config.num_train_timesteps, solver.config.timestep_spacing
    if (spacing == "linspace" and steps != total) or (spacing == "trailing" and total % steps):
        raise ValueError(
            f"{type(solver).__name__} with timestep_spacing={spacing!r} and {steps} steps goes to levels between its timesteps: take "
            "'leading', or 'trailing' with a number of steps that divides the schedule's"
        )


def _levels_of(scheduler: Any) -> NoiseSchedule:
    config = getattr(scheduler, "config", {})
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        raise ValueError(
            f"{type(scheduler).__name__} is set up for flow matching, whose states are (1 - s) x_0 + s noise: make it without "
            "use_flow_sigmas and flow_prediction, with a network that predicts noise; or guide its own loop by guide_states"
        )
    levels = getattr(scheduler, "alphas_cumprod", None)
    if levels is None:
        raise ValueError(
            f"{type(scheduler).__name__} has no alphas_cumprod: use a scheduler of DDPM type (DDIM, DPMSolverMultistep, UniPC), or guide "
            "its own loop by guide_states"
        )
    return NoiseSchedule(levels)


@torch.no_grad()
def diffusers_sample(
    noise_prediction: NoisePrediction,
    x_T: Tensor,
    scheduler: Any,
    steps: int,
    labels: Tensor | None = None,
    guidance: Guidance | None = None,
    generator: torch.Generator | None = None,
    *,
    clip: float | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Sample x_0 with a diffusers scheduler, guided: DPMSolverMultistepScheduler, UniPCMultistepScheduler, DDIMScheduler and similar.

    scheduler: any whose states are x_t = sqrt(a) x_0 + sqrt(1-a) noise (not Euler, Heun or LMS, which rescale them, nor flow matching); it
    is not modified. Other arguments as in ddim_sample. Schedulers draw their own noise, so SampleNoise can make x_T but not their noise.
    clip: bound on |x0_hat| at every step, as in ddim_sample (images: 1). It replaces the scheduler's clip_sample, diffusers' default for
    DDIM and DDPM, which would cut vectors and latents to [-1, 1]. The cosine schedule needs it: its last levels hold so little signal that
    a trained network's error dominates the estimate.
    Raises ValueError for an unsupported scheduler or settings that do not fit; FloatingPointError naming timestep and term for NaN.
    """
    if isinstance(generator, SampleNoise):
        raise ValueError("diffusers' schedulers draw noise themselves: pass a torch.Generator, or use ddim_sample with SampleNoise")
    bound = bound_of(clip)
    schedule = _levels_of(scheduler)
    labels = checked_batch(noise_prediction, x_T, labels, schedule, guidance)
    solver, timesteps = _prepared(scheduler, count(steps, "steps"))
    if generator is None and _draws_noise(solver):
        raise ValueError(f"{type(scheduler).__name__} draws noise: pass generator=torch.Generator().manual_seed(0)")
    known = {"generator": generator} if "generator" in inspect.signature(solver.step).parameters else {}
    guide = guidance.start(schedule, labels) if guidance is not None else None
    watch, x = guide.watch if guide is not None else Watch(), x_T
    for t, time in zip(timesteps, solver.timesteps, strict=True):
        eps = predict(noise_prediction, x, t, labels)
        watch("noise prediction", t, eps)
        if guide is not None:
            eps = guide(x, t, eps)
        if bound is not None:
            _, eps = denoised(x, eps, schedule[t], bound)
        x = solver.step(eps.clone(), time, x, **known).prev_sample  # a solver keeps what a compiled network may overwrite
        watch("state", t, x)
        if on_step is not None:
            on_step(t, x)
    watch.report()
    return x
