"""Whatever a client sends gets a clear answer, and nobody else notices."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

import edgellm
from edgellm.server import Settings
from tests.helpers.server import Running, running

CHAT = {"messages": [{"role": "user", "content": "the"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def server(model: edgellm.Model) -> Iterator[Running]:
    with running(model, Settings(name="tiny", max_body_bytes=50_000, body_timeout_s=1.0)) as server:
        yield server


def ask(
    server: Running,
    path: str,
    body: Any = None,
    method: str | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, dict[str, str]]:
    """Status, decoded body and headers of one request."""
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    sent = {"Content-Type": "application/json", **(headers or {})}
    connection.request(method or ("GET" if raw is None else "POST"), path, raw, sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    kind = answer.headers["content-type"] or ""
    return (
        answer.status,
        json.loads(text) if "json" in kind else text,
        {k.lower(): v for k, v in answer.headers.items()},
    )


def works(server: Running) -> bool:
    return ask(server, "/v1/chat/completions", CHAT)[0] == 200


@pytest.mark.parametrize(
    ("changes", "param", "told"),
    [
        ({"messages": None}, "messages", "messages must be an array"),
        ({"messages": []}, "messages", "messages"),
        ({"messages": "hi"}, "messages", "messages must be an array"),
        ({"messages": [3]}, "messages", "messages[0]"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages", "king"),
        ({"messages": [{"role": "user"}]}, "messages", "content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "image_url"),
        ({"temperature": "hot"}, "temperature", "temperature must be a number in 0..100, got a string"),
        ({"temperature": -1}, "temperature", "temperature"),
        ({"temperature": True}, "temperature", "boolean"),
        ({"top_p": 1.5}, "top_p", "0..1"),
        ({"max_tokens": 0}, "max_tokens", "1..256"),
        ({"max_tokens": 10**30}, "max_tokens", "1..256"),
        ({"max_tokens": 2.5}, "max_tokens", "whole number"),
        ({"max_completion_tokens": 4}, "max_tokens", "differ"),
        ({"n": 0}, "n", "1..64"),
        ({"n": 65}, "n", "1..64"),
        ({"stop": [1]}, "stop", "strings"),
        ({"stop": ""}, "stop", "1 to 1000"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "needs stream"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "no parameter"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "no token id"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "-100..100"),
        ({"logit_bias": [1]}, "logit_bias", "an object"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "0..20"),
        ({"presence_penalty": 3}, "presence_penalty", "-2..2"),
        ({"functions": []}, "functions", "replaced by tools"),
        ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
        ({"model": "gpt-4"}, "model", "does not exist"),
        ({"model": 3}, "model", "a string"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "one of json_object, json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
            "response_format.json_schema.schema",
            "a JSON schema",
        ),
        ({"tools": {}}, "tools", "an array"),
        ({"tools": [{"type": "search"}]}, "tools[0].type", "function"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
    ],
)
def test_a_wrong_field_is_named(server: Running, changes: dict[str, Any], param: str, told: str) -> None:
    status, body, _ = ask(server, "/v1/chat/completions", {**CHAT, **changes})
    assert status == (404 if changes.get("model") == "gpt-4" else 400)
    assert body["error"]["param"] == param
    assert told in body["error"]["message"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": None}, "prompt must be"),
        ({"prompt": ""}, "empty"),
        ({"prompt": ["a", ""]}, "empty"),
        ({"prompt": [[1], [300000]]}, "0..299"),
        ({"prompt": [1.5]}, "made of strings"),
        ({"prompt": ["a"] * 65}, "at most 64"),
        ({"prompt": ["a"] * 33, "n": 2}, "at most 64"),
        ({"suffix": "x"}, "not supported"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"prompt": "the cat " * 3000}, "do not fit in a context of 256"),
    ],
)
def test_a_wrong_field_of_a_completion_is_named(server: Running, changes: dict[str, Any], told: str) -> None:
    status, body, _ = ask(server, "/v1/completions", {"prompt": "the", "max_tokens": 2, **changes})
    assert status == 400
    assert told in body["error"]["message"]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "an array"),
        (b"null", "null"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"prompt": "\\ud800"}', "lone surrogate"),
        (b'{"prompt": NaN}', "NaN is no JSON number"),
        (b'{"prompt": ' + b"1" * 5000 + b"}", "no JSON"),
        (b'{"prompt": "a", "temperature": 1e999}', "temperature"),
        (b"[" * 20_000, "nested"),
        (b'{"a":' * 120 + b"1" + b"}" * 120, "nested"),
    ],
)
def test_what_is_no_json_is_refused(server: Running, raw: bytes, told: str) -> None:
    status, body, _ = ask(server, "/v1/completions", raw)
    assert status == 400
    assert told in body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/models/none", 404),
        ("GET", "/v1/models/../../etc/passwd", 404),
        ("POST", "/v1/chat/completions/", 404),
    ],
)
def test_a_wrong_path_has_the_shape_of_openai(server: Running, method: str, path: str, status: int) -> None:
    got, body, headers = ask(server, path, {} if method == "POST" else None, method)
    assert got == status
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"].startswith("req-")


def test_a_body_of_another_type_is_refused(server: Running) -> None:
    status, body, _ = ask(server, "/v1/completions", {"prompt": "a"}, headers={"Content-Type": "text/plain"})
    assert status == 415
    assert "application/json" in body["error"]["message"]


def test_a_body_of_100_mb_is_refused_unread(server: Running) -> None:
    """By its length alone, and, where no length is told, at the limit."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        own.sendall(f"{head}Content-Length: 100000000\r\n\r\n".encode())
        assert own.recv(4096).startswith(b"HTTP/1.1 413")
    for chunked in (False, True):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
            how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 100000000"
            own.sendall(f"{head}{how}\r\n\r\n".encode())
            block = b" " * 65536
            sent = 0
            try:
                while sent < 100_000_000:
                    own.sendall(b"10000\r\n" + block + b"\r\n" if chunked else block)
                    sent += len(block)
            except OSError:
                pass
            assert own.recv(4096).startswith(b"HTTP/1.1 413")
    assert works(server)


def test_a_body_that_does_not_come_is_given_up(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        own.sendall(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert works(server)
        assert own.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("raw", [b"\x00" * 100, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n", b"A" * 200_000])
def test_what_is_no_http_ends_the_connection(server: Running, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
        own.sendall(raw)
        own.settimeout(10)
        try:
            told = own.recv(4096)
        except ConnectionResetError:
            told = b""
    assert told == b"" or told.startswith(b"HTTP/1.1 4")
    assert works(server)


def test_a_client_that_says_nothing_is_sent_away(
    model: edgellm.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgellm.server import protocol

    monkeypatch.setattr(protocol, "HEADER_S", 0.1)
    with running(model) as server:
        for said in (b"", b"GET /health HTTP/1.1\r\nHost: loc"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
                own.sendall(said)
                assert own.recv(100) == b""
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
            for _ in range(2):  # the second request has the same patience
                own.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                told = b""  # head and body may come apart
                while not told.endswith(b'{"status":"ok"}'):
                    piece = own.recv(4096)
                    assert piece
                    told += piece
                assert told.startswith(b"HTTP/1.1 200")
            own.sendall(b"GET /health")
            while own.recv(4096):
                pass


def idle(server: Running, within_s: float = 30.0) -> bool:
    """Whether nothing is being written any more, soon."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        stats = server.scheduler.stats()
        if not stats.running and not stats.waiting:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_session(model: edgellm.Model, stream: bool) -> None:
    with running(model, max_sessions=4) as server, server.slowed():
        body = json.dumps({"prompt": "the", "max_tokens": 250, "stream": stream, "n": 2}).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            own.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            if stream:
                assert own.recv(64).startswith(b"HTTP/1.1 200")
            else:
                while not server.scheduler.stats().running:
                    time.sleep(0.001)
        assert idle(server)
        end = time.monotonic() + 10
        while not any('"outcome": "cancelled"' in line for line in server.log) and time.monotonic() < end:
            time.sleep(0.01)
        assert server.scheduler.stats().generated_tokens < 500
        assert server.scheduler.stats().session_bytes == 0
        assert works(server)


def test_a_client_that_does_not_read_stops_nobody(model: edgellm.Model) -> None:
    """Its events wait in its own buffers, for its own tokens at most; its session is free all the same."""
    with running(model) as server:
        body = json.dumps({"prompt": "the", "max_tokens": 250, "stream": True, "n": 30}).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            own.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            for _ in range(3):
                assert works(server)
            assert idle(server)
        assert works(server)


def test_a_thousand_clients_are_served_or_told_to_wait(model: edgellm.Model) -> None:
    body = json.dumps({"prompt": "the", "max_tokens": 4, "temperature": 0}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    want = model.generate("the", max_tokens=4).text
    with running(model, max_sessions=8, max_waiting=100) as server:
        clients = []
        for _ in range(1000):
            own = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            clients.append(own)
        for own in clients:
            own.sendall(request)
        answers = []
        for own in clients:
            parts = []
            while part := own.recv(65536):
                parts.append(part)
            answers.append(b"".join(parts))
            own.close()
        assert idle(server)
    statuses = [int(answer.split()[1]) for answer in answers]
    assert set(statuses) <= {200, 429}
    assert statuses.count(200) >= 108
    for status, answer in zip(statuses, answers, strict=True):
        if status == 200:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["choices"][0]["text"] == want
        else:
            assert b"retry-after: " in answer.lower()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = [
    "messages", "prompt", "model", "n", "stop", "stream", "stream_options", "seed", "temperature", "top_p",
    "max_tokens", "logprobs", "top_logprobs", "logit_bias", "response_format", "tools", "tool_choice",
    "grammar", "input", "encoding_format", "user", "echo", "suffix", "best_of", "top_k", "min_p",
    "repeat_penalty", "parallel_tool_calls", "cache_prompt", "dimensions",
]  # fmt: skip


@hypothesis.settings(max_examples=300)
@hypothesis.given(
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]),
    changes=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3),
)
def test_any_body_gets_an_answer_or_the_clients_fault(
    server: Running, path: str, changes: dict[str, Any]
) -> None:
    good = {"/v1/completions": {"prompt": "the", "max_tokens": 2}, "/v1/embeddings": {"input": "the"}}
    body = {**good.get(path, CHAT), **changes}
    status, _, _ = ask(server, path, body)
    assert status == 200 or 400 <= status < 500


def test_many_at_once_leave_others_alone(server: Running) -> None:
    """Good requests between bad ones, from several threads."""
    want = server.model.generate("the cat", max_tokens=8).text
    found: list[str] = []

    def good() -> None:
        for _ in range(5):
            body = {"prompt": "the cat", "max_tokens": 8, "temperature": 0}
            found.append(ask(server, "/v1/completions", body)[1]["choices"][0]["text"])

    def bad() -> None:
        for i in range(10):
            ask(server, "/v1/completions", b"{" if i % 2 else {"prompt": 3})

    threads = [threading.Thread(target=work) for work in [good] * 6 + [bad] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [want] * 30
