"""kernels.def is complete, and docs/kernels.md is made from it."""

import re
import subprocess
import sys

import pytest

from edgellm import _core, cpu


def test_every_operation_has_a_reference():
    rows = _core.testing_kernel_list()
    assert {op for op, isa in rows if isa == "ref"} == set(cpu.kernels())


def test_rows_are_unique_and_slowest_first():
    rows = _core.testing_kernel_list()
    order = list(dict.fromkeys(isa for _, isa in rows))
    assert len(set(rows)) == len(rows)
    assert order[0] == "ref"
    assert order == [
        isa for isa in ["ref", "avx2", "avxvnni", "avx512vnni", "amx", "amxbf16"] if isa in order
    ]


@pytest.mark.parametrize("isa", cpu.runnable_isas())
def test_cap_is_respected(isa):
    isas = cpu.runnable_isas()
    chosen = cpu.kernels(isa)
    assert all(isas.index(got) <= isas.index(isa) for got in chosen.values())
    has = {op for op, row in _core.testing_kernel_list() if row == isa}
    assert {op for op, got in chosen.items() if got == isa} == has


def test_kernel_page_is_current(root):
    page = (root / "docs" / "kernels.md").read_text(encoding="utf-8")
    made = subprocess.run(
        [sys.executable, str(root / "tools" / "kernels_page.py")], capture_output=True, text=True, check=True
    )
    assert page == made.stdout, "run: python tools/kernels_page.py > docs/kernels.md"


# What users of each family get; a machine that cannot build a folder still has its rows in the list.
ISA_ORDER = ["ref", "avx2", "avxvnni", "avx512vnni", "amx", "neon", "dotprod", "i8mm", "amxbf16"]


def rows_of_the_list(root):
    text = (root / "csrc" / "kernels" / "kernels.def").read_text(encoding="utf-8")
    return re.findall(r"^EL_KERNEL\((\w+), (\w+), (\w+)\)$", text, re.MULTILINE)


def test_list_goes_from_slow_to_fast_on_every_family(root):
    order = list(dict.fromkeys(isa for _, isa, _ in rows_of_the_list(root)))
    assert order == [isa for isa in ISA_ORDER if isa in order]
    assert {"neon", "dotprod", "i8mm"} <= set(order)


def test_every_row_needs_what_its_isa_needs(root):
    for op, isa, needs in rows_of_the_list(root):
        assert needs == ("0" if isa == "ref" else f"EL_NEEDS_{isa.upper()}"), (op, isa)


def test_neon_has_every_operation(root):
    rows = [(op, isa) for op, isa, _ in rows_of_the_list(root)]
    assert {op for op, isa in rows if isa == "neon"} == {op for op, isa in rows if isa == "ref"}
    products = {op for op, isa in rows if isa == "ref" and op.startswith("gemm_q8")}
    for isa in ("dotprod", "i8mm"):
        assert {op for op, row in rows if row == isa} == products


def test_every_listed_kernel_has_its_file(root):
    text = (root / "csrc" / "kernels" / "kernels.def").read_text(encoding="utf-8")
    for op, isa in re.findall(r"^EL_KERNEL\((\w+), (\w+),", text, re.MULTILINE):
        bodies = [p.read_text(encoding="utf-8") for p in (root / "csrc" / "kernels" / isa).glob("*.c")]
        assert sum(f"void el_{op}__{isa}(" in body for body in bodies) == 1, (op, isa)
