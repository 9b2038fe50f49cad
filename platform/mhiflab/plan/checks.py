"""Checks of trials and searches before they run: scenes, batch, memory and space must fit."""

from typing import Any

import numpy as np

from feinfn.config import ModelConfig
from feinfn.data.source import SceneSummary, Survey, check_fit, check_same_draw
from feinfn.errors import UserError, require
from feinfn.methods.configs import check_parts, response_to_meet
from feinfn.methods.feinfn.strips import strips_within
from mhiflab.plan.search import SearchPlan, with_values
from mhiflab.plan.suggest import text_of
from mhiflab.study.expand import Trial


def check_search(plan: SearchPlan) -> None:
    """Raise `UserError` if a corner of the space, or the scheduler, would stop a suggestion."""
    search, epochs = plan.search, plan.base.spec.train.epochs
    for values in search.corners():
        where = f"{plan.where}: search.space, at {text_of(values)}"
        try:
            check_trial(with_values(plan.base, values, where), plan.survey)
        except UserError as error:
            text = str(error)
            raise UserError(text if where in text else f"{where}: {text}") from None
    scheduler, place = search.scheduler, f"{plan.where}: search.scheduler"
    if not search.population:
        grace = scheduler.grace_epochs
        fits = scheduler.name == "none" or grace < epochs
        expected = f"less than train.epochs = {epochs}, because no trial is stopped otherwise"
        require(fits, f"{place}.grace_epochs", grace, expected)
        return
    train, interval = plan.base.spec.train, scheduler.interval_epochs
    expected = f"less than train.epochs = {epochs}, because no member is replaced otherwise"
    require(interval < epochs, f"{place}.interval_epochs", interval, expected)
    every = train.validate_every
    expected = f"a multiple of train.validate_every = {every}, because members are compared by "
    expected += "their validation"
    require(interval % every == 0, f"{place}.interval_epochs", interval, expected)
    changes = len(train.changes)
    require(not changes, f"{plan.where}: train.changes", changes, "none, because pbt makes them")


def check_trial(trial: Trial, data: Survey) -> None:
    """Raise `UserError` if scenes, batch or resources do not fit and would stop the trial later."""
    spec = trial.spec
    resources = trial.resources
    check_parts(spec.model, resources.memory_mib, resources.recompute, "resources.")
    for scene in data.scenes:
        check_fit(scene.source, scene.shape_SHW, spec.protocol, spec.model)
        if spec.protocol.srf != "measured" and spec.data.inputs != "stored":
            grid_nm = None if scene.wavelengths_nm is None else np.array(scene.wavelengths_nm)
            try:
                spec.protocol.response(scene.shape_SHW[0], grid_nm)
            except UserError as error:
                raise UserError(f"{scene.source}: {error}") from None
        if scene.part != "train":
            _check_evaluated(trial, scene)
    if spec.data.inputs == "stored":
        _check_stored(trial, data)
    _check_physics(trial, data)
    batch, workers = spec.train.batch_size, max(resources.workers, 1)
    if batch % workers:
        raise UserError(
            f"train.batch_size: found {batch}, expected a multiple of resources.workers = "
            f"{workers}, because all workers share every batch"
        )


def _check_evaluated(trial: Trial, scene: SceneSummary) -> None:
    """Raise `UserError` if a scene is too small to score, or too large for the memory."""
    spec, size = trial.spec, scene.fused_size()
    ratio = spec.protocol.ratio
    least = max(11, 2 * ratio) if scene.msi_size else 11
    if min(size) < least:
        raise UserError(
            f"data.{scene.part}: found {scene.name} of {size[0]}x{size[1]} pixels, expected at "
            f"least {least}x{least}, which the metrics need; take a larger scene or window"
        )
    if trial.resources.memory_mib is not None and isinstance(spec.model, ModelConfig):
        lr_size = size[0] // ratio, size[1] // ratio
        strips_within(trial.resources.memory_mib, spec.model, lr_size, size, 1)


def _check_stored(trial: Trial, data: Survey) -> None:
    """Raise `UserError` for settings that prepared files do not support."""
    train, protocol = trial.spec.train, trial.spec.protocol
    unsupported = {
        "train.augment": train.augment,
        "train.sampling: random": train.sampling == "random",
        "train.loss: relative": train.loss == "relative",
        "protocol.hsi_snr_db or msi_snr_db": protocol.noisy,
        "protocol.lr_bits or msi_bits": bool(protocol.lr_bits or protocol.msi_bits),
    }
    for field, is_set in unsupported.items():
        if is_set:
            raise UserError(
                f"{field}: found with data.inputs: stored, which takes inputs as they are; leave "
                "it out, or use data.inputs: patch"
            )
    shapes = {scene.shape_SHW[1:]: scene for scene in data.scenes if scene.part == "train"}
    if len(shapes) > 1:
        (size, scene), (other_size, other), *_ = shapes.items()
        raise UserError(
            f"data.train: found images of {size[0]}x{size[1]} in {scene.source} and of "
            f"{other_size[0]}x{other_size[1]} in {other.source}, expected one size, because they "
            "share batches; export them again with one --patch"
        )


def _check_physics(trial: Trial, data: Survey) -> None:
    """Raise `UserError` for a base or projection that the inputs do not support."""
    spec: Any = trial.spec
    if spec.trained and spec.model.base != "lms" and spec.data.inputs == "scene":
        check_same_draw(spec.protocol)
    response_to_meet(spec.model, spec.protocol, data.training_nm)
    if spec.model.consistency == "none" or spec.protocol.srf_by != "wavelength":
        return
    for scene in data.scenes:
        if spec.trained and scene.wavelengths_nm != data.training_nm:
            raise UserError(
                f"{scene.source}: found other band centres than those of the training, expected "
                f"the same with model.consistency {spec.model.consistency}, because the network "
                "projects with the response on the training's bands; leave it out, or use scenes "
                "of one sensor"
            )
