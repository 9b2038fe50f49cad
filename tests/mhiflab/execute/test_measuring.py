"""Seconds and memory of fusing, as tables tell them."""

import sys
import time

import pytest
import torch

from mhiflab.execute.evaluate import measured_effort


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak of memory")
@pytest.mark.parametrize("pieces", [1, 400])
def test_memory_is_what_the_work_asked_for_also_after_larger_work(pieces):
    def work(mib: int) -> None:
        held = [torch.ones(mib * 2**18 // pieces) for _ in range(pieces)]
        assert sum(len(one) for one in held) > 0

    work(400)
    with measured_effort(torch.device("cpu")) as effort:
        work(100)
        time.sleep(0.05)
    assert effort.seconds >= 0.05
    assert effort.memory_mib == pytest.approx(100, abs=25)
