"""Real MLflow servers on loopback, of records or of a model, that can be killed and come back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ANSWER_S = 90


class Server:
    """A server whose database, artifacts and log lie in a folder; its port stays the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
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
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
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
