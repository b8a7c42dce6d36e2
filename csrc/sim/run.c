/* The run: from date to date, and at each everything that is due, in the order of starting. */
#include <math.h>
#include <stdlib.h>

#include "sim/world.h"

double el_sim_now(const el_sim *world) { return world->now_s; }

uint64_t el_sim_events(const el_sim *world) { return world->events; }

double el_solver_next(const el_sim *world)
{
    const double timer_s = world->timers.n > 0 ? world->timers.items[0].key : INFINITY;
    const double end_s = world->ends.n > 0 ? world->ends.items[0].key : INFINITY;
    const el_heap *streams = &world->streams.ends;
    return fmin(fmin(timer_s, end_s), streams->n > 0 ? streams->items[0].key : INFINITY);
}

void el_solver_ended(el_sim *world, el_sim_ticket ticket)
{
    el_slot *slot = el_sim_find(world, ticket);
    if (slot == NULL) return;
    world->outside--;
    el_queue_unlist(world, slot);
    el_stream_leave(world, slot);
    el_sim_make_due(world, slot);
}

static void fail(el_sim *world, el_sim_status status)
{
    world->failure = status;
    el_sim_stop(world);
}

/// Make due what ends at this instant.
static void collect(el_sim *world)
{
    const double until_s = world->now_s + EL_SIM_INSTANT_S;
    while (world->timers.n > 0 && world->timers.items[0].key <= world->now_s) {
        el_slot *slot = &world->slots[EL_INDEX(world->timers.items[0].id)];
        el_heap_remove(&world->timers, world->places, 0);
        if (slot->kind == EL_SLOT_TIMER) {
            el_sim_make_due(world, slot);
            continue;
        }
        const el_sim_status status = el_sim_begin(world, slot);
        if (status == EL_SIM_OK) continue;
        slot->kind = EL_SLOT_DUE;  // in no heap any more
        fail(world, status);
        return;
    }
    el_streams_end(world, until_s);
    while (world->ends.n > 0 && world->ends.items[0].key <= until_s)
        el_queue_end(world, (uint32_t)world->ends.items[0].id, until_s);
}

static int by_ticket(const void *a, const void *b)
{
    const el_sim_ticket left = *(const el_sim_ticket *)a, right = *(const el_sim_ticket *)b;
    return (left > right) - (left < right);
}

/// Wake what is due. Meanwhile things may be started and cancelled, but nothing becomes due.
static void wake_due(el_sim *world)
{
    if (!world->due_sorted) qsort(world->due, world->due_n, sizeof *world->due, by_ticket);
    for (uint32_t i = 0; i < world->due_n; i++) {
        el_slot *slot = el_sim_find(world, world->due[i]);
        if (slot == NULL) continue;  // cancelled by one woken before it
        void *tag = el_sim_let_go(world, slot);
        world->events++;
        if (world->wake(world->user, tag) != 0) el_sim_stop(world);
    }
    world->due_n = 0;
    world->due_sorted = true;
}

bool el_solver_instant(el_sim *world, double date_s)
{
    world->now_s = fmax(world->now_s, date_s);
    for (collect(world); world->due_n > 0; collect(world)) wake_due(world);
    return !world->stopped;
}

el_sim_status el_sim_run(el_sim *world)
{
    if (!world->sealed || world->running || world->stopped)
        return el_sim_refuse(world, EL_SIM_STATE, "the world is not ready to run");
    el_sim_status status = EL_SIM_OK;
    world->running = true;
    (void)el_solver_instant(world, world->now_s);
    while (!world->stopped && status == EL_SIM_OK) {
        const double next_s = el_solver_next(world);
        if (world->outside > 0 && next_s > world->now_s) {
            const uint64_t before = world->events;
            status = el_sim_outside(world, world->solver.run(world->solver.self));
            if (status == EL_SIM_OK && world->events == before && !world->stopped)
                status = el_sim_refuse(world, EL_SIM_INTERNAL, "SimGrid has lost an activity");
        } else if (next_s < INFINITY) {
            (void)el_solver_instant(world, next_s);
        } else {
            break;
        }
    }
    world->running = false;
    return world->failure != EL_SIM_OK ? world->failure : status;
}

/// Nothing can be started while tags are dropped, so each slot is seen once.
void el_sim_stop(el_sim *world)
{
    world->stopped = true;
    for (uint32_t i = 0; i < world->slots_n; i++) el_sim_cancel(world, world->slots[i].ticket);
}
