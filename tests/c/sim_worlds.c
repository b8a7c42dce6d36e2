/* Random worlds on the event core alone, under sanitizers: every tag is woken or dropped once, dates never
 * go back, and nothing is left. Built and run by test_sim_core.py. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim/sim.h"

enum { THINGS = 6, STARTS = 4000 };

typedef struct tag {
    struct world *world;
    el_sim_ticket ticket;
    int seen;
} tag;

typedef struct world {
    el_sim *sim;
    uint64_t state;
    double last_s;
    uint32_t hosts[THINGS], links[THINGS], streamed[THINGS];
    tag tags[STARTS];
    size_t started, woken, dropped;
    size_t stop_at;
} world;

static uint64_t draw(world *w, uint64_t below)
{
    w->state = w->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (w->state >> 33) % below;
}

static double draw_s(world *w) { return (double)draw(w, 2000) * 1e-3; }

static void check(int fine, const char *what)
{
    if (fine) return;
    printf("failed: %s\n", what);
    exit(1);
}

static el_sim_status start_stream(world *w, tag *one)
{
    el_sim_hop hops[3];
    const size_t n = 1 + draw(w, 3), first = draw(w, THINGS);
    for (size_t i = 0; i < n; i++) {
        hops[i].link = w->streamed[(first + i) % THINGS];
        hops[i].up = draw(w, 2) == 1;
        hops[i].airtime_s = draw_s(w);
    }
    return el_sim_stream(w->sim, hops, n, draw(w, 2) ? 0.0 : draw_s(w), one, &one->ticket);
}

static void start(world *w)
{
    if (w->started == STARTS) return;
    tag *one = &w->tags[w->started];
    one->world = w;
    const el_sim_share share = {
        .weight = (double)(1 + draw(w, 4)),
        .compute = draw(w, 3) ? 1.0 : 0.25,
        .memory = draw(w, 3) ? 1.0 : (double)draw(w, 3) * 0.5,
    };
    const uint32_t where = (uint32_t)draw(w, THINGS);
    el_sim_status status = EL_SIM_OK;
    switch (draw(w, 5)) {
    case 0: status = el_sim_exec(w->sim, w->hosts[where], draw_s(w), share, one, &one->ticket); break;
    case 1:
        status = el_sim_transfer(w->sim, w->links[where], draw(w, 2), draw_s(w),
                                 draw(w, 4) == 0 ? draw_s(w) : 0.0, one, &one->ticket);
        break;
    case 2: status = start_stream(w, one); break;
    case 3: status = el_sim_timer(w->sim, el_sim_now(w->sim) + draw_s(w), one, &one->ticket); break;
    default: status = el_sim_exec(w->sim, w->hosts[where], 0.0, share, one, &one->ticket); break;
    }
    check(status == EL_SIM_OK, el_sim_error(w->sim));
    w->started++;
}

static int wake(void *user, void *woken)
{
    world *w = user;
    tag *one = woken;
    check(el_sim_now(w->sim) >= w->last_s, "dates do not go back");
    w->last_s = el_sim_now(w->sim);
    check(one->seen++ == 0, "a tag is woken once");
    check(el_sim_remaining(w->sim, one->ticket) == 0.0, "nothing is left of what is over");
    w->woken++;
    for (uint64_t n = 1 + draw(w, 2); n > 0; n--) start(w);
    if (draw(w, 3) == 0 && w->started > 0) {
        tag *other = &w->tags[draw(w, w->started)];
        check(el_sim_remaining(w->sim, other->ticket) >= 0.0, "what is left is never negative");
        el_sim_cancel(w->sim, other->ticket);
    }
    if (draw(w, 10) == 0)
        check(el_sim_speed(w->sim, w->hosts[draw(w, THINGS)], 0.25 * (double)(1 + draw(w, 8))) == EL_SIM_OK,
              "speed");
    return w->woken == w->stop_at;
}

static void drop(void *user, void *dropped)
{
    world *w = user;
    check(((tag *)dropped)->seen++ == 0, "a tag is dropped once");
    w->dropped++;
}

/// @return how many were woken
static size_t play(uint64_t seed, size_t stop_at)
{
    world *w = calloc(1, sizeof *w);
    const double rate[2] = {1e6, 2e6};
    check(w != NULL, "memory");
    w->state = seed;
    w->stop_at = stop_at;
    check(el_sim_new(w, wake, drop, &w->sim) == EL_SIM_OK, "new");
    for (uint32_t i = 0; i < THINGS; i++) {
        check(el_sim_host(w->sim, &w->hosts[i]) == EL_SIM_OK, "host");
        check(el_sim_link(w->sim, 0.01 * i, i % 2, &w->links[i]) == EL_SIM_OK, "link");
        check(el_sim_streamed_link(w->sim, 0.0, i % 2, rate, &w->streamed[i]) == EL_SIM_OK, "streamed");
    }
    check(el_sim_seal(w->sim) == EL_SIM_OK, "seal");
    for (int i = 0; i < 200; i++) start(w);
    check(el_sim_run(w->sim) == EL_SIM_OK, "run");
    check(w->woken == el_sim_events(w->sim), "events are counted");
    check(w->woken + w->dropped == w->started, "every tag is woken or dropped");
    el_sim_free(w->sim);
    const size_t woken = w->woken;
    free(w);
    return woken;
}

int main(void)
{
    size_t woken = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) woken += play(seed, seed % 4 == 0 ? 300 : SIZE_MAX);
    printf("woken=%zu ok\n", woken);
    return 0;
}
