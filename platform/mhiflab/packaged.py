"""The address that recorded models name as their loader; it never moves."""

from mhiflab.execute.packaged import _load_pyfunc as _load_pyfunc
