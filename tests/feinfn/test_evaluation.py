"""One evaluation of networks, classical methods and any function, of any images."""

from dataclasses import replace

import numpy as np
import pytest
from device import DEVICE
from networks import NARROW

from feinfn.data.pairs import ScenePairs
from feinfn.data.scene import make_scene
from feinfn.evaluation import by_classical, by_network, evaluate_method
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.methods.registry import build
from feinfn.metrics.conventions import CONVENTIONS
from feinfn.metrics.evaluation import evaluate
from feinfn.metrics.label import CONVENTION, METRICS
from feinfn.protocols.named import PROTOCOLS


@pytest.fixture(scope="module")
def images() -> ScenePairs:
    draw, nm = np.random.default_rng(0), np.arange(400, 701, 10.0)
    cubes = [draw.random((31, 32, 48), np.float32) for _ in range(2)]
    scenes = [make_scene(f"s{i}", cube, nm, "memory") for i, cube in enumerate(cubes)]
    return ScenePairs(scenes, PROTOCOLS["cave_x4"], NARROW, DEVICE)


def methods():
    return {
        "network": by_network(build(NARROW).to(DEVICE)),
        "classical": by_classical(CLASSICAL["gsa"], PROTOCOLS["cave_x4"]),
        "function": lambda image: image.inputs.lms_BSHW[0],
    }


@pytest.mark.parametrize("name", methods())
def test_every_image_is_fused_once_and_scored_as_by_the_metrics(name, images):
    fused = []

    def counted(image):
        fused.append(methods()[name](image))
        return fused[-1]

    evaluations = list(evaluate_method(counted, images, tuple(CONVENTIONS)))
    assert [one.image.name for one in evaluations] == ["s0", "s1"]
    assert len(fused) == 2
    for one, image_SHW in zip(evaluations, fused, strict=True):
        assert one.fused_SHW is image_SHW
        assert one.image.wavelengths_nm is not None
        for convention in CONVENTIONS:
            expected = evaluate(image_SHW, one.image.reference, 4, convention)
            assert one.scores[convention] == expected
            assert tuple(expected) == METRICS


def test_observed_pairs_without_reference_have_no_scores():
    draw = np.random.default_rng(1)
    msi = draw.random((2, 64, 96), np.float32)
    cube = draw.random((5, 16, 24), np.float32)
    scene = replace(make_scene("pair", cube, None, "memory"), msi_MHW=msi)
    protocol = replace(PROTOCOLS["paris_x4"], msi_order=("A", "B"))
    model = replace(NARROW, hsi_bands=5, msi_bands=2)
    sizes = {}
    for observed in (False, True):
        images = ScenePairs([scene], protocol, model, DEVICE, observed)
        (one,) = evaluate_method(by_network(build(model).to(DEVICE)), images)
        assert one.image.measured_msi
        assert list(one.scores) == ([] if observed else [CONVENTION])
        sizes[observed] = tuple(one.fused_SHW.shape)
    assert sizes == {False: (5, 16, 24), True: (5, 64, 96)}
