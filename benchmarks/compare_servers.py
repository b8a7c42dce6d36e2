"""`edgellm serve` beside llama.cpp's server: the same file, prompts and clients, in turns.

    .venv/bin/python benchmarks/compare_servers.py                 # under five minutes
    .venv/bin/python benchmarks/compare_servers.py --quick --alone # a test of this script

One small client, written here, asks both in the same words (POST /v1/completions, streamed, greedy, without
caches between requests, the end of a text forbidden so that every answer has the same length). `make peers`
builds llama.cpp's server; EDGELLM_PEERS names a folder where it is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compare import files
from compare.peers import RESULTS
from compare.stamp import load_average, name_of, stamp

import edgellm

SCHEMA = 1
HOST = "127.0.0.1"
STOP_S = 20.0
WORDS = (
    "river", "lamp", "stone", "paper", "engine", "garden", "window", "market", "winter", "music", "doctor",
    "island",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What the clients ask for."""

    clients: int = 64
    requests: int = 2  # of each client, one after the other
    prompt_words: int = 60
    tokens: int = 64


@dataclass(frozen=True)
class Timed:
    """One answer, in seconds since it was asked for."""

    ttft_s: float
    last_s: float
    pieces: int


class Server:
    """A server in a process of its own."""

    def __init__(self, name: str, command: list[str], port: int, log: Path) -> None:
        self.name, self.port = name, port
        with log.open("wb") as out:
            self._own = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._log = log

    def wait(self, seconds: float = 60.0) -> None:
        """Until it takes requests."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._own.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 1.0) as own:
                own.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if own.recv(64).startswith(b"HTTP/1.1 200"):
                    return
            time.sleep(0.1)
        raise RuntimeError(f"{self.name} did not start: {self._log.read_text('utf-8', 'replace')[-500:]}")

    def cpu_s(self) -> float:
        """Processor time of all its threads so far."""
        fields = Path(f"/proc/{self._own.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """The most memory that it had so far."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self._own.pid}/status").read_text("ascii"))
        return int(found[1]) * 1024 if found else 0

    def close(self) -> None:
        """End it."""
        self._own.send_signal(signal.SIGTERM)
        try:
            self._own.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._own.kill()
            self._own.wait()


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server((HOST, 0)) as own:
        port: int = own.getsockname()[1]
        return port


def ours(model: Path, load: Load, threads: int, log: Path) -> Server:
    """`edgellm serve` with a place for every client."""
    port = free_port()
    command = [sys.executable, "-m", "edgellm", "serve", str(model), "--port", str(port)]
    command += ["--threads", str(threads), "--max-sessions", str(load.clients), "--alias", "m"]
    return Server("edgellm", command, port, log)


def llama(program: Path, model: Path, load: Load, threads: int, log: Path) -> Server:
    """llama-server with a slot for every client, continuous batching and flash attention."""
    port = free_port()
    room = -(-(load.prompt_words * 4 + load.tokens) // 256) * 256
    command = [str(program), "-m", str(model), "--host", HOST, "--port", str(port), "--alias", "m"]
    command += ["-np", str(load.clients), "-c", str(room * load.clients), "-t", str(threads)]
    command += ["-tb", str(threads), "-cb", "-fa", "on", "--no-webui", "--no-warmup"]
    return Server("llama.cpp", command, port, log)


def prompts(load: Load, turn: int) -> list[str]:
    """Texts that differ from the first word on, so that no server can share their beginnings."""
    made = []
    for i in range(load.clients * load.requests):
        seed = turn * 1009 + i
        words = [WORDS[(seed * (j + 3) + j * j) % len(WORDS)] for j in range(load.prompt_words)]
        made.append(f"{seed} {' '.join(words)}. The story goes on:")
    return made


async def ask(port: int, prompt: str, tokens: int, ends: Sequence[int]) -> Timed:
    """Send one request and read its events."""
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "cache_prompt": False,
        "logit_bias": {str(i): -100 for i in ends},
    }
    raw = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode() + raw)
    first = last = 0.0
    pieces = 0
    finished = False
    async for line in reader:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            for choice in event["choices"]:
                finished |= choice["finish_reason"] == "length"
                if choice["text"]:
                    last = time.perf_counter()
                    first = first or last
                    pieces += 1
    writer.close()
    if not finished:
        raise RuntimeError("an answer broke off")
    return Timed(first - begun, last - begun, pieces)


async def crowd(
    port: int, load: Load, texts: Sequence[str], ends: Sequence[int]
) -> tuple[float, list[Timed]]:
    """Every client at once; wall seconds and every answer."""

    async def client(i: int) -> list[Timed]:
        own = texts[i * load.requests : (i + 1) * load.requests]
        return [await ask(port, text, load.tokens, ends) for text in own]

    begun = time.perf_counter()
    answers = await asyncio.gather(*(client(i) for i in range(load.clients)))
    return time.perf_counter() - begun, [answer for own in answers for answer in own]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of all is at or below."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def measure(server: Server, load: Load, turn: int, ends: Sequence[int]) -> dict[str, float]:
    """One turn of one server."""
    before_s = server.cpu_s()
    wall_s, answers = asyncio.run(crowd(server.port, load, prompts(load, turn), ends))
    written = len(answers) * load.tokens
    tpot = [(a.last_s - a.ttft_s) / max(1, load.tokens - 1) for a in answers]
    ttft = [a.ttft_s for a in answers]
    return {
        "tokens_per_s": written / wall_s,
        "cpu_ms_per_token": 1e3 * (server.cpu_s() - before_s) / written,
        "ttft_p50_s": percentile(ttft, 0.5),
        "ttft_p95_s": percentile(ttft, 0.95),
        "tpot_p50_ms": 1e3 * percentile(tpot, 0.5),
        "tpot_p95_ms": 1e3 * percentile(tpot, 0.95),
    }


@contextlib.contextmanager
def started(servers: list[Server]) -> Iterator[list[Server]]:
    """The servers while they run."""
    try:
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.close()


def compare(args: argparse.Namespace, model: Path, program: Path | None) -> list[dict[str, Any]]:
    """Rows of one model file: a server each, medians over turns."""
    load, quick = args.load, args.quick
    args.work.mkdir(parents=True, exist_ok=True)
    with edgellm.load(model, threads=1) as own:
        ends = own.tokenizer.end_ids
    servers = [ours(model, load, args.threads, args.work / "edgellm.log")]
    if program is not None:
        servers.append(llama(program, model, load, args.threads, args.work / "llama.log"))
    small = Load(load.clients, 1, load.prompt_words, 4)
    turns: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    with started(servers):
        for server in servers:  # the first requests make their caches
            measure(server, small, 0, ends)
        for turn in range(1, 2 if quick else args.repeat + 1):
            for server in servers if turn % 2 else servers[::-1]:
                turns[server.name].append(measure(server, load, turn, ends))
                print(
                    f"  {server.name}: {turns[server.name][-1]['tokens_per_s']:.0f} tokens/s", file=sys.stderr
                )
        peaks = {server.name: server.peak_bytes() for server in servers}
    rows = []
    for name, found in turns.items():
        middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
        spread = [row["tokens_per_s"] for row in found]
        rows.append(
            {
                "file": model.name,
                "server": name,
                **middle,
                "slowest": min(spread),
                "fastest": max(spread),
                "peak_bytes": peaks[name],
            }
        )
    return rows


def page(found: dict[str, Any]) -> str:
    """The result as a page."""
    load = found["load"]
    lines = [
        "# Servers side by side",
        "",
        f"{found['stamp']['machine']['cpu']}, {found['threads']} threads, {found['stamp']['date']}: "
        f"{load['clients']} clients at once, {load['requests']} requests each, prompts of about "
        f"{load['prompt_words']} words, {load['tokens']} tokens each, greedy; medians over turns. "
        "Clients and server share the cores.",
        "",
        "| file | server | tokens/s | TTFT p50, p95 / s | TPOT p50, p95 / ms | CPU ms/token | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        lines.append(
            f"| {row['file']} | {row['server']} | {row['tokens_per_s']:.0f} ({row['slowest']:.0f} to "
            f"{row['fastest']:.0f}) | {row['ttft_p50_s']:.2f} / {row['ttft_p95_s']:.2f} | "
            f"{row['tpot_p50_ms']:.1f} / {row['tpot_p95_ms']:.1f} | {row['cpu_ms_per_token']:.2f} | "
            f"{row['peak_bytes'] / 1e6:.0f} |"
        )
    return "\n".join([*lines, ""])


def peer() -> Path | None:
    """llama.cpp's server, if it has been built."""
    folder = Path(os.environ.get("EDGELLM_PEERS") or files.ROOT / ".venv-parity")
    program = folder / "llama-server"
    return program if program.is_file() else None


def main(words: list[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quants", type=lambda text: text.split(","), default=["q4_1", "q4_0", "q8_0"])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=1, help="of each client")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--repeat", type=int, default=3, help="turns of each server")
    parser.add_argument("--threads", type=int, default=edgellm.cpu.count())
    parser.add_argument("--alone", action="store_true", help="measure ours only")
    parser.add_argument("--quick", action="store_true", help="a test of this script, in seconds")
    parser.add_argument("--models", type=Path, default=files.folder(), help="folder for model files")
    parser.add_argument("--work", type=Path, default=files.ROOT / "build" / "servers", help="for logs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    args.load = Load(args.clients, args.requests, tokens=args.tokens)
    if args.quick:
        args.quants, args.load = ["q4_1"], Load(4, 1, 20, 8)
    program = None if args.alone else peer()
    if program is None and not args.alone:
        print(
            "compare_servers: llama.cpp's server is not built (make peers); --alone does without",
            file=sys.stderr,
        )
        return 1
    found: dict[str, Any] = {"schema": SCHEMA, "stamp": stamp(), "load": asdict(args.load), "rows": []}
    found["threads"] = args.threads
    for quant in args.quants:
        model = files.smollm(quant, args.models, None, args.threads)
        print(f"{model.name}:", file=sys.stderr)
        found["rows"] += compare(args, model, program)
    found["load_after"] = load_average()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"servers-{name_of(found['stamp'])}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    text = page(found)
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
