"""Settings of every process (driver, trials, workers), made before libraries are imported."""

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # It would print a server's address with every run, and a password in it.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_AIR_NEW_OUTPUT": "0",
    # The controller's poll; at its default of 2 s short trials mostly wait.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Schedulers look at validation metrics, which not every report carries.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Tune's own handler waits for workers that the same Ctrl-C has ended already.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""No telemetry, no chatter, short polls."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look seldom for garbage while libraries and records are read.

    They are a million objects that stay, and looking through them again and again took a quarter of
    the time of a command. Only there: Ray frees the processes of a trial that was stopped when
    their last, often circular, reference is collected.
    """
    usual = gc.get_threshold()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def quieten() -> None:
    """Turn telemetry and chatter off; our own output and errors stay."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")
