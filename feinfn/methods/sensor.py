"""The sensor that a network knows, and the image to which its residual is added.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from feinfn.methods.classical.registry import CLASSICAL
from feinfn.methods.configs import response_to_meet
from feinfn.protocols.aligned import aligned
from feinfn.protocols.consistency import meet
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Inputs

KEPT_BYTES = 2**29
"""Memory for the bases that were used last, which each validation needs again."""


@dataclass(frozen=True)
class Sensor:
    """The protocol of a network's training: its inputs are taken to be made by it wherever used."""

    protocol: Protocol
    response_MS: tuple[tuple[float, ...], ...] = ()
    """The protocol's response on the network's bands; empty if nothing is projected."""
    kept: dict[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    """Bases by the content of their inputs; another training's do not count as known."""

    def start(self, base: str, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the LR-HSI interpolated from its true places, and the base, [B, S, H, W].

        Both are float32 in [0, 1], also under autocast. The base (`Physics.base`, not `lms`) of an
        image is computed once.
        Raises `UserError` if images and protocol do not fit.
        """
        with torch.autocast(inputs.lr_hsi_BShw.device.type, enabled=False):
            interpolated = aligned(inputs.lr_hsi_BShw.float(), self.protocol).clamp(0, 1)
        if base == "aligned":
            return interpolated, interpolated
        images = (x.detach().float().cpu().numpy() for x in (inputs.lr_hsi_BShw, inputs.msi_BMHW))
        bases = [self._solve(base, *pair) for pair in zip(*images, strict=True)]
        return interpolated, torch.from_numpy(np.stack(bases)).to(interpolated)

    def meet(
        self, what: Any, fused_BSHW: Tensor, inputs: Inputs, base_BSHW: Tensor, cut: bool
    ) -> Tensor:
        """Return the nearest image that meets the inputs `what`, see `consistency.meet`."""
        response_MS = torch.tensor(self.response_MS, dtype=torch.float64)
        return meet(
            fused_BSHW, inputs, self.protocol, what, response_MS, cut=cut, base_NSHW=base_BSHW
        )

    def _solve(self, base: str, lr_hsi_Shw: np.ndarray, msi_MHW: np.ndarray) -> np.ndarray:
        digest = hashlib.sha256(f"{base} {self.protocol!r} {lr_hsi_Shw.shape}".encode())
        for x in (lr_hsi_Shw, msi_MHW):
            digest.update(x.tobytes())
        key = digest.hexdigest()
        image = self.kept.pop(key, None)
        if image is None:
            image = CLASSICAL[base].fuse(lr_hsi_Shw, msi_MHW, self.protocol)
        self.kept[key] = image
        while sum(x.nbytes for x in self.kept.values()) > KEPT_BYTES:
            del self.kept[next(iter(self.kept))]
        return image

    def text(self) -> str:
        """Return the sensor as JSON, for `from_text`."""
        return json.dumps({"protocol": asdict(self.protocol), "response_MS": self.response_MS})

    @classmethod
    def from_text(cls, text: str) -> "Sensor":
        """Return the sensor of a text; raise `TypeError`, `KeyError` or `ValueError`."""
        values = json.loads(text)
        fields = values["protocol"]
        protocol = Protocol(**fields | {"msi_order": tuple(fields["msi_order"])})
        return cls(protocol, tuple(tuple(map(float, row)) for row in values["response_MS"]))


def sensor_of(
    config: Any, protocol: Protocol, wavelengths_nm: Sequence[float] | None
) -> Sensor | None:
    """Return the sensor that a learned model's network needs; None if it needs none.

    `wavelengths_nm` are the training scenes' band centres [S]. Raises `UserError` for a projection
    under a protocol whose response is not known.
    """
    if not config.needs_sensor:
        return None
    response_MS = response_to_meet(config, protocol, wavelengths_nm)
    rows = () if response_MS is None else map(tuple, response_MS.tolist())
    return Sensor(protocol, tuple(rows))
