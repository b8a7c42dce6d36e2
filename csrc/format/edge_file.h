/* An edge image as it lies in the file: docs/formats.md, field by field. All little-endian. */
#ifndef EL_FORMAT_EDGE_FILE_H
#define EL_FORMAT_EDGE_FILE_H

#include "edgellm/edge.h"

#define EL_EDGE_MAGIC "\x89\x65\x64\x67\x65\r\n\x1a"  // as PNG's: tells text conversion and 7-bit copies

enum {
    EL_EDGE_WEIGHTS_ALIGN = 4096,  ///< of the weights section: a page
    EL_EDGE_SIGNED = 1,            ///< flag
    EL_EDGE_INFO_SLOTS = 8,
    EL_EDGE_MANIFEST_BYTES = 128 + EL_EDGE_SECTIONS * 64,
    EL_EDGE_FIRST_SECTION = EL_EDGE_MANIFEST_BYTES + EL_EDGE_SIGNATURE_BYTES
};

typedef struct el_edge_header {
    uint8_t magic[8];
    uint32_t format, header_bytes;
    uint64_t file_bytes;
    uint32_t machine, numerics, version, flags, sections;
    uint32_t reserved[21];
} el_edge_header;

typedef struct el_edge_section_entry {
    uint32_t kind;  ///< 1 + its index
    uint32_t reserved;
    uint64_t offset, bytes;
    uint8_t sha256[EL_EDGE_HASH_BYTES];
    uint64_t reserved_2;
} el_edge_section_entry;

typedef struct el_edge_config_entry {
    char architecture[16];
    uint32_t layers, width, heads, kv_heads, head_values, ffn, vocab, context;
    uint32_t rope_dims, rope_original, window, window_pattern, tied;
    float rope_base, rope_local_base, rope_scale, rope_magnitude, norm_eps, attention_scale, embed_scale;
    uint64_t fingerprint;
    uint64_t reserved[3];
} el_edge_config_entry;

/// Views of the info section: name, licence, chat template, requantized from; the rest is zero.
typedef struct el_edge_info_entry {
    struct {
        uint32_t offset, bytes;  ///< from the start of the section
    } slots[EL_EDGE_INFO_SLOTS];
} el_edge_info_entry;

typedef struct el_edge_figures_entry {
    uint64_t weights, scratch, tables, session, kv_f16, kv_f32;
    uint32_t micro_batch, reserved;
    uint64_t reserved_2;
} el_edge_figures_entry;

typedef struct el_edge_tensor_entry {
    char name[48];    ///< as in a GGUF; zeros after it
    char layout[12];  ///< as in el_blocks.h ("q4_0x16"; "f32" of a norm); zeros after it
    uint32_t type, n, k;
    uint64_t offset, bytes, reserved;
    uint8_t sha256[EL_EDGE_HASH_BYTES];
} el_edge_tensor_entry;

_Static_assert(sizeof(el_edge_header) == 128 && sizeof(el_edge_section_entry) == 64, "the file's layout");
_Static_assert(sizeof(el_edge_config_entry) == 128 && sizeof(el_edge_info_entry) == 64, "the file's layout");
_Static_assert(sizeof(el_edge_figures_entry) == 64 && sizeof(el_edge_tensor_entry) == 128,
               "the file's layout");

/// Check header, sections, info, figures and that the tensor table has whole entries; fill all of *out
/// but the config's meaning, which the model's rooms know.
el_status el_edge_read(el_edge *out, const void *image, uint64_t bytes, el_error *err);

/// Entries of the tensor table: (n_tensors,).
static inline const el_edge_tensor_entry *el_edge_tensor_entries(const el_edge *edge)
{
    return (const void *)(edge->image + edge->sections[EL_EDGE_TENSORS].offset);
}

static inline uint64_t el_edge_align(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

#endif
