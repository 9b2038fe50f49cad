"""What a trial is told: its spec, what it runs on, and where its record goes."""

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
    """Everything a trial needs, on whatever machine it runs."""

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
    """Expected wall time, as the plan said it."""
    note: str = ""
    """The run's description, in Markdown."""
    avoid: tuple[str, ...] = ()
    """Ids of nodes that its workers stay away from."""
    until: int | None = None
    """Epochs after which its training pauses, with its state saved; None: it is finished."""
    test: bool = True
    """Open the test scenes once training has ended; a search leaves them closed."""
    shared: dict[str, Any] = field(default_factory=dict)
    """Scenes for training and choosing by name, as references to Ray's object store."""

    def scenes(self, names: tuple[str, ...]) -> list[Scene]:
        """Return scenes without a copy where the driver shared them, else from their source."""
        found = []
        for name in names:
            if name in self.shared:
                import ray

                found.append(ray.get(self.shared[name]))
            else:
                found.append(self._unchanged(load_scene(self.spec.data, name)))
        return found

    def _unchanged(self, scene: Scene) -> Scene:
        """Return the scene; raise `UserError` if its pixels are not those of the run's identity."""
        known = {one.name: one.content for one in self.survey.scenes}
        if scene.pixel_hash() != known[scene.name]:
            raise UserError(
                f"{scene.source}: the pixels of {scene.name} changed since the run was planned; "
                "bring the file back, or plan and run again with the new one"
            )
        return scene

    @property
    def pauses(self) -> bool:
        """Whether it is paused before its last epoch."""
        return self.until is not None and self.until < self.spec.train.epochs

    def record(self) -> Record:
        """Open this trial's run; its store need not answer."""
        tags = {
            STUDY: self.study,
            CASE: self.case,
            "mhiflab.label": self.label,
            SEED: str(self.spec.seed),
            NOTE: self.note,
        }
        name = f"{self.label} seed {self.spec.seed}"
        return trial_record(self.lab, self.uri, self.key, name, self.parent, tags)
