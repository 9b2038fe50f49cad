"""A fix for Ray Train: free what a group holds if a worker dies just before training starts."""

from typing import Any

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback


class FreeUnlaunched(WorkerGroupCallback, ControllerCallback):
    """A callback that frees a worker group that started but whose training did not.

    If a worker dies in between, Ray forgets the group together with its CPUs and GPUs, and the next
    group waits for them until the job ends.
    """

    def __init__(self) -> None:
        self.unlaunched: Any = None

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Remember the group and what it holds."""
        self.unlaunched = worker_group.get_worker_group_state()

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        """Forget the group: Ray manages it from here on."""
        self.unlaunched = None

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """End the remaining workers and free their resources."""
        if self.unlaunched is not None:
            self.unlaunched.shutdown()
            self.unlaunched = None
