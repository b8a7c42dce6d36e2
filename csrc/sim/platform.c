/* The world itself: hosts and links, and what becomes of it in the end. */
#include <math.h>
#include <stdlib.h>

#include "sim/world.h"

el_sim_status el_sim_new(void *user, el_sim_wake_fn *wake, el_sim_drop_fn *drop, el_sim **world)
{
    el_sim *made = calloc(1, sizeof *made);
    if (made == NULL) return EL_SIM_NOMEM;
    made->user = user;
    made->wake = wake;
    made->drop = drop;
    made->free_slot = EL_NOWHERE;
    made->due_sorted = true;
    made->error = "no error";
    *world = made;
    return EL_SIM_OK;
}

void el_sim_free(el_sim *world)
{
    if (world == NULL) return;
    el_sim_stop(world);
    if (world->solved) world->solver.close(world->solver.self);
    for (uint32_t i = 0; i < world->queues_n; i++) free(world->queues[i].waiting.items);
    el_streams_free(&world->streams);
    free(world->slots);
    free(world->places);
    free(world->due);
    free(world->timers.items);
    free(world->queues);
    free(world->queue_places);
    free(world->ends.items);
    free(world->hosts);
    free(world->links);
    free(world);
}

const char *el_sim_error(const el_sim *world) { return world->error; }

el_sim_status el_sim_outside(el_sim *world, el_sim_status status)
{
    if (status != EL_SIM_OK) world->error = world->solver.error(world->solver.self);
    return status;
}

el_sim_status el_sim_solve_with(el_sim *world, const el_solver *solver)
{
    if (world->solved || world->sealed || world->hosts_n > 0 || world->links_n > 0)
        return el_sim_refuse(world, EL_SIM_STATE, "a solver comes before the platform");
    world->solver = *solver;
    world->solved = true;
    return EL_SIM_OK;
}

static el_sim_status room_for(el_sim *world, void **items, size_t size, uint32_t n, uint32_t *room)
{
    if (n < *room) return EL_SIM_OK;
    const uint32_t grown = *room == 0 ? 16 : 2 * *room;
    void *moved = grown >> EL_INDEX_BITS ? NULL : realloc(*items, grown * size);
    if (moved == NULL) return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
    *items = moved;
    *room = grown;
    return EL_SIM_OK;
}

/// SimGrid's platform is complete before its clock starts; ours need not be.
static bool closed(el_sim *world)
{
    if (!world->stopped && !(world->solved && world->sealed)) return false;
    (void)el_sim_refuse(world, EL_SIM_STATE, "the platform is sealed");
    return true;
}

el_sim_status el_sim_host(el_sim *world, uint32_t *host)
{
    if (closed(world)) return EL_SIM_STATE;
    void *hosts = world->hosts;
    el_sim_status status = room_for(world, &hosts, sizeof *world->hosts, world->hosts_n, &world->hosts_room);
    world->hosts = hosts;
    if (status != EL_SIM_OK) return status;
    if (world->solved) {
        status = el_sim_outside(world, world->solver.host(world->solver.self));
        if (status != EL_SIM_OK) return status;
    }
    status = el_queue_new(world, &world->hosts[world->hosts_n]);
    if (status == EL_SIM_OK) *host = world->hosts_n++;
    return status;
}

/// A link without its ways. @return NULL: the status says why
static el_link *next_link(el_sim *world, double latency_s, el_sim_status *status)
{
    *status = EL_SIM_STATE;
    if (closed(world)) return NULL;
    if (!(latency_s >= 0.0 && latency_s <= EL_SIM_MAX_S)) {
        *status = el_sim_refuse(world, EL_SIM_ARG, "latency_s must be between 0 and 1e9");
        return NULL;
    }
    void *links = world->links;
    *status = room_for(world, &links, sizeof *world->links, world->links_n, &world->links_room);
    world->links = links;
    if (*status != EL_SIM_OK) return NULL;
    world->links[world->links_n] = (el_link){.latency_s = latency_s};
    return &world->links[world->links_n];
}

el_sim_status el_sim_link(el_sim *world, double latency_s, bool duplex, uint32_t *link)
{
    el_sim_status status;
    el_link *made = next_link(world, latency_s, &status);
    if (made == NULL) return status;
    if (world->solved) {
        status = el_sim_outside(world, world->solver.link(world->solver.self, latency_s, duplex));
        if (status != EL_SIM_OK) return status;
    }
    status = el_queue_new(world, &made->way[0]);
    made->way[1] = made->way[0];
    if (status == EL_SIM_OK && duplex) status = el_queue_new(world, &made->way[1]);
    if (status == EL_SIM_OK) *link = world->links_n++;
    return status;
}

el_sim_status el_sim_streamed_link(el_sim *world, double latency_s, bool duplex, const double rate[2],
                                   uint32_t *link)
{
    el_sim_status status;
    for (int up = 0; up < 2; up++)
        if (!(rate[up] > 0.0 && rate[up] <= 1e15))
            return el_sim_refuse(world, EL_SIM_ARG, "rates must be above 0, at most 1e15");
    el_link *made = next_link(world, latency_s, &status);
    if (made == NULL) return status;
    if (world->solved) {
        status = el_sim_outside(world, world->solver.streamed_link(world->solver.self, duplex, rate));
        if (status != EL_SIM_OK) return status;
    }
    made->streamed = true;
    made->rate[0] = rate[0];
    made->rate[1] = rate[1];
    status = el_pipe_new(world, &made->way[0]);
    made->way[1] = made->way[0];
    if (status == EL_SIM_OK && duplex) status = el_pipe_new(world, &made->way[1]);
    if (status == EL_SIM_OK) *link = world->links_n++;
    return status;
}

el_sim_status el_sim_seal(el_sim *world)
{
    if (world->sealed) return el_sim_refuse(world, EL_SIM_STATE, "the platform is sealed");
    if (world->solved) {
        const el_sim_status status = el_sim_outside(world, world->solver.seal(world->solver.self));
        if (status != EL_SIM_OK) return status;
    }
    world->sealed = true;
    return EL_SIM_OK;
}
