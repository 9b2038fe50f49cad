"""FeINFN, hyperspectral image fusion: the network, its data, protocols, metrics and training.

Read first `feinfn/methods/feinfn/plain.py`, the network as one would write it on a blackboard.
Then the folders, each of which imports only what stands right of it:

    analysis | inference | training -> evaluation -> methods | data | metrics -> protocols
        -> config | files -> fields | region -> errors

The names in `__all__` are what a user needs. They load when they are first used, so that
`import feinfn` alone takes no torch. Needs torch, numpy, scipy, h5py and safetensors only; the
laboratory around it is `mhiflab`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "PROTOCOLS",
    "DataConfig",
    "FeINFN",
    "ModelConfig",
    "Patches",
    "Protocol",
    "ScenePairs",
    "TrainConfig",
    "UserError",
    "compare",
    "evaluate",
    "fuse",
    "fuse_files",
    "load_model",
    "load_scene",
    "load_trained",
    "resolve_data",
    "simulate",
    "train",
]

_NAMES = {
    "feinfn.config": ("DataConfig", "ModelConfig", "TrainConfig"),
    "feinfn.data.pairs": ("ScenePairs",),
    "feinfn.data.patches": ("Patches",),
    "feinfn.data.source": ("load_scene", "resolve_data"),
    "feinfn.errors": ("UserError",),
    "feinfn.inference.apply": ("fuse_files", "load_trained"),
    "feinfn.methods.feinfn.model": ("FeINFN",),
    "feinfn.methods.network": ("fuse",),
    "feinfn.methods.weights": ("load_model",),
    "feinfn.metrics.evaluation": ("compare", "evaluate"),
    "feinfn.protocols.named": ("PROTOCOLS",),
    "feinfn.protocols.protocol": ("Protocol",),
    "feinfn.protocols.simulate": ("simulate",),
    "feinfn.training.train": ("train",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

if TYPE_CHECKING:
    from feinfn.config import DataConfig, ModelConfig, TrainConfig
    from feinfn.data.pairs import ScenePairs
    from feinfn.data.patches import Patches
    from feinfn.data.source import load_scene, resolve_data
    from feinfn.errors import UserError
    from feinfn.inference.apply import fuse_files, load_trained
    from feinfn.methods.feinfn.model import FeINFN
    from feinfn.methods.network import fuse
    from feinfn.methods.weights import load_model
    from feinfn.metrics.evaluation import compare, evaluate
    from feinfn.protocols.named import PROTOCOLS
    from feinfn.protocols.protocol import Protocol
    from feinfn.protocols.simulate import simulate
    from feinfn.training.train import train
else:
    # Hidden from type checkers, which would take any name for known.
    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
