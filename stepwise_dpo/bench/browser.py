"""The real app in its own process and an installed Chromium: what the page's bench and the browser tests drive."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from stepwise_dpo.errors import RunError

START_SECONDS = 90
CHROMIUM_OPTIONS = ("--no-sandbox", "--disable-dev-shm-usage")
APP = Path(__file__).parents[2] / "app.py"

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
)


def find_chromium() -> str | None:
    """Find an installed browser; CHROME_PATH comes first.

    Raises:
        RunError: CHROME_PATH names no program.
    """
    if path := os.environ.get("CHROME_PATH"):
        if shutil.which(path) is None:
            raise RunError(f"CHROME_PATH must name a browser's program, not {path!r}")
        return path
    found = (shutil.which(name) for name in _NAMES)
    return next((path for path in (*found, *_PLACES) if path and Path(path).exists()), None)


class Server:
    """A web app in its own process.

    Args:
        script: the Python file to run; it is given `--port N` after the options.
        options: of the script.
        folder: the working directory, where nothing of ours lies: no app may depend on where it was started.
        log: takes the output.
        variables: of the environment, beside this process's own.
        port: where to listen; a free one by default.
    """

    def __init__(
        self,
        script: Path,
        options: Sequence[str] = (),
        *,
        folder: Path,
        log: Path,
        variables: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = port or free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        environment = {name: value for name, value in os.environ.items() if name != "SPACE_ID"} | dict(variables or {})
        self.started = time.perf_counter()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(script), "--port", str(self.port), *options],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def wait(self, path: str = "/gradio_api/info") -> float:
        """Wait until the app answers; by default with its own description, which comes after the port is open.

        Returns:
            seconds since the process was started.

        Raises:
            RunError: it ended, or didn't answer in time.
        """
        while time.perf_counter() - self.started < START_SECONDS and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                    answer.read()
                return time.perf_counter() - self.started
            except OSError:
                time.sleep(0.02)
        self.stop()
        text = self.log.read_text(errors="replace")[-2000:]
        raise RunError(f"the app did not answer within {START_SECONDS} s:\n{text}")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
