"""Start Ray as the laboratory does, and run an empty Tune function, perhaps with Train workers.

    python experiments/bench/ray_floor.py WORKERS FOLDER

No trial can start sooner: nothing is planned, trained or recorded here.
"""

import sys

from ray import tune
from ray.train import RunConfig, ScalingConfig

from mhiflab.cluster.connect import connected
from mhiflab.environment import quieten


def main(workers: int, folder: str) -> None:
    """Run the function once; Ray writes into a folder."""

    def trial(config: dict) -> None:
        if workers:
            from ray.train.torch import TorchTrainer

            TorchTrainer(
                lambda: None,
                scaling_config=ScalingConfig(num_workers=workers),
                run_config=RunConfig(storage_path=folder),
            ).fit()
        tune.report({"done": 1})

    request = tune.PlacementGroupFactory([{"CPU": 0.0001 if workers else 1}])
    quieten()
    with connected():
        tune.Tuner(
            tune.with_resources(trial, request),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
