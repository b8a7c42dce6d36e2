/* Streams: starting, ending, and what is left of them. Their paces are reckoned once an instant (pipes.c). */
#include "sim/streams.h"

#include <math.h>
#include <stdlib.h>

static el_sim_status out_of_memory(el_sim *world)
{
    return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
}

static el_sim_status check_hops(el_sim *world, const el_sim_hop *hops, size_t n)
{
    if (n < 1 || n > EL_SIM_MAX_HOPS) return el_sim_refuse(world, EL_SIM_ARG, "a stream has 1 to 64 hops");
    for (size_t i = 0; i < n; i++) {
        if (hops[i].link >= world->links_n || !world->links[hops[i].link].streamed)
            return el_sim_refuse(world, EL_SIM_ARG, "no such streamed link");
        if (!(hops[i].airtime_s >= 0.0 && hops[i].airtime_s <= EL_SIM_MAX_S))
            return el_sim_refuse(world, EL_SIM_ARG, "airtime_s must be between 0 and 1e9");
        for (size_t j = 0; j < i; j++)
            if (world->links[hops[i].link].way[hops[i].up] == world->links[hops[j].link].way[hops[j].up])
                return el_sim_refuse(world, EL_SIM_ARG, "a stream crosses a link once");
    }
    return EL_SIM_OK;
}

el_sim_status el_sim_route(el_sim *world, const el_sim_hop *hops, size_t n)
{
    const el_sim_status status = check_hops(world, hops, n);
    if (status != EL_SIM_OK || !world->solved) return status;
    if (world->sealed) return el_sim_refuse(world, EL_SIM_STATE, "the platform is sealed");
    return el_sim_outside(world, world->solver.route(world->solver.self, hops, n));
}

static double amount_of(const el_sim *world, const el_sim_hop *hop)
{
    return hop->airtime_s * world->links[hop->link].rate[hop->up];
}

/// The amount is the least that an air time means: air time above that is for what is sent again.
static el_stream *make(const el_sim *world, const el_sim_hop *hops, size_t n)
{
    el_stream *stream = calloc(1, sizeof *stream + n * sizeof *stream->hops);
    if (stream == NULL) return NULL;
    double amount = INFINITY;
    for (size_t i = 0; i < n; i++) {
        el_stream_hop *hop = &stream->hops[i];
        hop->asked = hops[i];
        hop->pipe = world->links[hops[i].link].way[hops[i].up];
        if (hops[i].airtime_s > 0.0) amount = fmin(amount, amount_of(world, &hops[i]));
        stream->slowest_s = fmax(stream->slowest_s, hops[i].airtime_s);
    }
    stream->n = (uint32_t)n;
    stream->left = stream->amount = stream->slowest_s > 0.0 ? amount : 0.0;
    for (size_t i = 0; i < n; i++) stream->hops[i].airtime_s = hops[i].airtime_s / amount;
    return stream;
}

el_sim_status el_sim_stream(el_sim *world, const el_sim_hop *hops, size_t n, double latency_s, void *tag,
                            el_sim_ticket *ticket)
{
    if (!el_sim_ready(world)) return EL_SIM_STATE;
    const el_sim_status status = check_hops(world, hops, n);
    if (status != EL_SIM_OK) return status;
    if (!(latency_s >= 0.0 && latency_s <= EL_SIM_MAX_S))
        return el_sim_refuse(world, EL_SIM_ARG, "latency_s must be between 0 and 1e9");
    el_stream *stream = make(world, hops, n);
    el_slot *slot = stream != NULL ? el_sim_take(world, tag, EL_SLOT_LATENT) : NULL;
    if (slot == NULL) {
        free(stream);
        return out_of_memory(world);
    }
    slot->stream = stream;
    stream->ticket = slot->ticket;
    return el_sim_launch(world, slot, latency_s, ticket);
}

/* ---- where streams are ---------------------------------------------------------------------------------- */

static void mark(el_streams *all, uint32_t number)
{
    if (all->pipes[number].changed) return;
    all->pipes[number].changed = true;
    all->changed[all->changed_n++] = number;
}

static el_sim_status hand_over(el_sim *world, el_slot *slot)
{
    const el_stream *stream = slot->stream;
    el_sim_hop hops[EL_SIM_MAX_HOPS];
    for (uint32_t i = 0; i < stream->n; i++) {
        hops[i] = stream->hops[i].asked;
        if (fabs(amount_of(world, &hops[i]) - stream->amount) > 1e-9 * stream->amount)
            return el_sim_refuse(world, EL_SIM_ARG, "SimGrid's flows take the same amount of every link");
    }
    slot->queue = EL_NOWHERE;
    slot->kind = EL_SLOT_OUTSIDE;
    const el_solver *by = &world->solver;
    const el_sim_status status =
        by->stream(by->self, hops, stream->n, stream->amount, slot->ticket, &slot->handle);
    if (status == EL_SIM_OK) world->outside++;
    return el_sim_outside(world, status);
}

/// Room for one more stream, in all that has a place for each.
static bool reserve(el_streams *all, const el_stream *stream)
{
    for (uint32_t i = 0; i < stream->n; i++) {
        el_pipe *pipe = &all->pipes[stream->hops[i].pipe];
        if (pipe->n < pipe->room) continue;
        const uint32_t room = pipe->room == 0 ? 4 : 2 * pipe->room;
        el_crossing *crossings = realloc(pipe->crossings, room * sizeof *crossings);
        if (crossings == NULL) return false;
        pipe->crossings = crossings;
        pipe->room = room;
    }
    return el_heap_reserve(&all->ends, all->alive + 1);
}

el_sim_status el_stream_enter(el_sim *world, el_slot *slot)
{
    el_streams *all = &world->streams;
    el_stream *stream = slot->stream;
    if (world->solved) return hand_over(world, slot);
    if (!reserve(all, stream)) return out_of_memory(world);
    for (uint32_t i = 0; i < stream->n; i++) {
        el_pipe *pipe = &all->pipes[stream->hops[i].pipe];
        stream->hops[i].place = pipe->n;
        pipe->crossings[pipe->n++] = (el_crossing){stream, i};
        mark(all, stream->hops[i].pipe);
    }
    all->alive++;
    stream->date_s = world->now_s;
    slot->kind = EL_SLOT_STREAMED;
    world->places[el_sim_index(world, slot)] = EL_NOWHERE;  // it has no end before paces are reckoned
    return EL_SIM_OK;
}

static void leave_pipes(el_streams *all, const el_stream *stream)
{
    for (uint32_t i = 0; i < stream->n; i++) {
        el_pipe *pipe = &all->pipes[stream->hops[i].pipe];
        const el_crossing last = pipe->crossings[--pipe->n];
        pipe->crossings[stream->hops[i].place] = last;
        last.stream->hops[last.hop].place = stream->hops[i].place;
        mark(all, stream->hops[i].pipe);
    }
    all->alive--;
}

void el_stream_leave(el_sim *world, el_slot *slot)
{
    if (slot->stream == NULL) return;
    if (slot->kind == EL_SLOT_STREAMED) {
        const uint32_t at = world->places[el_sim_index(world, slot)];
        if (at != EL_NOWHERE) el_heap_remove(&world->streams.ends, world->places, at);
        leave_pipes(&world->streams, slot->stream);
    }
    free(slot->stream);
    slot->stream = NULL;
}

static double left_now(const el_sim *world, const el_stream *stream)
{
    const double since_s = world->now_s - stream->date_s;
    return since_s > 0.0 ? fmax(0.0, stream->left - since_s * stream->pace) : stream->left;
}

void el_stream_pace(el_sim *world, el_stream *stream, double pace)
{
    el_heap *ends = &world->streams.ends;
    const uint32_t at = world->places[EL_INDEX(stream->ticket)];
    if (at != EL_NOWHERE && pace == stream->pace) return;
    stream->left = left_now(world, stream);
    stream->date_s = world->now_s;
    stream->pace = pace;
    const double takes_s = stream->left > 0.0 ? stream->left / pace : 0.0;
    const el_heap_item item = {world->now_s + takes_s, stream->ticket};
    if (at == EL_NOWHERE)
        el_heap_push(ends, world->places, item);
    else
        el_heap_settle(ends, world->places, at, item);
}

void el_streams_end(el_sim *world, double until_s)
{
    const el_heap *ends = &world->streams.ends;
    if (world->streams.changed_n > 0) el_pipes_fill(world);
    while (ends->n > 0 && ends->items[0].key <= until_s) {
        el_slot *slot = &world->slots[EL_INDEX(ends->items[0].id)];
        el_stream_leave(world, slot);
        el_sim_make_due(world, slot);
    }
}

double el_stream_left_s(const el_sim *world, const el_slot *slot)
{
    const el_stream *stream = slot->stream;
    if (stream->amount == 0.0) return 0.0;
    double left = stream->amount;
    if (slot->kind == EL_SLOT_STREAMED) left = left_now(world, stream);
    if (slot->kind == EL_SLOT_OUTSIDE) left = world->solver.remaining(slot->handle);
    return left / stream->amount * stream->slowest_s;
}
