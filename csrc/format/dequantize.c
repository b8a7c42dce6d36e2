/* Values of the plain types and of those with blocks of 32. Each formula rounds exactly as the
 * `gguf` package's NumPy code does (gguf/quants.py): one rounding per product and per sum, in
 * its order. Sources of the layouts: ggml/src/ggml-common.h of llama.cpp. */
#include "format/dequantize.h"
#include "edgellm/quant.h"
#include "format/format.h"

static void dequantize_f32(const uint8_t *src, size_t n, float *dst)
{
    for (size_t i = 0; i < n; i++) dst[i] = el_f32_from_bits(el_read_u32(src + 4 * i));
}

static void dequantize_f16(const uint8_t *src, size_t n, float *dst)
{
    for (size_t i = 0; i < n; i++) dst[i] = el_read_f16(src + 2 * i);
}

static void dequantize_bf16(const uint8_t *src, size_t n, float *dst)
{
    for (size_t i = 0; i < n; i++) {
        dst[i] = el_f32_from_bits((uint32_t)src[2 * i] << 16 | (uint32_t)src[2 * i + 1] << 24);
    }
}

/* The block types of 32: byte j of the nibbles holds value j (low) and value 16 + j (high). */

static void dequantize_q4_0(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 18, dst += 32) {
        const float d = el_read_f16(src);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)((src[2 + j] & 15) - 8);
            dst[16 + j] = d * (float)((src[2 + j] >> 4) - 8);
        }
    }
}

static void dequantize_q4_1(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 20, dst += 32) {
        const float d = el_read_f16(src);
        const float m = el_read_f16(src + 2);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)(src[4 + j] & 15) + m;
            dst[16 + j] = d * (float)(src[4 + j] >> 4) + m;
        }
    }
}

static void dequantize_q5_0(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 22, dst += 32) {
        const float d = el_read_f16(src);
        const uint32_t fifth = el_read_u32(src + 2);  // bit i is bit 4 of value i
        for (int j = 0; j < 16; j++) {
            const int low = (int)((src[6 + j] & 15) | (fifth >> j & 1) << 4);
            const int high = (int)(src[6 + j] >> 4 | (fifth >> (16 + j) & 1) << 4);
            dst[j] = d * (float)(low - 16);
            dst[16 + j] = d * (float)(high - 16);
        }
    }
}

static void dequantize_q5_1(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 24, dst += 32) {
        const float d = el_read_f16(src);
        const float m = el_read_f16(src + 2);
        const uint32_t fifth = el_read_u32(src + 4);
        for (int j = 0; j < 16; j++) {
            const int low = (int)((src[8 + j] & 15) | (fifth >> j & 1) << 4);
            const int high = (int)(src[8 + j] >> 4 | (fifth >> (16 + j) & 1) << 4);
            dst[j] = d * (float)low + m;
            dst[16 + j] = d * (float)high + m;
        }
    }
}

static void dequantize_q8_0(const uint8_t *src, size_t blocks, float *dst)
{
    for (size_t b = 0; b < blocks; b++, src += 34, dst += 32) {
        const float d = el_read_f16(src);
        for (int j = 0; j < 32; j++) dst[j] = (float)(int8_t)src[2 + j] * d;
    }
}

static void dequantize_iq4_nl(const uint8_t *src, size_t blocks, float *dst)
{
    static const int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    for (size_t b = 0; b < blocks; b++, src += 18, dst += 32) {
        const float d = el_read_f16(src);
        for (int j = 0; j < 16; j++) {
            dst[j] = d * (float)values[src[2 + j] & 15];
            dst[16 + j] = d * (float)values[src[2 + j] >> 4];
        }
    }
}

void el_dequantize(el_type type, const uint8_t *src, size_t n, float *dst)
{
    switch (type) {
    case EL_TYPE_F32: dequantize_f32(src, n, dst); break;
    case EL_TYPE_F16: dequantize_f16(src, n, dst); break;
    case EL_TYPE_BF16: dequantize_bf16(src, n, dst); break;
    case EL_TYPE_Q4_0: dequantize_q4_0(src, n / 32, dst); break;
    case EL_TYPE_Q4_1: dequantize_q4_1(src, n / 32, dst); break;
    case EL_TYPE_Q5_0: dequantize_q5_0(src, n / 32, dst); break;
    case EL_TYPE_Q5_1: dequantize_q5_1(src, n / 32, dst); break;
    case EL_TYPE_Q8_0: dequantize_q8_0(src, n / 32, dst); break;
    case EL_TYPE_IQ4_NL: dequantize_iq4_nl(src, n / 32, dst); break;
    case EL_TYPE_Q2_K: el_dequantize_q2_k(src, n / 256, dst); break;
    case EL_TYPE_Q3_K: el_dequantize_q3_k(src, n / 256, dst); break;
    case EL_TYPE_Q4_K: el_dequantize_q4_k(src, n / 256, dst); break;
    case EL_TYPE_Q5_K: el_dequantize_q5_k(src, n / 256, dst); break;
    case EL_TYPE_Q6_K: el_dequantize_q6_k(src, n / 256, dst); break;
    case EL_TYPE_TQ1_0: el_dequantize_tq1_0(src, n / 256, dst); break;
    case EL_TYPE_TQ2_0: el_dequantize_tq2_0(src, n / 256, dst); break;
    }
}
