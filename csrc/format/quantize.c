/* Rounding values to the types that the `gguf` package can make, bit for bit as its NumPy code
 * (gguf/quants.py) does on x86-64: the same float32 operations in the same order. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "format/format.h"
#include "kernels/el_math.h"

static void write_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void write_f16(uint8_t *p, float v) { write_u16(p, el_f32_to_f16(v)); }

/// The float's integer part modulo 256; 0 for what int32 cannot hold. The latter happens only
/// where a subnormal scale has an infinite inverse (x times it is infinite, 0 times it is NaN),
/// or where a range overflows float.
static uint8_t low_byte(float v) { return v > -2147483648.0f && v < 2147483648.0f ? (uint8_t)(int32_t)v : 0; }

static uint8_t clip_byte(float v, uint8_t most)
{
    const uint8_t byte = low_byte(v);
    return byte < most ? byte : most;
}

/// Round half away from zero (gguf's np_roundf), as int8. Scaled values stay within 127; what is
/// outside comes from an infinite inverse, see low_byte.
static uint8_t round_byte(float v)
{
    const float a = fabsf(v);
    if (!(a < 256.0f)) return 0;
    const int whole = (int)a;
    const int rounded = whole + (a - (float)whole >= 0.5f);
    return (uint8_t)(v < 0.0f ? -rounded : rounded);
}

static float inverse(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

static float largest_magnitude(const float *x, int n)
{
    float most = 0.0f;
    for (int i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

/// The first of the values with the largest magnitude, sign kept.
static float signed_extreme(const float *x, int n)
{
    float best = x[0];
    for (int i = 1; i < n; i++) best = fabsf(x[i]) > fabsf(best) ? x[i] : best;
    return best;
}

/// Of zeros of both signs the last one counts, as in NumPy's min and max on x86-64.
static void range(const float *x, int n, float *min, float *max)
{
    *min = *max = x[0];
    for (int i = 1; i < n; i++) {
        *min = x[i] <= *min ? x[i] : *min;
        *max = x[i] >= *max ? x[i] : *max;
    }
}

static void pack_nibbles(const uint8_t q[32], uint8_t *dst)
{
    for (int j = 0; j < 16; j++) dst[j] = (uint8_t)((q[j] & 15) | q[16 + j] << 4);
}

static void pack_fifth_bits(const uint8_t q[32], uint8_t *dst)
{
    memset(dst, 0, 4);
    for (int i = 0; i < 32; i++) dst[i / 8] = (uint8_t)(dst[i / 8] | (q[i] >> 4 & 1) << i % 8);
}

static void quantize_q4_0(const float *x, uint8_t *dst)
{
    uint8_t q[32];
    const float d = signed_extreme(x, 32) / -8.0f;
    const float id = inverse(d);
    for (int i = 0; i < 32; i++) q[i] = clip_byte(x[i] * id + 8.5f, 15);
    write_f16(dst, d);
    pack_nibbles(q, dst + 2);
}

static void quantize_q5_0(const float *x, uint8_t *dst)
{
    uint8_t q[32];
    const float d = signed_extreme(x, 32) / -16.0f;
    const float id = inverse(d);
    for (int i = 0; i < 32; i++) q[i] = clip_byte(x[i] * id + 16.5f, 31);
    write_f16(dst, d);
    pack_fifth_bits(q, dst + 2);
    pack_nibbles(q, dst + 6);
}

/// Both types with a minimum: q in 0..most, value = d q + min.
static void quantize_range(const float *x, uint8_t most, uint8_t q[32], uint8_t *dst)
{
    float min = 0.0f;
    float max = 0.0f;
    range(x, 32, &min, &max);
    const float d = (max - min) / (float)most;
    const float id = inverse(d);
    for (int i = 0; i < 32; i++) q[i] = clip_byte((x[i] - min) * id + 0.5f, most);
    write_f16(dst, d);
    write_f16(dst + 2, min);
}

static void quantize_q4_1(const float *x, uint8_t *dst)
{
    uint8_t q[32];
    quantize_range(x, 15, q, dst);
    pack_nibbles(q, dst + 4);
}

static void quantize_q5_1(const float *x, uint8_t *dst)
{
    uint8_t q[32];
    quantize_range(x, 31, q, dst);
    pack_fifth_bits(q, dst + 4);
    pack_nibbles(q, dst + 8);
}

static void quantize_q8_0(const float *x, uint8_t *dst)
{
    const float d = largest_magnitude(x, 32) / 127.0f;
    const float id = inverse(d);
    write_f16(dst, d);
    for (int i = 0; i < 32; i++) dst[2 + i] = round_byte(x[i] * id);
}

/// Ternary digits 0, 1, 2 of 256 values; returns the scale.
static float ternary(const float *x, uint8_t q[256])
{
    const float d = largest_magnitude(x, 256);
    const float id = inverse(d);
    for (int i = 0; i < 256; i++) q[i] = (uint8_t)(round_byte(x[i] * id) + 1);
    return d;
}

/// Five base-3 digits, `stride` apart, as one byte: ceil(256 number / 243), so that multiplying
/// by 3 brings one digit after the other to the top.
static uint8_t pack_trits(const uint8_t *q, int stride, int digits)
{
    static const uint8_t powers[5] = {81, 27, 9, 3, 1};
    uint32_t number = 0;
    for (int i = 0; i < digits; i++) number += (uint32_t)q[i * stride] * powers[i];
    return (uint8_t)((number * 256 + 242) / 243);
}

static void quantize_tq1_0(const float *x, uint8_t *dst)
{
    uint8_t q[256];
    write_f16(dst + 52, ternary(x, q));
    for (int i = 0; i < 32; i++) dst[i] = pack_trits(q + i, 32, 5);
    for (int i = 0; i < 16; i++) dst[32 + i] = pack_trits(q + 160 + i, 16, 5);
    for (int i = 0; i < 4; i++) dst[48 + i] = pack_trits(q + 240 + i, 4, 4);
}

static void quantize_tq2_0(const float *x, uint8_t *dst)
{
    uint8_t q[256];
    write_f16(dst + 64, ternary(x, q));
    for (int i = 0; i < 64; i++) {
        const uint8_t *run = q + i / 32 * 128 + i % 32;
        dst[i] = (uint8_t)(run[0] | run[32] << 2 | run[64] << 4 | run[96] << 6);
    }
}

static void quantize_f32(const float *x, uint8_t *dst)
{
    const uint32_t bits = el_f32_bits(*x);
    write_u16(dst, (uint16_t)bits);
    write_u16(dst + 2, (uint16_t)(bits >> 16));
}

static void quantize_f16(const float *x, uint8_t *dst) { write_f16(dst, *x); }

static void quantize_bf16(const float *x, uint8_t *dst)
{
    const uint32_t bits = el_f32_bits(*x);  // finite, so the carry ends at most in infinity
    write_u16(dst, (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16));
}

el_status el_quantize(el_type type, const float *src, size_t n, uint8_t *dst, el_error *err)
{
    void (*block)(const float *, uint8_t *) = NULL;
    switch (type) {
    case EL_TYPE_F32: block = quantize_f32; break;
    case EL_TYPE_F16: block = quantize_f16; break;
    case EL_TYPE_BF16: block = quantize_bf16; break;
    case EL_TYPE_Q4_0: block = quantize_q4_0; break;
    case EL_TYPE_Q4_1: block = quantize_q4_1; break;
    case EL_TYPE_Q5_0: block = quantize_q5_0; break;
    case EL_TYPE_Q5_1: block = quantize_q5_1; break;
    case EL_TYPE_Q8_0: block = quantize_q8_0; break;
    case EL_TYPE_TQ1_0: block = quantize_tq1_0; break;
    case EL_TYPE_TQ2_0: block = quantize_tq2_0; break;
    default: break;
    }
    const el_type_info *info = el_type_get((uint32_t)type);
    if (info == NULL) return el_fail(err, EL_ERR_ARG, "type %d is not known", (int)type);
    if (block == NULL) {
        return el_fail(err, EL_ERR_UNSUPPORTED,
                       "cannot quantize to %s; possible are f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, "
                       "tq1_0, tq2_0",
                       info->name);
    }
    if (n % info->block_values != 0) {
        return el_fail(err, EL_ERR_ARG, "%zu values are no multiple of %s's block of %u", n, info->name,
                       info->block_values);
    }
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(src[i])) {
            return el_fail(err, EL_ERR_ARG, "value %zu is %s; only finite values can be quantized", i,
                           isnan(src[i]) ? "NaN" : "infinite");
        }
    }
    for (size_t done = 0; done < n; done += info->block_values, dst += info->block_bytes) {
        block(src + done, dst);
    }
    return EL_OK;
}
