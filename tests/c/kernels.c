/* Every kernel that this machine can run against ref, bit by bit: what the Python tests do, where there is no
 * Python. Goes through dispatch, so a kernel that the CPU lacks instructions for is never called.
 *
 *   kernels [SEED]   prints "isas=ref,... kernels=N comparisons=N ok", or the first difference and exits with 1
 *
 * Buffers end at a page that must not be touched, and strides leave gaps that must stay as they were. */
#define _GNU_SOURCE
#include "kernel_cases.h"

#include "core/select.h"

static void run_el_quantize_act_q8_fn(el_quantize_act_q8_fn *got, el_quantize_act_q8_fn *want)
{
    for (size_t k = 0; k <= 576; k += k < 96 ? 32 : 480) {
        for (int fill = 0; fill < FILLS; fill++) {
            const buffer x = filled(k, fill, 1e30f);
            const buffer a = take(k / 32 * sizeof(el_act_q8), 4), b = take(a.bytes, 4);
            if (k > 64) f32(x)[3] = 127.0f * f32(x)[7];
            got(k, f32(x), (el_act_q8 *)(void *)a.at);
            want(k, f32(x), (el_act_q8 *)(void *)b.at);
            same(a, b, "other bits");
            drop(x);
        }
    }
    const buffer x = take(256 * 4, 4), a = take(8 * sizeof(el_act_q8), 4), b = take(a.bytes, 4);
    for (size_t i = 0; i < 256; i++) f32(x)[i] = i % 32 == 0 ? 127.0f : ((float)i - 127.0f) / 2;  // ties
    f32(x)[5] = nanf("");
    got(256, f32(x), (el_act_q8 *)(void *)a.at);
    want(256, f32(x), (el_act_q8 *)(void *)b.at);
    same(a, b, "ties or NaN");
    drop(x);
}

/// Rows, outputs, and blocks of k: past a panel (16 blocks) only where the rows are many enough for one.
static const struct {
    size_t m, n, blocks;
} SHAPES[] = {{0, 16, 1}, {1, 1, 1},  {1, 33, 2}, {2, 17, 1},  {3, 16, 2},  {4, 15, 1},
              {5, 31, 1}, {7, 16, 1}, {8, 18, 2}, {9, 17, 17}, {13, 16, 2}, {16, 33, 1}};
enum { N_SHAPES = sizeof SHAPES / sizeof *SHAPES };

static void gemm_q8_case(el_gemm_q8_fn *got, el_gemm_q8_fn *want, size_t m, size_t n, size_t k, buffer w,
                         int fill)
{
    const size_t blocks = k / 32, x_stride = blocks + 1, y_stride = n + 3;
    const buffer x = filled(m * x_stride * 32, fill, 1e4f);
    const buffer q = take(m * x_stride * sizeof(el_act_q8), 4);
    const buffer a = take(m * y_stride * 4, 4), b = take(a.bytes, 4);
    el_act_q8 *acts = (el_act_q8 *)(void *)q.at;
    el_quantize_act_q8__ref(m * x_stride * 32, f32(x), acts);
    got(m, n, k, w.at, acts, x_stride, f32(a), y_stride);
    want(m, n, k, w.at, acts, x_stride, f32(b), y_stride);
    same_f32(a, b);
    drop(x);
    drop(q);
    drop(w);
}

static void run_el_gemm_q8_fn(el_gemm_q8_fn *got, el_gemm_q8_fn *want)
{
    static const int bytes[] = {0x00, 0x7F, 0x80, 0xFF};
    bool found = false;
    for (size_t t = 0; t < N_TYPES; t++) {
        if (strcmp(TYPES[t].op, current_op) != 0) continue;
        const uint32_t type = TYPES[t].type;
        const size_t unit = el_pack_row_bytes(type, 32) == 0 ? 256 : 32;
        found = true;
        for (size_t s = 0; s < N_SHAPES; s++) {
            size_t k = SHAPES[s].blocks * unit;
            k = k > 768 ? 768 : k;
            gemm_q8_case(got, want, SHAPES[s].m, SHAPES[s].n, k, packed(type, SHAPES[s].n, k, -1), RANDOM);
        }
        for (size_t s = 0; s < 4; s++) {
            const size_t m = random_u32() % 24, n = 1 + random_u32() % 40,
                         k = unit * (1 + random_u32() % (1024 / unit));
            gemm_q8_case(got, want, m, n, k, packed(type, n, k, -1), WIDE);
        }
        for (int fill = 0; fill < FILLS; fill++) {
            for (size_t i = 0; i < 4; i++)
                gemm_q8_case(got, want, 1 + i, 16, unit, packed(type, 16, unit, bytes[i]), fill);
            gemm_q8_case(got, want, 11, 17, unit, packed(type, 17, unit, bytes[fill % 4]), fill);
            gemm_q8_case(got, want, 6, 16, 256, random_tiles(type, 16, 256), fill);
            gemm_q8_case(got, want, 1, 16, 256, random_tiles(type, 16, 256), fill);
        }
    }
    if (!found) fail("no type of this layout in TYPES", 0);
}

static void run_el_gemm_f32_fn(el_gemm_f32_fn *got, el_gemm_f32_fn *want)
{
    static const size_t ks[] = {0, 1, 3, 4, 5, 7, 64, 131};
    bool found = false;
    for (size_t t = 0; t < N_TYPES; t++) {
        if (strcmp(TYPES[t].op, current_op) != 0) continue;
        found = true;
        for (size_t s = 0; s < N_SHAPES; s++) {
            for (int fill = 0; fill < FILLS; fill++) {
                const size_t k = ks[(s + (size_t)fill) % 8], m = SHAPES[s].m, n = SHAPES[s].n;
                const size_t x_stride = k + 1, y_stride = n + 3;
                const buffer w = k > 0 ? packed(TYPES[t].type, n, k, -1) : take(64, 64);
                const buffer x = filled(m * x_stride, fill, 1e4f);
                const buffer a = take(m * y_stride * 4, 4), b = take(a.bytes, 4);
                got(m, n, k, w.at, f32(x), x_stride, f32(a), y_stride);
                want(m, n, k, w.at, f32(x), x_stride, f32(b), y_stride);
                same_f32(a, b);
                drop(x);
                drop(w);
            }
        }
    }
    if (!found) fail("no type of this layout in TYPES", 0);
}

static void run_el_rms_norm_fn(el_rms_norm_fn *got, el_rms_norm_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS; i++) {
        const size_t n = SIZES[i / FILLS];
        const buffer x = filled(n, (int)(i % FILLS), 1e4f), w = filled(n, RANDOM, 1), a = take(n * 4, 4),
                     b = copy(x);
        got(n, f32(x), f32(w), 1e-5f, f32(a));
        want(n, f32(b), f32(w), 1e-5f, f32(b));
        same_f32(a, b);
        drop(x);
        drop(w);
    }
}

static void run_el_layer_norm_fn(el_layer_norm_fn *got, el_layer_norm_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS * 2; i++) {
        const size_t n = SIZES[i / FILLS % N_SIZES];
        const buffer x = filled(n, (int)(i % FILLS), 1e4f), w = filled(n, RANDOM, 1),
                     c = filled(n, RANDOM, 1);
        const buffer a = take(n * 4, 4), b = copy(x);
        const float *bias = i < N_SIZES * FILLS ? f32(c) : NULL;
        got(n, f32(x), f32(w), bias, 1e-5f, f32(a));
        want(n, f32(b), f32(w), bias, 1e-5f, f32(b));
        same_f32(a, b);
        drop(x);
        drop(w);
        drop(c);
    }
}

/// In place and not; `want` is always in place.
static void map_case(el_map_fn *got, el_map_fn *want, size_t n, buffer x)
{
    const buffer a = take(n * 4, 4), b = copy(x), c = copy(x), d = copy(x);
    got(n, f32(x), f32(a));
    want(n, f32(b), f32(b));
    memcpy(d.at, b.at, b.bytes);
    same_f32(a, b);
    got(n, f32(c), f32(c));
    same_f32(c, d);
    drop(x);
}

static void run_el_map_fn(el_map_fn *got, el_map_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS; i++) {
        const size_t n = SIZES[i / FILLS];
        map_case(got, want, n, filled(n, (int)(i % FILLS), 100));
    }
    const size_t n = 32003;  // every exponent, both signs
    const buffer x = take(n * 4, 4);
    for (size_t i = 0; i < n; i++)
        f32(x)[i] = el_f32_from_bits((uint32_t)(i / 2 * 0x14007u) | (uint32_t)i << 31);
    for (size_t i = 0; i < n; i++) f32(x)[i] = fabsf(f32(x)[i]) < 1e12f ? f32(x)[i] : 1e12f;
    map_case(got, want, n, x);
}

static void run_el_softmax_fn(el_softmax_fn *got, el_softmax_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS; i++) {
        const size_t n = SIZES[i / FILLS];
        const buffer x = filled(n, (int)(i % FILLS), 100);
        if (n > 3) f32(x)[2] = -EL_INF;
        map_case(got, want, n, x);
    }
}

static void run_el_swiglu_fn(el_swiglu_fn *got, el_swiglu_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS; i++) {
        const size_t n = SIZES[i / FILLS];
        const buffer x = filled(n, (int)(i % FILLS), 100), u = filled(n, RANDOM, 1), a = copy(u), b = copy(x);
        got(n, f32(x), f32(a), f32(a));
        want(n, f32(b), f32(u), f32(b));
        same_f32(a, b);
        drop(x);
        drop(u);
    }
}

static void run_el_add_fn(el_add_fn *got, el_add_fn *want)
{
    for (size_t i = 0; i < N_SIZES * FILLS; i++) {
        const size_t n = SIZES[i / FILLS];
        const buffer x = filled(n, (int)(i % FILLS), 100), a = filled(n, RANDOM, 1), b = copy(a);
        got(n, f32(x), f32(a));
        want(n, f32(x), f32(b));
        same_f32(a, b);
        drop(x);
    }
}

static void run_el_rope_fn(el_rope_fn *got, el_rope_fn *want)
{
    static const size_t shapes[][3] = {{0, 8, 8},   {1, 8, 2},   {3, 64, 64},
                                       {2, 64, 48}, {2, 34, 34}, {1, 128, 0}};
    for (size_t s = 0; s < 6 * FILLS; s++) {
        const size_t heads = shapes[s / FILLS][0], d = shapes[s / FILLS][1], rotated = shapes[s / FILLS][2];
        const buffer cs = filled(rotated, RANDOM, 1), a = filled(heads * d, (int)(s % FILLS), 1e4f),
                     b = copy(a);
        got(heads, d, rotated, f32(cs), f32(a));
        want(heads, d, rotated, f32(cs), f32(b));
        same_f32(a, b);
        drop(cs);
    }
}

static const size_t HEADS[] = {8, 24, 64, 72, 128, 256};

/// A type of cache: what current_op ends with.
typedef struct cache_kind {
    size_t row_bytes;  // of one position's keys, or values
    size_t align;
    el_kv_write_fn *write;
} cache_kind;

static cache_kind kind_of(const char *op, size_t d)
{
    if (strstr(op, "_f32") != NULL) return (cache_kind){d * 4, 4, el_kv_write_f32__ref};
    if (strstr(op, "_f16") != NULL) return (cache_kind){d * 2, 2, el_kv_write_f16__ref};
    return (cache_kind){el_q8_row_bytes(d), 2, el_kv_write_q8_0__ref};
}

static void run_el_kv_write_fn(el_kv_write_fn *got, el_kv_write_fn *want)
{
    for (size_t i = 0; i < 6 * FILLS; i++) {
        const size_t d = HEADS[i / FILLS], position = random_u32() % 32;
        const cache_kind kind = kind_of(current_op, d);
        const buffer key = filled(d, (int)(i % FILLS), 1e4f), value = filled(d, WIDE, 1);
        const buffer k = take(32 * kind.row_bytes, kind.align), k_ref = take(k.bytes, kind.align),
                     v = take(k.bytes, kind.align), v_ref = take(k.bytes, kind.align);
        got(d, position, f32(key), f32(value), k.at, v.at);
        want(d, position, f32(key), f32(value), k_ref.at, v_ref.at);
        same(k, k_ref, "other keys");
        same(v, v_ref, "other values");
        drop(key);
        drop(value);
    }
}

/// Rows of queries and what each sees: growing, falling, equal or random by `order`.
static void attention_rows(size_t rows, size_t d, size_t s, unsigned order, size_t *offset, size_t *last)
{
    for (size_t r = 0; r < rows; r++) {
        const size_t steps[4] = {r * s / rows, (rows - 1 - r) * s / rows, s - 1, random_u32() % s};
        offset[r] = r * d;
        last[r] = steps[order % 4];
    }
}

enum { ATTENTION_CASES = 6 * 7 * 4, ROWS_MAX = 9 };

/// Compare both ways of seeing: everything, and a window of a ring whose places have been written again.
static void compare_attention(el_attention_fn *got, el_attention_fn *want, const buffer *cache, size_t rows,
                              size_t d, const size_t *offset, const size_t *last, size_t window, size_t ring)
{
    const buffer q = filled(rows * d, RANDOM, 1), a = take(rows * d * 4, 4), b = take(a.bytes, 4);
    got(rows, d, f32(q), offset, last, window, ring, 0.125f, cache[0].at, cache[1].at, f32(a));
    want(rows, d, f32(q), offset, last, window, ring, 0.125f, cache[0].at, cache[1].at, f32(b));
    same_f32(a, b);
    drop(q);
}

static void run_el_attention_fn(el_attention_fn *got, el_attention_fn *want)
{
    static const size_t counts[] = {0, 1, 2, 3, 4, 7, 9}, lengths[] = {1, 16, 65, 150};
    size_t offset[ROWS_MAX], last[ROWS_MAX];
    for (size_t i = 0; i < ATTENTION_CASES; i++) {
        const size_t d = HEADS[i % 6], rows = counts[i / 6 % 7], s = lengths[i / 42];
        const bool ring = s == 150 && i % 2 == 0;
        const size_t places = el_round_up(s, ring ? EL_KEY_BLOCK : EL_KEYS), start = ring ? 1100 : 0;
        const cache_kind kind = kind_of(current_op, d);
        const buffer cache[2] = {take(places * kind.row_bytes, kind.align),
                                 take(places * kind.row_bytes, kind.align)};
        memset(cache[0].at, 0xFF, cache[0].bytes);  // NaN where nothing is written
        memset(cache[1].at, 0xFF, cache[1].bytes);
        for (size_t p = 0; p < s; p++) {
            const buffer key = filled(d, RANDOM, 1), value = filled(d, WIDE, 1);
            kind.write(d, (start + p) % places, f32(key), f32(value), cache[0].at, cache[1].at);
            drop(key);
            drop(value);
        }
        attention_rows(rows, d, s, (unsigned)(i / 6), offset, last);
        if (ring) {
            for (size_t r = 0; r < rows; r++) last[r] = start + 79 + last[r] % 71;
            compare_attention(got, want, cache, rows, d, offset, last, 80, places);
        } else {
            compare_attention(got, want, cache, rows, d, offset, last, SIZE_MAX,
                              el_round_up(s, EL_KEY_BLOCK));
        }
        drop(cache[0]);
        drop(cache[1]);
    }
}

static void run_el_f32_to_f16_fn(el_f32_to_f16_fn *got, el_f32_to_f16_fn *want)
{
    const size_t n = 40009;
    const buffer x = take(n * 4, 4), a = take(n * 2, 2), b = take(n * 2, 2);
    for (size_t i = 0; i < n; i++)
        f32(x)[i] = el_f32_from_bits((uint32_t)i * 0x1A2B3u);  // all exponents, Inf, NaN
    for (size_t i = 0; i < 4096; i++) f32(x)[i] = (float)i * 0x1p-25f;  // subnormals and their ties
    got(n, f32(x), u16(a));
    want(n, f32(x), u16(b));
    same(a, b, "other bits");
    for (size_t i = 0; i < N_SIZES; i++) {
        const buffer c = take(SIZES[i] * 2, 2), d = take(SIZES[i] * 2, 2);
        got(SIZES[i], f32(x) + i, u16(c));
        want(SIZES[i], f32(x) + i, u16(d));
        same(c, d, "other bits");
    }
    drop(x);
}

static void run_el_f16_to_f32_fn(el_f16_to_f32_fn *got, el_f16_to_f32_fn *want)
{
    const size_t n = 65537;  // all of them, and a tail
    const buffer x = take(n * 2, 2), a = take(n * 4, 4), b = take(n * 4, 4);
    for (size_t i = 0; i < n; i++) u16(x)[i] = (uint16_t)i;
    got(n, u16(x), f32(a));
    want(n, u16(x), f32(b));
    same(a, b, "other bits");
    drop(x);
}

static void run_el_interleave_fn(el_interleave_fn *got, el_interleave_fn *want)
{
    for (size_t i = 0; i < 16 * 9; i++) {
        const size_t rows = i / 9 + 1, words = i % 9, blocks = i % 3 + 1, gap = i % 2 * 6;
        const size_t x_step = words * 4 + gap, row_bytes = blocks * x_step + 2, y_step = words * 64 + gap;
        const buffer x = take(rows * row_bytes, 1), a = take(blocks * y_step, 1),
                     b = take(blocks * y_step, 1);
        const uint32_t flip = i % 2 == 0 ? 0 : 0x80808080u;
        for (size_t at = 0; at < x.bytes; at++) x.at[at] = (uint8_t)random_u32();
        got(rows, blocks, words, x.at, row_bytes, x_step, flip, a.at, y_step);
        want(rows, blocks, words, x.at, row_bytes, x_step, flip, b.at, y_step);
        same(a, b, "other words");
        drop(x);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) state = strtoull(argv[1], NULL, 10);
    const uint64_t cpu = el_cpu_features();
    char ran[128] = "";
    el_kernels ref, table;
    el_kernels_select(&ref, 0, cpu, EL_MANY_ROWS);
    for (size_t isa = 0; el_isa_name(isa) != NULL; isa++) {
        size_t index;
        current_isa = el_isa_name(isa);
        if (el_isa_find(current_isa, cpu, &index, NULL) != EL_OK) continue;
        snprintf(ran + strlen(ran), sizeof ran - strlen(ran), "%s%s", isa == 0 ? "" : ",", current_isa);
        el_kernels_select(&table, index, cpu, EL_MANY_ROWS);
        // An operation that this ISA leaves to a lower one has been compared there.
#define EL_OP(op, type)                                                                                      \
    current_op = #op;                                                                                        \
    if (isa != 0 && strcmp(el_op_isa(#op, index, cpu, EL_MANY_ROWS), current_isa) == 0) {                    \
        run_##type(table.op, ref.op);                                                                        \
        kernels_run++;                                                                                       \
    }
#include "kernels/kernels_ops.def"
#undef EL_OP
    }
    printf("isas=%s kernels=%lu comparisons=%lu ok\n", ran, kernels_run, comparisons);
    return 0;
}
