"""Memory of `edgellm serve` over thousands of requests of every kind, those that break off included.

    .venv/bin/python benchmarks/soak_server.py --requests 10000

The model is random and tiny, so that requests are what is measured. Prints the server's resident memory after
each tenth; fails if the last half grows by more than `--most-mb`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgellm.conversion.sample import write

CLIENTS = 64
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def body(rng: random.Random) -> tuple[str, bytes]:
    """A path and a body: good, bad, short, long."""
    kind = rng.randrange(8)
    options: dict[str, Any] = {"max_tokens": rng.randrange(1, 40), "temperature": rng.choice([0, 2.0])}
    options |= {"stream": rng.random() < 0.5, "seed": rng.randrange(1000)}
    text = "the cat " * rng.randrange(1, 30)
    if kind == 0:
        return "/v1/embeddings", json.dumps({"input": text}).encode()
    if kind == 1:
        return "/v1/completions", b'{"prompt": ' + text.encode()
    if kind == 2:
        return "/v1/completions", json.dumps({"prompt": text, "nothing": 1}).encode()
    if kind == 3:
        return "/v1/completions", json.dumps({"prompt": text, "n": 3, "logprobs": 2, **options}).encode()
    messages = [{"role": "user", "content": text}]
    if kind == 4:
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        options |= {"response_format": form, "max_tokens": 60}
    return "/v1/chat/completions", json.dumps({"messages": messages, **options}).encode()


async def one(port: int, rng: random.Random) -> int:
    """One request; every tenth client hangs up in the middle. The status, 0 if it did."""
    path, raw = body(rng)
    hangs_up = rng.random() < 0.1
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)
    status = 0
    if hangs_up:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(200), rng.random() * 0.05)
    else:
        status = int((await reader.read()).split(b" ", 2)[1])
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return status


async def many(port: int, count: int, seed: int) -> dict[int, int]:
    """So many requests, CLIENTS at a time; how often each status came."""
    places = asyncio.Semaphore(CLIENTS)
    found: dict[int, int] = {}

    async def place(i: int) -> None:
        async with places:
            status = await one(port, random.Random(seed * 1_000_003 + i))
            found[status] = found.get(status, 0) + 1

    await asyncio.gather(*(place(i) for i in range(count)))
    return found


def resident_mb(pid: int) -> float:
    """Memory of a process, in MB."""
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    return int(match[1]) / 1e3 if match else float("nan")


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--most-mb", type=float, default=5.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write(Path(folder, "tiny.gguf"))
        command = [sys.executable, "-m", "edgellm", "serve", str(model), "--port", "0", "--json"]
        command += ["--cache-bytes", "2000000", "--max-waiting", "1000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as own:
            assert own.stdout is not None
            port = int(json.loads(own.stdout.readline())["url"].rpartition(":")[2])
            sizes = [resident_mb(own.pid)]
            print(f"{'requests':>8}  MB")
            for tenth in range(10):
                found = asyncio.run(many(port, args.requests // 10, tenth))
                sizes.append(resident_mb(own.pid))
                told = ", ".join(f"{status}: {count}" for status, count in sorted(found.items()))
                print(f"{(tenth + 1) * (args.requests // 10):>8}  {sizes[-1]:.1f}   {told}", flush=True)
            own.terminate()
    grown = sizes[-1] - sizes[5]
    print(f"the second half grew it by {grown:.1f} MB")
    return 0 if grown <= args.most_mb else 1


if __name__ == "__main__":
    sys.exit(main())
