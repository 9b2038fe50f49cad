"""Training patches: windows of scenes whose inputs are simulated on the device, batch by batch.

The border rule: a window is cut with a margin as wide as the protocol's reach, degraded, and the
margin is dropped, so that its inputs equal those of the whole simulated scene. At the scene's edge
the margin ends with the scene and the protocol's border applies, as it does to the whole scene. A
circular border would need the far side of the scene there, so windows of circular protocols keep
the reach away from the edge. With `data.inputs: patch` there is no margin: every patch is degraded
by itself, as in the prepared files of this field.

Legend: B batch, S bands, M MSI bands, H W rows and columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from feinfn.config import TrainConfig
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.protocols.simulate import Pair, Protocol, reach_px, simulate

Cut = tuple[np.ndarray, np.ndarray | None, int, int]
"""A turned window with its margin: stored cube, measured MSI, row and column of the patch in it."""

TURNS = 8
"""Number of ways to turn and mirror a square."""


@dataclass(frozen=True)
class Window:
    """A square patch: index of the scene, top left corner in HR pixels, and turn (0: none)."""

    scene: int
    top: int
    left: int
    turn: int = 0
    noise_seed: int = 0
    """Seed of a noisy protocol: every patch draws new noise, scaled by its own power."""


def turned(x: np.ndarray, turn: int) -> np.ndarray:
    """Return [..., H, W] mirrored (bit 1 of `turn`), flipped (bit 2) and transposed (bit 4)."""
    x = x[..., ::-1] if turn & 1 else x
    x = x[..., ::-1, :] if turn & 2 else x
    return x.swapaxes(-1, -2) if turn & 4 else x


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
    ) -> None:
        """Lay a grid of stride `config.stride_px`; if `alone`, every patch is degraded by itself.

        Raises `UserError` for a patch or stride that does not fit the ratio or the scenes, and for
        scenes with different bands.
        """
        self.scenes, self.protocol, self.config, self.device = scenes, protocol, config, device
        self.ratio = protocol.ratio
        for field, value in (("patch_px", config.patch_px), ("stride_px", config.stride_px)):
            if value % self.ratio and not (alone and field == "stride_px"):
                raise UserError(
                    f"found {value}, expected a multiple of {self.ratio}", f"train.{field}"
                )
        for scene in scenes[1:]:
            _check_same_bands(scenes[0], scene)
        self.margin = 0 if alone else reach_px(protocol)
        self.step = 1 if alone else self.ratio
        self.keep_out = self.margin if protocol.psf_border == "circular" else 0
        self.grid = [
            Window(scene, top, left)
            for scene in range(len(scenes))
            for top in self._starts(scene, 1)
            for left in self._starts(scene, 2)
            if self._has_data(scene, top, left)
        ]
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
        cuts = [self._cut(window) for window in windows]
        seeds = [window.noise_seed for window in windows]
        scales = [self.scenes[window.scene].full_scale for window in windows]
        if len({raw.shape for raw, *_ in cuts}) == 1:
            return self._simulated(cuts, scales, seeds)
        # Scenes smaller than a patch with its margins give cuts of different sizes.
        patches = zip(cuts, scales, seeds, strict=True)
        pairs = [self._simulated([cut], [scale], [seed]) for cut, scale, seed in patches]
        return Pair(*(torch.cat([getattr(p, field.name) for p in pairs]) for field in fields(Pair)))

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
        if window.turn & 1:
            left = high[1] - low[1] - size - left
        if window.turn & 2:
            top = high[0] - low[0] - size - top
        if window.turn & 4:
            top, left = left, top
        raw = turned(scene.raw_SHW[:, rows, cols], window.turn)
        msi = None
        if scene.msi_MHW is not None:
            msi = turned(scene.msi_MHW[:, rows, cols], window.turn)
        return raw, msi, top, left

    def _simulated(self, cuts: list[Cut], scales: list[float], seeds: list[int]) -> Pair:
        # Copy stored numbers to the device and divide there: half the bytes.
        stored = torch.from_numpy(np.stack([raw for raw, *_ in cuts])).to(self.device)
        full_scale = torch.tensor(scales, device=self.device).view(-1, 1, 1, 1)
        cubes = stored.to(torch.float32) / full_scale
        measured = [msi for _, msi, *_ in cuts if msi is not None]
        pair = simulate(
            cubes,
            self.scenes[0].wavelengths_nm,
            self.protocol,
            self.scenes[0].source,
            msi_BMHW=torch.from_numpy(np.stack(measured)).to(self.device) if measured else None,
            noise_seed=seeds,
        )
        corners = [(top, left) for *_, top, left in cuts]
        size = self.config.patch_px

        def inner(x: Tensor, shrink: int) -> Tensor:
            side = size // shrink
            windows = [
                x[i, :, y // shrink : y // shrink + side, z // shrink : z // shrink + side]
                for i, (y, z) in enumerate(corners)
            ]
            return torch.stack(windows)

        return Pair(
            inner(pair.msi_BMHW, 1),
            inner(pair.lms_BSHW, 1),
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
