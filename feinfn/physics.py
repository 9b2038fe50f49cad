"""Physics of a learned method: the image it starts from, what it is shown, what it must meet."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from feinfn.errors import require
from feinfn.fields import Count, Positive, Settings


@dataclass(frozen=True, kw_only=True)
class Bands(Settings, section="model"):
    """The numbers of bands that the images must have, for every method."""

    hsi_bands: Count = 31
    """Bands S of the HSI."""
    msi_bands: Count = 3
    """Bands M of the MSI."""


@dataclass(frozen=True, kw_only=True)
class Consistent(Bands):
    """The field that every method has, learned or not."""

    consistency: Literal["none", "msi", "both"] = "none"
    """Inputs that the output is projected on, before loss and clipping: none, the MSI, or MSI and
    LR-HSI (both)."""

    @property
    def needs_sensor(self) -> bool:
        """True if the method must know the protocol that made its inputs."""
        return self.consistency != "none"


@dataclass(frozen=True, kw_only=True)
class Physics(Consistent):
    """Fields that every learned method has; the defaults add a residual to the LMS."""

    base: Literal["lms", "aligned", "gsa", "local"] = "lms"
    """Image to which the residual is added: the LMS, the LR-HSI interpolated from the true places
    of its pixels (aligned), or what a classical method makes of the inputs (gsa, local)."""
    shown: Literal["image", "difference"] | None = None
    """Image in the LMS's place at the network's entrance: the base (image), or 10 x (aligned -
    base) (difference); null: difference with a base from a classical method, otherwise image."""
    residual_scale: Positive = 1.0
    """Factor of the network's residual."""
    zero_start: bool = False
    """Start the last layer at zero, so that training begins exactly at the base."""

    def __post_init__(self) -> None:
        super().__post_init__()
        interpolated = self.base in ("lms", "aligned")
        if self.shown is None:
            # Decided here, so that one network has one configuration and one run key.
            object.__setattr__(self, "shown", "image" if interpolated else "difference")
        expected = f"image, because model.base {self.base} leaves no difference to show"
        require(self.shown == "image" or not interpolated, "model.shown", self.shown, expected)

    @property
    def needs_sensor(self) -> bool:
        return self.base != "lms" or super().needs_sensor


def stated(config: Any) -> dict[str, Any]:
    """Return a method's fields, those of physics only if they differ from their defaults.

    Keys, states and records of earlier versions lack these fields.
    """
    values, plain = asdict(config), asdict(Physics())
    later = plain.keys() - {field.name for field in fields(Bands)}
    if values.get("base", "lms") != "lms":
        # With a base, `shown` has no default that would never change.
        later -= {"shown"}
    return {k: v for k, v in values.items() if k not in later or v != plain[k]}
