"""Other machines give the bits of this one: programs cross-compiled, and run by qemu."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers import c_library
from helpers.c_library import CSRC, HERE, MACHINES


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    return [str(path) for path in c_library.write_models(tmp_path_factory.mktemp("models"))]


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: m.name)
def test_machine_gives_the_golden_hash_of_every_type(machine, out, models):
    found = c_library.hashes(machine, out, models)
    golden = c_library.golden(found)
    assert {name: value for name, (value, _) in found.items()} == golden
    assert {isas.split(",")[0] for _, isas in found.values()} == {"ref"}


@pytest.mark.parametrize("machine", MACHINES[:3], ids=lambda m: m.name)
def test_library_of_a_machine_shows_what_its_headers_declare(machine):
    c_library.make(f"CROSS={machine.cross}")
    shared = machine.out() / "libedgellm.so"
    done = c_library.run([machine.cross + "nm", "-D", "--defined-only", str(shared)])
    shown = {line.split()[2] for line in done.stdout.splitlines()}
    assert {"el_edge_parse", "el_batch_eval", "el_tokenizer_encode_into"} <= shown
    assert [name for name in shown if not name.startswith("el_")] == []


def test_machine_of_32_bits_refuses_what_it_cannot_address(out):
    """A model of more than 4 GiB is an error there, before anything is read or allocated."""
    armv7 = MACHINES[1]
    header = out / "large.gguf"
    nbytes = c_library.write_large_header(header)
    program = c_library.program(armv7, "too_large", out)
    done = armv7.run(program, str(header), str(nbytes))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("machine", MACHINES[:3], ids=lambda m: m.name)
def test_examples_of_a_machine_give_text_and_hash_of_this_one(machine):
    examples = CSRC / "examples"
    c_library.make(folder=examples)
    emulator = " ".join(machine.emulator) + f" -L /usr/{machine.cross.rstrip('-')}"
    c_library.make(f"CROSS={machine.cross}", f"HOST_EMULATOR={emulator}", folder=examples)
    here, there = HERE.out(), machine.out()
    made, image = (there / "tiny-home.edge").read_bytes(), (here / "tiny-home.edge").read_bytes()
    if machine.name == "armv7":  # the plan for people counts structures of 32 bits, and has another hash
        assert len(made) == len(image)
        assert sum(a != b for a, b in zip(made, image, strict=True)) <= 32 + 8 * 4
    else:
        assert made == image
    wanted = c_library.run([str(here / "hello_desktop"), str(here / "tiny-home.edge")])
    command = [
        *emulator.split(),
        str(there / "hello_desktop"),
        str(there / "tiny-home.edge"),
        "--threads",
        "2",
    ]
    got = c_library.run(command)
    assert wanted.returncode == 0
    assert "light.turn_on(kitchen light)" in wanted.stdout
    assert (got.returncode, got.stdout) == (0, wanted.stdout), got.stderr


# What the freestanding library may ask of its surroundings, beside the helpers of the compiler.
MAY_ASK = {"memchr", "memcmp", "memcpy", "memmove", "memset", "strchr", "strcmp", "strlen", "strncpy"}
MAY_ASK |= {"snprintf", "vsnprintf"}


def test_freestanding_library_asks_for_memory_and_strings_alone():
    c_library.make("mcu", folder=CSRC / "examples")
    library = CSRC / "build" / "mcu" / "libedgellm-bare.a"
    done = c_library.run(["arm-none-eabi-nm", "-u", "-P", str(library)])
    asked = {line.split()[0] for line in done.stdout.splitlines() if line.split()[1:2] == ["U"]}
    assert asked >= {"memcpy", "vsnprintf"}  # the list is read rightly
    assert {name for name in asked if not name.startswith("__aeabi_")} <= MAY_ASK


def test_microcontroller_links_no_allocator_and_fits_its_memories():
    c_library.make("mcu", folder=CSRC / "examples")
    elf = str(CSRC / "build" / "mcu" / "hello_mcu.elf")
    names = {line.split()[-1] for line in c_library.run(["arm-none-eabi-nm", elf]).stdout.splitlines()}
    assert "talk" in names
    assert names & {"malloc", "_malloc_r", "_sbrk", "_sbrk_r", "calloc", "free", "realloc", "_exit"} == set()
    text, data, bss = map(int, c_library.run(["arm-none-eabi-size", elf]).stdout.splitlines()[1].split()[:3])
    assert text + data < 1 << 20  # flash, the model included
    assert data + bss < 512 << 10


@pytest.mark.parametrize("prompt", ["", "Set the living room lamp to 40 percent brightness"])
def test_microcontroller_gives_text_and_hash_of_the_desktop(prompt):
    examples = CSRC / "examples"
    c_library.make("all", "mcu", folder=examples)
    out = HERE.out()
    say = ["--prompt", prompt] if prompt else []
    wanted = c_library.run([str(out / "hello_desktop"), str(out / "tiny-home.edge"), *say])
    assert wanted.returncode == 0, wanted.stderr
    arguments = [f"PROMPT={prompt}"] if prompt else []
    try:
        done = c_library.run(
            ["make", "-s", "--no-print-directory", "-C", str(examples), "run-mcu", "WERROR=1", *arguments],
            env=c_library.clean_env(),
        )
    except subprocess.TimeoutExpired as slow:
        raise AssertionError(f"the board hangs: {slow.stdout}") from slow
    assert done.returncode == 0, done.stdout + done.stderr
    assert wanted.stdout in done.stdout
    assert re.search(r"\[\d+ of \d+ bytes of memory, \d+ ticks of 25 MHz\]", done.stdout)
