"""Typed configuration of the science: network, training and data.

These are plain frozen dataclasses. `mhiflab` validates YAML against them, and their fields are the
only valid keys. Every field that changes a result enters the run key.
"""

from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import Annotated, Any, Literal

from feinfn.errors import require
from feinfn.fields import Bound, Count, Counts, Finite, Natural, NonNegative, Positive, Settings
from feinfn.physics import Physics
from feinfn.region import Region

Activation = Literal["gabor", "relu", "gelu", "leaky_relu", "sine", "gaussian"]
Sampling = Literal["grid", "random"]
Schedule = Literal["cosine", "linear", "periodic"]
Loss = Literal["l1", "mse", "charbonnier", "relative"]
Inputs = Literal["scene", "patch", "stored"]
Decay = Annotated[float, Bound(ge=0, lt=1)]
Upsampling = Literal["implicit", "nearest", "bilinear", "bicubic", "pixel_shuffle"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Physics):
    """Shape and variant of a FeINFN network; the defaults give the released network."""

    feat_dim: Count = 128
    """Channels of the LR-HSI latent code (spectral encoder)."""
    guide_dim: Count = 128
    """Channels of the HR guide latent code (spatial encoder)."""
    spatial_blocks: Natural = 4
    """Residual blocks of the spatial encoder."""
    spectral_blocks: Natural = 4
    """Residual blocks of the spectral encoder."""
    mlp_widths: Counts = (256, 128)
    """Hidden widths of the three implicit networks (spatial, amplitude, phase)."""
    decoder_width: Count = 128
    """Channels inside the decoder."""
    decoder_layers: Count = 3
    """Gabor layers of the decoder."""
    activation: Activation = "gabor"
    """Non-linearity of the decoder's filters: gabor is exp(-(scale z)^2) cos(omega z); its factors
    are gaussian, exp(-(scale z)^2), and sine, sin(omega z)."""
    omega_0: Finite = 30.0
    """Initial frequency of gabor and sine, in radians per unit of z."""
    scale_0: Finite = 10.0
    """Initial inverse width of gabor and gaussian, per unit of z."""
    activation_trainable: bool = True
    """True trains omega and scale; false keeps them fixed."""
    activation_shared: bool = False
    """True gives all decoder layers one omega and scale; false gives each layer its own."""
    fourier_branch: bool = True
    """Fuse in the Fourier domain; if false, the decoder gets the spatial fusion twice."""
    spatial_branch: bool = True
    """Fuse in the image domain; if false, the decoder gets the Fourier fusion twice."""
    fuse_amplitude: bool = True
    """Fuse the amplitudes implicitly; if false, take a linear map of the guide's amplitude."""
    fuse_phase: bool = True
    """Fuse the phases implicitly; if false, take a linear map of the guide's phase."""
    frequency_kernel_px: Literal[1, 3] = 3
    """Side of the phase network's depthwise convolutions: 3 (released) or 1."""
    upsampling: Upsampling = "implicit"
    """Way from LR codes to HR pixels. implicit asks four neighbours and nearest asks one, with
    their offsets; bilinear and bicubic interpolate; pixel_shuffle learns it for one ratio."""
    shuffle_ratio: Count = 4
    """Ratio of pixel_shuffle; unused by the other upsamplings."""
    phase_layout: Literal["reviewed", "channel_first"] = "reviewed"
    """reviewed: the phase network reads [B, N, C] as if it were [B, C, H, W] (released);
    channel_first: the axes are permuted properly."""
    border: Literal["zero", "clamped"] = "zero"
    """Neighbour outside the LR grid: code 0 and centre 0 (zero, released), or the border pixel
    (clamped, as in LIIF)."""
    high_pass: Literal["released", "laplacian", "none"] = "released"
    """High-pass filter of the features. released: centre weight 1, sum -3; laplacian: 4 and 0."""
    positional: Literal["raster", "none", "fourier"] = "raster"
    """Encoding of the spatial offsets. raster: sin and cos of the raster index (released); fourier:
    sines and cosines of the offsets as further inputs; none: no encoding."""
    inverse: Literal["modulus", "real"] = "modulus"
    """Part of the complex inverse FFT that is kept."""
    spectrum_origin: Literal["corner", "centre"] = "corner"
    """Place of frequency zero while LR and HR spectra are aligned: unshifted (corner, released) or
    shifted (centre)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fused = self.spatial_branch or self.fuse_amplitude or self.fuse_phase
        require(fused, "model.fuse_phase", False, "true if nothing else uses the LR-HSI")
        branch, expected = "model.spatial_branch", "true if model.fourier_branch is false"
        require(self.fourier_branch or self.spatial_branch, branch, False, expected)

    @property
    def latent_bands(self) -> int:
        """Channels of each fused latent map, S + 1 (released: NIR_dim - 1)."""
        return self.hsi_bands + 1


PRESETS: dict[str, ModelConfig] = {
    "released": ModelConfig(),
    # The network as one would build it from the paper. Convolutions read channels first. Neighbours
    # are clamped as in LIIF, on which it builds. A high-pass filter suppresses constants
    # (laplacian). Positions are encoded by frequency and relative to the LR pixel (fourier), so
    # that the code does not depend on the image's size. The inverse transform returns an image
    # (real). No shift of the spectrum is mentioned (corner).
    "described": ModelConfig(
        phase_layout="channel_first",
        border="clamped",
        high_pass="laplacian",
        positional="fourier",
        inverse="real",
        spectrum_origin="corner",
    ),
}
"""Named networks; `model.preset` selects one and other keys override its fields."""


@dataclass(frozen=True, kw_only=True)
class Change(Settings, section="train.changes"):
    """Training values that change after an epoch; null keeps the value before."""

    after_epoch: int
    """Epochs that finish before the change."""
    lr: float | None = None
    lr_final: float | None = None
    weight_decay: float | None = None
    ssim_weight: float | None = None
    sam_weight: float | None = None

    @property
    def values(self) -> dict[str, float]:
        """The changed values by field."""
        return {k: getattr(self, k) for k in CHANGEABLE if getattr(self, k) is not None}


CHANGEABLE = tuple(f.name for f in fields(Change) if f.name != "after_epoch")
"""Fields of `TrainConfig` that may change during training."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings, section="train"):
    """Training of a network; one epoch is one pass over the training patches."""

    epochs: Count = 100
    """Passes over the training patches."""
    batch_size: Count = 4
    """Patches per optimiser step, over all workers together."""
    patch_px: Count = 64
    """Side of a training patch in HR pixels; a multiple of the protocol's ratio."""
    stride_px: Count = 32
    """Distance between neighbouring patches of the grid in HR pixels; a multiple of the ratio,
    unless data.inputs is patch."""
    sampling: Sampling = "grid"
    """grid: the same patches in every epoch; random: as many at new random places."""
    augment: bool = False
    """Turn and mirror every scene patch at random (8 ways) before its inputs are simulated."""
    lr: NonNegative = 2e-4
    """AdamW's learning rate at the start (after the warm-up)."""
    lr_final: NonNegative = 1e-5
    """Learning rate at the end of the schedule."""
    schedule: Schedule = "cosine"
    """cosine, linear: from lr to lr_final over all steps; periodic: cosine over epochs that rises
    again after period_epochs (released)."""
    period_epochs: Count = 300
    """Half a period of the periodic schedule, in epochs."""
    warmup_epochs: Natural = 0
    """Epochs of linear warm-up from lr/10."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decays of the running mean and square of the gradient."""
    loss: Loss = "l1"
    """Mean over pixels and bands of the absolute error, its square (mse), or sqrt(error^2 + 1e-6)
    (charbonnier). relative: l1 divided by the mean error of the base over the patch's whole scene,
    so that all scenes count alike, as in PSNR."""
    ssim_weight: NonNegative = 0.1
    """Weight of (1 - SSIM), added to the loss."""
    sam_weight: NonNegative = 0.0
    """Weight of the mean spectral angle in radians, added to the loss."""
    clip_norm: Positive | None = None
    """Largest global L2 norm of the gradient; null does not clip."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of products during training; bfloat16 is autocast, but the Fourier branch, the loss and
    all evaluation stay in float32."""
    ema_decay: Annotated[float, Bound(gt=0, lt=1)] | None = None
    """Decay of the weight average that is evaluated and saved; null uses the raw weights."""
    validate_every: Count = 1
    """Epochs between validations (the last epoch always validates)."""
    changes: tuple[Change, ...] = ()
    """Changes during training, in order: the schedules that population based training finds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        epochs = [change.after_epoch for change in self.changes]
        good = epochs == sorted(set(epochs)) and all(0 < n < self.epochs for n in epochs)
        field = "train.changes.after_epoch"
        require(good, field, epochs, f"rising numbers from 1 to {self.epochs - 1}")
        for epoch in epochs:
            config_at(self, epoch)


def config_at(config: TrainConfig, epoch: int) -> TrainConfig:
    """Return the configuration of one epoch, counted from 0: changes applied, none left.

    Raises `UserError` if a change sets an invalid value.
    """
    changed: dict[str, Any] = {}
    for change in config.changes:
        if change.after_epoch <= epoch:
            changed |= change.values
    return replace(config, changes=(), **changed)


RECIPES: dict[str, TrainConfig] = {
    # The authors' command and configuration, without their accumulation setting: it dropped every
    # second batch, which cost time and changed nothing else.
    "released": TrainConfig(
        epochs=2000,
        batch_size=4,
        patch_px=64,
        stride_px=32,
        lr=2e-4,
        lr_final=1e-5,
        schedule="periodic",
        period_epochs=300,
        clip_norm=1e-4,
        ema_decay=0.995,
        validate_every=20,
    ),
    # Chosen on the validation scenes of experiments/recipes.yaml, in runs of four minutes each.
    # Small patches and batches give many steps. Without clipping to 1e-4 the gradient moves the
    # whole network. A short memory of squared gradients lets the network leave the plateau at the
    # start, where its output is the upsampled image.
    "tuned": TrainConfig(
        epochs=60,
        batch_size=2,
        patch_px=32,
        stride_px=32,
        sampling="random",
        lr=5e-4,
        lr_final=1e-5,
        betas=(0.9, 0.99),
        clip_norm=1.0,
        ema_decay=0.99,
        validate_every=2,
    ),
    # For networks that start on a strong base, whose errors differ between scenes by orders. Every
    # scene counts alike (relative), and larger batches steady the small residuals. The search of
    # experiments/recipe_search.yaml on the validation scenes found nothing shown to be better.
    "physics": TrainConfig(
        epochs=20,
        batch_size=4,
        patch_px=48,
        stride_px=64,
        sampling="random",
        augment=True,
        lr=1e-3,
        lr_final=1e-5,
        betas=(0.9, 0.99),
        loss="relative",
        ssim_weight=0.0,
        clip_norm=1.0,
        ema_decay=0.99,
        validate_every=4,
    ),
}
"""Named training recipes; `train.preset` selects one and other keys override its fields."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(Settings, section="data"):
    """Scenes that train, validate and test; embedded scenes bring their own split."""

    source: str = "sample"
    """`sample` (seven embedded CAVE crops), `demo` (18 smaller ones), a scene store made by
    `mhiflab data prepare`, or a folder of scenes in any layout that can be read."""
    inputs: Inputs = "scene"
    """scene: LR-HSI and MSI are cut from whole simulated scenes; patch: each training patch is
    degraded by itself; stored: names are prepared files (GT, LRHSI, RGB, HSI_up) whose own inputs
    are used."""
    train: tuple[str, ...] = ()
    """Names of the training scenes; `name[0:64, 0:128]` selects a window (rows, columns) of one."""
    validation: tuple[str, ...] = ()
    """Names of the scenes that choose the best epoch."""
    test: tuple[str, ...] = ()
    """Names of the scenes opened once, after training has ended."""

    def __post_init__(self) -> None:
        super().__post_init__()
        regions = [
            (f"data.{part}", Region.parse(name, f"data.{part}"))
            for part in ("train", "validation", "test")
            for name in getattr(self, part)
        ]
        for (first, one), (second, other) in combinations(regions, 2):
            expected = f"pixels of one part only ({one} is in {first} too)"
            require(not one.overlaps(other), second, str(other), expected)
