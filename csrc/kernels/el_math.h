/* Scalar arithmetic of the contract (docs/numerics.md). Every function here is the
 * specification of one step; vector kernels do the same operations in the same order. */
#ifndef EL_MATH_H
#define EL_MATH_H

#include <float.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernels/el_blocks.h"

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0
#error "the arithmetic contract needs float and double evaluated in their own precision"
#endif

#define EL_INF __builtin_inff()

/// *out = a * b, or false when it does not fit.
static inline bool el_mul_size(size_t a, size_t b, size_t *out)
{
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

static inline uint32_t el_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float el_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/// a * b + c with one rounding, exact on every machine.
///
/// The product of two floats is exact in double. Their sum is rounded to odd (an inexact
/// result has its last bit set), and such a double, having more than 24 + 2 bits, rounds to
/// float as the exact sum would. Source: Boldo and Melquiond, "Emulation of FMA and correctly
/// rounded sums", IEEE Trans. Computers 57(4), 2008.
#if defined(__FP_FAST_FMAF)
static inline float el_fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#else
static inline float el_fmaf(float a, float b, float c)
{
    const double p = (double)a * (double)b;
    const double z = (double)c;
    const double s = p + z;
    const double t = s - p;
    const double err = (p - (s - t)) + (z - t);  // Knuth's TwoSum: p + z = s + err exactly

    if (err != 0.0) {  // also true for NaN, which the next lines keep a NaN
        uint64_t u;
        memcpy(&u, &s, sizeof u);
        if ((u & 1) == 0 && s - s == 0.0) u += (err > 0.0) == (s > 0.0) ? 1u : UINT64_MAX;
        double odd;
        memcpy(&odd, &u, sizeof odd);
        return (float)odd;
    }
    return (float)s;
}
#endif

/// Correctly rounded square root.
#if defined(__SSE__)
typedef float el_f32x4 __attribute__((vector_size(16)));
static inline float el_sqrtf(float x) { return __builtin_ia32_sqrtss((el_f32x4){x, 0.0f, 0.0f, 0.0f})[0]; }
#else
#include <math.h>
static inline float el_sqrtf(float x) { return sqrtf(x); }
#endif

/// Nearest integer, ties to even, for |x| < 2^22.
static inline float el_rintf(float x) { return (x + 12582912.0f) - 12582912.0f; }

static inline float el_f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t exponent = (h >> 10) & 0x1Fu;
    const uint32_t fraction = h & 0x3FFu;

    if (exponent == 0) {  // zero and subnormal: fraction * 2^-24, exact
        const float y = (float)fraction * 0x1p-24f;
        return sign != 0 ? -y : y;
    }
    if (exponent == 31) {  // a NaN comes back quiet, as the hardware's does
        const uint32_t quiet = fraction != 0 ? 0x400000u : 0;
        return el_f32_from_bits(sign | 0x7F800000u | quiet | fraction << 13);
    }
    return el_f32_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/// Round to nearest even; overflow gives infinity.
static inline uint16_t el_f32_to_f16(float x)
{
    const uint32_t u = el_f32_bits(x);
    const uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    const uint32_t a = u & 0x7FFFFFFFu;

    if (a > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((a >> 13) & 0x3FFu));
    if (a >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);  // 65520 and more
    if (a < 0x38800000u) {  // below 2^-14: the sum's last place is 2^-24, so it rounds for us
        const float y = el_f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (el_f32_bits(y) - 0x3F000000u));
    }
    const uint32_t even = (a >> 13) & 1u;
    return (uint16_t)(sign | ((a - 0x38000000u + 0xFFFu + even) >> 13));
}

static inline float el_bf16_to_f32(uint16_t h) { return el_f32_from_bits((uint32_t)h << 16); }

/// Weights in a file are little-endian, as is every machine that we support.
static inline uint16_t el_load_u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

#define EL_EXP_LO (-87.3f)
#define EL_EXP_HI 88.72f
#define EL_EXP_LOG2E 1.44269504088896341f
#define EL_EXP_MAGIC 12582912.0f       // 1.5 * 2^23: adding it rounds to an integer
#define EL_EXP_LN2_HI 0.693359375f     // 355 / 512: n * LN2_HI is exact
#define EL_EXP_LN2_LO (-2.12194440e-4f)
#define EL_EXP_C0 1.9875691500e-4f
#define EL_EXP_C1 1.3981999507e-3f
#define EL_EXP_C2 8.3334519073e-3f
#define EL_EXP_C3 4.1665795894e-2f
#define EL_EXP_C4 1.6666665459e-1f
#define EL_EXP_C5 5.0000001201e-1f

/// e^x. Exactly 0 below -87.3, infinity above 88.72, exactly 1 at 0; a NaN stays one.
/// Coefficients: Cephes expf (Moshier).
static inline float el_expf(float x)
{
    float c = EL_EXP_LO > x ? EL_EXP_LO : x;
    c = EL_EXP_HI < c ? EL_EXP_HI : c;

    const float t = el_fmaf(c, EL_EXP_LOG2E, EL_EXP_MAGIC);  // its low bits hold n
    const float n = t - EL_EXP_MAGIC;
    float r = el_fmaf(-n, EL_EXP_LN2_HI, c);
    r = el_fmaf(-n, EL_EXP_LN2_LO, r);

    float p = EL_EXP_C0;
    p = el_fmaf(p, r, EL_EXP_C1);
    p = el_fmaf(p, r, EL_EXP_C2);
    p = el_fmaf(p, r, EL_EXP_C3);
    p = el_fmaf(p, r, EL_EXP_C4);
    p = el_fmaf(p, r, EL_EXP_C5);
    p = el_fmaf(p, r * r, r) + 1.0f;

    // times 2^n by adding n to the exponent: n is in [-126, 128] and the result is normal
    float y = el_f32_from_bits(el_f32_bits(p) + (el_f32_bits(t) << 23));
    y = x < EL_EXP_LO ? 0.0f : y;
    return x > EL_EXP_HI ? EL_INF : y;
}

/// x / (1 + e^-x)
static inline float el_siluf(float x) { return x / (1.0f + el_expf(-x)); }

#define EL_GELU_RSQRT2 0.70710678118654752f
#define EL_GELU_SPLIT 0.875f
#define EL_GELU_END 6.0f
// erf(t) = t + t * E(t^2) below the split; erfc(t) = exp(-t * Q(t)) above it. Minimax fits of
// degree 5 and 6 to double precision erf and erfc (Lawson's weighted least squares).
#define EL_ERF_E0 0.12837915f
#define EL_ERF_E1 (-0.37612557f)
#define EL_ERF_E2 0.112825245f
#define EL_ERF_E3 (-0.026793959f)
#define EL_ERF_E4 0.005035878f
#define EL_ERF_E5 (-0.0006222451f)
#define EL_ERF_Q0 1.1286807f
#define EL_ERF_Q1 0.63500434f
#define EL_ERF_Q2 0.10650755f
#define EL_ERF_Q3 (-0.024019845f)
#define EL_ERF_Q4 0.0037763345f
#define EL_ERF_Q5 (-0.00035874674f)
#define EL_ERF_Q6 1.5128994e-05f

/// x times the normal distribution function at x: 0.5 x (1 + erf(x / sqrt(2))).
static inline float el_geluf(float x)
{
    const float u = x * EL_GELU_RSQRT2;
    const float t = u < 0.0f ? -u : u;

    const float s = t * t;
    float e = EL_ERF_E5;
    e = el_fmaf(e, s, EL_ERF_E4);
    e = el_fmaf(e, s, EL_ERF_E3);
    e = el_fmaf(e, s, EL_ERF_E2);
    e = el_fmaf(e, s, EL_ERF_E1);
    e = el_fmaf(e, s, EL_ERF_E0);
    const float near = el_fmaf(0.5f, el_fmaf(e, u, u), 0.5f);

    const float c = EL_GELU_END < t ? EL_GELU_END : t;  // keeps the polynomial in its range
    float q = EL_ERF_Q6;
    q = el_fmaf(q, c, EL_ERF_Q5);
    q = el_fmaf(q, c, EL_ERF_Q4);
    q = el_fmaf(q, c, EL_ERF_Q3);
    q = el_fmaf(q, c, EL_ERF_Q2);
    q = el_fmaf(q, c, EL_ERF_Q1);
    q = el_fmaf(q, c, EL_ERF_Q0);
    float tail = 0.5f * el_expf(-(c * q));
    tail = t > EL_GELU_END ? 0.0f : tail;
    const float far = u < 0.0f ? tail : 1.0f - tail;

    return x * (t < EL_GELU_SPLIT ? near : far);
}

#define EL_GELU_TANH_A 0.044715f
#define EL_GELU_TANH_B (-1.5957691216057308f)  // -2 sqrt(2 / pi)

/// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), by (1 + tanh z) / 2 = 1 / (1 + exp(-2 z)).
static inline float el_gelu_tanhf(float x)
{
    const float cubic = el_fmaf(EL_GELU_TANH_A * x, x * x, x);
    return x / (1.0f + el_expf(EL_GELU_TANH_B * cubic));
}

/// Blocks whose largest magnitude is below this become zeros (quantize_act_q8).
#define EL_ACT_TINY 0x1p-100f

/// The fixed tree over sixteen partial sums; `s` is overwritten.
static inline float el_tree16(float s[16])
{
    for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) s[i] += s[i + half];
    }
    return s[0];
}

#endif
