"""A fused image as a file, and a picture of it beside its inputs."""

from importlib.metadata import version
from pathlib import Path

import numpy as np

from feinfn.data.images import Image, write_image
from feinfn.files import write_atomic
from feinfn.inference.apply import Trained
from feinfn.inference.inputs import FusionImages
from mhiflab.render.figures.images.quicklook import quick_look
from mhiflab.render.figures.style import png


def write_fusion(
    path: Path,
    fused_SHW: np.ndarray,
    images: FusionImages,
    trained: Trained,
    run_key: str,
) -> Path:
    """Write the fused image and a picture of it beside its inputs; return the picture's path."""
    protocol = trained.protocol
    origin = {
        "run_key": run_key,
        "weights_sha256": trained.weights_sha256,
        "protocol": protocol.name if protocol else "",
        "upsampling": trained.upsampling,
        "mhiflab_version": version("mhiflab"),
    }
    origin = {name: text for name, text in origin.items() if text}
    order = protocol.msi_order if protocol else ()
    nm = images.hsi.wavelengths_nm
    reference_SHW = images.reference.values_SHW if images.reference else None
    look = quick_look(
        images.hsi.values_SHW, images.msi.values_SHW, fused_SHW, nm, order, reference_SHW
    )
    picture, drawn = path.with_suffix(".png"), png(look)

    def write_both(partial: Path) -> None:
        partial.write_bytes(drawn)
        write_image(path, Image(fused_SHW, nm), "fused", origin)

    # Both take their names last, one right after the other, so that a cut leaves none of them.
    write_atomic(picture, write_both)
    return picture
