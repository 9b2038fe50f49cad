"""Loader module that recorded models name; it must keep this name."""

from mhiflab.execute.packaged import _load_pyfunc as _load_pyfunc
