/* Fair queues: each change costs O(log n) where one budget binds, O(n) where both may. */
#include "sim/world.h"

#include <math.h>

el_sim_status el_queue_new(el_sim *world, uint32_t *queue)
{
    if (world->queues_n == world->queues_room) {
        const uint32_t room = world->queues_room == 0 ? 16 : 2 * world->queues_room;
        el_queue *queues = realloc(world->queues, room * sizeof *queues);
        if (queues != NULL) world->queues = queues;
        uint32_t *places = realloc(world->queue_places, room * sizeof *places);
        if (places != NULL) world->queue_places = places;
        if (queues == NULL || places == NULL || !el_heap_reserve(&world->ends, room) || room >> EL_INDEX_BITS)
            return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
        world->queues_room = room;
    }
    const uint32_t made = world->queues_n++;
    world->queues[made] = (el_queue){.speed = 1.0};
    world->queue_places[made] = EL_NOWHERE;
    *queue = made;
    return EL_SIM_OK;
}

/// When the first activity ends; the queue is not empty.
static double next_end_s(const el_queue *queue)
{
    const double virtual_s = queue->waiting.items[0].key - queue->virtual_s;
    return virtual_s > 0.0 ? queue->date_s + virtual_s * queue->weight / queue->speed : queue->date_s;
}

/// Note in `world->ends` when the first activity ends.
static void note_end(el_sim *world, uint32_t number)
{
    el_queue *queue = &world->queues[number];
    const uint32_t at = world->queue_places[number];
    if (queue->waiting.n == 0) {
        if (at != EL_NOWHERE) el_heap_remove(&world->ends, world->queue_places, at);
        return;
    }
    const el_heap_item item = {
        .key = queue->budgets ? el_budgets_fill(world, queue) : next_end_s(queue),
        .id = number,
    };
    if (at == EL_NOWHERE)
        el_heap_push(&world->ends, world->queue_places, item);
    else
        el_heap_settle(&world->ends, world->queue_places, at, item);
}

/// Reckon to a date. Dates before queue->date_s, which may be an instant ahead, change nothing.
static void settle(el_sim *world, el_queue *queue, double date_s)
{
    if (queue->waiting.n == 0) {
        queue->virtual_s = queue->weight = 0.0;
        queue->date_s = date_s;
        queue->changes = 0;
    } else if (date_s > queue->date_s) {
        if (queue->budgets) {
            el_budgets_settle(world, queue, date_s);
        } else {
            queue->virtual_s += (date_s - queue->date_s) * queue->speed / queue->weight;
            queue->date_s = date_s;
        }
    }
}

/// Count virtual time from here and add the weights anew, once in as many changes as there are
/// activities: so differences of finish tags and of weights keep their digits however long the queue is
/// busy, and a change still costs O(log n).
static void rebase(el_sim *world, el_queue *queue)
{
    if (++queue->changes < queue->waiting.n) return;
    queue->weight = 0.0;
    for (uint32_t i = 0; i < queue->waiting.n; i++) {
        el_heap_item *item = &queue->waiting.items[i];
        item->key -= queue->virtual_s;
        queue->weight += world->slots[EL_INDEX(item->id)].weight;
    }
    queue->virtual_s = 0.0;
    queue->changes = 0;
}

/// Go over to two budgets, or back, where what is in the queue asks for it.
static void choose(el_sim *world, el_queue *queue)
{
    const bool budgets = queue->part_compute > 0 && queue->part_memory > 0;
    el_heap *waiting = &queue->waiting;
    if (budgets == queue->budgets) return;
    queue->budgets = budgets;
    if (budgets) {
        for (uint32_t i = 0; i < waiting->n; i++) {
            el_slot *slot = &world->slots[EL_INDEX(waiting->items[i].id)];
            slot->left_s = fmax(0.0, waiting->items[i].key - queue->virtual_s) * slot->weight;
        }
        return;
    }
    const uint32_t n = waiting->n;
    queue->virtual_s = queue->weight = 0.0;
    for (waiting->n = 0; waiting->n < n;) {
        const uint64_t id = waiting->items[waiting->n].id;
        const el_slot *slot = &world->slots[EL_INDEX(id)];
        queue->weight += slot->weight;
        el_heap_push(waiting, world->places, (el_heap_item){slot->left_s / slot->weight, id});
    }
}

static void count(el_queue *queue, const el_slot *slot, uint32_t by)
{
    if (slot->compute < 1.0) queue->part_compute += by;
    if (slot->memory < 1.0) queue->part_memory += by;
}

/// Take out what is at a place.
static void take_out(el_sim *world, el_queue *queue, uint32_t at)
{
    const el_slot *slot = &world->slots[EL_INDEX(queue->waiting.items[at].id)];
    queue->weight -= slot->weight;
    count(queue, slot, UINT32_MAX);  // one less
    if (!queue->budgets) {
        el_heap_remove(&queue->waiting, world->places, at);
        rebase(world, queue);
        return;
    }
    const el_heap_item last = queue->waiting.items[--queue->waiting.n];
    if (at < queue->waiting.n) el_heap_put(&queue->waiting, world->places, at, last);
}

bool el_queue_enter(el_sim *world, uint32_t number, el_slot *slot)
{
    el_queue *queue = &world->queues[number];
    if (!el_heap_reserve(&queue->waiting, queue->waiting.n + 1)) return false;
    settle(world, queue, world->now_s);
    if (!queue->budgets) rebase(world, queue);
    slot->kind = EL_SLOT_QUEUED;
    slot->queue = number;
    queue->weight += slot->weight;
    count(queue, slot, 1);
    if (queue->budgets) {
        el_heap_put(&queue->waiting, world->places, queue->waiting.n++, (el_heap_item){0.0, slot->ticket});
    } else {
        const double finish = queue->virtual_s + slot->left_s / slot->weight;
        el_heap_push(&queue->waiting, world->places, (el_heap_item){finish, slot->ticket});
    }
    choose(world, queue);
    note_end(world, number);
    return true;
}

void el_queue_leave(el_sim *world, el_slot *slot)
{
    const uint32_t number = slot->queue;
    el_queue *queue = &world->queues[number];
    settle(world, queue, world->now_s);
    take_out(world, queue, world->places[el_sim_index(world, slot)]);
    choose(world, queue);
    note_end(world, number);
}

void el_queue_speed(el_sim *world, uint32_t number, double factor)
{
    settle(world, &world->queues[number], world->now_s);
    world->queues[number].speed = factor;
    note_end(world, number);
}

/// All that ends until a date, at its own exact date, so that no error adds up over a busy period.
static void end_fair(el_sim *world, el_queue *queue, double until_s)
{
    while (queue->waiting.n > 0) {
        const el_heap_item first = queue->waiting.items[0];
        const double end_s = next_end_s(queue);
        if (end_s > until_s) return;
        queue->virtual_s = fmax(queue->virtual_s, first.key);
        queue->date_s = end_s;
        take_out(world, queue, 0);
        el_sim_make_due(world, &world->slots[EL_INDEX(first.id)]);
    }
}

static void end_budgets(el_sim *world, el_queue *queue, double until_s)
{
    double last_s = queue->date_s;
    for (uint32_t i = 0; i < queue->waiting.n;) {
        el_slot *slot = &world->slots[EL_INDEX(queue->waiting.items[i].id)];
        const double end_s = el_budgets_end_s(queue, slot);
        if (end_s > until_s) {
            i++;
            continue;
        }
        last_s = fmax(last_s, end_s);
        take_out(world, queue, i);
        el_sim_make_due(world, slot);
    }
    el_budgets_settle(world, queue, last_s);
}

void el_queue_end(el_sim *world, uint32_t number, double until_s)
{
    el_queue *queue = &world->queues[number];
    if (queue->budgets)
        end_budgets(world, queue, until_s);
    else
        end_fair(world, queue, until_s);
    choose(world, queue);
    note_end(world, number);
}

double el_queue_left_s(const el_sim *world, const el_slot *slot)
{
    const el_queue *queue = &world->queues[slot->queue];
    const double since_s = fmax(0.0, world->now_s - queue->date_s) * queue->speed;
    if (queue->budgets) return fmax(0.0, slot->left_s - since_s * slot->pace);
    const double finish = queue->waiting.items[world->places[el_sim_index(world, slot)]].key;
    return fmax(0.0, finish - queue->virtual_s - since_s / queue->weight) * slot->weight;
}

el_sim_load el_queue_load(const el_sim *world, uint32_t number)
{
    const el_queue *queue = &world->queues[number];
    el_sim_load load = {0.0, 0.0, 0.0};
    if (queue->waiting.n > 0 && queue->part_compute == 0 && queue->part_memory == 0)
        return (el_sim_load){queue->speed, queue->speed, queue->speed};
    for (uint32_t i = 0; i < queue->waiting.n; i++) {
        const el_slot *slot = &world->slots[EL_INDEX(queue->waiting.items[i].id)];
        const double pace = queue->speed * (queue->budgets ? slot->pace : slot->weight / queue->weight);
        load.pace += pace;
        load.compute += pace * slot->compute;
        load.memory += pace * slot->memory;
    }
    return load;
}

el_sim_status el_queue_list(el_sim *world, uint32_t number, el_slot *slot)
{
    el_queue *queue = &world->queues[number];
    if (!el_heap_reserve(&queue->waiting, queue->waiting.n + 1))
        return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
    if ((queue->part_compute > 0 || slot->compute < 1.0) && (queue->part_memory > 0 || slot->memory < 1.0))
        return el_sim_refuse(world, EL_SIM_ARG, "SimGrid has one budget for a host, not compute and memory");
    slot->queue = number;
    queue->weight = queue->waiting.n == 0 ? slot->weight : queue->weight + slot->weight;
    count(queue, slot, 1);
    el_heap_push(&queue->waiting, world->places, (el_heap_item){0.0, slot->ticket});
    return EL_SIM_OK;
}

void el_queue_unlist(el_sim *world, el_slot *slot)
{
    if (slot->queue != EL_NOWHERE)
        take_out(world, &world->queues[slot->queue], world->places[el_sim_index(world, slot)]);
}
