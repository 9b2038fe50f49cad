"""Jobs: the spec, resources and record of one trial, ready to travel to a worker."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.scene import Scene
from feinfn.data.source import Survey, load_scene
from feinfn.errors import UserError
from mhiflab.cluster.code import code_provenance
from mhiflab.paths import Lab, nearest_existing
from mhiflab.plan.forecast import Forecast, Work
from mhiflab.plan.plan import Entry, Plan
from mhiflab.record import tag
from mhiflab.record.store import Store
from mhiflab.record.studies import trial_note
from mhiflab.record.writer import Record, trial_record
from mhiflab.study.schema import Retry
from mhiflab.study.spec import Resources, Spec

ROOM_FOR_TRIAL = 72
"""Bytes of disk per parameter of a trial: two states with both Adam moments, average and best
weights, a third one while another is replaced, and three files of the best weights."""

ROOM_FOR_STUDY = 200 * 2**20
"""Bytes of disk for the record and Ray's session."""


@dataclass(frozen=True)
class Job:
    """Everything that a trial needs on the machine where it runs."""

    spec: Spec
    resources: Resources
    survey: Survey
    key: str
    case: str
    label: str
    study: str
    parent: str
    lab: Lab
    uri: str
    scratch: Path
    code: dict[str, Any]
    retry: Retry = field(default_factory=Retry)
    forecast_s: float | None = None
    """Wall time that the plan expected."""
    note: str = ""
    """The run's description, in Markdown."""
    avoid: tuple[str, ...] = ()
    """Ids of nodes that its workers must not use."""
    until: int | None = None
    """Epochs after which its training pauses with its state saved; None: never."""
    test: bool = True
    """Evaluate the test scenes after training; a search leaves them closed."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Training and validation scenes by name, as references to Ray's object store."""

    def scenes(self, names: tuple[str, ...]) -> list[Scene]:
        """Return scenes by name: from shared memory if the driver put them there, else read.

        Raise `UserError` if the pixels of one are not those of the run's identity.
        """
        planned_hashes, scenes = {one.name: one.content for one in self.survey.scenes}, []
        for name in names:
            if name in self.shared:
                import ray

                scenes.append(ray.get(self.shared[name]))
                continue
            scene = load_scene(self.spec.data, name)
            if scene.pixel_hash() != planned_hashes[name]:
                raise UserError(
                    f"{scene.source}: the pixels of {name} changed since the run was planned; "
                    "bring the file back, or plan and run again with the new one"
                )
            scenes.append(scene)
        return scenes

    @property
    def pauses(self) -> bool:
        """True if its training pauses before the last epoch."""
        return self.until is not None and self.until < self.spec.train.epochs

    @property
    def work(self) -> Work:
        """Its computations, for forecasts."""
        return Work(self.spec, self.resources, self.survey)

    def record(self) -> Record:
        """Open this trial's run; its store may be away."""
        tags = {
            tag.STUDY: self.study,
            tag.CASE: self.case,
            tag.LABEL: self.label,
            tag.SEED: str(self.spec.seed),
            tag.NOTE: self.note,
        }
        name = f"{self.label} seed {self.spec.seed}"
        return trial_record(self.lab, self.uri, self.key, name, self.parent, tags)


def make_jobs(
    plan: Plan,
    entries: Sequence[Entry],
    forecast: Forecast,
    parent: str,
    store: Store,
    lab: Lab,
    scratch: Path,
) -> dict[str, Job]:
    """Return the job of every trial by run key."""
    shared = share_scenes(entries)
    code, lab = code_provenance(), replace(lab, root=lab.root.resolve())
    jobs = {}
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        jobs[entry.key] = Job(
            spec=entry.trial.spec,
            resources=entry.trial.resources,
            survey=entry.survey,
            key=entry.key,
            case=entry.trial.case,
            label=entry.trial.label,
            study=plan.name,
            parent=parent,
            lab=lab,
            uri=store.uri,
            scratch=scratch,
            code=code,
            retry=plan.study.retry,
            forecast_s=forecast.seconds.get(entry.key),
            note=trial_note(plan.study, entry.trial.label, entry.trial.spec, str(plan.path)),
            shared=shared.get(entry.trial.spec.data, {}),
        )
    return jobs


def share_scenes(entries: Sequence[Entry]) -> dict[DataConfig, dict[str, Any]]:
    """Put every training and validation scene into Ray's object store once.

    Workers read them in place: one copy per node for all trials. Test scenes are left out, because
    a trial opens them itself after its training.
    """
    import ray

    shared: dict[DataConfig, dict[str, Any]] = {}
    refs: dict[tuple[str, str], Any] = {}
    for data in dict.fromkeys(entry.trial.spec.data for entry in entries):
        names = (*data.train, *data.validation) if data.inputs != "stored" else ()
        for name in names:
            if (data.source, name) not in refs:
                refs[data.source, name] = ray.put(load_scene(data, name))
        shared[data] = {name: refs[data.source, name] for name in names}
    return shared


def check_disk(entries: Sequence[Entry], lab: Lab) -> None:
    """Raise `UserError` if the lab folder's disk is too small for the files of these trials."""
    # Not above: whoever only makes jobs needs no torch.
    from feinfn.methods.cost import parameters_of

    sizes = [parameters_of(e.trial.spec.model) for e in entries]
    need = ROOM_FOR_STUDY + ROOM_FOR_TRIAL * sum(sizes)
    free = shutil.disk_usage(nearest_existing(lab.root)).free
    if free < need:
        raise UserError(
            f"{lab.root}: {free / 2**20:.0f} MiB free on this disk, expected at least "
            f"{need / 2**20:.0f} MiB for {len(entries)} trials; free some space or choose "
            "another folder with --lab"
        )
