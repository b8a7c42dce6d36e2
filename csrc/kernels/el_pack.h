/* Making packed tiles from GGUF rows, and reading rows back (embedding look-up). */
#ifndef EL_PACK_H
#define EL_PACK_H

#include "kernels/el_layout.h"
#include "kernels/kernel_types.h"

/// Layout that rows of a GGUF type (its number in the file) are packed into; -1 if none.
/// Every type has its own but tq1_0, whose trits are unpacked to the two bits of tq2_0x16.
int el_pack_layout(uint32_t type);

/// Bytes of one row of k values in a file; 0 if k is 0 or no multiple of the type's block, if the type's
/// layout cannot hold such a k, or on overflow.
size_t el_pack_row_bytes(uint32_t type, size_t k);

/// Bytes of one tile of EL_LANES rows of k values; a multiple of 64; 0 if it overflows size_t.
size_t el_pack_tile_bytes(el_layout layout, size_t k);

/// Pack up to EL_LANES rows into one tile. Every ISA's `interleave` gives the same bytes.
///
/// @param[in]  interleave  the operation of that name
/// @param[in]  type   GGUF type of the rows
/// @param[in]  rows   1 to EL_LANES; the scales of missing rows become 0
/// @param[in]  k      values per row; a multiple of the type's block and, for the q layouts, of EL_BLOCK
/// @param[in]  src    rows one after the other as in the file
/// @param[out] tile   el_pack_tile_bytes(layout, k) bytes, 64-byte aligned
void el_pack_tile_by(el_interleave_fn *interleave, uint32_t type, size_t rows, size_t k, const uint8_t *src,
                     uint8_t *tile);

/// The same with the reference's interleave.
void el_pack_tile(uint32_t type, size_t rows, size_t k, const uint8_t *src, uint8_t *tile);

/// Values of one lane of a tile as float32: for every type exactly what dequantizing the file's
/// row gives (same operations in the same order).
void el_unpack_lane(uint32_t type, size_t k, const uint8_t *tile, size_t lane, float *y);

#endif
