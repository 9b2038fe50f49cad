"""Settings of every process (driver, trial, worker), made before libraries are imported."""

import logging
import os
import warnings

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


def quieten() -> None:
    """Turn off the libraries' telemetry and chatter; our own output and errors stay."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")
