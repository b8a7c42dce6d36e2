#include "model/keys.h"

#include <stdio.h>
#include <string.h>

#include "core/error.h"

/// `<arch>.<field>`; both are short and ours.
typedef struct el_key {
    char text[96];
} el_key;

static el_key key_of(const char *arch, const char *field)
{
    el_key key;
    snprintf(key.text, sizeof key.text, "%s.%s", arch, field);
    return key;
}

const el_gguf_kv *el_key_find(const el_gguf *gguf, const char *arch, const char *field)
{
    const el_key key = key_of(arch, field);
    return el_gguf_find(gguf, key.text);
}

el_status el_key_u32(const el_gguf *gguf, const char *arch, const char *field, uint32_t min, uint32_t max,
                     uint32_t *out, el_error *err)
{
    const el_key key = key_of(arch, field);
    uint64_t value = 0;
    const el_status st = el_gguf_get_u64(gguf, key.text, &value, err);
    if (st != EL_OK) return st;
    if (value < min || value > max) {
        return el_fail(err, EL_ERR_FORMAT, "%s is %llu, outside %u to %u", key.text,
                       (unsigned long long)value, min, max);
    }
    *out = (uint32_t)value;
    return EL_OK;
}

el_status el_key_u32_or(const el_gguf *gguf, const char *arch, const char *field, uint32_t min, uint32_t max,
                        uint32_t *out, el_error *err)
{
    if (el_key_find(gguf, arch, field) == NULL) return EL_OK;
    return el_key_u32(gguf, arch, field, min, max, out, err);
}

el_status el_key_f32_or(const el_gguf *gguf, const char *arch, const char *field, float *out, el_error *err)
{
    const el_key key = key_of(arch, field);
    if (el_gguf_find(gguf, key.text) == NULL) return EL_OK;
    float value = 0.0f;
    const el_status st = el_gguf_get_f32(gguf, key.text, &value, err);
    if (st != EL_OK) return st;
    if (!(value > 0.0f && value < 1e30f))
        return el_fail(err, EL_ERR_FORMAT, "%s must be positive and finite", key.text);
    *out = value;
    return EL_OK;
}

el_status el_key_string_or(const el_gguf *gguf, const char *arch, const char *field, el_view *out,
                           el_error *err)
{
    const el_key key = key_of(arch, field);
    return el_gguf_find(gguf, key.text) == NULL ? EL_OK : el_gguf_get_string(gguf, key.text, out, err);
}

bool el_view_equals(el_view view, const char *text)
{
    return view.size == strlen(text) && memcmp(view.data, text, view.size) == 0;
}
