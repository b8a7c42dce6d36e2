/* Activities and timers: starting, cancelling, and what is left of them. */
#include <math.h>
#include <stdlib.h>

#include "sim/world.h"

static el_sim_status out_of_memory(el_sim *world)
{
    return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
}

/// Room for twice as many, everywhere where each of them may be.
static bool grow(el_sim *world)
{
    const uint32_t room = world->slots_room == 0 ? 64 : 2 * world->slots_room;
    if (room >> EL_INDEX_BITS) return false;
    el_slot *slots = realloc(world->slots, room * sizeof *slots);
    if (slots != NULL) world->slots = slots;
    uint32_t *places = realloc(world->places, room * sizeof *places);
    if (places != NULL) world->places = places;
    el_sim_ticket *due = realloc(world->due, room * sizeof *due);
    if (due != NULL) world->due = due;
    if (slots == NULL || places == NULL || due == NULL || !el_heap_reserve(&world->timers, room))
        return false;
    world->slots_room = room;
    return true;
}

el_slot *el_sim_take(el_sim *world, void *tag, enum el_slot_kind kind)
{
    uint32_t index = world->free_slot;
    if (index != EL_NOWHERE) {
        world->free_slot = world->slots[index].queue;
    } else {
        if (world->slots_n == world->slots_room && !grow(world)) return NULL;
        index = world->slots_n++;
    }
    el_slot *slot = &world->slots[index];
    slot->ticket = (++world->started << EL_INDEX_BITS) | index;
    slot->tag = tag;
    slot->stream = NULL;
    slot->kind = kind;
    return slot;
}

void *el_sim_let_go(el_sim *world, el_slot *slot)
{
    void *tag = slot->tag;
    free(slot->stream);
    slot->ticket = 0;
    slot->kind = EL_SLOT_FREE;
    slot->queue = world->free_slot;
    world->free_slot = el_sim_index(world, slot);
    return tag;
}

bool el_sim_ready(el_sim *world)
{
    if (world->sealed && !world->stopped) return true;
    (void)el_sim_refuse(world, EL_SIM_STATE, "the world is not ready to run");
    return false;
}

el_sim_status el_sim_timer(el_sim *world, double date_s, void *tag, el_sim_ticket *ticket)
{
    if (world->stopped) return el_sim_refuse(world, EL_SIM_STATE, "the world is not ready to run");
    if (!(date_s <= EL_SIM_MAX_S * EL_SIM_MAX_S))
        return el_sim_refuse(world, EL_SIM_ARG, "date_s must be finite");
    const el_slot *slot = el_sim_take(world, tag, EL_SLOT_TIMER);
    if (slot == NULL) return out_of_memory(world);
    el_heap_push(&world->timers, world->places, (el_heap_item){fmax(date_s, world->now_s), slot->ticket});
    *ticket = slot->ticket;
    return EL_SIM_OK;
}

el_sim_status el_sim_begin(el_sim *world, el_slot *slot)
{
    if (slot->stream != NULL) return el_stream_enter(world, slot);
    return el_queue_enter(world, slot->queue, slot) ? EL_SIM_OK : out_of_memory(world);
}

el_sim_status el_sim_launch(el_sim *world, el_slot *slot, double latency_s, el_sim_ticket *ticket)
{
    *ticket = slot->ticket;
    if (latency_s > 0.0) {
        el_heap_push(&world->timers, world->places, (el_heap_item){world->now_s + latency_s, slot->ticket});
        return EL_SIM_OK;
    }
    const el_sim_status status = el_sim_begin(world, slot);
    if (status != EL_SIM_OK) (void)el_sim_let_go(world, slot);
    return status;
}

static el_sim_status check_share(el_sim *world, const el_sim_share *share)
{
    if (!(share->weight >= 1e-6 && share->weight <= 1e6))
        return el_sim_refuse(world, EL_SIM_ARG, "weight must be between 1e-6 and 1e6");
    if (!(share->compute >= 0.0 && share->compute <= 1.0))
        return el_sim_refuse(world, EL_SIM_ARG, "compute must be between 0 and 1");
    if (!(share->memory >= 0.0 && share->memory <= 1.0))
        return el_sim_refuse(world, EL_SIM_ARG, "memory must be between 0 and 1");
    if (share->compute == 0.0 && share->memory == 0.0)
        return el_sim_refuse(world, EL_SIM_ARG, "compute and memory cannot both be 0");
    return EL_SIM_OK;
}

/// Give an activity to the solver from outside.
static el_sim_status hand_over(el_sim *world, el_slot *slot, el_sim_status status, el_sim_ticket *ticket)
{
    if (status != EL_SIM_OK) {
        (void)el_sim_let_go(world, slot);
        return el_sim_outside(world, status);
    }
    slot->kind = EL_SLOT_OUTSIDE;
    world->outside++;
    *ticket = slot->ticket;
    return EL_SIM_OK;
}

static el_sim_status exec_outside(el_sim *world, uint32_t host, el_slot *slot, el_sim_ticket *ticket)
{
    const el_solver *by = &world->solver;
    el_sim_status status = el_queue_list(world, world->hosts[host], slot);
    if (status != EL_SIM_OK) {
        (void)el_sim_let_go(world, slot);
        return status;
    }
    status = by->exec(by->self, host, slot->left_s, slot->weight, slot->ticket, &slot->handle);
    if (status != EL_SIM_OK) el_queue_unlist(world, slot);
    return hand_over(world, slot, status, ticket);
}

el_sim_status el_sim_exec(el_sim *world, uint32_t host, double work_s, el_sim_share share, void *tag,
                          el_sim_ticket *ticket)
{
    if (!el_sim_ready(world)) return EL_SIM_STATE;
    if (host >= world->hosts_n) return el_sim_refuse(world, EL_SIM_ARG, "no such host");
    if (!(work_s >= 0.0 && work_s <= EL_SIM_MAX_S))
        return el_sim_refuse(world, EL_SIM_ARG, "work_s must be between 0 and 1e9");
    el_sim_status status = check_share(world, &share);
    if (status != EL_SIM_OK) return status;
    el_slot *slot = el_sim_take(world, tag, EL_SLOT_QUEUED);
    if (slot == NULL) return out_of_memory(world);
    slot->left_s = work_s;
    slot->weight = share.weight;
    slot->compute = share.compute;
    slot->memory = share.memory;
    if (world->solved) return exec_outside(world, host, slot, ticket);
    slot->queue = world->hosts[host];
    return el_sim_launch(world, slot, 0.0, ticket);
}

el_sim_status el_sim_transfer(el_sim *world, uint32_t link, bool up, double airtime_s, double wait_s,
                              void *tag, el_sim_ticket *ticket)
{
    if (!el_sim_ready(world)) return EL_SIM_STATE;
    if (link >= world->links_n) return el_sim_refuse(world, EL_SIM_ARG, "no such link");
    if (!(airtime_s >= 0.0 && airtime_s <= EL_SIM_MAX_S))
        return el_sim_refuse(world, EL_SIM_ARG, "airtime_s must be between 0 and 1e9");
    if (!(wait_s >= 0.0 && wait_s <= EL_SIM_MAX_S))
        return el_sim_refuse(world, EL_SIM_ARG, "wait_s must be between 0 and 1e9");
    if (world->solved && wait_s > 0.0)
        return el_sim_refuse(world, EL_SIM_ARG, "a solver from outside knows no wait_s");
    const el_link *over = &world->links[link];
    const double latency_s = over->latency_s + wait_s;
    if (over->streamed)
        return el_sim_stream(world, &(el_sim_hop){link, up, airtime_s}, 1, latency_s, tag, ticket);
    el_slot *slot = el_sim_take(world, tag, EL_SLOT_LATENT);
    if (slot == NULL) return out_of_memory(world);
    if (world->solved) {
        const el_solver *by = &world->solver;
        slot->queue = EL_NOWHERE;
        const el_sim_status status = by->transfer(by->self, link, up, airtime_s, slot->ticket, &slot->handle);
        return hand_over(world, slot, status, ticket);
    }
    slot->left_s = airtime_s;
    slot->weight = slot->compute = slot->memory = 1.0;
    slot->queue = over->way[up];
    return el_sim_launch(world, slot, latency_s, ticket);
}

el_sim_status el_sim_speed(el_sim *world, uint32_t host, double factor)
{
    if (host >= world->hosts_n) return el_sim_refuse(world, EL_SIM_ARG, "no such host");
    if (!(factor >= 1e-6 && factor <= 1e6))
        return el_sim_refuse(world, EL_SIM_ARG, "factor must be between 1e-6 and 1e6");
    if (world->solved) return el_sim_outside(world, world->solver.speed(world->solver.self, host, factor));
    el_queue_speed(world, world->hosts[host], factor);
    return EL_SIM_OK;
}

el_sim_status el_sim_host_load(el_sim *world, uint32_t host, el_sim_load *load)
{
    if (host >= world->hosts_n) return el_sim_refuse(world, EL_SIM_ARG, "no such host");
    *load = el_queue_load(world, world->hosts[host]);
    return EL_SIM_OK;
}

double el_sim_remaining(const el_sim *world, el_sim_ticket ticket)
{
    const el_slot *slot = el_sim_find(world, ticket);
    if (slot == NULL) return 0.0;
    switch (slot->kind) {
    case EL_SLOT_TIMER:
        return world->timers.items[world->places[el_sim_index(world, slot)]].key - world->now_s;
    case EL_SLOT_LATENT: return slot->stream != NULL ? el_stream_left_s(world, slot) : slot->left_s;
    case EL_SLOT_QUEUED: return el_queue_left_s(world, slot);
    case EL_SLOT_STREAMED: return el_stream_left_s(world, slot);
    case EL_SLOT_OUTSIDE:
        return slot->stream != NULL ? el_stream_left_s(world, slot) : world->solver.remaining(slot->handle);
    default: return 0.0;
    }
}

void el_sim_cancel(el_sim *world, el_sim_ticket ticket)
{
    el_slot *slot = el_sim_find(world, ticket);
    if (slot == NULL) return;
    switch (slot->kind) {
    case EL_SLOT_TIMER:
    case EL_SLOT_LATENT:
        el_heap_remove(&world->timers, world->places, world->places[el_sim_index(world, slot)]);
        break;
    case EL_SLOT_QUEUED: el_queue_leave(world, slot); break;
    case EL_SLOT_OUTSIDE:
        world->outside--;
        el_queue_unlist(world, slot);
        world->solver.cancel(world->solver.self, slot->handle);
        break;
    default: break;  // due: whoever wakes looks for it again
    }
    el_stream_leave(world, slot);
    void *tag = el_sim_let_go(world, slot);
    world->drop(world->user, tag);
}
