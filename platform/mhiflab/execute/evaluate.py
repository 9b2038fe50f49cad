"""Evaluation of a finished network: metrics, pictures, seconds and memory of its test images."""

import ctypes
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import feinfn.evaluation
import feinfn.metrics
import feinfn.protocols.filters
from feinfn.data.images import pseudo_rgb
from feinfn.data.pairs import Images, NamedInputs
from feinfn.errors import UserError
from feinfn.evaluation import Fuse, compare_image, evaluate_method
from feinfn.files import write_atomic
from feinfn.metrics.conventions import CONVENTIONS
from feinfn.metrics.evaluation import Comparison, left_out_words
from feinfn.metrics.label import CONVENTION, METRICS
from feinfn.metrics.no_reference import qnr
from mhiflab.record import artifacts

BAND_INDICES = ("psnr", "ssim", "rmse")
"""Indices that are recorded of every band."""

PARTS = ("scores", *BAND_INDICES, "error", "sam")
"""What is recorded of a fused image with a reference."""


@dataclass(frozen=True)
class Scores:
    """All numbers and pictures of a run's test images, from which tables and figures are made."""

    images: pd.DataFrame
    """One row per image, method and convention."""
    bands: pd.DataFrame
    """One row per image, method and band, in the default convention."""
    pictures: dict[str, np.ndarray]
    """`<image>/<method>/rgb`, `.../error` and `.../sam`; for the first image also its `window`."""
    effort: dict[str, float]
    """Mean seconds per fused image, and the largest peak of memory in MiB if it is known."""


def score_tests(
    fuse: Fuse,
    images: Images,
    cache: Path,
    on_image: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Fuse every image once; return its metrics in all conventions and per band, and pictures.

    The scores of upsampled images do not depend on the method, so `cache` keeps them. `on_image` is
    called with the number of images done after each.
    """
    protocol = images.protocol
    rows: list[dict[str, object]] = []
    bands: list[pd.DataFrame] = []
    pictures: dict[str, np.ndarray] = {}
    efforts: list[Effort] = []

    def measured(image: NamedInputs) -> Tensor:
        with measured_effort(image.inputs.lms_BSHW.device) as effort:
            fused_SHW = fuse(image)
        efforts.append(effort)
        return fused_SHW

    for one in evaluate_method(measured, images, ()):
        image, upsampled_SHW = one.image, one.image.inputs.lms_BSHW[0]
        if image.valid is not None:
            upsampled_SHW = torch.where(image.valid, upsampled_SHW, 0)
            indices = () if image.reference is None else METRICS
            print(f"{image.name}: {left_out_words(image.valid, indices)}", flush=True)
        if image.reference is not None:
            rgb = pseudo_rgb(image.reference.cpu().numpy(), image.wavelengths_nm)
            pictures[f"{image.name}/reference/rgb"] = rgb
        methods = {artifacts.FUSED: one.fused_SHW, artifacts.UPSAMPLED: upsampled_SHW}
        if not rows:
            pictures |= window(image, methods, protocol.ratio)
        parts = {
            artifacts.FUSED: _parts(one.comparison, protocol.ratio),
            artifacts.UPSAMPLED: _kept_parts(upsampled_SHW, image, protocol.ratio, cache),
        }
        for method, fused_SHW in methods.items():
            identity = {"scene": image.name, "method": method, "protocol": protocol.name}
            key = f"{image.name}/{method}"
            pictures[f"{key}/rgb"] = pseudo_rgb(fused_SHW.cpu().numpy(), image.wavelengths_nm)
            if image.reference is not None:
                for convention, values in zip(CONVENTIONS, parts[method]["scores"], strict=True):
                    scores = dict(zip(METRICS, values.tolist(), strict=True))
                    rows.append(identity | {"convention": convention, **scores})
                bands.append(_bands(parts[method], image).assign(**identity))
                pictures |= {f"{key}/{name}": parts[method][name] for name in ("error", "sam")}
            if image.measured_msi:
                rows.append(identity | _without_reference(fused_SHW, image, protocol.ratio))
        on_image(len(efforts))
    effort_values = {artifacts.FUSE_SECONDS: sum(one.seconds for one in efforts) / len(efforts)}
    peaks = [one.memory_mib for one in efforts if one.memory_mib is not None]
    if peaks:
        effort_values[artifacts.FUSE_MEMORY] = max(peaks)
    per_image = pd.DataFrame(rows)
    return Scores(per_image, pd.concat(bands) if bands else pd.DataFrame(), pictures, effort_values)


def window(image: NamedInputs, methods: dict[str, Tensor], ratio: int) -> dict[str, np.ndarray]:
    """Return the middle of an image with all bands, for spectra and figures of a network.

    Keys are `<image>/window/<part>`: `reference` and every method, uint16 [S, H, W] in steps of
    1 / `WINDOW_STEPS`; the inputs `msi` [M, H, W] and `lr_hsi` [S, h, w], float32, of the same
    place; `place`, its first row and column; and `wavelengths_nm` [S] if the scene has them. The
    reference is 0 where the methods' images are, which are not compared there.
    """
    lr_hsi_Shw, msi_MHW = image.inputs.lr_hsi_BShw[0], image.inputs.msi_BMHW[0]
    lr_sizes = [min(n, artifacts.WINDOW_PX // ratio) for n in lr_hsi_Shw.shape[1:]]
    lr_first = [(n - size) // 2 for n, size in zip(lr_hsi_Shw.shape[1:], lr_sizes, strict=True)]

    def cut(x_CHW: Tensor, scale: int) -> np.ndarray:
        (row, col), (height, width) = lr_first, lr_sizes
        rows = slice(row * scale, (row + height) * scale)
        columns = slice(col * scale, (col + width) * scale)
        return x_CHW[:, rows, columns].cpu().numpy()

    images = dict(methods)
    if (reference := image.reference) is not None:
        if image.valid is not None:
            reference = torch.where(image.valid, reference, 0)
        images = {"reference": reference, **methods}
    arrays = {
        name: np.rint(cut(x, ratio).clip(0, 1) * artifacts.WINDOW_STEPS).astype(np.uint16)
        for name, x in images.items()
    }
    arrays |= {"msi": cut(msi_MHW, ratio), "lr_hsi": cut(lr_hsi_Shw, 1)}
    arrays["place"] = np.array(lr_first) * ratio
    if image.wavelengths_nm is not None:
        arrays["wavelengths_nm"] = image.wavelengths_nm
    return {f"{image.name}/window/{part}": x for part, x in arrays.items()}


def _without_reference(fused_SHW: Tensor, image: NamedInputs, ratio: int) -> dict[str, object]:
    lr_hsi, msi = image.inputs.lr_hsi_BShw[0], image.inputs.msi_BMHW[0]
    # Blocks of 32 pixels, or as close to that as ratio and image allow.
    block = min(max(32, 2 * ratio), min(fused_SHW.shape[1:])) // ratio * ratio
    values = qnr(fused_SHW, lr_hsi, msi, block, image.valid)
    return {"convention": artifacts.WITHOUT_REFERENCE, **values}


def _parts(comparison: Comparison | None, ratio: int) -> dict[str, np.ndarray]:
    """Return all that is recorded of a fused image with a reference; nothing without one.

    It is `scores` [conventions, metrics], the indices of every band [S], and `error` and `sam`,
    [H, W] float16.
    """
    if comparison is None:
        return {}
    scores = [list(comparison.evaluate(ratio, name).values()) for name in CONVENTIONS]
    error_maps = comparison.maps()
    maps = {"error": error_maps["error"], "sam": error_maps["sam_deg"]}
    return {
        "scores": np.array(scores),
        **{name: x.cpu().numpy() for name, x in comparison.per_band(indices=BAND_INDICES).items()},
        **{name: x.cpu().numpy().astype(np.float16) for name, x in maps.items()},
    }


def _kept_parts(
    upsampled_SHW: Tensor, image: NamedInputs, ratio: int, cache: Path
) -> dict[str, np.ndarray]:
    """Return the result of `_parts`, from a file if an earlier trial wrote it and it is whole."""
    if image.reference is None:
        return {}
    file = cache / f"{_content(upsampled_SHW, image, ratio)}.npz"
    # A missing or damaged file, and one that cannot be written, cost time alone.
    with suppress(OSError, EOFError, ValueError, KeyError, BadZipFile), np.load(file) as stored:
        return {name: stored[name] for name in PARTS}
    parts = _parts(compare_image(upsampled_SHW, image), ratio)

    def write(path: Path) -> None:
        with path.open("wb") as out:
            np.savez(out, **parts)  # type: ignore[arg-type]

    with suppress(UserError):
        write_atomic(file, write)
    return parts


def _content(upsampled_SHW: Tensor, image: NamedInputs, ratio: int) -> str:
    """Return a hash of all that determines the scores of an upsampled image, to the last bit."""
    tensors = [x for x in (upsampled_SHW, image.reference, image.valid) if x is not None]
    facts = [(x.shape, x.dtype, x.device.type) for x in tensors]
    device = upsampled_SHW.device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    machine = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability(), gpu
    digest = hashlib.sha256(repr((facts, ratio, torch.__version__, machine)).encode())
    modules = feinfn.evaluation.__file__, feinfn.protocols.filters.__file__, __file__
    metrics = Path(feinfn.metrics.__file__).parent.glob("*.py")
    for source in (*sorted(metrics), *map(Path, modules)):
        digest.update(source.read_bytes())
    for x in tensors:
        digest.update(np.ascontiguousarray(x.cpu().numpy()).data)
    return digest.hexdigest()


def _bands(parts: dict[str, np.ndarray], image: NamedInputs) -> pd.DataFrame:
    table = pd.DataFrame({name: parts[name] for name in BAND_INDICES})
    table.insert(0, "band", range(1, len(table) + 1))
    nm = np.nan if image.wavelengths_nm is None else image.wavelengths_nm
    return table.assign(wavelength_nm=nm, convention=CONVENTION)


@dataclass
class Effort:
    """Seconds and memory of one piece of work, filled in when it ends."""

    seconds: float = 0.0
    memory_mib: float | None = None
    """Peak above the memory held before; None if the system does not report it."""


@contextmanager
def measured_effort(device: torch.device) -> Iterator[Effort]:
    """Measure the work inside this block; memory is the GPU's on a GPU, else the process's."""
    effort = Effort()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if cuda else _restart_peak()
    started = time.perf_counter()
    yield effort
    if cuda:
        torch.cuda.synchronize(device)
    effort.seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) if cuda else _status_bytes("VmHWM:")
    if before is not None and peak is not None:
        effort.memory_mib = (peak - before) / 2**20


def _restart_peak() -> int | None:
    """Reset this process's peak memory; return the bytes it holds now, None without Linux."""
    with suppress(OSError, AttributeError):
        # Memory that training freed but the process still holds would hide the next peak.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _status_bytes("VmRSS:")
    return None


def _status_bytes(field: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None
