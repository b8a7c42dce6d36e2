#include "text/grammar_masks.h"

static size_t bucket_of(const el_mask_key *key)
{
    uint64_t hash = ((uint64_t)key->above << 32 | key->a) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 31 ^ ((uint64_t)key->b << 2 | key->kind)) * 0xBF58476D1CE4E5B9u;
    return (size_t)(hash >> 40) % EL_MASK_BUCKETS;
}

static bool is_key(const el_mask_key *x, const el_mask_key *y)
{
    return x->kind == y->kind && x->above == y->above && x->a == y->a && x->b == y->b;
}

el_status el_mask_get(el_grammar *grammar, const el_mask *above, el_mask_kind kind, uint32_t a, uint32_t b,
                      const el_mask **out)
{
    const el_mask_key key = {kind, above == NULL ? 0 : above->serial, a, b};
    _Atomic(el_mask *) *bucket = &grammar->masks[bucket_of(&key)];
    for (el_mask *m = atomic_load_explicit(bucket, memory_order_acquire); m != NULL; m = m->next) {
        if (is_key(&m->key, &key)) {
            *out = m;
            return EL_OK;
        }
    }
    el_mask *made;
    const el_status st = el_mask_make(grammar, above, key, &made);
    *out = made;
    if (st != EL_OK) return st;
    made->serial = atomic_fetch_add(&grammar->serial, 1) + 1;

    // Masks of masks that are not kept could not be found again.
    const size_t held = atomic_fetch_add(&grammar->mask_bytes, made->bytes);
    made->kept = held + made->bytes <= EL_MASK_BYTES && (above == NULL || above->kept);
    if (!made->kept) {
        atomic_fetch_sub(&grammar->mask_bytes, made->bytes);
        return EL_OK;
    }
    // Another thread may have made the same: then there are two, which is harmless. Nothing is taken out.
    made->next = atomic_load_explicit(bucket, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(bucket, &made->next, made, memory_order_release,
                                                  memory_order_relaxed)) {}
    return EL_OK;
}

void el_mask_release(const el_mask *mask)
{
    if (mask != NULL && !mask->kept) free((void *)(uintptr_t)mask);
}

void el_masks_free(el_grammar *grammar)
{
    for (size_t i = 0; i < EL_MASK_BUCKETS; i++) {
        for (el_mask *m = atomic_load(&grammar->masks[i]), *next; m != NULL; m = next) {
            next = m->next;
            free(m);
        }
    }
}
