"""A Ray cluster of several nodes on one machine: each has its own network, and its own /tmp of Ray.

Needs root and `ip` (Linux). Every node is a `ray start --block` in a session of its own, so that a
node is killed by its process group and nothing else on the machine is touched.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent


def possible() -> bool:
    """Return whether this process may make network namespaces."""
    name = f"mh{secrets.token_hex(2)}"
    if os.geteuid() or not shutil.which("ip"):
        return False
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.returncode == 0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@dataclass
class Nodes:
    """A running cluster; node 0 is the head."""

    folder: Path
    cpus: int
    prefix: str = field(default_factory=lambda: f"mh{secrets.token_hex(2)}")
    third: int = field(default_factory=lambda: 1 + secrets.randbelow(250))
    processes: dict[int, subprocess.Popen] = field(default_factory=dict)
    # Short, because names of sockets must be; every node sees a folder of its own here.
    ray: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mh", dir="/tmp")))

    def address(self, number: int) -> str:
        """Return a node's address on the cluster's own network."""
        return f"10.213.{self.third}.{number + 1}"

    def network(self, count: int) -> None:
        """Make a bridge, and a namespace with one address on it for each node."""
        ip("link", "add", self.prefix, "type", "bridge")
        ip("link", "set", self.prefix, "up")
        for number in range(count):
            name, outside = f"{self.prefix}n{number}", f"{self.prefix}v{number}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", self.prefix, "up")
            ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "route", "add", "default", "dev", "eth0")

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of every process on the cluster."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY", "MLFLOW", "MHIF"))}
        return {
            **clean,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_TMPDIR": str(self.ray),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }

    def inside(self, number: int, *words: str) -> list[str]:
        """Return words that run a command on a node: its network, and its folder for Ray."""
        own = self.folder / f"node{number}"
        own.mkdir(exist_ok=True)
        script = f'mount --bind {own} {self.ray} && exec "$0" "$@"'
        within = ["ip", "netns", "exec", f"{self.prefix}n{number}", "unshare", "--mount"]
        return [*within, "sh", "-c", script, *words]

    def start(self, number: int, *options: str) -> None:
        """Start a node."""
        join = ["--head", "--port=6379", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"]
        if number:
            join = [f"--address={self.address(0)}:6379"]
        words = [str(BIN / "ray"), "start", "--block", *join, f"--num-cpus={self.cpus}"]
        words += [f"--node-ip-address={self.address(number)}", "--object-store-memory=200000000"]
        log = (self.folder / f"node{number}.log").open("w")
        self.processes[number] = subprocess.Popen(
            self.inside(number, *words, "--disable-usage-stats", *options),
            env=self.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def of_node(self, number: int) -> list[psutil.Process]:
        """Return every process that lives in a node's network."""
        done = subprocess.run(
            ["ip", "netns", "pids", f"{self.prefix}n{number}"],
            capture_output=True,
            text=True,
            check=True,
        )
        return [psutil.Process(int(p)) for p in done.stdout.split() if psutil.pid_exists(int(p))]

    def kill(self, number: int) -> list[str]:
        """End a node at once, raylet and workers, as a power cut would; return what was killed."""
        names = []
        for process in self.of_node(number):
            try:
                names.append(process.name())
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        return names

    def call(self, *words: str, node: int = 0, seconds: float = 300) -> subprocess.CompletedProcess:
        """Run a command on a node and return it ended."""
        return subprocess.run(
            self.inside(node, *words),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def remove(self, count: int) -> None:
        """End everything and take the networks away."""
        for number in range(count):
            self.kill(number)
        for process in self.processes.values():
            process.wait(timeout=30)
        for number in range(count):
            ip("netns", "del", f"{self.prefix}n{number}")
        ip("link", "del", self.prefix)
        self.ray.rmdir()


def wait_for(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when something holds; fail the test where it does not in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)


@contextmanager
def cluster(folder: Path, count: int = 3, cpus: int = 1) -> Iterator[Nodes]:
    """Yield a running cluster with token authentication, its dashboard on the head's loopback."""
    nodes = Nodes(folder, cpus)
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "token").chmod(0o600)
    script = (
        "import sys; from ray._raylet import GcsClient;"
        "sys.exit(len(GcsClient(address=sys.argv[1]).get_all_node_info()))"
    )

    def up() -> int:
        words = (sys.executable, "-c", script, f"{nodes.address(0)}:6379")
        try:
            return nodes.call(*words, seconds=5).returncode
        except subprocess.TimeoutExpired:
            return 0

    try:
        nodes.network(count)
        nodes.start(0)
        # A worker that asks before the head listens gives up.
        wait_for(lambda: up() == 1, 60, "head up")
        for number in range(1, count):
            nodes.start(number)
        wait_for(lambda: up() == count, 60, "all nodes up")
        yield nodes
    finally:
        nodes.remove(count)
