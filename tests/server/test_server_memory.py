"""Requests of every kind leave nothing behind; benchmarks/soak_server.py sends ten thousand of them."""

from __future__ import annotations

import gc
import json
import os
import socket
import threading
from pathlib import Path

import edgellm
from tests.helpers import tiny_model
from tests.helpers.server import Running, running

BODIES = [
    ("/v1/completions", {"prompt": "the cat", "max_tokens": 20, "stream": True}),
    ("/v1/completions", {"prompt": ["a", "b"], "n": 2, "max_tokens": 5, "logprobs": 3}),
    (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "the"}], "max_tokens": 9, "stream": True},
    ),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "the"}], "max_tokens": "x"}),
    ("/v1/completions", {"prompt": "a", "max_tokens": 8, "grammar": "root ::= [0-9]{1,6}"}),
    ("/v1/embeddings", {"input": ["the cat", "on the water"]}),
]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def send(server: Running, number: int) -> None:
    """One request; every seventh client goes before the answer has come."""
    path, body = BODIES[number % len(BODIES)]
    raw = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as own:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        own.sendall(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)
        if number % 7:
            while own.recv(65536):
                pass


def crowd(server: Running, count: int) -> int:
    """Send so many requests from eight threads; the memory afterwards."""

    def work(first: int) -> None:
        for number in range(first, count, 8):
            send(server, number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    server.log.clear()
    gc.collect()
    return resident_bytes()


def test_memory_returns_after_many_requests(tmp_path: Path) -> None:
    with edgellm.load(tiny_model.write(tmp_path / "tiny.gguf"), threads=1) as model, running(model) as server:
        crowd(server, 300)
        before = crowd(server, 300)
        after = crowd(server, 600)
        assert server.scheduler.stats().session_bytes == 0
    assert after - before < 3_000_000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edgellm-scheduler")]
