/* Memory layouts that kernels read and write. Names are those GGUF users know. */
#ifndef EL_BLOCKS_H
#define EL_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum {
    EL_BLOCK = 32,     ///< values per activation block, and per block of the legacy weight types
    EL_LANES = 16,     ///< rows interleaved in a packed tile: the width of one AVX-512 register
    EL_KEYS = 16,      ///< cached keys interleaved in one tile of the K cache
    EL_KEY_BLOCK = 64  ///< attention walks keys in blocks of this many absolute positions
};

/// 32 activations rounded to 8 bits. Value j is scale * q[j]; |q[j]| <= 127.
/// The sums serve weight types with offsets and minima; they are exact.
typedef struct el_act_q8 {
    float scale;
    int32_t sum;     ///< q[0] + ... + q[31]
    int32_t sum_lo;  ///< q[0] + ... + q[15], for types with a scale per 16 values
    int8_t q[EL_BLOCK];
} el_act_q8;

/* Packed weights. A tile holds EL_LANES consecutive output rows over the whole of k;
 * rows past the end of the matrix are zero. Tiles follow each other, and every
 * part starts at a multiple of 64 bytes. With b = k / EL_BLOCK blocks a tile is
 *
 *   q4_0x16  f16 d[b][16]                  (padded to 64 bytes)
 *            u8  q[b][4][16][4]            byte j of group g, lane r: low nibble is value 4g + j,
 *                                          high nibble is value 16 + 4g + j, both stored as value + 8
 *   q4_1x16  f16 d[b][16], f16 m[b][16]    (each padded to 64 bytes)
 *            u8  q[b][4][16][4]            as above, stored as they are: 0..15, weight = d q + m
 *   q8_0x16  f16 d[b][16]                  (padded to 64 bytes)
 *            u8  q[b][8][16][4]            byte j of group g, lane r: value 4g + j, stored as value + 128
 *   q8_sx16  f32 d[b][16], f32 m[b][16]    f32 scale and f32 scale of the minima
 *            i8  s[b][2][16]               integer sub-scale of values 0..15 and of values 16..31
 *            u8  n[b][2][16]               integer sub-minimum of the same halves
 *            u8  q[b][8][16][4]            as in q8_0x16; weight = d s q - m n
 *                                          (|s q| <= 4096, as in every GGUF type: with 8-bit
 *                                          activations a block's integers stay below 2^24)
 *   f32x16, f16x16, bf16x16                w[k][16]
 *
 * q8_sx16 is what every GGUF type without a layout of its own is unpacked to: its
 * integers are those of the file, so the result is the one a native layout will give.
 */

/* The cache of one layer and one key-value head, d = head size (a multiple of 8);
 * in the cache of the _f32 operations float32 stands for f16:
 *
 *   keys    f16 k[context / EL_KEYS][d][EL_KEYS]   lanes are positions
 *   values  f16 v[context][d]                      lanes are the head's own values
 */

static inline size_t el_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

#endif
