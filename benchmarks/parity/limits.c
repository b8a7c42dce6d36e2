/* What one core of this machine can do at most: read memory, and multiply 8-bit integers in registers.
 *
 * Built by peer_limits.py with the system's compiler; each function returns a value that depends on all of
 * its work, so that none of it can be left out. Instruction sets are chosen per function by attribute: the
 * caller asks only for what the processor has.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t vec __attribute__((vector_size(32)));

/* Read `bytes` (a multiple of 256) `passes` times, prefetching `ahead` bytes: the longest distances keep the
 * most lines in flight, past the 4 KB at which a hardware prefetcher stops. */
#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
uint64_t limit_read(const uint8_t *data, size_t bytes, size_t passes, size_t ahead)
{
    vec a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < bytes; i += 256) {
            const vec *p = (const vec *)(data + i);
            if (ahead != 0) {
                for (size_t line = 0; line < 256; line += 64) {
                    __builtin_prefetch(data + i + ahead + line);
                }
            }
            a += p[0] ^ p[4];
            b += p[1] ^ p[5];
            c += p[2] ^ p[6];
            d += p[3] ^ p[7];
        }
        __asm__ volatile("" ::: "memory");
    }
    a += b + c + d;
    return a[0] ^ a[1] ^ a[2] ^ a[3];
}

/* Each of these runs `rounds` rounds of 12 independent chains and returns the multiplications and additions
 * (two per product) that one round does. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TWELVE(step)                                                                                         \
    step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)

__attribute__((target("avx512f,avx512bw,avx512vnni"))) uint64_t limit_avx512vnni(size_t rounds,
                                                                                 uint64_t *sink)
{
    __m512i acc[12], x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(5);
    for (int i = 0; i < 12; i++) acc[i] = _mm512_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#define STEP(i) acc[i] = _mm512_dpbusd_epi32(acc[i], x, w);
        TWELVE(STEP)
#undef STEP
        __asm__ volatile("" : "+v"(x), "+v"(w));
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    *sink = (uint64_t)_mm512_reduce_add_epi32(acc[0]);
    return 12 * 64 * 2;
}

__attribute__((target("avx2,avxvnni"))) uint64_t limit_avxvnni(size_t rounds, uint64_t *sink)
{
    __m256i acc[12], x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5);
    for (int i = 0; i < 12; i++) acc[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#define STEP(i) acc[i] = _mm256_dpbusd_avx_epi32(acc[i], x, w);
        TWELVE(STEP)
#undef STEP
        __asm__ volatile("" : "+x"(x), "+x"(w));
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink = (uint64_t)_mm256_extract_epi32(acc[0], 0);
    return 12 * 32 * 2;
}

/* maddubs, madd with ones, add: the shortest exact way from bytes to 32-bit sums without VNNI. */
__attribute__((target("avx2"))) uint64_t limit_avx2(size_t rounds, uint64_t *sink)
{
    __m256i acc[12], x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(5), one = _mm256_set1_epi16(1);
    for (int i = 0; i < 12; i++) acc[i] = _mm256_set1_epi32(i);
    for (size_t r = 0; r < rounds; r++) {
#define STEP(i)                                                                                              \
    acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), one));                   \
    __asm__ volatile("" : "+x"(x), "+x"(w));
        TWELVE(STEP)
#undef STEP
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    *sink = (uint64_t)_mm256_extract_epi32(acc[0], 0);
    return 12 * 32 * 2;
}

/* Tiles of 16 x 64 bytes, four accumulators, nothing loaded in the loop. The permission comes from the caller
 * (arch_prctl). Inline assembly: gcc 12's _tile_loadconfig loses the stores to its operand. */
uint64_t limit_amx(size_t rounds, uint64_t *sink)
{
    static uint8_t config[64] __attribute__((aligned(64)));
    config[0] = 1;
    for (int t = 0; t < 8; t++) {
        config[16 + 2 * t] = 64;
        config[48 + t] = 16;
    }
    /* Spelt as bytes for assemblers that do not know AMX: ldtilecfg (%rax). */
    __asm__ volatile(".byte 0xc4,0xe2,0x78,0x49,0x00" ::"a"(config), "m"(config));
#define TILEZERO(t) __asm__ volatile(".byte 0xc4,0xe2,0x7b,0x49,%c0" ::"i"(0xc0 + 8 * (t)));
    TILEZERO(0)
    TILEZERO(1) TILEZERO(2) TILEZERO(3) TILEZERO(4) TILEZERO(5) TILEZERO(6)
        TILEZERO(7) for (size_t r = 0; r < rounds; r++)
    {
        /* tdpbssd %tmm5, %tmm4, %tmm{0,1,2,3} */
        __asm__ volatile(".byte 0xc4,0xe2,0x53,0x5e,0xc4, 0xc4,0xe2,0x53,0x5e,0xcc, "
                         "0xc4,0xe2,0x53,0x5e,0xd4, 0xc4,0xe2,0x53,0x5e,0xdc");
    }
    __asm__ volatile(".byte 0xc4,0xe2,0x78,0x49,0xc0"); /* tilerelease */
    *sink = rounds;
    return 4 * 16 * 16 * 64 * 2;
}
#elif defined(__aarch64__)
#include <arm_neon.h>

__attribute__((target("arch=armv8.2-a+dotprod"))) uint64_t limit_dotprod(size_t rounds, uint64_t *sink)
{
    int32x4_t acc[12];
    int8x16_t x = vdupq_n_s8(3), w = vdupq_n_s8(5);
    for (int i = 0; i < 12; i++) acc[i] = vdupq_n_s32(i);
    for (size_t r = 0; r < rounds; r++) {
        for (int i = 0; i < 12; i++) acc[i] = vdotq_s32(acc[i], x, w);
        __asm__ volatile("" : "+w"(x), "+w"(w));
    }
    for (int i = 1; i < 12; i++) acc[0] = vaddq_s32(acc[0], acc[i]);
    *sink = (uint64_t)vaddvq_s32(acc[0]);
    return 12 * 16 * 2;
}
#endif
