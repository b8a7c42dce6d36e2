"""What the set-up does on a machine that lacks things, with stand-ins for the machine's commands."""

import shutil
import subprocess
from pathlib import Path

import pytest

REAL = ("bash", "dirname", "mktemp", "rm", "mkdir", "tail", "cat", "env")


@pytest.fixture
def bare(root, tmp_path):
    """Run `tools/setup.sh system` from a copy, on a machine that has only a shell; returns (result, log)."""
    (tmp_path / "tools").mkdir()
    shutil.copy2(root / "tools" / "setup.sh", tmp_path / "tools" / "setup.sh")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in REAL:
        (commands / name).symlink_to(shutil.which(name))
    log = tmp_path / "log"
    log.touch()

    def stub(name: str, body: str) -> None:
        (commands / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (commands / name).chmod(0o755)

    def call(user: int, *, apt: bool = True, sudo: str = "") -> tuple[subprocess.CompletedProcess[str], str]:
        stub("id", f"echo {user}")
        if apt:
            stub("apt-get", f'echo "apt-get $* $DEBIAN_FRONTEND" >>{log}')
        if sudo:
            stub("sudo", sudo)
        done = subprocess.run(
            [str(commands / "bash"), "tools/setup.sh", "system"],
            cwd=tmp_path,
            env={"PATH": str(commands), "PYTHON": "no-python", "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, Path(log).read_text(encoding="utf-8")

    return call


def test_plain_user_is_told_what_to_ask_for(bare):
    done, log = bare(1000)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ask an administrator for: apt-get install" in done.stderr
    for package in ("gcc", "g++", "make", "python3-venv", "python3-dev", "libsimgrid-dev"):
        assert package in done.stderr.split()
    assert log == ""


def test_sudo_that_would_ask_without_a_terminal_is_not_waited_for(bare):
    done, log = bare(1000, sudo="exit 1")
    assert done.returncode == 1
    assert "ask an administrator for" in done.stderr
    assert log == ""


def test_other_systems_are_told_what_is_missing(bare):
    done, _ = bare(0, apt=False)
    assert done.returncode == 1
    assert "no apt-get" in done.stderr


def test_root_installs_without_questions(bare):
    done, log = bare(0)
    update, install = log.splitlines()
    assert update == "apt-get update noninteractive"
    assert install.startswith("apt-get install -y --no-install-recommends ")
    assert install.endswith(" noninteractive")
    assert "still missing after apt-get" in done.stderr  # the stand-in installs nothing, and that is noticed


def test_sudo_is_used_where_it_needs_no_password(bare):
    _, log = bare(1000, sudo='[ "$1" = -n ] && exit 0; exec "$@"')
    assert log.splitlines()[0] == "apt-get update noninteractive"
