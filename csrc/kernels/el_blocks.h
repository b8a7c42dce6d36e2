/* Memory layouts that kernels read and write. Names are those GGUF users know. */
#ifndef EL_BLOCKS_H
#define EL_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

enum {
    EL_BLOCK = 32,     ///< values per activation block, and per block of the legacy weight types
    EL_SUPER = 256,    ///< values of a super-block of the K-quants and of the ternary types
    EL_LANES = 16,     ///< rows interleaved in a packed tile: the width of one AVX-512 register
    EL_KEYS = 16,      ///< cached keys interleaved in one tile of the K cache
    EL_KEY_BLOCK = 64,  ///< attention walks keys in blocks of this many absolute positions
    EL_HEAD_MAX = 256   ///< values of a head
};

/// 32 activations rounded to 8 bits. Value j is scale * q[j]; |q[j]| <= 127.
/// The sums serve weight types with offsets and minima; they are exact.
typedef struct el_act_q8 {
    float scale;
    int32_t sum;     ///< q[0] + ... + q[31]
    int32_t sum_lo;  ///< q[0] + ... + q[15], for types with a scale per 16 values
    int8_t q[EL_BLOCK];
} el_act_q8;

/* Packed weights. A tile holds EL_LANES consecutive output rows over the whole of k. Tiles follow each other, and every
 * part starts at a multiple of 64 bytes. With b = k / EL_BLOCK blocks a tile is
 *
 *   q4_0x16  f16 d[b][16]                  (padded to 64 bytes)
 *            u8  q[b][4][16][4]            byte j of group g, lane r: low nibble is value 4g + j,
 *                                          high nibble is value 16 + 4g + j, both stored as value + 8
 *   q4_1x16  f16 d[b][16], f16 m[b][16]    (each padded to 64 bytes)
 *            u8  q[b][4][16][4]            as above, stored as they are: 0..15, weight = d q + m
 *   q8_0x16  f16 d[b][16]                  (padded to 64 bytes)
 *            u8  q[b][8][16][4]            byte j of group g, lane r: value 4g + j, stored as value + 128
 *   f32x16, f16x16, bf16x16                w[k][16]
 *
 * The others keep the integers of the file, unsigned, in planes of one block of 32 values:
 *
 *   N  nibbles u8 [4][16][4]   byte j of group g, lane r: low nibble is value 4g + j, high nibble 16 + 4g + j
 *   C  crumbs  u8 [2][16][4]   byte j of group c, lane r: bits 2s, 2s + 1 are value 8s + 4c + j, s = 0..3
 *   B  bits    u8 [16][4]      byte j of lane r: bit g is value 4g + j, g = 0..7
 *
 * q{N,B} is both planes of block 0, both of block 1, and so on. With S = k / EL_SUPER super-blocks:
 *
 *   q5_0x16    f16 d[b][16]                    q{N,B}   weight = d ((N | B << 4) - 16)
 *   q5_1x16    f16 d[b][16], f16 m[b][16]      q{N,B}   weight = d (N | B << 4) + m
 *   iq4_nlx16  f16 d[b][16]                    q{N}     weight = d codebook[N]  (EL_IQ4_NL_VALUES)
 *   q4_kx16    f16 d[S][16], f16 m[S][16],     q{N}     weight = d s N - m n
 *              u8 s[b][16], u8 n[b][16]
 *   q5_kx16    the same                        q{N,B}   weight = d s (N | B << 4) - m n
 *   q2_kx16    f16 d[S][16], f16 m[S][16],     q{C}     of each half of a block s = sn & 15, n = sn >> 4;
 *              u8 sn[b][2][16]                          weight = d s C - m n
 *   q3_kx16    f16 d[S][16], i8 s[b][2][16]    q{C,B}   weight = d s ((C | B << 2) - 4), -32 <= s < 32
 *   q6_kx16    f16 d[S][16], i8 s[b][2][16]    q{N,C}   weight = d s ((N | C << 4) - 32)
 *   tq2_0x16   f16 d[S][16]                    q{C}     weight = d (C - 1)
 *
 * A row that is missing from the last tile has d = m = 0.
 */

/* The cache of one layer and one key-value head, d = head size (a multiple of 8), b = ceil(d / EL_BLOCK),
 * over a number of places that is a multiple of EL_KEYS:
 *
 *   f16    keys    f16 k[places / EL_KEYS][d][EL_KEYS]   lanes are positions
 *          values  f16 v[places][d]                      lanes are the head's own values
 *   f32    the same in float32
 *   q8_0   keys    per tile: f16 scale[b][EL_KEYS], i8 q[d][EL_KEYS]
 *          values  per place: f16 scale[b], i8 q[d]
 *
 * Value i of q8_0 is scale[i / EL_BLOCK] * q[i]: exact in float32. Its last block is shorter where EL_BLOCK
 * does not divide d.
 */

/// Blocks of a head's values.
static inline size_t el_head_blocks(size_t d) { return (d + EL_BLOCK - 1) / EL_BLOCK; }

/// Bytes of one position's keys, or values, of one head in a cache of q8_0.
static inline size_t el_q8_row_bytes(size_t d) { return d + el_head_blocks(d) * sizeof(uint16_t); }

/// The codebook of iq4_nl's nibbles (ggml: kvalues_iq4nl).
#define EL_IQ4_NL_VALUES {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

static inline size_t el_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

#endif
