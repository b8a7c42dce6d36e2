"""The C examples: text, bits, memory and complaints."""

import re
from pathlib import Path

import pytest
from helpers import c_library
from helpers.c_library import CSRC, HERE, run

import edgellm

EXAMPLES = CSRC / "examples"
MODEL = EXAMPLES / "model" / "tiny-home.gguf"
PROMPT = "Turn on the kitchen light and lock the front door"
WRAPPED = ("malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign", "pthread_create")
LAST_LINE = re.compile(r"\n\[(\d+) tokens read, (\d+) made, logits ([0-9a-f]{16})\]\n$")


@pytest.fixture(scope="module")
def out() -> Path:
    c_library.make(folder=EXAMPLES)
    return HERE.out()


@pytest.fixture(scope="module")
def hello(out):
    def say(*arguments: str, image: Path = out / "tiny-home.edge", program: Path = out / "hello_desktop"):
        return run([str(program), str(image), *arguments])

    return say


def test_model_is_small_and_its_source_is_told():
    assert MODEL.stat().st_size < 1_000_000
    readme = (MODEL.parent / "README.md").read_text(encoding="utf-8")
    assert "MIT License" in readme
    assert "tools/tiny/train.py" in readme


def test_desktop_example_says_what_python_says(hello):
    with edgellm.load(MODEL) as model:
        for prompt in (PROMPT, "Set the living room lamp to 40 percent brightness", "Hello"):
            wanted = model.chat([{"role": "user", "content": prompt}], max_tokens=64, temperature=0.0).text
            done = hello("--prompt", prompt)
            assert done.returncode == 0, done.stderr
            assert LAST_LINE.sub("", done.stdout) == wanted


def test_desktop_example_gives_the_same_bits_however_it_runs(hello):
    first = hello()
    assert LAST_LINE.search(first.stdout), first.stdout + first.stderr
    assert "lock.lock(front door)" in first.stdout
    ways = [("--threads", n) for n in ("2", "3")] + [("--batch", n) for n in ("1", "7")]
    ways += [("--isa", isa) for isa in edgellm.cpu.runnable_isas()]
    for way in ways:
        assert hello(*way).stdout == first.stdout, way


def test_desktop_example_draws_by_its_seed(hello):
    draw = ("--temperature", "1.5", "--prompt", "Hello")
    texts = [hello(*draw, "--seed", str(seed)).stdout for seed in range(8)]
    assert len(set(texts)) > 1
    assert hello(*draw, "--seed", "3").stdout == texts[3]


def test_c_and_python_write_the_same_image(out, tmp_path):
    for machine in ("portable", "x86-avx2"):
        image, wanted = tmp_path / f"{machine}.edge", tmp_path / f"{machine}-py.edge"
        done = run([str(out / "pack_edge"), str(MODEL), str(image), machine])
        assert done.returncode == 0, done.stderr
        edgellm.convert(MODEL, wanted, machine=machine)
        assert image.read_bytes() == wanted.read_bytes()


def test_desktop_example_allocates_nothing(out, hello, tmp_path):
    """Neither the program nor the library: the allocator is wrapped at link time."""
    program = tmp_path / "hello"
    sources = [EXAMPLES / "hello_desktop.c", EXAMPLES / "talk.c", Path(__file__).parent / "count_requests.c"]
    command = ["gcc", "-std=c11", "-O2", "-I", str(CSRC / "include"), "-I", str(CSRC), *map(str, sources)]
    command += [str(out / "libedgellm.a"), "-lm", "-pthread", "-o", str(program)]
    done = run([*command, *(f"-Wl,--wrap={name}" for name in WRAPPED)])
    assert done.returncode == 0, done.stderr
    alone = hello(program=program)
    assert alone.returncode == 0
    assert alone.stderr == "requests=0\n"
    pool = hello("--threads", "3", program=program)
    assert pool.stderr == "requests=3\n"  # the pool's memory and its two threads, before the first token
    assert pool.stdout == alone.stdout


COMPLAINTS = [
    (["--threads", "0"], 2, "--threads cannot be '0'"),
    (["--tokens", "many"], 2, "--tokens cannot be 'many'"),
    (["--nonsense", "1"], 2, "usage:"),
    (["--prompt"], 2, "usage:"),
    (["--isa", "sse9"], 1, "unknown isa 'sse9'"),
    (["--context", "9"], 1, "context full"),
    (["--context", "100000"], 1, "outside 1 to 256"),
    (["--top-k", "5", "--temperature", "-1"], 1, "temperature"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "words"), COMPLAINTS, ids=lambda x: "_".join(x) if isinstance(x, list) else None
)
def test_desktop_example_complains_in_words(hello, arguments, code, words):
    done = hello(*arguments)
    assert done.returncode == code
    assert words in done.stderr


def test_damaged_images_are_refused_by_the_c_program(out, hello, tmp_path):
    whole = (out / "tiny-home.edge").read_bytes()
    damaged = tmp_path / "damaged.edge"
    for cut in (0, 1, 63, 64, 500, 4096, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:cut])
        done = hello(image=damaged)
        assert done.returncode == 1, f"cut at {cut}: {done}"
        assert done.stderr.startswith("hello_desktop: "), done.stderr
    missing = hello(image=tmp_path / "missing.edge")
    assert missing.returncode == 1
    assert "No such file" in missing.stderr


def test_pack_edge_leaves_nothing_behind_when_it_fails(out, tmp_path):
    broken, image = tmp_path / "broken.gguf", tmp_path / "image.edge"
    broken.write_bytes(MODEL.read_bytes()[:-1000])
    for arguments, words in (
        ([str(broken), str(image)], "pack_edge: format error"),
        ([str(MODEL), str(image), "vax"], "vax"),
        ([str(tmp_path / "none.gguf"), str(image)], "No such file"),
        ([str(MODEL), str(tmp_path / "nowhere" / "image.edge")], "No such file"),
    ):
        done = run([str(out / "pack_edge"), *arguments])
        assert done.returncode == 1, done
        assert words in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["broken.gguf"]


def test_small_printf_formats_as_the_c_library(tmp_path):
    program = tmp_path / "printf"
    sources = [Path(__file__).parent / "small_printf_test.c"]
    command = [
        "gcc",
        "-std=c11",
        "-O1",
        "-fsanitize=address,undefined",
        "-fno-builtin",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    command += ["-Wno-format-truncation", "-I", str(CSRC), *map(str, sources), "-o", str(program)]
    done = run(command)
    assert done.returncode == 0, done.stderr
    done = run([str(program)], env={"ASAN_OPTIONS": "detect_leaks=0"})
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr
