/* Max-min fairness of streams over several links, by filling: the common level rises, every stream runs at
 * it, until a pipe is full; that holds its streams, and the level goes on rising for the others. Only what is
 * connected with a change, over pipes and streams, is reckoned: O((streams + pipes) log pipes) of that. */
#include <math.h>
#include <stdlib.h>

#include "sim/streams.h"

el_sim_status el_pipe_new(el_sim *world, uint32_t *pipe)
{
    el_streams *all = &world->streams;
    if (all->n == all->room) {
        const uint32_t room = all->room == 0 ? 16 : 2 * all->room;
        el_pipe *pipes = realloc(all->pipes, room * sizeof *pipes);
        if (pipes != NULL) all->pipes = pipes;
        uint32_t *places = realloc(all->places, room * sizeof *places);
        if (places != NULL) all->places = places;
        uint32_t *changed = realloc(all->changed, room * sizeof *changed);
        if (changed != NULL) all->changed = changed;
        uint32_t *met = realloc(all->met, room * sizeof *met);
        if (met != NULL) all->met = met;
        if (pipes == NULL || places == NULL || changed == NULL || met == NULL ||
            !el_heap_reserve(&all->levels, room) || room >> EL_INDEX_BITS)
            return el_sim_refuse(world, EL_SIM_NOMEM, "out of memory");
        all->room = room;
    }
    all->pipes[all->n] = (el_pipe){.n = 0};
    *pipe = all->n++;
    return EL_SIM_OK;
}

void el_streams_free(el_streams *streams)
{
    for (uint32_t i = 0; i < streams->n; i++) free(streams->pipes[i].crossings);
    free(streams->pipes);
    free(streams->places);
    free(streams->changed);
    free(streams->met);
    free(streams->ends.items);
    free(streams->levels.items);
}

static void meet(el_streams *all, uint32_t number, uint32_t *met_n)
{
    el_pipe *pipe = &all->pipes[number];
    if (pipe->round == all->round) return;
    pipe->round = all->round;
    pipe->spare = 1.0;
    pipe->load = 0.0;
    pipe->rising = pipe->n;
    all->met[(*met_n)++] = number;
}

/// Begin a round with everything that is connected with the pipes that changed. @return how many streams
static uint32_t spread(el_streams *all)
{
    uint32_t met_n = 0, moving_n = 0;
    all->round++;
    for (uint32_t i = 0; i < all->changed_n; i++) {
        all->pipes[all->changed[i]].changed = false;
        meet(all, all->changed[i], &met_n);
    }
    all->changed_n = 0;
    for (uint32_t i = 0; i < met_n; i++) {
        const uint32_t number = all->met[i];
        el_pipe *pipe = &all->pipes[number];
        for (uint32_t j = 0; j < pipe->n; j++) {
            el_stream *stream = pipe->crossings[j].stream;
            pipe->load += stream->hops[pipe->crossings[j].hop].airtime_s;
            if (stream->round == all->round) continue;
            stream->round = all->round;
            stream->rising = true;
            moving_n++;
            for (uint32_t hop = 0; hop < stream->n; hop++) meet(all, stream->hops[hop].pipe, &met_n);
        }
        if (pipe->n > 0) el_heap_push(&all->levels, all->places, (el_heap_item){1.0 / pipe->load, number});
    }
    return moving_n;
}

/// A full pipe: what still rises over it is held at this level, and takes its part of its other pipes.
static void hold(el_sim *world, const el_pipe *pipe, double level)
{
    for (uint32_t i = 0; i < pipe->n; i++) {
        el_stream *stream = pipe->crossings[i].stream;
        if (!stream->rising) continue;
        stream->rising = false;
        for (uint32_t hop = 0; hop < stream->n; hop++) {
            el_pipe *other = &world->streams.pipes[stream->hops[hop].pipe];
            const double airtime_s = stream->hops[hop].airtime_s;
            other->rising--;
            if (airtime_s == 0.0) continue;  // also where the level is infinite
            other->spare -= airtime_s * level;
            other->load -= airtime_s;
        }
        el_stream_pace(world, stream, level);
    }
}

void el_pipes_fill(el_sim *world)
{
    el_streams *all = &world->streams;
    el_heap *levels = &all->levels;
    double level = 0.0;
    if (spread(all) == 0) return;
    while (levels->n > 0) {
        const uint32_t number = (uint32_t)levels->items[0].id;
        const el_pipe *pipe = &all->pipes[number];
        el_heap_remove(levels, all->places, 0);
        if (pipe->rising == 0) continue;
        // Holding streams elsewhere only raises the level at which a pipe is full: what the heap says is a lower bound.
        const double full = pipe->load > 0.0 ? pipe->spare / pipe->load : INFINITY;
        if (levels->n > 0 && full > levels->items[0].key) {
            el_heap_push(levels, all->places, (el_heap_item){full, number});
            continue;
        }
        level = fmax(level, full);
        hold(world, pipe, level);
    }
}
