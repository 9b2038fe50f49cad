"""A stand-in for Ray and its Tune that executes trials in this process, one after another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from mhiflab.cluster.connect import usable_cpus
from mhiflab.cluster.fit import Node
from mhiflab.execute import job, search, sweep, trial


class Tuner:
    """What the laboratory uses of `ray.tune.Tuner`: grids of keys, searchers, callbacks, stops."""

    def __init__(
        self, function: Callable[..., None], param_space: dict, tune_config: Any, run_config: Any
    ) -> None:
        self.function, self.space = function, param_space
        self.tune, self.run = tune_config, run_config

    def fit(self) -> None:
        for number, config in enumerate(self._configs()):
            if self.run.stop.stop_all():
                return
            self._execute(f"trial{number}", config)

    def _configs(self) -> Iterator[dict]:
        searcher = self.tune.search_alg
        if searcher is None:
            yield from ({"key": key} for key in self.space["key"]["grid_search"])
            return
        for number in count():
            config = searcher.suggest(f"trial{number}")
            if config == searcher.FINISHED:
                return
            yield config

    def _execute(self, name: str, config: dict) -> None:
        run = SimpleNamespace(trial_id=name, config=config, last_result={})

        def report(metrics: dict) -> None:
            run.last_result = metrics
            for callback in self.run.callbacks:
                callback.on_trial_result(0, [run], run, metrics)

        STAND_IN.report = report
        self.function(config)
        for callback in self.run.callbacks:
            callback.on_trial_complete(0, [run], run)
        if self.tune.search_alg is not None:
            self.tune.search_alg.on_trial_complete(name, run.last_result)


STAND_IN = SimpleNamespace(
    Tuner=Tuner,
    with_resources=lambda function, resources: function,
    with_parameters=partial,
    grid_search=lambda values: {"grid_search": values},
    report=None,
)


@contextmanager
def this_machine(dashboard: bool = False) -> Iterator[list[Node]]:
    """Yield the node that a cluster of this machine would have."""
    yield [Node(name="here", cpus=max(2, usable_cpus()), gpus=0, id="0")]


def tune_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where trials are executed."""
    for module in (search, sweep, trial):
        monkeypatch.setattr(module, "tune", STAND_IN)
    monkeypatch.setattr(sweep, "connected", this_machine)
    monkeypatch.setattr(job, "share_scenes", lambda entries: {})
    monkeypatch.setattr(trial, "log_tail", lambda: "")
