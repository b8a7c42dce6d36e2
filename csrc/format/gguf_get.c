/* Looking things up in a parsed header. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "format/format.h"

static const el_view *find(const el_view **sorted, size_t n, const char *name)
{
    const el_view wanted = {name, strlen(name)};
    size_t low = 0;
    size_t high = n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = el_view_compare(sorted[middle], &wanted);
        if (order == 0) return sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const el_gguf_kv *el_gguf_find(const el_gguf *gguf, const char *key)
{
    const el_gguf_whole *w = (const el_gguf_whole *)(const void *)gguf;
    return (const el_gguf_kv *)(const void *)find(w->by_key, gguf->n_kv, key);
}

const el_gguf_tensor *el_gguf_tensor_find(const el_gguf *gguf, const char *name)
{
    const el_gguf_whole *w = (const el_gguf_whole *)(const void *)gguf;
    return (const el_gguf_tensor *)(const void *)find(w->by_name, gguf->n_tensors, name);
}

static el_status missing(const char *key, el_error *err)
{
    return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is missing", key);
}

/// An integer of any width; *negative tells its sign, *out its bits as 64-bit two's complement.
static bool read_integer(const el_gguf_kv *kv, uint64_t *out, bool *negative)
{
    const uint8_t *v = kv->value;
    int64_t value = 0;
    switch (kv->type) {
    case EL_GGUF_U8: value = v[0]; break;
    case EL_GGUF_I8: value = (int8_t)v[0]; break;
    case EL_GGUF_U16: value = v[0] | v[1] << 8; break;
    case EL_GGUF_I16: value = (int16_t)(v[0] | v[1] << 8); break;
    case EL_GGUF_U32: value = el_read_u32(v); break;
    case EL_GGUF_I32: value = (int32_t)el_read_u32(v); break;
    case EL_GGUF_I64: value = (int64_t)el_read_u64(v); break;
    case EL_GGUF_U64:
        *out = el_read_u64(v);
        *negative = false;
        return true;
    default: return false;
    }
    *out = (uint64_t)value;
    *negative = value < 0;
    return true;
}

el_status el_gguf_get_u64(const el_gguf *gguf, const char *key, uint64_t *out, el_error *err)
{
    const el_gguf_kv *kv = el_gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    uint64_t value = 0;
    bool negative = false;
    if (!read_integer(kv, &value, &negative)) {
        return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is not an integer", key);
    }
    if (negative) return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is negative", key);
    *out = value;
    return EL_OK;
}

el_status el_gguf_get_f32(const el_gguf *gguf, const char *key, float *out, el_error *err)
{
    const el_gguf_kv *kv = el_gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    float value = 0.0f;
    if (kv->type == EL_GGUF_F32) {
        const uint32_t bits = el_read_u32(kv->value);
        memcpy(&value, &bits, sizeof value);
    } else if (kv->type == EL_GGUF_F64) {
        const uint64_t bits = el_read_u64(kv->value);
        double wide = 0.0;
        memcpy(&wide, &bits, sizeof wide);
        value = (float)wide;  // overflow gives infinity, refused below
    } else {
        return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is not a floating-point number", key);
    }
    if (!isfinite(value)) return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is not finite", key);
    *out = value;
    return EL_OK;
}

el_status el_gguf_get_bool(const el_gguf *gguf, const char *key, bool *out, el_error *err)
{
    const el_gguf_kv *kv = el_gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != EL_GGUF_BOOL) return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is not a bool", key);
    *out = kv->value[0] == 1;
    return EL_OK;
}

el_status el_gguf_get_string(const el_gguf *gguf, const char *key, el_view *out, el_error *err)
{
    const el_gguf_kv *kv = el_gguf_find(gguf, key);
    if (kv == NULL) return missing(key, err);
    if (kv->type != EL_GGUF_STRING) {
        return el_fail(err, EL_ERR_FORMAT, "metadata '%.100s' is not a string", key);
    }
    *out = (el_view){(const char *)kv->value + 8, kv->value_bytes - 8};
    return EL_OK;
}

bool el_gguf_next_string(const el_gguf_kv *kv, const uint8_t **cursor, el_view *out)
{
    if (kv->element != EL_GGUF_STRING) return false;
    if (*cursor >= kv->value + kv->value_bytes) return false;
    const size_t length = (size_t)el_read_u64(*cursor);  // checked when the header was parsed
    *out = (el_view){(const char *)*cursor + 8, length};
    *cursor += 8 + length;
    return true;
}
