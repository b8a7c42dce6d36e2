"""A headless Chromium, driven over its debugging port: what a reader of a page would see and can reach."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of one browser; ended with the `with` statement.

    Parameters
    ----------
    profile : Path
        An empty folder for what the browser writes.
    """

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        self._process = subprocess.Popen(
            [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0",
             "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self._number = itertools.count(1)
        try:
            self._connect(profile / "DevToolsActivePort")
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _connect(self, said: Path) -> None:
        for _ in range(600):
            if said.is_file() and len(said.read_text().splitlines()) == 2:
                break
            if self._process.poll() is not None:
                raise RuntimeError(f"chromium ended with {self._process.returncode}")
            time.sleep(0.1)
        port, path = said.read_text().splitlines()
        self._socket = socket.create_connection(("127.0.0.1", int(port)), timeout=120)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass
        target = self._ask("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._ask("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol to the page and return its result."""
        return self._ask(method, parameters, {"sessionId": self._session})

    def _ask(self, method: str, parameters: dict[str, Any], more: dict[str, str] | None = None) -> Any:
        number = next(self._number)
        text = json.dumps({"id": number, "method": method, "params": parameters} | (more or {})).encode()
        size = len(text)
        head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        head = head if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big")
        self._socket.sendall(b"\x81" + head + bytes(4) + text)  # masked with zeros
        while True:
            answer = self._receive()
            if answer.get("id") != number:
                self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            return answer["result"]

    def _receive(self) -> dict[str, Any]:
        message = b""
        while True:
            first, size = self._file.read(2)
            size &= 127
            if size >= 126:
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            message += self._file.read(size)
            if first & 0x80:
                return dict(json.loads(message))

    def open(self, file: Path, width: int = 1200, height: int = 900, theme: str = "light") -> None:
        """Show a file at a width, in a theme."""
        phone = width < 500
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url=file.as_uri())
        for _ in range(600):
            if self.js("document.readyState === 'complete' && location.href") == file.as_uri():
                return
            time.sleep(0.05)
        raise TimeoutError(str(file))

    def js(self, expression: str) -> Any:
        """Evaluate an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def key(self, name: str, code: int) -> None:
        """Press a key and let it go."""
        text = {"Enter": "\r", " ": " "}.get(name, "")
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, **more
            )

    def shot(self, path: Path, whole: bool = True) -> None:
        """Write a picture of the page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def problems(self) -> list[dict[str, Any]]:
        """What the page logged or threw, and what it loaded besides itself."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [e for e in self.events if e.get("method") in bad]

    def loaded(self) -> set[str]:
        """Addresses that the page asked for."""
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return {str(e["params"]["request"]["url"]) for e in sent}
