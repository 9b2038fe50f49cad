"""Scenes that concurrent trials share: read once, held once, test scenes never among them."""

import numpy as np
import pytest
import ray

from feinfn.data.source import load_scene
from mhiflab.execute.job import share_scenes
from mhiflab.plan.plan import read_plan


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@ray.remote
def look(scene) -> tuple[bool, bool, bytes]:
    """Return whether a task sees the pixels in place and unchangeable, and their hash."""
    raw = scene.raw_SHW
    return raw.flags.writeable, raw.flags.owndata, scene.pixel_hash()


def test_training_and_validation_scenes_are_shared_without_copies(cluster, write_study):
    plan = read_plan(write_study())
    shared = share_scenes(plan.entries)
    (data,) = shared
    assert set(shared[data]) == {*data.train, *data.validation}
    assert not set(shared[data]) & set(data.test)
    for name, ref in shared[data].items():
        writeable, owns, pixels = ray.get(look.remote(ref))
        assert (writeable, owns) == (False, False)
        assert pixels == load_scene(data, name).pixel_hash()
    again = ray.get(shared[data][data.train[0]])
    first = ray.get(shared[data][data.train[0]])
    assert np.shares_memory(again.raw_SHW, first.raw_SHW)
