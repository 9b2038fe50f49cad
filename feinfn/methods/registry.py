"""Learned models behind one interface; a new model takes a file, its fields, and a name here."""

from typing import Any

from torch import nn

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.configs import check_parts
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.learned.liif import ImplicitFusion
from feinfn.methods.learned.mst import MSTFusion
from feinfn.methods.learned.residual import ResidualNetwork
from feinfn.methods.learned.restfnet import ResTFNet
from feinfn.methods.learned.ssrnet import SSRNet
from feinfn.methods.network import Network
from feinfn.methods.sensor import Sensor

MODELS: dict[str, type[Network]] = {
    network.name: network
    for network in (FeINFN, ImplicitFusion, SSRNet, ResTFNet, MSTFusion, ResidualNetwork)
}
"""Every learned model by name."""


def build(
    config: Any,
    memory_mib: float | None = None,
    recompute: bool = False,
    sensor: Sensor | None = None,
) -> Network:
    """Return a new network of the model to which the configuration belongs.

    `memory_mib` and `recompute` are those of `FeINFN`; `sensor` is that of `sensor_of`, without
    which a network with a base or a projection fuses nothing by itself. Raises `UserError` for any
    other configuration, and as `check_parts` does.
    """
    check_parts(config, memory_mib, recompute)
    network = _network(config, memory_mib, recompute)
    network.sensor = sensor
    if config.zero_start:
        for parameter in network.last.parameters():
            nn.init.zeros_(parameter)
    return network


def _network(config: Any, memory_mib: float | None, recompute: bool) -> Network:
    if isinstance(config, ModelConfig):
        return FeINFN(config, memory_mib, recompute)
    for network in MODELS.values():
        if type(config) is network.config_type:
            return network(config)
    raise UserError(
        f"model: found a {type(config).__name__}, expected the configuration of one of "
        + ", ".join(MODELS)
    )
