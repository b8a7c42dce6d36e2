#ifndef EDGELLM_GGUF_H
#define EDGELLM_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgellm/api.h"
#include "edgellm/quant.h"
#include "edgellm/status.h"
#include "edgellm/view.h"

EL_API_BEGIN

/// The longest header that el_gguf_parse asks for piece by piece (a sparse file can claim any
/// length); a vocabulary of a million tokens takes a tenth of it.
#define EL_GGUF_MAX_HEADER_BYTES (256u << 20)

/// The most metadata entries and tensors of a file; large models have some hundreds and thousands.
enum { EL_GGUF_MAX_ENTRIES = 1 << 16, EL_GGUF_MAX_TENSORS = 1 << 18 };

/// Value types of GGUF metadata, numbered as in the file.
typedef enum el_gguf_type {
    EL_GGUF_U8,
    EL_GGUF_I8,
    EL_GGUF_U16,
    EL_GGUF_I16,
    EL_GGUF_U32,
    EL_GGUF_I32,
    EL_GGUF_F32,
    EL_GGUF_BOOL,
    EL_GGUF_STRING,
    EL_GGUF_ARRAY,
    EL_GGUF_U64,
    EL_GGUF_I64,
    EL_GGUF_F64
} el_gguf_type;

/// One metadata entry. `value` points at the little-endian value in the header bytes; for an
/// array, at its first element, with `element` and `count` telling what follows.
typedef struct el_gguf_kv {
    el_view key;
    el_gguf_type type;
    el_gguf_type element;  ///< of an array; the type itself otherwise
    uint64_t count;        ///< of an array; 1 otherwise
    const uint8_t *value;
    size_t value_bytes;
} el_gguf_kv;

/// One tensor. shape[0] is the innermost extent (k); unused extents are 1.
typedef struct el_gguf_tensor {
    el_view name;
    el_type type;
    uint32_t dims;
    uint64_t shape[4];
    uint64_t offset;  ///< from the start of the file; offset + bytes <= file size
    uint64_t bytes;
} el_gguf_tensor;

/// A parsed header: views into the caller's bytes, which must outlive it.
typedef struct el_gguf {
    uint32_t version;
    uint32_t alignment;
    uint64_t data_offset;
    uint64_t file_bytes;
    size_t n_kv;
    const el_gguf_kv *kv;
    size_t n_tensors;
    const el_gguf_tensor *tensors;
} el_gguf;

/// Parse the first `size` bytes of a file of `file_bytes` bytes.
///
/// Every count, length, offset, type and alignment is checked against the bytes that are there;
/// names must be unique, keys unique, tensor data inside the file and not overlapping. Keys and
/// tensor names are printable UTF-8 of 1 to 65535 bytes; string values are any bytes. Refused by
/// name (EL_ERR_UNSUPPORTED): version 1, big-endian files, arrays of arrays, tensor types that
/// quant.h lacks.
/// If the header is longer than `size`, *more_bytes is set to a larger size to try again with
/// (never above file_bytes) and EL_ERR_IO is returned; otherwise it is set to 0.
/// *out is allocated with malloc and freed by el_gguf_free; its memory is at most five times
/// `size`, its time O(size log size).
el_status el_gguf_parse(el_gguf **out, const uint8_t *bytes, size_t size, uint64_t file_bytes,
                        uint64_t *more_bytes, el_error *err);
void el_gguf_free(el_gguf *gguf);

/// NULL if absent.
const el_gguf_kv *el_gguf_find(const el_gguf *gguf, const char *key);
const el_gguf_tensor *el_gguf_tensor_find(const el_gguf *gguf, const char *name);

/// Typed reads with range checks. EL_ERR_FORMAT names the key if it is absent or of another kind.
/// Unsigned reads accept any integer type with a non-negative value; float reads accept F32 and
/// F64 with a value that is finite as float.
el_status el_gguf_get_u64(const el_gguf *gguf, const char *key, uint64_t *out, el_error *err);
el_status el_gguf_get_f32(const el_gguf *gguf, const char *key, float *out, el_error *err);
el_status el_gguf_get_bool(const el_gguf *gguf, const char *key, bool *out, el_error *err);
el_status el_gguf_get_string(const el_gguf *gguf, const char *key, el_view *out, el_error *err);

/// Walk an array of strings: start with cursor = kv->value; false at the end.
bool el_gguf_next_string(const el_gguf_kv *kv, const uint8_t **cursor, el_view *out);

EL_API_END

#endif
