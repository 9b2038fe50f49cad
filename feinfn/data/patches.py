"""Training patches: windows of scenes whose inputs are simulated on the device, batch by batch.

The border rule: a window is cut with a margin as wide as the protocol's reach, degraded, and the
margin is dropped, so that its inputs equal those of the whole simulated scene. At the scene's edge
the margin ends with the scene and the protocol's border applies, as it does to the whole scene. A
circular border would need the far side of the scene there, so windows of circular protocols keep
the reach away from the edge. With `data.inputs: patch` there is no margin: every patch is degraded
by itself, as in the prepared files of this field.

A base is computed once for every scene and turn, of the turned scene, because sampling is not
symmetric under mirroring, and cut like the rest. A patch degraded by itself has its own base.

Legend: B batch, S bands, M MSI bands, H W rows and columns.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from feinfn.config import TrainConfig
from feinfn.data.scene import Scene
from feinfn.data.source import check_same_draw
from feinfn.errors import UserError
from feinfn.protocols.aligned import aligned
from feinfn.protocols.protocol import Protocol, reach_px
from feinfn.protocols.simulate import Batch, Inputs, Pair, simulate
from feinfn.region import TURNS, filled, turned, turned_corner

Cut = tuple[np.ndarray, np.ndarray | None, int, int]
"""A turned window with its margin: stored cube, measured MSI, row and column of the patch in it."""

Start = Callable[[Inputs], tuple[Tensor, Tensor]]
"""A network's start: the interpolated LR-HSI and the base, [B, S, H, W], of images."""

CUBIC_PX = 2
"""LR pixels on either side that the cubic interpolation of `Sensor.start` reads."""


@dataclass(frozen=True)
class Window:
    """A square patch: index of the scene, top left corner in HR pixels, and turn (0: none)."""

    scene: int
    top: int
    left: int
    turn: int = 0
    noise_seed: int = 0
    """Seed of a noisy protocol: every patch draws new noise, scaled by its own power."""


class Patches:
    """The windows of an epoch and the batches they make.

    Scenes stay as they are given (stored type, possibly in memory shared between processes); only a
    batch is copied to the device.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        protocol: Protocol,
        config: TrainConfig,
        device: torch.device,
        alone: bool = False,
        start: Start | None = None,
    ) -> None:
        """Lay a grid of stride `config.stride_px`; if `alone`, every patch is degraded by itself.

        `start` is that of the network (None: its base is the LMS). Raises `UserError` for a patch
        or stride that does not fit ratio or scenes, for different bands, and for no base.
        """
        self.scenes, self.protocol, self.config, self.device = scenes, protocol, config, device
        self.alone, self.start = alone, start
        self.ratio = protocol.ratio
        for field, value in (("patch_px", config.patch_px), ("stride_px", config.stride_px)):
            if value % self.ratio and not (alone and field == "stride_px"):
                raise UserError(
                    f"found {value}, expected a multiple of {self.ratio}", f"train.{field}"
                )
        for scene in scenes[1:]:
            _check_same_bands(scenes[0], scene)
        self.margin = 0 if alone else reach_px(protocol, 0 if start is None else CUBIC_PX)
        self.step = 1 if alone else self.ratio
        self.keep_out = self.margin if protocol.psf_border == "circular" else 0
        self.grid = [
            Window(scene, top, left)
            for scene in range(len(scenes))
            for top in self._starts(scene, 1)
            for left in self._starts(scene, 2)
            if self._has_data(scene, top, left)
        ]
        self.bases: dict[tuple[int, int], tuple[Tensor | None, float]] = {}
        self.has_bases = start is not None or config.loss == "relative"
        if self.cut_from_scenes:
            check_same_draw(protocol)
        self.places = {
            scene: self._places_with_data(scene)
            for scene in {window.scene for window in self.grid}
            if scenes[scene].valid_HW is not None and config.sampling == "random"
        }
        if not self.grid:
            sizes = sorted({scene.raw_SHW.shape[1:] for scene in scenes})
            away = ", and windows that touch no pixel without data" if self._gaps() else ""
            away += f" less {self.keep_out} px at every edge" if self.keep_out else ""
            raise UserError(
                f"found {config.patch_px}, expected at most the size of the scenes {sizes}{away}",
                "train.patch_px",
            )

    def _gaps(self) -> bool:
        return any(scene.valid_HW is not None for scene in self.scenes)

    def _has_data(self, scene: int, top: int, left: int) -> bool:
        """Return True if a window and its margin hold data everywhere."""
        valid, size = self.scenes[scene].valid_HW, self.config.patch_px + self.margin
        if valid is None:
            return True
        rows, columns = (slice(max(x - self.margin, 0), x + size) for x in (top, left))
        return bool(valid[rows, columns].all())

    def _places_with_data(self, scene: int) -> list[tuple[int, int]]:
        """Return the corners of all windows of a scene that hold data everywhere."""
        height, width = self.scenes[scene].raw_SHW.shape[1:]
        ends = (n - self.keep_out - self.config.patch_px + 1 for n in (height, width))
        rows, columns = (range(self.keep_out, end, self.step) for end in ends)
        return [(y, x) for y in rows for x in columns if self._has_data(scene, y, x)]

    def _starts(self, scene: int, axis: int) -> range:
        size = self.scenes[scene].raw_SHW.shape[axis]
        end = size - self.keep_out - self.config.patch_px
        return range(self.keep_out, end + 1, self.config.stride_px)

    def __len__(self) -> int:
        return len(self.grid)

    def windows(self, seed: int, epoch: int) -> list[Window]:
        """Return the windows of an epoch: the grid, or as many drawn at random places."""
        config = self.config
        noisy = self.protocol.noisy
        if config.sampling == "grid" and not config.augment and not noisy:
            return self.grid
        draw = epoch_generator(seed, -1 - epoch)
        chances = torch.rand(len(self.grid), 3, generator=draw, dtype=torch.float64).tolist()
        drawn = []
        for i, (window, (u, v, w)) in enumerate(zip(self.grid, chances, strict=True)):
            top, left = window.top, window.left
            if config.sampling == "random":
                top, left = self._place(window.scene, 1, u), self._place(window.scene, 2, v)
            if places := self.places.get(window.scene):
                top, left = places[int(u * len(places))]
            turn = int(w * TURNS) if config.augment else 0
            noise = ((seed * 1_000_003 + epoch) * len(self.grid) + i) % 2**62 if noisy else 0
            drawn.append(Window(window.scene, top, left, turn, noise))
        return drawn

    def _place(self, scene: int, axis: int, chance: float) -> int:
        free_px = self.scenes[scene].raw_SHW.shape[axis] - 2 * self.keep_out - self.config.patch_px
        return self.keep_out + int(chance * (free_px // self.step + 1)) * self.step

    def batch(self, windows: Sequence[Window]) -> Pair:
        """Return the windows' inputs and references as one batch on the device."""
        pair = self._pair(windows)
        return self._with_bases(pair, windows) if self.has_bases else pair

    def _pair(self, windows: Sequence[Window]) -> Pair:
        cuts = [self._cut(window) for window in windows]
        seeds = [window.noise_seed for window in windows]
        scales = [self.scenes[window.scene].full_scale for window in windows]
        if len({raw.shape for raw, *_ in cuts}) == 1:
            return self._simulated(cuts, scales, seeds)
        # Scenes smaller than a patch with its margins give cuts of different sizes.
        patches = zip(cuts, scales, seeds, strict=True)
        pairs = [self._simulated([cut], [scale], [seed]) for cut, scale, seed in patches]
        return Pair(*(torch.cat([getattr(p, field.name) for p in pairs]) for field in fields(Pair)))

    def _with_bases(self, pair: Pair, windows: Sequence[Window]) -> Batch:
        """Return patches with the bases of their scenes, or with their own if degraded alone."""
        facts: list[tuple[Tensor | None, float]] = [(None, math.nan)] * len(windows)
        if self.config.loss == "relative" or self.cut_from_scenes:
            facts = [self._base(window.scene, window.turn) for window in windows]
        if self.start is None:
            interpolated, base = pair.lms_BSHW, pair.lms_BSHW
        elif self.alone:
            interpolated, base = self.start(pair)
        else:
            parts = zip(windows, facts, strict=True)
            cuts = [self._cut_base(w, x) for w, (x, _) in parts if x is not None]
            base = torch.stack(cuts).to(self.device)
            interpolated = pair.lms_BSHW
        images = (pair.msi_BMHW, interpolated, pair.lr_hsi_BShw, pair.reference_BSHW, base)
        return Batch(*images, torch.tensor([error for _, error in facts], device=self.device))

    def _cut_base(self, window: Window, base_SHW: Tensor) -> Tensor:
        size, ends = self.config.patch_px, self.scenes[window.scene].raw_SHW.shape[1:]
        top, left = turned_corner((window.top, window.left), ends, size, window.turn)
        return base_SHW[:, top : top + size, left : left + size]

    @property
    def cut_from_scenes(self) -> bool:
        """True if patches take their bases from those of whole scenes."""
        return self.start is not None and not self.alone

    def _base(self, index: int, turn: int) -> tuple[Tensor | None, float]:
        """Return the base [S, H, W] of a turned scene if it is cut, and its mean absolute error.

        The error is that of pixels with data.
        """
        if (index, turn) not in self.bases:
            scene = self.scenes[index]
            # Patches touch no gaps; filled ones keep regressions over the scene from seeing them.
            raw, msi = turned(filled(scene.raw_SHW, scene.valid_HW), turn), scene.msi_MHW
            if msi is not None:
                msi = turned(filled(msi, scene.valid_HW), turn)
            pair = self._simulate([(raw, msi, 0, 0)], [scene.full_scale], [0])
            base_SHW = (pair.lms_BSHW if self.start is None else self.start(pair)[1])[0].cpu()
            error_SHW = (base_SHW - pair.reference_BSHW[0].cpu()).abs()
            if scene.valid_HW is not None:
                error_SHW = error_SHW[:, turned(scene.valid_HW, turn).copy()]
            kept = base_SHW if self.cut_from_scenes else None
            self.bases[index, turn] = (kept, error_SHW.mean().item())
        return self.bases[index, turn]

    def _cut(self, window: Window) -> Cut:
        """Return the window with its margin, turned."""
        scene, size = self.scenes[window.scene], self.config.patch_px
        ends, full_size = scene.raw_SHW.shape[1:], size + 2 * self.margin
        # Cuts at the edge move inwards to full size, so that a batch is one array.
        low = [
            max(min(start - self.margin, end - full_size), 0)
            for start, end in zip((window.top, window.left), ends, strict=True)
        ]
        high = [min(start + full_size, end) for start, end in zip(low, ends, strict=True)]
        rows, cols = slice(low[0], high[0]), slice(low[1], high[1])
        top, left = window.top - low[0], window.left - low[1]
        ends = (high[0] - low[0], high[1] - low[1])
        top, left = turned_corner((top, left), ends, size, window.turn)
        raw = turned(scene.raw_SHW[:, rows, cols], window.turn)
        msi = None if scene.msi_MHW is None else scene.msi_MHW[:, rows, cols]
        return raw, None if msi is None else turned(msi, window.turn), top, left

    def _simulate(self, cuts: list[Cut], scales: list[float], seeds: list[int]) -> Pair:
        """Return the inputs of windows with their margins."""
        # Copy stored numbers to the device and divide there: half the bytes.
        stored = torch.from_numpy(np.stack([raw for raw, *_ in cuts])).to(self.device)
        full_scale = torch.tensor(scales, device=self.device).view(-1, 1, 1, 1)
        cubes = stored.to(torch.float32) / full_scale
        measured = [msi for _, msi, *_ in cuts if msi is not None]
        return simulate(
            cubes,
            self.scenes[0].wavelengths_nm,
            self.protocol,
            self.scenes[0].source,
            msi_BMHW=torch.from_numpy(np.stack(measured)).to(self.device) if measured else None,
            noise_seed=seeds,
        )

    def _simulated(self, cuts: list[Cut], scales: list[float], seeds: list[int]) -> Pair:
        """Return the inputs of windows without their margins."""
        pair = self._simulate(cuts, scales, seeds)
        lms_BSHW = pair.lms_BSHW
        if self.cut_from_scenes:
            lms_BSHW = aligned(pair.lr_hsi_BShw, self.protocol).clamp(0, 1)
        corners = [(top, left) for *_, top, left in cuts]
        size = self.config.patch_px

        def inner(x: Tensor, shrink: int) -> Tensor:
            cut = slice(None, size // shrink)
            tops = [x[i, :, y // shrink :, z // shrink :] for i, (y, z) in enumerate(corners)]
            return torch.stack([x[:, cut, cut] for x in tops])

        return Pair(
            inner(pair.msi_BMHW, 1),
            inner(lms_BSHW, 1),
            inner(pair.lr_hsi_BShw, self.ratio),
            inner(pair.reference_BSHW, 1),
        )


def _check_same_bands(first: Scene, other: Scene) -> None:
    same = np.array_equal(first.wavelengths_nm, other.wavelengths_nm)  # type: ignore[arg-type]
    if not same or (first.msi_MHW is None) != (other.msi_MHW is None):
        raise UserError(
            f"{other.source}: found other band centres or another kind of MSI than in "
            f"{first.source}, expected training scenes of one sensor; train on one set at a time"
        )


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of everything that is drawn at random in one epoch."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)
