"""Who may come in, what the operator sees, and how `edgellm serve` begins and ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

import edgellm
from edgellm import cli
from edgellm.server import Settings
from tests.helpers.server import Running, running


def ask(server: Running | int, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    port = server if isinstance(server, int) else server.port
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    sent = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, sent)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


BODY = json.dumps({"prompt": "the", "max_tokens": 5, "temperature": 0})


def test_a_key_opens_everything_but_health_and_page(model: edgellm.Model) -> None:
    with running(model, Settings(name="tiny", api_keys=("secret-1", "secret-2"))) as server:
        for route in ("/health", "/healthz", "/"):
            assert ask(server, route)[0] == 200
        for route in ("/v1/models", "/metrics", "/nothing"):
            assert ask(server, route)[0] == 401
        for wrong in ("", "Bearer", "Bearer secret", "Bearer secret-12", "Basic secret-1", "Bearer sécret"):
            assert (
                ask(server, "/v1/completions", BODY, Authorization=wrong.encode("utf-8").decode("latin-1"))[0]
                == 401
            )
        for right in ("Bearer secret-1", "bearer secret-2"):
            assert ask(server, "/v1/completions", BODY, Authorization=right)[0] == 200


def test_pages_of_others_cannot_use_a_local_server(model: edgellm.Model) -> None:
    settings = Settings(name="tiny", hosts=("localhost", "127.0.0.1", "::1"))
    with running(model, settings) as server:
        port = server.port
        assert ask(server, "/v1/models", Host=f"localhost:{port}")[0] == 200
        assert ask(server, "/v1/models", Host=f"[::1]:{port}")[0] == 200
        assert ask(server, "/v1/models", Host="evil.example")[0] == 403
        assert ask(server, "/v1/completions", BODY, Origin="https://evil.example")[0] == 403
        own = f"127.0.0.1:{port}"
        assert ask(server, "/v1/completions", BODY, Origin=f"http://{own}", Host=own)[0] == 200


def test_cors_lets_named_pages_in(model: edgellm.Model) -> None:
    with running(model, Settings(name="tiny", cors_origins=("https://a.example",))) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        connection.request("OPTIONS", "/v1/completions", headers=asked)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://a.example")
        connection.close()
        assert ask(server, "/v1/completions", BODY, Origin="https://a.example")[0] == 200
        assert ask(server, "/v1/completions", BODY, Origin="https://b.example")[0] == 403


def test_requests_of_one_client_are_limited(model: edgellm.Model) -> None:
    with running(model, Settings(name="tiny", max_per_client=1)) as server, server.slowed():
        connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        body = json.dumps({"prompt": "the", "max_tokens": 250, "stream": True})
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert ask(server, "/v1/models")[0] == 429
        answer.read()
        connection.close()
        assert ask(server, "/v1/models")[0] == 200


def test_a_request_that_takes_too_long_is_ended(model: edgellm.Model) -> None:
    with running(model, Settings(name="tiny", timeout_s=0.05)) as server, server.slowed():
        body = {"prompt": "the", "max_tokens": 250}
        status, text = ask(server, "/v1/completions", json.dumps(body))
        assert (status, json.loads(text)["error"]["code"]) == (504, "timeout")
        status, text = ask(server, "/v1/completions", json.dumps({**body, "stream": True}))
        assert "timeout" in text
        assert "[DONE]" not in text
        while server.scheduler.stats().running:
            time.sleep(0.01)
        assert server.scheduler.stats().generated_tokens < 500


def test_metrics_count_what_happened(model: edgellm.Model) -> None:
    with running(model) as server:
        for _ in range(3):
            assert ask(server, "/v1/completions", BODY)[0] == 200
        assert ask(server, "/v1/completions", "{")[0] == 400
        text = ask(server, "/metrics")[1]
        assert 'edgellm_requests_total{endpoint="completions",outcome="ok",status="200"} 3' in text
        assert 'edgellm_requests_total{endpoint="completions",outcome="refused",status="400"} 1' in text
        done = model.generate("the", max_tokens=5)
        assert f"edgellm_completion_tokens_total {3 * len(done.ids)}\n" in text
        assert f"edgellm_prompt_tokens_total {3 * done.timings.prompt_tokens}\n" in text
        assert "edgellm_ttft_seconds_count 3\n" in text
        assert "edgellm_running 0\n" in text
        for line in text.splitlines():
            assert re.fullmatch(r"# (HELP|TYPE) .+|\w+(\{[^}]*\})? -?[0-9.e+-]+", line), line


def test_the_log_is_one_object_a_line(model: edgellm.Model) -> None:
    with running(model) as server:
        ask(server, "/v1/completions", BODY)
        ask(server, "/health")
        ask(server, "/v1/none")
    lines = [json.loads(line) for line in server.log]
    assert [(line["path"], line["status"], line["outcome"]) for line in lines] == [
        ("/v1/completions", 200, "ok"),
        ("/v1/none", 404, "refused"),
    ]
    assert lines[0]["prompt_tokens"] > 0
    assert lines[0]["ttft_s"] >= lines[0]["queue_s"] >= 0


def test_the_page_is_served(model: edgellm.Model) -> None:
    with running(model) as server:
        status, text = ask(server, "/")
    assert status == 200
    assert "<html" in text.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "--insecure"),
        (["--port", "99999"], 2, "99999"),
        (["--host", "198.51.100.1", "--insecure"], 1, "198.51.100.1"),
        (["--max-sessions", "0"], 1, "max_sessions"),
        (["--max-body", "0"], 1, "max_body_bytes"),
        (["--temperature", "-1"], 1, "temperature"),
        (["--api-key-file", "none.txt"], 1, "none.txt"),
        (["--kv", "f8"], 2, "invalid choice"),
    ],
)
def test_serve_names_what_is_wrong(
    model_path: Path, arguments: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["serve", str(model_path), "--port", "0", *arguments]) == code
    err = capsys.readouterr().err
    assert told in err
    assert "internal error" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_requests_finish(
    model_path: Path, number: signal.Signals, tmp_path: Path, build_env: dict[str, str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfile-key-1\n")
    command = [sys.executable, "-m", "edgellm", "serve", str(model_path), "--port", "0", "--json"]
    own = subprocess.Popen(
        [*command, "--threads", "1", "--api-key-file", str(keys)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**build_env, "EDGELLM_API_KEY": "env-key-1"},
        text=True,
    )
    try:
        assert own.stdout is not None
        ready = json.loads(own.stdout.readline())
        assert ready["model"] == "tiny"
        port = int(ready["url"].rpartition(":")[2])
        for key in ("file-key-1", "env-key-1"):
            assert ask(port, "/v1/models", Authorization=f"Bearer {key}")[0] == 200
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"prompt": "the", "max_tokens": 250, "stream": True, "n": 20, "temperature": 5})
        headers = {"Content-Type": "application/json", "Authorization": "Bearer env-key-1"}
        connection.request("POST", "/v1/completions", body, headers)
        answer = connection.getresponse()
        own.send_signal(number)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        assert own.wait(30) == 0
    finally:
        own.kill()
        own.communicate()
