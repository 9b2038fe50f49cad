"""The public names of the science."""

import subprocess
import sys

import pytest

import feinfn


@pytest.mark.parametrize("name", feinfn.__all__)
def test_every_public_name_is_what_its_module_holds(name):
    value = getattr(feinfn, name)
    assert value is getattr(sys.modules[feinfn._MODULES[name]], name)
    assert name in dir(feinfn)


def test_table_and_list_of_names_agree():
    assert set(feinfn._MODULES) == set(feinfn.__all__)


def test_import_alone_loads_nothing():
    code = """
import sys, feinfn
print(*sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'numpy', 'scipy', 'h5py'}))
print(*(name for name in sys.modules if name.startswith('feinfn.')))
feinfn.ModelConfig(), feinfn.UserError, dir(feinfn)
print('torch' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["", "", "False"]


def test_unknown_name_is_an_error_that_names_the_package():
    with pytest.raises(AttributeError, match="module 'feinfn' has no attribute 'fuse_file'"):
        feinfn.fuse_file  # noqa: B018
    with pytest.raises(ImportError, match="'fuse_file' from 'feinfn'"):
        from feinfn import fuse_file  # noqa: F401
