"""FeINFN, hyperspectral image fusion: the network, its data, protocols, metrics and training.

Needs torch, numpy, h5py and safetensors only; the laboratory around it is `mhiflab`.
"""

__version__ = "0.1.0"
