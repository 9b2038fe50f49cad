"""What the workers of one training tell each other, besides gradients."""

import torch
import torch.distributed as dist
from torch import Tensor


class Workers:
    """The process group of a training; alone, everything is as if nobody else existed."""

    def __init__(self) -> None:
        self.rank, self.count = world()
        # Words travel over the CPU, so that nobody waits for an accelerator to say one.
        several = self.count > 1 and dist.get_backend() != "gloo"
        self.cpu_group = dist.new_group(backend="gloo") if several else None

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over all workers, on the device of `x`."""
        if self.count == 1:
            return x
        dist.all_reduce(x)
        return x / self.count

    def any(self, here: bool) -> bool:
        """Return whether it is so for any worker; all wait for each other."""
        if self.count == 1:
            return here
        so = torch.tensor(int(here))
        dist.all_reduce(so, dist.ReduceOp.MAX, self.cpu_group)
        return bool(so)

    def from_first(self, data: bytes | None) -> bytes | None:
        """Return what rank 0 gave; the others give None."""
        if self.count == 1:
            return data
        size = torch.tensor(-1 if data is None else len(data))
        dist.broadcast(size, 0, self.cpu_group)
        if size < 0:
            return None
        buffer = bytearray(data or int(size))
        dist.broadcast(torch.frombuffer(buffer, dtype=torch.uint8), 0, self.cpu_group)
        return bytes(buffer)


def world() -> tuple[int, int]:
    """Return (rank, number of workers) of the process group, (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
