"""What the laboratory asks of Ray itself: scenes held once, and workers that are freed."""

import os
import signal
import time
from collections.abc import Iterator

import numpy as np
import pytest
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from feinfn.data.source import load_scene
from mhiflab.cluster.connect import connected
from mhiflab.cluster.ray_private import free_unlaunched
from mhiflab.execute.job import share_scenes
from mhiflab.plan.plan import read_plan


@pytest.fixture(autouse=True, scope="module")
def two_cpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mhiflab.cluster.connect.usable_cpus", lambda: 2)
        with connected():
            yield


@ray.remote
def look(scene) -> tuple[bool, bool, bytes]:
    """Return whether a task sees the pixels in place and unchangeable, and their hash."""
    raw = scene.raw_SHW
    return raw.flags.writeable, raw.flags.owndata, scene.pixel_hash()


def test_training_and_validation_scenes_are_shared_without_copies(write_study):
    plan = read_plan(write_study())
    shared = share_scenes(plan.entries)
    (data,) = shared
    # A trial reads the test scenes itself.
    assert set(shared[data]) == {*data.train, *data.validation}
    assert not set(shared[data]) & set(data.test)
    for name, ref in shared[data].items():
        writeable, owns, pixels = ray.get(look.remote(ref))
        assert (writeable, owns) == (False, False)
        assert pixels == load_scene(data, name).pixel_hash()
    again = ray.get(shared[data][data.train[0]])
    first = ray.get(shared[data][data.train[0]])
    assert np.shares_memory(again.raw_SHW, first.raw_SHW)


def test_workers_of_a_group_that_never_trained_are_free_again(tmp_path):
    class Kill(WorkerGroupCallback):
        """Kills a worker of a group that has just started; local, so that it travels whole."""

        def after_worker_group_start(self, worker_group):
            os.kill(worker_group.get_workers()[1].metadata.pid, signal.SIGKILL)

    trainer = TorchTrainer(
        lambda: None,
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(
            storage_path=str(tmp_path),
            callbacks=[Kill(), free_unlaunched()],
            failure_config=FailureConfig(max_failures=0),
        ),
    )
    with pytest.raises(Exception, match="actor died unexpectedly"):
        trainer.fit()
    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert ray.available_resources().get("CPU") == 2
