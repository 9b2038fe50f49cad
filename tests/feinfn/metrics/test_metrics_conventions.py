"""Every convention against a transcription of its definition that shares no code with it.

The transcriptions use numpy and scipy alone.
"""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from device import DEVICE, put
from scipy.ndimage import gaussian_filter, uniform_filter
from test_metrics import PAIRS, pair

from feinfn.config import DataConfig
from feinfn.data.pairs import simulated_inputs
from feinfn.data.source import load_scene, resolve_data
from feinfn.metrics.conventions import CONVENTIONS
from feinfn.metrics.evaluation import compare, evaluate
from feinfn.metrics.label import METRICS
from feinfn.protocols.named import PROTOCOLS

TEXTS = ("about", "source")


def bands_mse(a, b):
    return np.array([np.mean(np.square(x - y)) for x, y in zip(a, b, strict=True)])


def np_psnr(a, b, peak=1.0, offset=0.0):
    with np.errstate(divide="ignore"):
        return np.mean(20 * np.log10(peak / np.sqrt(bands_mse(a, b) + offset)))


def np_ergas(a, b, ratio):
    return 100 / ratio * np.sqrt(np.mean(bands_mse(a, b) / b.mean(axis=(1, 2)) ** 2))


def np_angles(a, b):
    """Angles of the pixels whose spectra are both not zero."""
    a, b = a.reshape(len(a), -1).T, b.reshape(len(b), -1).T
    seen = a.any(axis=1) & b.any(axis=1)
    a, b = a[seen], b[seen]
    cosine = np.einsum("ps,ps->p", a, b) / np.sqrt(
        np.einsum("ps,ps->p", a, a) * np.einsum("ps,ps->p", b, b)
    )
    return np.arccos(np.minimum(cosine, 1)), (~seen).sum()


def np_ssim(a, b, window, c1, c2, correction=1.0):
    """Mean SSIM over bands; `window` averages and cuts to the valid part."""
    values = []
    for x, y in zip(a, b, strict=True):
        mx, my = window(x), window(y)
        vx = correction * (window(x * x) - mx * mx)
        vy = correction * (window(y * y) - my * my)
        vxy = correction * (window(x * y) - mx * my)
        top = (2 * mx * my + c1) * (2 * vxy + c2)
        values.append(np.mean(top / ((mx**2 + my**2 + c1) * (vx + vy + c2))))
    return np.mean(values)


def gaussian11(x):
    return gaussian_filter(x, 1.5, truncate=5 / 1.5, mode="constant")[5:-5, 5:-5]


def uniform7(x):
    return uniform_filter(x, 7)[3:-3, 3:-3]


def np_matlab(a, b, ratio):
    return {
        "psnr": np_psnr(a, b),
        "sam": np.degrees(np_angles(a, b)[0].mean()),
        "ergas": np_ergas(a, b, ratio),
        "ssim": np_ssim(a * 255, b * 255, gaussian11, 2.55**2, 7.65**2),
    }


def np_released_python(a, b, ratio):
    a, b = (x.astype(np.float32).astype(float) for x in (a, b))
    inner_a, inner_b = a[:, :-1, :-1], b[:, :-1, :-1]
    angle = np.mean(np_angles(inner_a, inner_b)[0])
    return {
        "psnr": np_psnr(inner_a, inner_b),
        "sam": round(angle, 6) * 180 / 3.14159256,
        "ergas": np_ergas(inner_a, inner_b, 4),
        "ssim": np_ssim(a, b, uniform7, 0.01**2, 0.03**2, correction=49 / 48),
    }


def np_psrt(a, b, ratio):
    angle, black = np_angles(a, b)
    mse = np.mean((a - b) ** 2)
    with np.errstate(divide="ignore"):
        psnr = 10 * np.log10(b.max() ** 2 / mse)
    sam = math.nan if black else np.degrees(angle.mean())
    return {**np_matlab(a, b, 4), "psnr": psnr, "sam": sam}


def np_uint8(a, b, ratio):
    a, b = (np.rint(255 * np.clip(x, 0, 1)) / 255 for x in (a, b))
    return np_matlab(a, b, ratio)


def np_ergas_100_4(a, b, ratio):
    return np_matlab(a, b, 4)


def np_sfno(a, b, ratio):
    norms = np.sqrt((a * a).sum(axis=0)) * np.sqrt((b * b).sum(axis=0))
    angle = np.arccos((a * b).sum(axis=0) / (norms + 1e-8))
    return {
        **np_matlab(a, b, 4),
        "psnr": np_psnr(a, b, offset=1e-8),
        "sam": np.degrees(angle.mean()),
    }


TRANSCRIPTIONS = {
    "matlab": np_matlab,
    "released_python": np_released_python,
    "psrt": np_psrt,
    "uint8": np_uint8,
    "ergas_100_4": np_ergas_100_4,
    "sfno": np_sfno,
    "lso": np_ergas_100_4,
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for index, value in expected.items():
        if index == "sam" and value < 2e-6:
            # acos near 1: one unit in the last place of the cosine is 1e-6 degrees.
            assert found[index] < 2e-6
        else:
            np.testing.assert_allclose(found[index], value, rtol=1e-6, err_msg=index)


def test_every_convention_has_a_transcription():
    assert TRANSCRIPTIONS.keys() == CONVENTIONS.keys()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_convention_equals_its_transcription(convention, name):
    fused, reference = pair(name)
    ratio = PAIRS[name]["ratio"]
    expected = TRANSCRIPTIONS[convention](fused.cpu().numpy(), reference.cpu().numpy(), ratio)
    assert_same(evaluate(fused, reference, ratio, convention), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_convention_equals_its_transcription_on_a_real_scene(convention):
    data = resolve_data(DataConfig())
    cave = PROTOCOLS["cave_x4"]
    loaded = load_scene(data, data.test[0])
    scene = simulated_inputs(loaded, cave, DEVICE).inputs
    fused, reference = scene.lms_BSHW[0], scene.reference_BSHW[0]
    arrays = (x.double().cpu().numpy() for x in (fused, reference))
    expected = TRANSCRIPTIONS[convention](*arrays, 4)
    assert_same(evaluate(fused, reference, 4, convention), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_convention_equals_its_transcription_outside_the_range(convention):
    rng = np.random.default_rng(2)
    reference = rng.uniform(0, 1, (4, 20, 24))
    fused = reference + rng.normal(0, 0.2, reference.shape)
    expected = TRANSCRIPTIONS[convention](fused, reference, 8)
    found = evaluate(put(fused), put(reference), 8, convention)
    assert_same(found, expected)


def test_released_python_sees_float32_images():
    reference = torch.arange(1, 257).double().view(1, 16, 16) / 256
    fused = reference + 1e-10
    assert evaluate(fused, reference, 4)["psnr"] == pytest.approx(200, abs=1e-3)
    assert evaluate(fused, reference, 4, "released_python")["psnr"] == math.inf


def test_definitions_tell_conventions_apart_but_for_the_two_that_agree():
    seen = {}
    for name, convention in CONVENTIONS.items():
        fields = {k: v for k, v in asdict(convention).items() if k not in ("name", *TEXTS)}
        seen.setdefault(str(fields), []).append(name)
        assert convention.about
        assert convention.source
    assert [names for names in seen.values() if len(names) > 1] == [["ergas_100_4", "lso"]]


def test_differences_have_the_known_size():
    """What the released Python moves on these pairs, and its ERGAS at x8."""
    shift = {}
    for name in ("noisy64_r4", "scaled64_r8"):
        ratio = PAIRS[name]["ratio"]
        both = compare(*pair(name), ratio, ("matlab", "released_python"), METRICS)
        shift[name] = both["released_python"]["ssim"] - both["matlab"]["ssim"]
    assert shift == pytest.approx({"noisy64_r4": 0.02, "scaled64_r8": -0.012}, abs=2e-3)
    assert both["released_python"]["ergas"] / both["matlab"]["ergas"] == pytest.approx(2, rel=2e-3)
    frozen = evaluate(*pair("scaled64_r8"), 8, "ergas_100_4")["ergas"]
    assert frozen == pytest.approx(2 * both["matlab"]["ergas"], rel=1e-12)
