/* A heap of (key, id), least key first, then least id, that knows the place of each id. */
#ifndef EL_SIM_HEAP_H
#define EL_SIM_HEAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum {
    EL_INDEX_BITS = 26,     ///< of an id: which slot or queue; the rest is the order of starting
    EL_HEAP_CHILDREN = 4,   ///< siblings share a cache line
    EL_NOWHERE = UINT32_MAX
};
#define EL_INDEX(id) ((uint32_t)((id) & ((UINT64_C(1) << EL_INDEX_BITS) - 1)))

typedef struct el_heap_item {
    double key;
    uint64_t id;
} el_heap_item;

typedef struct el_heap {
    el_heap_item *items;
    uint32_t n, room;
} el_heap;

static inline bool el_heap_reserve(el_heap *heap, uint32_t room)
{
    if (room <= heap->room) return true;
    uint32_t grown = heap->room < 2 ? 2 : 2 * heap->room;
    if (grown < room) grown = room;
    el_heap_item *items = realloc(heap->items, grown * sizeof *items);
    if (items == NULL) return false;
    heap->items = items;
    heap->room = grown;
    return true;
}

static inline bool el_heap_before(el_heap_item a, el_heap_item b)
{
    return a.key < b.key || (a.key == b.key && a.id < b.id);
}

static inline void el_heap_put(el_heap *heap, uint32_t *places, uint32_t at, el_heap_item item)
{
    heap->items[at] = item;
    places[EL_INDEX(item.id)] = at;
}

static inline void el_heap_up(el_heap *heap, uint32_t *places, uint32_t at, el_heap_item item)
{
    while (at > 0) {
        const uint32_t parent = (at - 1) / EL_HEAP_CHILDREN;
        if (!el_heap_before(item, heap->items[parent])) break;
        el_heap_put(heap, places, at, heap->items[parent]);
        at = parent;
    }
    el_heap_put(heap, places, at, item);
}

static inline void el_heap_down(el_heap *heap, uint32_t *places, uint32_t at, el_heap_item item)
{
    for (;;) {
        uint32_t best = EL_HEAP_CHILDREN * at + 1;
        if (best >= heap->n) break;
        const uint32_t end = heap->n - best > EL_HEAP_CHILDREN ? best + EL_HEAP_CHILDREN : heap->n;
        for (uint32_t child = best + 1; child < end; child++)
            if (el_heap_before(heap->items[child], heap->items[best])) best = child;
        if (!el_heap_before(heap->items[best], item)) break;
        el_heap_put(heap, places, at, heap->items[best]);
        at = best;
    }
    el_heap_put(heap, places, at, item);
}

/// Put an item where another one is now (or at the end), and from there to its place.
static inline void el_heap_settle(el_heap *heap, uint32_t *places, uint32_t at, el_heap_item item)
{
    if (at > 0 && el_heap_before(item, heap->items[(at - 1) / EL_HEAP_CHILDREN]))
        el_heap_up(heap, places, at, item);
    else
        el_heap_down(heap, places, at, item);
}

/// There must be room.
static inline void el_heap_push(el_heap *heap, uint32_t *places, el_heap_item item)
{
    el_heap_up(heap, places, heap->n++, item);
}

static inline void el_heap_remove(el_heap *heap, uint32_t *places, uint32_t at)
{
    places[EL_INDEX(heap->items[at].id)] = EL_NOWHERE;
    const el_heap_item last = heap->items[--heap->n];
    if (at < heap->n) el_heap_settle(heap, places, at, last);
}

#endif
