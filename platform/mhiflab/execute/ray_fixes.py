"""What Ray Train leaves behind when a worker dies in the moment that training is handed out."""

from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback


class FreeUnlaunched(WorkerGroupCallback, ControllerCallback):
    """Frees a group whose worker died after the group had started and before its training had.

    Ray forgets such a group together with the CPUs and GPUs it holds, and the next group waits for
    them until the job's end.
    """

    def __init__(self) -> None:
        self.unlaunched: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember what the group holds."""
        self.unlaunched = worker_group.get_worker_group_state()

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Leave it to Ray, which knows the group from here on."""
        self.unlaunched = None

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """End the workers that are left, and give back what they were placed on."""
        if self.unlaunched is not None:
            self.unlaunched.shutdown()
            self.unlaunched = None
