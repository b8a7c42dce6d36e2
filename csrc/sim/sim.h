/* Simulated time: activities on hosts and links that are shared fairly, timers, and the order of what happens. */
#ifndef EL_SIM_H
#define EL_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// One simulated world: what holds a single host or one direction of a link is solved exactly here,
/// what else there may be by a solver from outside (solver.h).
typedef struct el_sim el_sim;

/// Names one running activity or timer; never 0, never reused, larger than those started before.
typedef uint64_t el_sim_ticket;

/// Tells that what `tag` was started for has happened. Called from el_sim_run only, in order of (date,
/// order of starting); activities that end less than a nanosecond apart end at one date. May call every
/// function here but el_sim_run and el_sim_free.
/// @return 0 to go on, anything else to stop the run
typedef int el_sim_wake_fn(void *user, void *tag);

/// Called for a tag that will never be woken (cancelled, or the world was stopped or freed).
typedef void el_sim_drop_fn(void *user, void *tag);

typedef enum el_sim_status {
    EL_SIM_OK = 0,
    EL_SIM_ARG,  ///< an argument is out of range; the text names it
    EL_SIM_STATE,  ///< not possible now (platform sealed, not sealed, running, stopped)
    EL_SIM_NOMEM,
    EL_SIM_INTERNAL  ///< the solver from outside refused; the text is its own
} el_sim_status;

/// Make a world.
/// @param[in]  user   handed to both callbacks
/// @param[out] world  written on success only
el_sim_status el_sim_new(void *user, el_sim_wake_fn *wake, el_sim_drop_fn *drop, el_sim **world);

/// Drop every tag and free the world; NULL is allowed.
void el_sim_free(el_sim *world);

/// Why the last call that failed did so; never NULL.
const char *el_sim_error(const el_sim *world);

/// Add a host that does one second of work in a second.
el_sim_status el_sim_host(el_sim *world, uint32_t *host);

/// Add a link of capacity one (a second of air time in a second), shared equally among transfers.
/// @param[in] latency_s  before a transfer begins to use the capacity; 0 to 1e9
/// @param[in] duplex     false: both directions share the capacity; true: each has its own
el_sim_status el_sim_link(el_sim *world, double latency_s, bool duplex, uint32_t *link);

/// Add a link that streams may cross together with others. What crosses it is shared equally by amount
/// (bits, say): `rate` amounts take a second of air time, in either direction; above 0, at most 1e15.
el_sim_status el_sim_streamed_link(el_sim *world, double latency_s, bool duplex, const double rate[2],
                                   uint32_t *link);

/// Begin. No activity can be started before; with a solver from outside, no host or link be added after.
el_sim_status el_sim_seal(el_sim *world);

/// What an execution takes of a host. What runs together progresses at the paces weight x, or 1 where
/// that is less, with the largest x for which neither sum of pace times share is above 1; what uses
/// nothing of the budget that is then full goes on to a larger x (weighted max-min fairness).
typedef struct el_sim_share {
    double weight;  ///< 1e-6 to 1e6
    double compute;  ///< of the host's compute while it runs at pace 1; 0 to 1
    double memory;  ///< of the host's memory bandwidth likewise; not both 0
} el_sim_share;

/// Start `work_s` seconds of work on a host.
el_sim_status el_sim_exec(el_sim *world, uint32_t host, double work_s, el_sim_share share, void *tag,
                          el_sim_ticket *ticket);

/// Start a transfer of `airtime_s` seconds over one link.
/// @param[in] up      which direction of a duplex link
/// @param[in] wait_s  before it begins, beyond the link's latency; 0 where a solver from outside is used
el_sim_status el_sim_transfer(el_sim *world, uint32_t link, bool up, double airtime_s, double wait_s,
                              void *tag, el_sim_ticket *ticket);

/// One link that a stream crosses, and for how long alone.
typedef struct el_sim_hop {
    uint32_t link;
    bool up;
    double airtime_s;  ///< 0 to 1e9
} el_sim_hop;

enum { EL_SIM_MAX_HOPS = 64 };

/// Say before the world is sealed that streams will go this way: a solver from outside needs to know.
el_sim_status el_sim_route(el_sim *world, const el_sim_hop *hops, size_t n);

/// Start one flow that holds several streamed links at once, after a latency, at the pace of the fullest:
/// paces are max-min fair in amounts per second. The amount is the least that a hop's air time means.
/// @param[in] hops  1 to EL_SIM_MAX_HOPS different directions of links
el_sim_status el_sim_stream(el_sim *world, const el_sim_hop *hops, size_t n, double latency_s, void *tag,
                            el_sim_ticket *ticket);

/// From now on everything on the host goes at `factor` times its pace.
/// @param[in] factor  1e-6 to 1e6
el_sim_status el_sim_speed(el_sim *world, uint32_t host, double factor);

/// What the activities of a host do at this moment: sums of their paces (the host's factor included),
/// and of paces times shares.
typedef struct el_sim_load {
    double pace, compute, memory;
} el_sim_load;

el_sim_status el_sim_host_load(el_sim *world, uint32_t host, el_sim_load *load);

/// Wake `tag` at a date; a date in the past means now, after what is already due.
el_sim_status el_sim_timer(el_sim *world, double date_s, void *tag, el_sim_ticket *ticket);

/// Seconds of work (at pace 1) or air time not yet done, of a stream on its slowest link; the time left
/// for a timer; 0 for a ticket whose tag was woken or dropped.
double el_sim_remaining(const el_sim *world, el_sim_ticket ticket);

/// Stop an activity or timer and drop its tag; nothing happens for a ticket that is over.
void el_sim_cancel(el_sim *world, el_sim_ticket ticket);

/// Simulated seconds since the beginning.
double el_sim_now(const el_sim *world);

/// Activities and timers that were woken so far.
uint64_t el_sim_events(const el_sim *world);

/// Run until nothing is left, or a wake asks to stop, or el_sim_stop.
el_sim_status el_sim_run(el_sim *world);

/// Cancel everything, so that el_sim_run returns.
void el_sim_stop(el_sim *world);

#ifdef __cplusplus
}
#endif

#endif
