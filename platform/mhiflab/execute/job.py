"""Jobs: the spec, resources and record of one trial, ready to travel to a worker."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from feinfn.data.scene import Scene
from feinfn.data.source import Survey, load_scene
from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.store import CASE, NOTE, SEED, STUDY
from mhiflab.record.writer import Record, trial_record
from mhiflab.study.schema import Retry
from mhiflab.study.spec import Resources, Spec


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
        """Return scenes by name: from shared memory if the driver put them there, else read."""
        scenes = []
        for name in names:
            if name in self.shared:
                import ray

                scenes.append(ray.get(self.shared[name]))
            else:
                scenes.append(self._unchanged(load_scene(self.spec.data, name)))
        return scenes

    def _unchanged(self, scene: Scene) -> Scene:
        """Return the scene; raise `UserError` if its pixels are not those of the run's identity."""
        planned_hashes = {one.name: one.content for one in self.survey.scenes}
        if scene.pixel_hash() != planned_hashes[scene.name]:
            raise UserError(
                f"{scene.source}: the pixels of {scene.name} changed since the run was planned; "
                "bring the file back, or plan and run again with the new one"
            )
        return scene

    @property
    def pauses(self) -> bool:
        """True if its training pauses before the last epoch."""
        return self.until is not None and self.until < self.spec.train.epochs

    def record(self) -> Record:
        """Open this trial's run; its store may be away."""
        tags = {
            STUDY: self.study,
            CASE: self.case,
            "mhiflab.label": self.label,
            SEED: str(self.spec.seed),
            NOTE: self.note,
        }
        name = f"{self.label} seed {self.spec.seed}"
        return trial_record(self.lab, self.uri, self.key, name, self.parent, tags)
