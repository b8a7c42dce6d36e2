"""Features count only if the processor has them and the operating system saves their registers."""

import platform

import pytest

from edgellm import _core, cpu

FMA, F16C = 1 << 12, 1 << 29
AVX2, F, DQ, BW, VL = 1 << 5, 1 << 16, 1 << 17, 1 << 30, 1 << 31
VNNI, AVX_VNNI, AVX512_BF16 = 1 << 11, 1 << 4, 1 << 5
AMX_BF16, AMX_TILE, AMX_INT8 = 1 << 22, 1 << 24, 1 << 25
AMX = AMX_TILE | AMX_INT8 | AMX_BF16
YMM, ZMM, TILES = 0x7, 0xE7, 0x600E7

ICE_LAKE = {"leaf1": FMA | F16C, "leaf7": AVX2 | F | DQ | BW | VL, "leaf7_ecx": VNNI}


def decode(leaf1=0, leaf7=0, leaf7_ecx=0, leaf7_edx=0, leaf7_1=0, xcr0=0):
    return _core.testing_cpu_decode(leaf1, leaf7, leaf7_ecx, leaf7_edx, leaf7_1, xcr0)


def test_features_of_a_full_machine():
    everything = decode(**ICE_LAKE, leaf7_edx=AMX, leaf7_1=AVX_VNNI | AVX512_BF16, xcr0=TILES)
    avx = ["avx2", "fma", "f16c", "avx_vnni", "avx512", "avx512_vnni"]
    assert everything == [*avx, "amx_int8", "amx_bf16"]


def test_features_without_os_support_do_not_count():
    assert decode(**ICE_LAKE, leaf7_edx=AMX, leaf7_1=AVX_VNNI, xcr0=0) == []
    assert decode(**ICE_LAKE, leaf7_edx=AMX, xcr0=0x3) == []  # x87 and SSE alone


def test_features_of_an_os_that_saves_ymm_only():
    assert decode(**ICE_LAKE, leaf7_edx=AMX, xcr0=YMM) == ["avx2", "fma", "f16c"]


def test_tiles_need_their_own_state():
    assert "amx_int8" not in decode(**ICE_LAKE, leaf7_edx=AMX, xcr0=ZMM)
    assert "amx_int8" not in decode(**ICE_LAKE, leaf7_edx=AMX & ~AMX_TILE, xcr0=TILES)


def test_tile_arithmetics_are_features_of_their_own():
    for features in ({"leaf7_edx": AMX & ~AMX_BF16, "leaf7_1": AVX512_BF16}, {"leaf7_edx": AMX}):
        only = decode(**ICE_LAKE, **features, xcr0=TILES)
        assert "amx_int8" in only
        assert "amx_bf16" not in only


def test_tiles_count_only_if_the_kernel_grants_them():
    """What /proc/cpuinfo shows is what CPU and kernel have; this process may still be refused."""
    assert "amx_int8" not in cpu.features() or "amx_tile" in _cpu_flags()


@pytest.mark.parametrize("part", [F, DQ, BW, VL])
def test_avx512_needs_all_its_parts(part):
    partial = {**ICE_LAKE, "leaf7": ICE_LAKE["leaf7"] & ~part}
    assert "avx512" not in decode(**partial, xcr0=ZMM)


def test_features_of_an_old_machine():
    assert decode(leaf1=0, xcr0=0x3) == []


# Bits of Linux's arm64 <asm/hwcap.h>.
FP, ASIMD, ASIMDHP, ASIMDRDM, ASIMDDP, I8MM = 1 << 0, 1 << 1, 1 << 10, 1 << 12, 1 << 20, 1 << 13
CORTEX_A72 = FP | ASIMD | 0xF8 | 1 << 7  # a Raspberry Pi 4: CRC32 and the like, no dot products
CORTEX_A76 = CORTEX_A72 | ASIMDHP | ASIMDRDM | ASIMDDP  # a Raspberry Pi 5


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "features"),
    [
        (CORTEX_A72, 0, ["neon"]),
        (CORTEX_A76, 0, ["neon", "dotprod"]),
        (CORTEX_A76, I8MM, ["neon", "dotprod", "i8mm"]),
        (CORTEX_A72, I8MM, ["neon", "i8mm"]),
        (0xFFFFFFFF & ~(ASIMD | ASIMDDP), 0xFFFFFFFF & ~I8MM, []),
        (0, 0, []),
        ((1 << 64) - 1, (1 << 64) - 1, ["neon", "dotprod", "i8mm"]),
    ],
)
def test_features_that_linux_reports_on_arm(hwcap, hwcap2, features):
    assert _core.testing_cpu_decode_hwcap(hwcap, hwcap2) == features


AVX2_SET = ("avx2", "fma", "f16c")
AVX512_SET = (*AVX2_SET, "avx512", "avx512_vnni")


@pytest.mark.parametrize(
    ("features", "product", "other"),
    [
        ((), ["ref"], ["ref"]),
        (AVX2_SET[:2], ["ref"], ["ref"]),
        (AVX2_SET, ["avx2", "ref"], ["avx2", "ref"]),  # Haswell to Comet Lake, Zen 1 to 3
        (("avx_vnni",), ["ref"], ["ref"]),
        ((*AVX2_SET, "avx_vnni"), ["avxvnni", "avx2", "ref"], ["avx2", "ref"]),  # Alder Lake
        (AVX512_SET, ["avx512vnni", "avx2", "ref"], ["avx512vnni", "avx2", "ref"]),  # Ice Lake, Zen 4
        ((*AVX512_SET, "avx_vnni"), ["avx512vnni", "avxvnni", "avx2", "ref"], ["avx512vnni", "avx2", "ref"]),
        (("neon",), ["neon", "ref"], ["neon", "ref"]),  # Raspberry Pi 3 and 4
        (("neon", "dotprod"), ["dotprod", "neon", "ref"], ["neon", "ref"]),  # Raspberry Pi 5
        (("neon", "dotprod", "i8mm"), ["i8mm", "dotprod", "neon", "ref"], ["neon", "ref"]),
        (("neon", "i8mm"), ["neon", "ref"], ["neon", "ref"]),
    ],
)
def test_kernels_of_machines_with_these_features(features, product, other):
    rows = _core.testing_kernel_list()
    built = {isa for _, isa in rows}
    products = [op for op, isa in rows if isa == "ref" and op.startswith("gemm_q8_")]
    assert len(products) == 12
    for op in products:
        assert _core.testing_cpu_choose(features, op, 1) == next(isa for isa in product if isa in built), op
    for op in ("rms_norm", "attention_f16", "quantize_act_q8", "gemm_f32_f16x16"):
        assert _core.testing_cpu_choose(features, op, 1) == next(isa for isa in other if isa in built), op


# What Linux calls them in /proc/cpuinfo: the name of its line, and of each feature.
CPUINFO = {
    "x86_64": ("flags", {"avx2": "avx2", "fma": "fma", "f16c": "f16c", "avx512_vnni": "avx512_vnni"}),
    "aarch64": ("Features", {"neon": "asimd", "dotprod": "asimddp", "i8mm": "i8mm"}),
}


def _cpu_flags():
    key = CPUINFO.get(platform.machine(), ("none", {}))[0]
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":")[1].split() for line in file if line.startswith(key)), None)
    except OSError:
        return None


def test_features_of_this_machine_are_those_of_the_kernel():
    flags = _cpu_flags()
    if flags is None:  # an emulator shows its host's
        pytest.skip("no flags of this architecture in /proc/cpuinfo")
    for ours, theirs in CPUINFO[platform.machine()][1].items():
        assert (ours in cpu.features()) == (theirs in flags), ours


def test_runnable_isas_start_with_ref():
    isas = cpu.runnable_isas()
    assert isas[0] == "ref"
    assert ("avx2" in isas) == ({"avx2", "fma", "f16c"} <= set(cpu.features()))


def test_unknown_isa_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown isa 'sse9'.*ref"):
        cpu.kernels("sse9")


def test_count_is_the_affinity_mask():
    import os

    assert cpu.count() == len(os.sched_getaffinity(0))
