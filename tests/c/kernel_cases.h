/* Inputs for tests/c/kernels.c: buffers before a guard page, fills, and packed weights of every type. */
#ifndef TESTS_KERNEL_CASES_H
#define TESTS_KERNEL_CASES_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/el_math.h"
#include "kernels/el_pack.h"

enum { RANDOM, ZEROS, MINUS_ZEROS, ALL_MAX, ALL_MIN, ALTERNATING, SUBNORMAL, WIDE, FILLS };
enum { F32 = 0, F16 = 1, BF16 = 30 };

static const size_t SIZES[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 576, 1027};
enum { N_SIZES = sizeof SIZES / sizeof *SIZES };

static uint64_t state = 1;
static const char *current_op, *current_isa;
static unsigned long comparisons, kernels_run;

static uint32_t random_u32(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) ^ (uint32_t)(state >> 11);
}

static float random_f32(void) { return (float)(int32_t)random_u32() * 0x1p-31f; }  // -1 to 1

_Noreturn static void fail(const char *what, size_t at)
{
    printf("%s %s: %s at %zu\n", current_op, current_isa, what, at);
    exit(1);
}

/// `bytes` bytes whose end is as near to an unreadable page as `align` allows; freed by `drop`.
typedef struct buffer {
    uint8_t *map, *at;
    size_t mapped, bytes;
} buffer;

static buffer take(size_t bytes, size_t align)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = el_round_up(bytes + align, page);
    buffer b = {NULL, NULL, inside + page, bytes};
    b.map = mmap(NULL, b.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED || mprotect(b.map + inside, page, PROT_NONE) != 0) fail("no memory", bytes);
    b.at = b.map + (inside - bytes) / align * align;
    memset(b.at, 0x5A, bytes);
    return b;
}

static void drop(buffer b) { munmap(b.map, b.mapped); }

static void same(buffer got, buffer want, const char *what)
{
    comparisons++;
    for (size_t i = 0; i < want.bytes; i++) {
        if (got.at[i] != want.at[i]) fail(what, i / 4);
    }
    drop(got);
    drop(want);
}

/// The same, and no result is NaN.
static void same_f32(buffer got, buffer want)
{
    for (size_t i = 0; i < want.bytes / 4; i++) {
        if (isnan(((const float *)(const void *)want.at)[i])) fail("NaN in the reference", i);
    }
    same(got, want, "other bits");
}

static float *f32(buffer b) { return (float *)(void *)b.at; }
static uint16_t *u16(buffer b) { return (uint16_t *)(void *)b.at; }

static buffer filled(size_t n, int fill, float top)
{
    const buffer b = take(n * 4, 4);
    for (size_t i = 0; i < n; i++) {
        const float r = random_f32();
        const float values[FILLS] = {r,          0.0f,
                                     -0.0f,      top,
                                     -top,       i % 2 == 0 ? top : -top,
                                     r * 1e-41f, ldexpf(r, (int)(random_u32() % 52) - 40)};
        f32(b)[i] = values[fill];
    }
    return b;
}

static buffer copy(buffer from)
{
    const buffer b = take(from.bytes, 4);
    memcpy(b.at, from.at, from.bytes);
    return b;
}

/// Bytes of a GGUF row: `byte` everywhere, or random for -1; scales are finite.
static void fill_rows(uint32_t type, size_t rows, size_t k, int byte, uint8_t *out)
{
    static const struct {
        uint8_t type, heads, at[2];
        uint16_t values;
    } known[] = {{F16, 1, {0}, 1},       {BF16, 1, {0}, 1},   {2, 1, {0}, 32},      {3, 2, {0, 2}, 32},
                 {6, 1, {0}, 32},        {7, 2, {0, 2}, 32},  {8, 1, {0}, 32},      {20, 1, {0}, 32},
                 {10, 2, {80, 82}, 256}, {11, 1, {108}, 256}, {12, 2, {0, 2}, 256}, {13, 2, {0, 2}, 256},
                 {14, 1, {208}, 256},    {34, 1, {52}, 256},  {35, 1, {64}, 256}};
    const size_t bytes = rows * el_pack_row_bytes(type, k);
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(byte < 0 ? (int)(random_u32() & 255) : byte);
    for (size_t i = 0; type == F32 && i < rows * k; i++) {
        const float r = random_f32();
        memcpy(out + i * 4, &r, 4);
    }
    for (size_t t = 0; t < sizeof known / sizeof *known; t++) {
        if (known[t].type != type) continue;
        const size_t block = el_pack_row_bytes(type, known[t].values);
        for (size_t at = 0; at < bytes; at += block) {
            for (size_t h = 0; h < known[t].heads; h++) {
                const float d = ldexpf(random_f32(), type == BF16 ? 0 : -(int)(random_u32() % 12));
                const uint32_t bits = el_f32_bits(d);
                const uint16_t head = type == BF16 ? (uint16_t)(bits >> 16) : el_f32_to_f16(d);
                memcpy(out + at + known[t].at[h], &head, 2);
            }
        }
    }
}

/// n rows of a type, packed.
static buffer packed(uint32_t type, size_t n, size_t k, int byte)
{
    const size_t row = el_pack_row_bytes(type, k);
    const size_t tile = el_pack_tile_bytes((el_layout)el_pack_layout(type), k);
    uint8_t *rows = malloc(n * row + 1);
    if (rows == NULL || tile == 0) fail("no rows", n);
    const buffer w = take((n + 15) / 16 * tile, 64);
    fill_rows(type, n, k, byte, rows);
    for (size_t i = 0; i < n; i += 16) {
        el_pack_tile(type, n - i < 16 ? n - i : 16, k, rows + i * row, w.at + i / 16 * tile);
    }
    free(rows);
    return w;
}

/// Tiles that no file gives: every sub-scale and integer there is, under finite scales.
static buffer random_tiles(uint32_t type, size_t n, size_t k)
{
    const buffer w = packed(type, n, k, -1);
    const el_layout layout = (el_layout)el_pack_layout(type);
    const el_parts parts = el_parts_of(el_shape_of(layout), k);
    for (size_t at = 0; at < w.bytes; at++) {
        if (at % parts.bytes >= parts.s) w.at[at] = (uint8_t)random_u32();
    }
    return w;
}

static const struct {
    const char *op;
    uint32_t type;
} TYPES[] = {{"gemm_f32_f32x16", F32}, {"gemm_f32_f16x16", F16},  {"gemm_f32_bf16x16", BF16},
             {"gemm_q8_q4_0x16", 2},   {"gemm_q8_q4_1x16", 3},    {"gemm_q8_q5_0x16", 6},
             {"gemm_q8_q5_1x16", 7},   {"gemm_q8_q8_0x16", 8},    {"gemm_q8_q2_kx16", 10},
             {"gemm_q8_q3_kx16", 11},  {"gemm_q8_q4_kx16", 12},   {"gemm_q8_q5_kx16", 13},
             {"gemm_q8_q6_kx16", 14},  {"gemm_q8_iq4_nlx16", 20}, {"gemm_q8_tq2_0x16", 34},
             {"gemm_q8_tq2_0x16", 35}};
enum { N_TYPES = sizeof TYPES / sizeof *TYPES };

#endif
