"""A headless Chromium that opens one page without any network, driven over its DevTools pipe."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import F_DUPFD_CLOEXEC, fcntl
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
SWITCHES = [
    "--headless=new",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
    "--window-size=1280,1000",
]
PLACE = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
"""Starts Chromium, which reads descriptor 3 and writes descriptor 4."""
KEYS = {"ArrowRight": 39, "ArrowDown": 40}
ANSWER_S = 60.0
"""Longest wait for an answer: the machine may be at work on other tests."""


class Page:
    """One tab; its messages are JSON that ends with a zero byte."""

    def __init__(self, write_fd: int, read_fd: int) -> None:
        """Open an empty tab and listen to what it asks the network for."""
        self._write_fd, self._read_fd, self._buffer, self._count = write_fd, read_fd, b"", 0
        self._session: dict[str, str] = {}
        self.requests: list[str] = []
        self._loaded: set[str] = set()
        """What has been loaded in this tab; its first, empty page may say so late."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Performance.enable", timeDomain="threadTicks")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command; events that come before it are taken note of."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params, **self._session}
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _note(self, event: dict[str, Any]) -> None:
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])
        if event["method"] == "Page.lifecycleEvent" and event["params"]["name"] == "load":
            self._loaded.add(event["params"]["loaderId"])

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + ANSWER_S
        while b"\0" not in self._buffer:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._read_fd], [], [], left)[0]:
                raise TimeoutError(f"no answer from Chromium in {ANSWER_S:.0f} s")
            received = os.read(self._read_fd, 2**20)
            if not received:
                raise RuntimeError("Chromium ended")
            self._buffer += received
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until it is there; what scrolls is there at once."""
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.call("Emulation.setEmulatedMedia", features=[still])
        self.requests = []
        loader = self.call("Page.navigate", url=path.resolve().as_uri() + fragment)["loaderId"]
        while loader not in self._loaded:
            self._note(self._next())

    def ask(self, expression: str) -> Any:
        """Return the value of an expression, which may be a promise, in the page."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def work_s(self) -> float:
        """Return the processor time of the tab's main thread so far, in seconds."""
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    def click(self, selector: str, x_share: float, y_share: float) -> None:
        """Press and release the mouse at a place within an element."""
        place = self.ask(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            "one.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const {left, top, width, height} = one.getBoundingClientRect();"
            "return [left, top, width, height]; })()"
        )
        point = {"x": place[0] + x_share * place[2], "y": place[1] + y_share * place[3]}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **point)

    def press(self, key: str) -> None:
        """Press and release one of `KEYS`."""
        for kind in ("rawKeyDown", "keyUp"):
            known = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            self.call("Input.dispatchKeyEvent", type=kind, **known)

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = {}
        self.call("Browser.close")


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe, beyond the descriptors that Chromium wants."""
    ends = os.pipe()
    high = fcntl(ends[0], F_DUPFD_CLOEXEC, 10), fcntl(ends[1], F_DUPFD_CLOEXEC, 10)
    for end in ends:
        os.close(end)
    return high


@contextmanager
def chromium(profile: Path, *more: str) -> Iterator[Page]:
    """Yield the tab of a browser with a new profile."""
    assert CHROMIUM, "asked for only where Chromium is"
    (theirs_read, ours_write), (ours_read, theirs_write) = _pipe(), _pipe()
    words = [sys.executable, "-c", PLACE, str(theirs_read), str(theirs_write), CHROMIUM]
    words += [*SWITCHES, f"--user-data-dir={profile}", *more]
    # Its sandbox refuses to work for root.
    words += ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = subprocess.Popen(
        words,
        pass_fds=(theirs_read, theirs_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_read)
    os.close(theirs_write)
    try:
        page = Page(ours_write, ours_read)
        yield page
        page.close()
        browser.wait(ANSWER_S)
    finally:
        browser.kill()
        browser.wait()
        os.close(ours_write)
        os.close(ours_read)
