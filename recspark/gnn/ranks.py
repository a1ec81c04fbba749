"""The processes that train together: who this one is, and sums over all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed as dist


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among `world_size` others; a world of one needs no process group."""

    rank: int
    world_size: int
    device: torch.device

    def total(self, values: list[float]) -> list[float]:
        """The sum of each value over all ranks, the same on every rank."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest of the ranks' values."""
        return int(self._reduced([float(value)], dist.ReduceOp.MAX)[0])

    def gather(self, value: bytes) -> list[bytes]:
        """Every rank's value, in the order of ranks, the same list on every rank."""
        if self.world_size == 1:
            return [value]
        found: list[bytes] = [b""] * self.world_size
        dist.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Go on when every rank has come here."""
        if self.world_size > 1:
            dist.barrier()

    def _reduced(self, values: list[float], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, operation)
        reduced: list[float] = tensor.tolist()
        return reduced


@contextmanager
def join(*, use_gpu: bool) -> Iterator[Ranks]:
    """Join the process group that is open, or else the one that torchrun's environment describes.

    One that is opened here is left after; a world of one needs none.

    A rank on a CPU computes with one thread unless OMP_NUM_THREADS says otherwise: ranks share
    the machine with each other and with Spark.
    """
    device = torch.device("cpu")
    if use_gpu:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if dist.is_initialized():
        yield Ranks(rank=dist.get_rank(), world_size=dist.get_world_size(), device=device)
        return
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Ranks(rank=0, world_size=1, device=device)
        return
    dist.init_process_group("nccl" if use_gpu else "gloo")
    try:
        yield Ranks(rank=dist.get_rank(), world_size=world_size, device=device)
    finally:
        dist.destroy_process_group()
