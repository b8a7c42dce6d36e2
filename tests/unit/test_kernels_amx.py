"""The tile kernels have the bits of `ref`: on the processor's tiles, or on those of a software shim."""

import ctypes
import itertools
import json
import re
import subprocess
import sys

import pytest

from tests.helpers import tiles

pytestmark = pytest.mark.skipif(not tiles.can_run(), reason="the tile kernels need AVX-512 VNNI as well")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiles")
    tiles.build(path)
    return path


def run(folder, part):
    command = [sys.executable, str(tiles.HERE / "tiles.py"), str(folder), part]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_ran(report, product="tdpbssd"):
    """Tiles were really used, and every configuration was given back."""
    assert report["wrong"] == []
    if not report["native"]:
        counts = report["executed"]
        assert counts[product] > 0
        assert counts["ldtilecfg"] == counts["tilerelease"]
        assert report["released"]


def operands():
    """Instructions with every base, every index, every scale and each size of displacement."""
    regs = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16))]
    for i, (base, index) in enumerate(itertools.product(regs, regs)):
        if index == "rsp":
            continue
        disp = ("", "0x10", "-0x80", "0x1234", "-0x12345")[i % 5]
        where = f"{disp}(%{base},%{index},{1 << i % 4})"
        op = ("tileloadd", "tileloaddt1", "tilestored")[i % 3]
        yield f"{op} %tmm{i % 8},{where}" if op == "tilestored" else f"{op} {where},%tmm{i % 8}"
        yield f"{('ldtilecfg', 'sttilecfg')[i % 2]} {where}"
    for i, base in enumerate(regs):
        yield f"ldtilecfg {('', '0x40', '-0x400')[i % 3]}(%{base})"
        yield f"tilezero %tmm{i % 8}"
    yield "sttilecfg 0x100(%rip)"
    yield "ldtilecfg 0x8(,%rbx,8)"
    yield "tileloadd 0x1000(,%r9,1),%tmm5"
    yield "tilerelease"
    for op in tiles.PRODUCTS:
        yield from (f"{op} %tmm{a},%tmm{b},%tmm{c}" for a, b, c in itertools.permutations(range(8), 3))


def test_shim_reads_instructions_as_objdump_does(folder, tmp_path):
    shim = ctypes.CDLL(str(folder / "tile_shim.so"))
    source = tmp_path / "forms.s"
    source.write_text("".join(f"\t{line}\n" for line in operands()))
    subprocess.run(["gcc", "-c", str(source), "-o", str(tmp_path / "forms.o")], check=True)
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", str(tmp_path / "forms.o"), str(tmp_path / "code")],
        check=True,
    )
    listed = subprocess.run(
        ["objdump", "-d", "-w", str(tmp_path / "forms.o")], capture_output=True, text=True, check=True
    )
    want = [
        re.sub(r"\s+#.*", "", line.split("\t")[2]).strip()
        for line in listed.stdout.splitlines()
        if line.count("\t") == 2
    ]
    code = (tmp_path / "code").read_bytes() + bytes(16)
    got, at = [], 0
    while at < len(code) - 16:
        text = ctypes.create_string_buffer(100)
        size = shim.tile_shim_disassemble(code[at : at + 16], text, len(text))
        assert size > 0, f"unread after {got[-1:]}: {want[len(got)]}"
        got.append(text.value.decode())
        at += size
    # objdump shows a displacement of zero where the encoding has one
    assert got == [re.sub(r"\s+", " ", line).replace(" 0x0(", " (").replace(",0x0(", ",(") for line in want]
    assert len(got) > 2000


def test_shim_leaves_other_instructions_alone(folder):
    shim = ctypes.CDLL(str(folder / "tile_shim.so"))
    text = ctypes.create_string_buffer(100)
    vpdpbusd = bytes.fromhex("c4e27150c2")
    for code in (bytes(16), b"\x0f\x0b", vpdpbusd, bytes.fromhex("c4e2fb49c0"), bytes.fromhex("c4e27f49c0")):
        assert shim.tile_shim_disassemble(code.ljust(16, b"\0"), text, len(text)) == 0


def test_single_instructions_agree_with_numpy(folder):
    report = run(folder, "instructions")
    assert report["wrong"] == []
    assert report["native"] or all(report["executed"][name] > 0 for name in tiles.PRODUCTS)


@pytest.mark.parametrize("number", range(5))
def test_mistakes_end_the_process(folder, number):
    command = [sys.executable, str(tiles.HERE / "tiles.py"), str(folder), f"mistake-{number}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 99 or done.returncode < 0, done.stdout
    assert done.returncode < 0 or re.search(r"tile shim: #(UD|GP)", done.stderr)


def test_products_have_the_bits_of_ref(folder):
    report = run(folder, "kernels")
    assert_ran(report)
    assert report["cases"] > 200


def test_products_of_extreme_weights_have_the_bits_of_ref(folder):
    report = run(folder, "extremes")
    assert_ran(report)
    assert report["cases"] > 40


def test_logits_have_the_bits_of_ref(folder):
    report = run(folder, "models")
    assert_ran(report)
    assert report["tiles_used_for_few_rows"] == 0


def test_inexact_products_are_within_their_bound(folder):
    report = run(folder, "inexact")
    if not report.get("skipped"):
        assert_ran(report, "tdpbf16ps")
        assert report["same"] == 0, "a bf16 product gave the bits of the exact one"


def test_doctor_knows_tiles(folder):
    report = run(folder, "doctor")
    assert_ran(report)
    assert report["isas"][-1] == "amx"
    assert report["kernels"] == {"1": "avx512vnni", "8": "avx512vnni", "9": "amx", "512": "amx"}
    assert re.search(r"exact=False\): (amxbf16|the same)", report["text"])
    assert re.search(r"gemm_q8_q4_0x16 +amx \(avx512vnni for few rows\)", report["text"])
