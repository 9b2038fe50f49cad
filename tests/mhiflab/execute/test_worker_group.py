"""A worker that dies before it is told to train leaves nothing that others wait for."""

import os
import signal
import time

import pytest
import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerGroupCallback

from mhiflab.cluster.connect import connected
from mhiflab.cluster.ray_private import free_unlaunched
from mhiflab.environment import ENVIRONMENT


@pytest.fixture
def two_cpus(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mhiflab.cluster.connect.usable_cpus", lambda: 2)
    with connected():
        yield


def test_workers_of_a_group_that_never_trained_are_free_again(two_cpus, tmp_path):
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
