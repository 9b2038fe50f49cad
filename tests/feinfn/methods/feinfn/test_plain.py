"""Our forward against the plain transcription that benchmarks compare with."""

import pytest
import torch
from plain import PlainFeINFN, plain_loss

from feinfn.config import ModelConfig, TrainConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.training.losses import training_loss


@pytest.mark.parametrize(("lr", "hr"), [((8, 8), (32, 32)), ((4, 8), (32, 32)), ((8, 4), (16, 16))])
def test_plain_transcription_computes_the_same_function(lr, hr):
    torch.manual_seed(0)
    small = {"feat_dim": 8, "guide_dim": 8, "mlp_widths": (16, 8), "decoder_width": 16}
    model = FeINFN(ModelConfig(hsi_bands=7, omega_0=5, scale_0=1, **small)).double()
    data = [torch.rand(2, c, *s, dtype=torch.float64) for c, s in ((3, hr), (7, hr), (7, lr))]
    reference = torch.rand(2, 7, *hr, dtype=torch.float64)
    ours, plain = model(*data), PlainFeINFN(model)(*data)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-7)
    a, b = training_loss(TrainConfig(), ours, reference), plain_loss(plain, reference)
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
