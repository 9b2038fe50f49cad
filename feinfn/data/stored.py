"""Prepared files as they are: stored inputs and references, nothing simulated."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from feinfn.config import Bands, DataConfig
from feinfn.data.readers.prepared import Prepared, read_prepared
from feinfn.errors import UserError
from feinfn.protocols.simulate import Pair, Protocol


def prepared_file(data: DataConfig, name: str) -> Prepared:
    """Return the prepared file `<source>/<name>.h5`, checked and unread; raise `UserError`."""
    return read_prepared(Path(data.source) / f"{name}.h5")


class StoredPairs(Sequence[Pair]):
    """Every image of some prepared files, read one by one; serves as patches and as scenes."""

    def __init__(
        self,
        files: Sequence[Prepared],
        protocol: Protocol,
        model: Bands,
        device: torch.device,
    ) -> None:
        """Raise `UserError` for files whose ratio or bands do not fit protocol and model."""
        self.files, self.ratio, self.device = files, protocol.ratio, device
        for file in files:
            found = (file.ratio, file.shape_SHW[0], file.msi_bands)
            expected = (protocol.ratio, model.hsi_bands, model.msi_bands)
            if found != expected:
                raise UserError(
                    f"{file.path}: found ratio {found[0]}, {found[1]} bands and {found[2]} MSI "
                    f"bands, expected {expected[0]}, {expected[1]} and {expected[2]} as protocol "
                    f"{protocol.name} and model say; choose other files or change these"
                )
        self.images = [(file, i) for file in files for i in range(file.count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self.batch([index])

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def names(self) -> list[str]:
        """Return a name for every image: its file's, with a number where that holds several."""
        return [
            file.path.stem if file.count == 1 else f"{file.path.stem}_{i:05d}"
            for file, i in self.images
        ]

    def windows(self, seed: int, epoch: int) -> Sequence[int]:
        """Return the images of an epoch: all of them."""
        return range(len(self))

    def batch(self, indices: Sequence[int]) -> Pair:
        """Return the images with these indices as one batch; they must have one size."""
        items = []
        for index in indices:
            file, image = self.images[index]
            stored = file.pair(image)
            reference = file.scene(image).cube()
            items.append((stored.msi_MHW, stored.lms_SHW, stored.lr_hsi_Shw, reference))
        arrays = (np.stack(parts) for parts in zip(*items, strict=True))
        return Pair(*(torch.from_numpy(array).to(self.device) for array in arrays))
