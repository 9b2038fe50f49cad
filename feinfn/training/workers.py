"""Workers of one training: the messages between them, besides gradients."""

import torch
import torch.distributed as dist
from torch import Tensor


class Workers:
    """The process group of a training; a single process works without one."""

    def __init__(self) -> None:
        self.rank, self.count = world()
        # Messages use the CPU, so that no worker waits for an accelerator.
        needs_cpu_group = self.count > 1 and dist.get_backend() != "gloo"
        self.cpu_group = dist.new_group(backend="gloo") if needs_cpu_group else None

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean over all workers, on the device of `x`."""
        if self.count == 1:
            return x
        dist.all_reduce(x)
        return x / self.count

    def any(self, flag: bool) -> bool:
        """Return True if `flag` is True on any worker; all wait for each other."""
        if self.count == 1:
            return flag
        highest = torch.tensor(int(flag))
        dist.all_reduce(highest, dist.ReduceOp.MAX, self.cpu_group)
        return bool(highest)

    def from_first(self, data: bytes | None) -> bytes | None:
        """Return the data of rank 0 on every worker; the other ranks pass None."""
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
    """Return (rank, number of workers) of the process group; (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
