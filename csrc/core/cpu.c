/* CPU features. Asking is apart from deciding, so that tests can play any machine. */
#if defined(__linux__)
#define _GNU_SOURCE  // sched_getaffinity, syscall
#include <sched.h>
#include <sys/syscall.h>
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "core/cpu_detect.h"
#include "edgellm/cpu.h"

static const struct {
    const char *name;
    uint64_t bit;
} features[] = {
    {"avx2", EL_CPU_AVX2},         {"fma", EL_CPU_FMA},           {"f16c", EL_CPU_F16C},
    {"avx_vnni", EL_CPU_AVX_VNNI}, {"avx512", EL_CPU_AVX512},     {"avx512_vnni", EL_CPU_AVX512_VNNI},
    {"amx_int8", EL_CPU_AMX_INT8}, {"amx_bf16", EL_CPU_AMX_BF16}, {"neon", EL_CPU_NEON},
    {"dotprod", EL_CPU_DOTPROD},   {"i8mm", EL_CPU_I8MM},
};

const char *el_cpu_feature_name(size_t i, uint64_t *bit)
{
    if (i >= sizeof features / sizeof *features) return NULL;
    *bit = features[i].bit;
    return features[i].name;
}

uint64_t el_cpu_decode(const el_cpuid *id)
{
    // A register file counts only if the OS saves it: bits of XCR0.
    const uint64_t ymm = 0x6, zmm = 0xE6, tiles = 0x60000;
    const bool os_ymm = (id->xcr0 & ymm) == ymm;
    const bool os_zmm = (id->xcr0 & zmm) == zmm;
    const bool has_tiles = (id->xcr0 & tiles) == tiles && (id->leaf7_edx >> 24 & 1) != 0;
    const uint32_t f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;

    uint64_t cpu = 0;
    if (os_ymm && (id->leaf7_ebx >> 5 & 1) != 0) cpu |= EL_CPU_AVX2;
    if (os_ymm && (id->leaf1_ecx >> 12 & 1) != 0) cpu |= EL_CPU_FMA;
    if (os_ymm && (id->leaf1_ecx >> 29 & 1) != 0) cpu |= EL_CPU_F16C;
    if (os_ymm && (id->leaf7_1_eax >> 4 & 1) != 0) cpu |= EL_CPU_AVX_VNNI;
    if (os_zmm && (id->leaf7_ebx & f_dq_bw_vl) == f_dq_bw_vl) cpu |= EL_CPU_AVX512;
    if (os_zmm && (id->leaf7_ecx >> 11 & 1) != 0) cpu |= EL_CPU_AVX512_VNNI;
    if (has_tiles && (id->leaf7_edx >> 25 & 1) != 0) cpu |= EL_CPU_AMX_INT8;
    const bool rounds = (id->leaf7_1_eax >> 5 & 1) != 0;  // AVX512_BF16, which fills the tiles
    if (has_tiles && rounds && (id->leaf7_edx >> 22 & 1) != 0) cpu |= EL_CPU_AMX_BF16;
    return cpu;
}

uint64_t el_cpu_decode_hwcap(uint64_t hwcap, uint64_t hwcap2)
{
    // Bits of Linux's arm64 <asm/hwcap.h>: ASIMD, ASIMDDP, I8MM. Vector registers are one file, saved always.
    if ((hwcap >> 1 & 1) == 0) return 0;
    uint64_t cpu = EL_CPU_NEON;
    if ((hwcap >> 20 & 1) != 0) cpu |= EL_CPU_DOTPROD;
    if ((hwcap2 >> 13 & 1) != 0) cpu |= EL_CPU_I8MM;
    return cpu;
}

#if defined(__x86_64__)
#include <cpuid.h>

#if defined(__linux__)
/// Linux saves tiles only for a process that has asked. What it grants holds for all threads, those that
/// exist already and those to come, and for children of a fork; it cannot be taken back.
static bool tiles_granted(void)
{
    const long ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
static bool tiles_granted(void) { return false; }
#endif

static uint64_t detect(void)
{
    el_cpuid id = {0};
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    id.leaf1_ecx = c;
    if ((c >> 27 & 1) != 0) {  // OSXSAVE: XGETBV may be executed
        uint32_t low, high;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        id.xcr0 = (uint64_t)high << 32 | low;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        id.leaf7_ebx = b;
        id.leaf7_ecx = c;
        id.leaf7_edx = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) id.leaf7_1_eax = a;
    }
    const uint64_t cpu = el_cpu_decode(&id), tiles = EL_CPU_AMX_INT8 | EL_CPU_AMX_BF16;
    return (cpu & tiles) == 0 || tiles_granted() ? cpu : cpu & ~tiles;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

static uint64_t detect(void) { return el_cpu_decode_hwcap(getauxval(AT_HWCAP), getauxval(AT_HWCAP2)); }

#else

static uint64_t detect(void) { return 0; }

#endif

static _Atomic uint64_t known;
static const uint64_t asked = UINT64_C(1) << 63;

uint64_t el_cpu_features(void)
{
    // In a virtual machine each CPUID traps to the host: tens of microseconds. The answer never changes, so
    // threads that race here store the same.
    uint64_t cpu = atomic_load_explicit(&known, memory_order_relaxed);
    if ((cpu & asked) == 0) {
        cpu = detect() | asked;
        atomic_store_explicit(&known, cpu, memory_order_relaxed);
    }
    return cpu & ~asked;
}

void el_cpu_pretend(uint64_t features)
{
    const uint64_t cpu = el_cpu_features() | asked;
    atomic_store_explicit(&known, cpu | features, memory_order_relaxed);
}

#if defined(__linux__)

size_t el_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        const int count = CPU_COUNT(&set);
        if (count > 0) return (size_t)count;
    }
    const long online = sysconf(_SC_NPROCESSORS_ONLN);  // more than 1024 CPUs
    return online > 0 ? (size_t)online : 1;
}

#else

size_t el_cpu_count(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (size_t)online : 1;
}

#endif
