"""The network under torch.compile: one graph, no recompilation, the same results."""

import shutil

import pytest
import torch
from test_variants import build, inputs


def steps(run, model, data, count=3):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    outputs = []
    for _ in range(count):
        out = run(*data)
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        outputs.append(out.detach())
    return outputs


# What PyTorch's own compiler says of itself.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_compiled_training_is_one_graph_and_equal():
    # Without a C++ compiler, what torch.compile makes for a processor cannot be built.
    compiler = shutil.which("g++") or shutil.which("clang++")
    backend = "inductor" if compiler else "aot_eager"
    data = inputs(batch=2)
    model, eager = build(), build()
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        run = torch.compile(model, fullgraph=True, dynamic=False, backend=backend)
        compiled = steps(run, model, data)
    for a, b in zip(compiled, steps(eager, eager, data), strict=True):
        assert (a - b).abs().max() < 1e-4


def test_every_size_compiles_to_one_graph():
    model = build()
    torch._dynamo.reset()
    run = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    for size in ((16, 16), (12, 20), (16, 16)):
        data = inputs(hr=size)
        assert (run(*data) - model(*data)).abs().max() < 1e-5
