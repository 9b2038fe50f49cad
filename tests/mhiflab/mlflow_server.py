"""Real MLflow servers on loopback, of records or of a model, that can be killed and come back."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

ANSWER_S = 200


def lasting_port() -> int:
    """Return a free port which no system gives to who asks for any, as Ray's processes do.

    It must be free again whenever the server starts anew. Linux gives ports from 32768 on, others
    from 49152; Ray's workers have 10002 to 19999.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Server:
    """A server whose database, artifacts and log lie in a folder; its port stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = lasting_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def words(self) -> list[str]:
        words = ["server", "--serve-artifacts"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        return [*words, "--artifacts-destination", str(self.folder / "artifacts")]

    def start(self) -> None:
        words = [sys.executable, "-m", "mlflow", *self.words()]
        words += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        # MLflow starts its server by name, as from an activated environment.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PATH": path},
            )
        end = time.monotonic() + ANSWER_S
        while not self.answers():
            assert time.monotonic() < end, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=20) as reply:
                return reply.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class ModelServer(Server):
    """A server of the model in `folder`/model, as `mlflow models serve` starts it."""

    def words(self) -> list[str]:
        return [
            "models",
            "serve",
            "--model-uri",
            str(self.folder / "model"),
            "--env-manager",
            "local",
        ]
