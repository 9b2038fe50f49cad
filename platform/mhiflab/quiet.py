"""Settings of the libraries below us that must be made before they are imported."""

import logging
import os
import warnings

from mhiflab.environment import ENVIRONMENT


def quieten() -> None:
    """Turn telemetry and chatter off; our own output and errors stay."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in ("alembic", "mlflow", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="ray")
