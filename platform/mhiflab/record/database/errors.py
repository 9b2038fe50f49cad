"""Errors of a store as sentences for people: refusals, outages and missing rights."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from feinfn.errors import UserError

REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
REFUSED_STATUS = {400, 413, 414, 422, 431}
"""MLflow's codes, and HTTP's, for requests that are never taken, such as a changed parameter."""

DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
"""MLflow's codes for missing rights."""


def without_passwords(text: str) -> str:
    """Return a URI, or a text that holds one, with `***` in place of passwords."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&\s]*", r"\1***", text)


def is_refusal(error: BaseException) -> bool:
    """Return True if a store answered that it will never take a request."""
    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    # Artifacts are sent with `requests`, whose errors hold the server's response.
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in REFUSED_STATUS


def explain(uri: str, error: BaseException) -> str:
    """Return one sentence: why a store failed, and what to do; without passwords."""
    safe_uri = without_passwords(uri)
    lines = without_passwords(str(error).replace(uri, safe_uri)).strip().splitlines() or [""]
    reason = lines[0][:200] or type(error).__name__
    where = f"MLflow store {safe_uri}"
    if isinstance(error, ModuleNotFoundError):
        return f"{where}: {reason}; for PostgreSQL: pip install 'mhiflab[postgres]'"
    if is_refusal(error):
        return f"{where}: refused what was asked of it ({reason})"
    status = getattr(getattr(error, "response", None), "status_code", None)
    code = getattr(error, "error_code", "")
    if code in DENIED or status in (401, 403):
        return (
            f"{where}: denied access ({reason}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if code == "RESOURCE_DOES_NOT_EXIST":
        return f"{where}: what was asked for does not exist there ({reason})"
    if uri.startswith("sqlite"):
        return (
            f"{where}: cannot be read or written ({reason}); check that its folder may be written "
            "to and has disk space, or name another place with --lab or MLFLOW_TRACKING_URI"
        )
    return (
        f"{where}: cannot be reached or written ({reason}); check MLFLOW_TRACKING_URI and that "
        "the server runs and has disk space, or unset it to use a local file"
    )


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn a store's errors into one `UserError`, which tells an outage from a refusal."""
    try:
        yield
    except (MlflowException, OSError, SQLAlchemyError, sqlite3.Error, ModuleNotFoundError) as error:
        raise UserError(explain(uri, error)) from None
