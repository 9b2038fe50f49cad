"""Optimised paths against the plain network: every field, any size, any strips, all gradients."""

import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
import unoptimised
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_variants import CHANGES, TINY, build, inputs

from feinfn.config import PRESETS, ModelConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.decoder import VALUES
from feinfn.methods.feinfn.geometry import sampling_geometry
from feinfn.methods.feinfn.strips import Buffers, Strips, strips_within

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
NAMES = [f.name for f in fields(ModelConfig) if isinstance(getattr(TINY, f.name), str)]
TINY_PRESETS = {
    name: replace(TINY, **{n: getattr(preset, n) for n in NAMES})
    for name, preset in PRESETS.items()
}


def gradients(run, model, data):
    data = [x.clone().requires_grad_() for x in data]
    out = run(*data)
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape).to(out)
    wanted = [*model.parameters(), *data]
    return [out, *torch.autograd.grad((out * weight).sum(), wanted)]


def assert_equal_to_plain(config, lr, hr, queries, batch=2):
    model = build(config, torch.float64)
    data = inputs(config, lr, hr, torch.float64, batch)
    strips = Strips(queries=queries)
    ours = gradients(lambda *x: x[1] + model.residual(*x, strips), model, data)
    plain = gradients(lambda *x: unoptimised.forward(model, *x), model, data)
    names = ["output", *dict(model.named_parameters()), "MSI", "LMS", "LR-HSI"]
    for name, a, b in zip(names, ours, plain, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max()), name


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_every_choice_and_its_gradients_equal_the_plain_network(change):
    # 37 does not divide the 512 queries.
    assert_equal_to_plain(replace(TINY, **change), (4, 4), (16, 16), queries=37)


@pytest.mark.parametrize("config", TINY_PRESETS.values(), ids=TINY_PRESETS)
@settings(max_examples=25, deadline=None)
@given(lr=SIZES, hr=st.tuples(st.integers(1, 20), st.integers(1, 20)), queries=st.integers(1, 90))
def test_any_size_and_its_gradients_equal_the_plain_network(config, lr, hr, queries):
    assert_equal_to_plain(config, lr, hr, queries)


@pytest.mark.parametrize("bands", [(1, 1), (103, 4), (250, 16)])
def test_any_bands_and_a_ratio_of_its_own_on_each_axis(bands):
    config = replace(TINY, hsi_bands=bands[0], msi_bands=bands[1])
    assert_equal_to_plain(config, (1, 3), (32, 6), queries=100, batch=1)


@pytest.mark.parametrize("layout", ["reviewed", "channel_first"])
@settings(max_examples=25, deadline=None)
@given(
    hr=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    encoder_rows=st.integers(1, 40),
    phase_rows=st.integers(1, 40),
    channels=st.integers(1, 5),
)
def test_strips_of_inference_equal_the_whole_image(layout, hr, encoder_rows, phase_rows, channels):
    config = replace(TINY, phase_layout=layout)
    model, data = build(config, torch.float64), inputs(config, (5, 3), hr, torch.float64, 2)
    strips = Strips(
        encoder_rows=encoder_rows, phase_rows=phase_rows, channels=channels, queries=100
    )
    with torch.no_grad():
        assert (
            data[1] + model.residual(*data, strips) - unoptimised.forward(model, *data)
        ).abs().max() < 1e-12


def test_recomputed_activations_give_the_same_gradients():
    data = inputs(dtype=torch.float64, batch=2)
    model = build(dtype=torch.float64)
    kept, recomputed = (
        gradients(lambda *x, s=strips: model.residual(*x, s), model, data)
        for strips in (Strips(queries=37), Strips(queries=37, recompute=True))
    )
    for a, b in zip(kept, recomputed, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def kept_for_the_backward_pass(part, strips):
    """Return how many numbers a part of the network keeps after its forward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), lambda x: x):
        assert part(strips).requires_grad
    return sum(sizes)


def test_products_are_kept_for_the_backward_pass_or_recomputed():
    model, c = build(), TINY
    geometry = sampling_geometry((4, 4), (16, 16), c.border, torch.float32, DEVICE)
    feat, guide = (
        torch.rand(1, n, s, s).to(DEVICE) for n, s in ((c.feat_dim, 4), (c.guide_dim, 16))
    )
    latent = torch.rand(1, 16, 16, c.latent_bands).to(DEVICE)
    of_decoder = 2 * c.decoder_layers * c.decoder_width
    of_votes = c.mlp_widths[0] + 4 * (sum(c.mlp_widths[1:]) + c.latent_bands + 1)
    for part, per_pixel in (
        (partial(model.decoder, latent, latent), of_decoder),
        (partial(model.spatial_fusion, feat, guide, geometry), of_votes),
    ):
        kept, recomputed = (
            kept_for_the_backward_pass(part, Strips(queries=100, recompute=recompute))
            for recompute in (False, True)
        )
        assert kept - recomputed == 16 * 16 * per_pixel


@pytest.mark.parametrize("activation", sorted(VALUES))
def test_a_second_backward_pass_gives_the_same_gradients(activation):
    model = build(replace(TINY, activation=activation))
    data = inputs(batch=2)
    out = model.residual(*data, Strips(queries=37)).square().sum()
    first = torch.autograd.grad(out, [*model.parameters()], retain_graph=True)
    again = torch.autograd.grad(out, [*model.parameters()])
    for a, b in zip(first, again, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1, b.abs().max())


def test_strips_share_memory_by_name_columns_and_type():
    buffers, rows = Buffers(), torch.zeros(5, 3)
    whole, last = buffers("a", rows), buffers("a", rows[:2])
    assert whole.shape == (5, 3)
    assert last.shape == (2, 3)
    assert last.data_ptr() == whole.data_ptr()
    others = [buffers("b", rows), buffers("a", rows, 4), buffers("a", rows.double())]
    assert [tuple(x.shape) for x in others] == [(5, 3), (5, 4), (5, 3)]
    assert len({x.data_ptr() for x in (whole, *others)}) == 4
    assert buffers("a", torch.zeros(7, 3)).shape == (7, 3)


def test_a_memory_budget_is_planned_and_changes_nothing():
    config = ModelConfig()
    tight, wide = (strips_within(m, config, (128, 128), (512, 512), 1) for m in (580, 1024))
    assert tight.phase_rows < wide.phase_rows
    assert tight.encoder_rows < wide.encoder_rows
    data = inputs(hr=(64, 64), lr=(16, 16))
    with torch.no_grad():
        whole, in_parts = (build(memory_mib=mib)(*data) for mib in (None, 66))
    assert strips_within(66, TINY, (16, 16), (64, 64), 1).phase_rows < 64
    assert (in_parts - whole).abs().max() < 1e-6


PEAK = """
import re, sys, torch
from pathlib import Path
from feinfn.config import PRESETS, ModelConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.strips import strips_within
changes = {
    'centre': {'spectrum_origin': 'centre'},
    'spatial': {'fourier_branch': False},
    'narrow': {'fourier_branch': False, 'feat_dim': 32, 'guide_dim': 32, 'mlp_widths': (64, 32)},
}
px = int(sys.argv[2])
config = PRESETS.get(sys.argv[1]) or ModelConfig(**changes[sys.argv[1]])
def peak():
    return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024
try:
    strips_within(1, config, (px // 4, px // 4), (px, px), 1)
except UserError as error:
    least = int(re.search('at least ([0-9]+)', str(error))[1])
sizes = ((3, px), (31, px), (31, px // 4))
model, data = FeINFN(config, least), [torch.rand(1, c, n, n) for c, n in sizes]
rest = peak()
with torch.inference_mode():
    for _ in range(2):
        model(*data)
print(peak() - rest, least)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory figures")
@pytest.mark.parametrize("name", [*PRESETS, "centre", "spatial", "narrow"])
def test_the_least_budget_is_kept_at_full_width(name):
    # The least budgets make the thinnest strips, which take long of large images.
    words = [sys.executable, "-c", PEAK, name, "256" if name in ("released", "narrow") else "128"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=True)
    peak, least = map(float, done.stdout.split())
    assert peak <= least


def test_a_network_without_fourier_branch_needs_no_room_for_it():
    narrow = ModelConfig(feat_dim=32, guide_dim=32, mlp_widths=(64, 32), fourier_branch=False)
    # A forward without budget was seen to take 247 MiB.
    assert strips_within(250, narrow, (128, 128), (512, 512), 1)
    with pytest.raises(UserError, match="found 250, expected at least"):
        strips_within(250, replace(narrow, fourier_branch=True), (128, 128), (512, 512), 1)


def test_a_budget_that_cannot_be_met_names_the_least():
    with pytest.raises(
        UserError, match=r"memory_mib: found 100, expected at least \d+ for 1 image"
    ):
        strips_within(100, ModelConfig(), (128, 128), (512, 512), 1)
