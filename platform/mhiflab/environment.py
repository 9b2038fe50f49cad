"""Settings of every process (driver, trial, worker), made before libraries are imported."""

import ctypes
import logging
import os
import warnings
from contextlib import suppress

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # MLflow would print a server's address with every run, including its password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "RAY_AIR_NEW_OUTPUT": "0",
    # The controller's poll; with the default of 2 s, short trials mostly wait.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Schedulers read validation metrics, which some reports lack.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Tune's own handler waits for workers that the same Ctrl-C has already ended.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
"""Environment variables that turn off telemetry and chatter, and shorten polls."""


KEEP_MEMORY = "MHIFLAB_KEEP_MEMORY"
"""Environment variable of users: 0 returns freed memory to the system at once."""

MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    # Other arenas than the first cannot hold large arrays.
    "MALLOC_ARENA_MAX": "1",
}
"""Environment variables by which glibc keeps the memory of freed arrays for the next ones."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Options of glibc's mallopt."""


def keeps_memory() -> bool:
    """Return False if the user wants freed memory returned at once."""
    return os.environ.get(KEEP_MEMORY) != "0"


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker's process; glibc reads it when the process starts.

    What the user set of it for glibc is left out, so that it holds.
    """
    kept = {k: v for k, v in MALLOC.items() if k not in os.environ} if keeps_memory() else {}
    return ENVIRONMENT | kept


def forget_malloc() -> None:
    """Take `MALLOC` out of a worker's environment, which the programs it starts would inherit."""
    for key, value in MALLOC.items():
        if os.environ.get(key) == value:
            del os.environ[key]


def keep_memory() -> None:
    """Make glibc keep freed memory in this running process; do nothing on other systems.

    Otherwise the system takes back the memory of every large array and clears that of the next.
    """
    if keeps_memory():
        with suppress(OSError, AttributeError, TypeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def quieten() -> None:
    """Turn off the libraries' telemetry and chatter; our own output and errors stay."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")
