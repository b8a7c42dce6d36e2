#ifndef EL_CORE_CPU_DETECT_H
#define EL_CORE_CPU_DETECT_H

#include <stdint.h>

/// What CPUID and XGETBV of an x86 machine answer; zero where a leaf does not exist.
typedef struct el_cpuid {
    uint32_t leaf1_ecx;
    uint32_t leaf7_ebx, leaf7_ecx, leaf7_edx;
    uint32_t leaf7_1_eax;
    uint64_t xcr0;  ///< 0 when the operating system has not enabled XSAVE
} el_cpuid;

/// Features (EL_CPU_*) that both the CPU and the operating system support. Pure.
uint64_t el_cpu_decode(const el_cpuid *id);

/// For tests that emulate instructions: from now on el_cpu_features() has these as well. No public
/// function leads here.
void el_cpu_pretend(uint64_t features);

/// The same from what Linux tells a program on AArch64 in AT_HWCAP and AT_HWCAP2. Pure.
uint64_t el_cpu_decode_hwcap(uint64_t hwcap, uint64_t hwcap2);

#endif
