"""Specs of trials: the settings that determine a result, and the resources that it needs."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from feinfn.config import PRESETS, RECIPES, DataConfig, ModelConfig, TrainConfig
from feinfn.data.source import Survey, resolve_data, survey
from feinfn.errors import UserError, require, require_one_of
from feinfn.fields import Bound, Count, Natural, NonNegative, Positive, Settings
from feinfn.methods.configs import FEINFN, ClassicalConfig, NetworkConfig, config_type
from feinfn.physics import stated
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from mhiflab.study.yaml_values import build


@dataclass(frozen=True, kw_only=True)
class Resources(Settings, section="resources"):
    """Resources that one trial requests; the run key does not hash them (`identity.UNHASHED`)."""

    workers: Natural = 1
    """Ray Train workers sharing every batch; 0 trains inside the trial's own process."""
    cpus_per_worker: Annotated[float, Bound(ge=0.1)] = 1.0
    """CPUs of each worker, or of the trial itself with workers: 0."""
    gpus_per_worker: NonNegative = 0.0
    """GPUs of each worker: a whole number, or a share of one GPU."""
    gpu_memory_gib: Positive | None = None
    """GPU memory of each worker in GiB, instead of a share: a GPU takes as many workers as its
    memory holds; null: no such bound."""
    memory_mib: Positive | None = None
    """Memory for fusing one whole image, in MiB above the resting process; null: unbounded."""
    recompute: bool = False
    """Keep fewer activations while training and compute them again: slower, for large patches."""
    accumulate: Count = 1
    """Parts in which a worker processes its share of a batch, one after the other: less memory, the
    same step."""
    checkpoint_every: Count = 1
    """Epochs between saved training states; at most so many are lost when a worker dies."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = self.gpu_memory_gib is None or self.gpus_per_worker % 1 == 0
        expected = "null with a share of a GPU in resources.gpus_per_worker"
        require(shared, "resources.gpu_memory_gib", self.gpu_memory_gib, expected)


AnyModel = ModelConfig | NetworkConfig | ClassicalConfig
"""Settings of FeINFN, of another learned model, or of a classical method, as `model.name` says."""


@dataclass(frozen=True, kw_only=True)
class Spec(Settings):
    """One fully resolved experiment: all settings that determine a result, and no others."""

    model: AnyModel
    data: DataConfig
    protocol: Protocol
    train: TrainConfig
    seed: Natural = 1

    @property
    def trained(self) -> bool:
        """True if the model is trained."""
        return not isinstance(self.model, ClassicalConfig)


def settings_of(spec: Spec) -> dict[str, Any]:
    """Return a spec as nested mappings, as it is hashed and recorded (see `stated`)."""
    return {**asdict(spec), "model": stated(spec.model)}


@dataclass(frozen=True, kw_only=True)
class Base(Settings):
    """Keys that a study's `base` may hold."""

    model: dict[str, Any] = field(default_factory=dict)
    """Unchecked here, because the keys that are valid depend on its name."""
    data: DataConfig = field(default_factory=DataConfig)
    protocol: Protocol = field(default_factory=lambda: PROTOCOLS["cave_x4"])
    train: TrainConfig = field(default_factory=TrainConfig)
    resources: Resources = field(default_factory=Resources)


PRESETS_BY_SECTION: dict[str, Mapping[str, Any]] = {
    "model": PRESETS,
    "train": RECIPES,
    "protocol": PROTOCOLS,
}
"""Presets by section and name. Only `protocol` may be a preset's name instead of a mapping."""


def parse_trial(
    settings: dict[str, Any],
    seed: int,
    where: str,
    resolve: Callable[[DataConfig], DataConfig] = resolve_data,
) -> tuple[Spec, Resources]:
    """Return the resolved spec and the resources of one trial.

    `resolve` replaces the data by one that names every scene. Raise `UserError`, which begins with
    `where`, if the settings are invalid.
    """
    base: Base = build(Base, _resolve_named(settings, where), where)
    model, protocol, name = base.model, base.protocol, base.model.get("name", FEINFN)
    if name == FEINFN:
        # FeINFN's configuration is the oldest and has no name: run keys depend on that.
        model = {key: value for key, value in model.items() if key != "name"}
    kind = config_type(name, f"{where}: model.name")
    if protocol.srf.endswith(".csv"):
        # Absolute, because workers may run in another folder.
        protocol = replace(protocol, srf=str(Path(protocol.srf).expanduser().resolve()))
    spec = Spec(
        model=build(kind, model, where, under="model"),
        data=resolve(base.data),
        protocol=protocol,
        train=base.train,
        seed=seed,
    )
    return spec, base.resources


def _resolve_named(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Return settings with every preset replaced by its fields; the section's keys override them.

    The name of a changed protocol lists the changes. Raise `UserError` for an unknown preset.
    """
    resolved = dict(settings)
    for section, presets in PRESETS_BY_SECTION.items():
        value = settings.get(section)
        if section == "protocol" and isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, Mapping) or "preset" not in value:
            continue
        overrides = {k: v for k, v in value.items() if k != "preset"}
        name = value["preset"]
        if section == "model" and value.get("name", FEINFN) != FEINFN:
            raise UserError(
                f"{where}: model.preset: found {name!r} for {value['name']!r}, expected none, "
                f"because presets are {FEINFN}'s; leave it out"
            )
        field_name = "protocol" if section == "protocol" else f"{section}.preset"
        require_one_of(f"{where}: {field_name}", name, presets)
        if section == "protocol" and overrides:
            changes = "+".join(f"{k}={v}" for k, v in sorted(overrides.items()))
            overrides = {"name": f"{name}+{changes}", **overrides}
        resolved[section] = {**stated(presets[name]), **overrides}
    return resolved


@dataclass(frozen=True)
class DataAccess:
    """Pair of functions from which a plan learns about its data."""

    resolve: Callable[[DataConfig], DataConfig]
    """Return the data with every scene named."""
    survey: Callable[[DataConfig], Survey]
    """Return the scenes and the fingerprint of resolved data."""


ON_DISK = DataAccess(resolve_data, survey)
"""Access that reads the scenes themselves."""
