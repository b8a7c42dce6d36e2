/* What a session holds, as bytes: saved whole, copied to another session, or shared in blocks. Everything goes
 * by positions, one tile of keys at a time, so that rings of any size and the flat order of saved bytes are one
 * case. A saved head is its tiles of keys, from the one with the first position on, and then its values; lanes
 * of positions that are not saved are zero. */
#include <string.h>

#include "core/error.h"
#include "model/model.h"

/// Keys and values of one head: position p is at place (p - base) mod ring; base is a multiple of EL_KEYS.
typedef struct el_head {
    uint8_t *keys, *values;
    size_t base, ring;
} el_head;

/// What a value takes in the cache of a type.
typedef struct el_room {
    el_kv_type type;
    size_t d;
    size_t row_bytes;
} el_room;

static el_room room_of(const el_session *s)
{
    const el_config *c = &s->model->config;
    return (el_room){s->type, c->head_dim, el_kv_row_bytes(c, s->type)};
}

static el_head head_of(const el_session *s, size_t layer, size_t head)
{
    uint8_t *keys = el_session_keys(s, layer, head);
    return (el_head){keys, keys + s->cache[layer].half_bytes, 0, s->cache[layer].ring};
}

static size_t tiles_down(size_t position) { return position / EL_KEYS * EL_KEYS; }

/// Bytes of positions [from, to) of one head.
static size_t keys_bytes(el_room room, size_t from, size_t to)
{
    return from < to ? (el_round_up(to, EL_KEYS) - tiles_down(from)) * room.row_bytes : 0;
}

static size_t head_bytes(el_room room, size_t from, size_t to)
{
    return from < to ? keys_bytes(room, from, to) + (to - from) * room.row_bytes : 0;
}

/// Lanes [first, last) of `rows` rows of a tile of values of a size.
static void copy_lanes(size_t rows, size_t size, const uint8_t *src, uint8_t *dst, size_t first, size_t last)
{
    for (size_t r = 0; r < rows; r++) {
        const size_t at = (r * EL_KEYS + first) * size;
        memcpy(dst + at, src + at, (last - first) * size);
    }
}

static void copy_tile(el_room room, const uint8_t *src, uint8_t *dst, size_t first, size_t last)
{
    if (last - first == EL_KEYS) {
        memcpy(dst, src, EL_KEYS * room.row_bytes);
        return;
    }
    if (room.type != EL_KV_Q8_0) {
        copy_lanes(room.d, room.row_bytes / room.d, src, dst, first, last);
        return;
    }
    const size_t blocks = el_head_blocks(room.d), scales = blocks * EL_KEYS * sizeof(uint16_t);
    copy_lanes(blocks, sizeof(uint16_t), src, dst, first, last);
    copy_lanes(room.d, 1, src + scales, dst + scales, first, last);
}

/// Copy positions [from, to), at least one, of a head.
static void copy_head(el_room room, size_t from, size_t to, const el_head *src, const el_head *dst)
{
    for (size_t p = from, next; p < to; p = next) {
        const size_t tile = tiles_down(p);
        next = tile + EL_KEYS < to ? tile + EL_KEYS : to;
        const size_t s = (tile - src->base) % src->ring, d = (tile - dst->base) % dst->ring;
        copy_tile(room, src->keys + s * room.row_bytes, dst->keys + d * room.row_bytes, p - tile,
                  next - tile);
        memcpy(dst->values + (d + p - tile) * room.row_bytes, src->values + (s + p - tile) * room.row_bytes,
               (next - p) * room.row_bytes);
    }
}

/// Positions [from, to) of a head in bytes of their own. Values begin with `from`, not with its tile.
static el_head flat_head(el_room room, uint8_t *flat, size_t from, size_t to)
{
    uint8_t *values = flat + keys_bytes(room, from, to) - (from - tiles_down(from)) * room.row_bytes;
    return (el_head){flat, values, tiles_down(from), SIZE_MAX};
}

/// Copy positions [from, to) of all heads of a layer out of a session; the bytes after them.
static uint8_t *layer_out(const el_session *s, size_t layer, size_t from, size_t to, uint8_t *flat)
{
    const el_room room = room_of(s);
    for (size_t h = 0; h < s->model->config.kv_heads && from < to; h++) {
        const el_head src = head_of(s, layer, h), dst = flat_head(room, flat, from, to);
        memset(flat, 0, keys_bytes(room, from, to));
        copy_head(room, from, to, &src, &dst);
        flat += head_bytes(room, from, to);
    }
    return flat;
}

static const uint8_t *layer_in(el_session *s, size_t layer, size_t from, size_t to, const uint8_t *flat)
{
    const el_room room = room_of(s);
    for (size_t h = 0; h < s->model->config.kv_heads && from < to; h++) {
        // only read from
        const el_head src = flat_head(room, (uint8_t *)(uintptr_t)flat, from, to), dst = head_of(s, layer, h);
        copy_head(room, from, to, &src, &dst);
        flat += head_bytes(room, from, to);
    }
    return flat;
}

/// The first position that a layer needs for a token at `position`.
static size_t first_needed(const el_config *c, size_t layer, size_t position)
{
    const size_t window = el_config_window(c, (uint32_t)layer);
    return window > 0 && position >= window ? position - window + 1 : 0;
}

/// What stands before the cache in a saved session.
typedef struct el_state_head {
    char magic[8];
    uint64_t fingerprint;
    uint64_t position;
    uint64_t type;  ///< an el_kv_type
} el_state_head;

static const char EL_STATE_MAGIC[8] = "edgeses3";

static uint64_t state_bytes(const el_session *s, size_t position)
{
    const el_config *c = &s->model->config;
    uint64_t sum = 0;
    for (size_t i = 0; i < c->layers; i++) {
        sum += head_bytes(room_of(s), first_needed(c, i, position), position);
    }
    return sizeof(el_state_head) + sum * c->kv_heads;
}

uint64_t el_session_state_bytes(const el_session *session) { return state_bytes(session, session->position); }

/// A cache means nothing to another model, nor to a session whose keys are turned by other frequencies.
static uint64_t state_fingerprint(const el_session *s) { return s->model->fingerprint + s->rope; }

void el_session_export(const el_session *session, uint8_t *dst)
{
    const el_config *c = &session->model->config;
    el_state_head head = {
        .fingerprint = state_fingerprint(session),
        .position = session->position,
        .type = session->type,
    };
    memcpy(head.magic, EL_STATE_MAGIC, sizeof head.magic);
    memcpy(dst, &head, sizeof head);
    dst += sizeof head;
    for (size_t i = 0; i < c->layers; i++) {
        dst = layer_out(session, i, first_needed(c, i, session->position), session->position, dst);
    }
}

static el_status read_head(el_state_head *out, const uint8_t *src, uint64_t bytes, el_error *err)
{
    if (bytes < sizeof *out)
        return el_fail(err, EL_ERR_FORMAT, "a saved session has at least %zu bytes", sizeof *out);
    memcpy(out, src, sizeof *out);
    if (memcmp(out->magic, EL_STATE_MAGIC, sizeof out->magic) != 0)
        return el_fail(err, EL_ERR_FORMAT, "these bytes are no saved session");
    if (out->type > EL_KV_Q8_0) return el_fail(err, EL_ERR_FORMAT, "the saved session has an unknown cache");
    return EL_OK;
}

el_status el_state_read(el_state_facts *out, const uint8_t *src, uint64_t bytes, el_error *err)
{
    el_state_head head;
    const el_status st = read_head(&head, src, bytes, err);
    if (st == EL_OK) *out = (el_state_facts){(el_kv_type)head.type, head.position};
    return st;
}

/// The session holds what a token at `position` needs, and may hold nothing older.
static void settle_at(el_session *s, size_t position)
{
    const el_config *c = &s->model->config;
    s->position = position;
    s->oldest = 0;
    for (size_t i = 0; i < c->layers; i++) {
        if (first_needed(c, i, position) > 0) s->oldest = position;
    }
}

el_status el_session_import(el_session *session, const uint8_t *src, uint64_t bytes, el_error *err)
{
    const el_config *c = &session->model->config;
    el_state_head head;
    const el_status st = read_head(&head, src, bytes, err);
    if (st != EL_OK) return st;
    if (head.fingerprint != state_fingerprint(session)) {
        return el_fail(err, EL_ERR_FORMAT, "the saved session belongs to another model");
    }
    if (head.type != (uint64_t)session->type)
        return el_fail(err, EL_ERR_ARG, "the saved session has a cache of another type");
    if (head.position > session->capacity) {
        return el_fail(err, EL_ERR_CONTEXT, "the saved session holds %llu tokens, the context is %zu",
                       (unsigned long long)head.position, session->capacity);
    }
    const size_t position = (size_t)head.position;
    if (bytes != state_bytes(session, position)) {
        return el_fail(err, EL_ERR_FORMAT, "a saved session of %zu tokens has %llu bytes, not %llu", position,
                       (unsigned long long)state_bytes(session, position), (unsigned long long)bytes);
    }
    src += sizeof head;
    for (size_t i = 0; i < c->layers; i++) {
        src = layer_in(session, i, first_needed(c, i, position), position, src);
    }
    settle_at(session, position);
    return EL_OK;
}

el_status el_session_copy(el_session *dst, const el_session *src, el_error *err)
{
    const el_config *c = &src->model->config;
    if (dst->model != src->model) return el_fail(err, EL_ERR_ARG, "the sessions belong to different models");
    if (dst->type != src->type)
        return el_fail(err, EL_ERR_ARG, "the sessions have caches of different types");
    if (dst->rope != src->rope)
        return el_fail(err, EL_ERR_ARG, "contexts of %zu and %zu rotate keys by different frequencies",
                       src->capacity, dst->capacity);
    if (src->position > dst->capacity) {
        return el_fail(err, EL_ERR_CONTEXT, "the session holds %zu tokens, the context is %zu", src->position,
                       dst->capacity);
    }
    for (size_t i = 0; i < c->layers && src->position > 0; i++) {
        for (size_t h = 0; h < c->kv_heads; h++) {
            const el_head from = head_of(src, i, h), to = head_of(dst, i, h);
            copy_head(room_of(src), first_needed(c, i, src->oldest), src->position, &from, &to);
        }
    }
    dst->position = src->position;
    dst->oldest = src->oldest;
    return EL_OK;
}

static bool belongs(const el_config *c, size_t layer, el_state_part part)
{
    return (el_config_window(c, (uint32_t)layer) > 0) == (part == EL_PART_WINDOW);
}

uint64_t el_session_block_bytes(const el_session *session, el_state_part part)
{
    const el_config *c = &session->model->config;
    uint64_t layers = 0;
    for (size_t i = 0; i < c->layers; i++) layers += belongs(c, i, part);
    return layers * c->kv_heads * head_bytes(room_of(session), 0, EL_STATE_BLOCK);
}

bool el_session_block_out(const el_session *session, size_t block, el_state_part part, uint8_t *dst)
{
    const el_config *c = &session->model->config;
    if (block >= session->position / EL_STATE_BLOCK) return false;
    const size_t from = block * EL_STATE_BLOCK, to = from + EL_STATE_BLOCK;
    for (size_t i = 0; i < c->layers; i++) {
        if (belongs(c, i, part) && from < first_needed(c, i, session->oldest)) return false;
    }
    for (size_t i = 0; i < c->layers; i++) {
        if (belongs(c, i, part)) dst = layer_out(session, i, from, to, dst);
    }
    return true;
}

size_t el_session_first_window(const el_session *session, size_t count)
{
    const el_config *c = &session->model->config;
    size_t first = count;
    for (size_t i = 0; i < c->layers; i++) {
        const size_t block = first_needed(c, i, count * EL_STATE_BLOCK) / EL_STATE_BLOCK;
        if (belongs(c, i, EL_PART_WINDOW) && block < first) first = block;
    }
    return first;
}

el_status el_session_fill(el_session *session, size_t count, const uint8_t *const *all,
                          const uint8_t *const *window, el_error *err)
{
    const el_config *c = &session->model->config;
    if (session->position != 0)
        return el_fail(err, EL_ERR_ARG, "the session holds %zu tokens already", session->position);
    if (count > session->capacity / EL_STATE_BLOCK) {
        return el_fail(err, EL_ERR_CONTEXT, "%zu blocks of %d tokens do not fit in a context of %zu", count,
                       EL_STATE_BLOCK, session->capacity);
    }
    const size_t first_window = el_session_first_window(session, count);
    for (size_t b = 0; b < count; b++) {
        const uint8_t *full = all[b], *recent = b < first_window ? NULL : window[b];
        for (size_t i = 0; i < c->layers; i++) {
            const bool windowed = belongs(c, i, EL_PART_WINDOW);
            const size_t from = b * EL_STATE_BLOCK, to = from + EL_STATE_BLOCK;
            if (!windowed)
                full = layer_in(session, i, from, to, full);
            else if (recent != NULL)
                recent = layer_in(session, i, from, to, recent);
        }
    }
    settle_at(session, count * EL_STATE_BLOCK);
    return EL_OK;
}
