/* Tiles. gcc 12's _tile_loadconfig tells the compiler of 8 bytes of its 64 byte operand, so that stores to
 * the rest are dropped, and its loads tell of no memory at all; hence assembly of our own. */
#ifndef EL_AMX_H
#define EL_AMX_H

#ifndef __AMX_INT8__
#error "compile this folder with -mamx-tile -mamx-int8 and the flags of avx512vnni"
#endif

#include "kernels/avx512vnni/el_avx512vnni.h"

/// What ldtilecfg reads: palette 1, up to 16 rows of up to 64 bytes for each of eight tiles.
typedef struct el_tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} el_tile_config;

enum { EL_TILE_ROWS = 16 };  ///< rows of a tile, at most

EL_INLINE size_t el_divide_up(size_t a, size_t b) { return (a + b - 1) / b; }

EL_INLINE void el_tile_configure(const el_tile_config *config)
{
    __asm__ volatile("ldtilecfg %0" : : "m"(*config));
}

/// Tiles go back to their initial state: nothing to save at a context switch, nothing left behind.
EL_INLINE void el_tile_release(void) { __asm__ volatile("tilerelease"); }

// The tile's number is part of the instruction. The memory clobbers keep what lies in registers there.
#define EL_TILE_LOAD(tile, from, stride)                                                                     \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((size_t)(stride)) : "memory")
#define EL_TILE_STORE(tile, to, stride)                                                                      \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"((size_t)(stride)) : "memory")
#define EL_TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile : :)
#define EL_TILE_DOT_I8(sum, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)
#define EL_TILE_DOT_BF16(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

#endif
