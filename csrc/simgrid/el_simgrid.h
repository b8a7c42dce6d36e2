/* A small C face of SimGrid's S4U: just what the testbed uses. One world per process. */
#ifndef EL_SIMGRID_H
#define EL_SIMGRID_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// One simulated world. SimGrid's engine is a singleton that cannot be made twice:
/// a second el_sim_new in the same process fails (fork first; docs/decisions/0003).
typedef struct el_sim el_sim;

/// Names one running activity or timer; never 0, never reused within a world.
typedef uint64_t el_sim_ticket;

/// Tells that what `tag` was started for has happened. Called from el_sim_run only, in
/// order of (date, order of starting). May call every function here but el_sim_run,
/// el_sim_new and el_sim_free.
/// @return 0 to go on, anything else to stop the run
typedef int el_sim_wake_fn(void *user, void *tag);

/// Called for a tag that will never be woken (cancelled, or the world was stopped or freed).
typedef void el_sim_drop_fn(void *user, void *tag);

typedef enum el_sim_status {
    EL_SIM_OK = 0,
    EL_SIM_ARG,    ///< an argument is out of range; the text names it
    EL_SIM_STATE,  ///< not possible now (second world, platform sealed, not sealed, running)
    EL_SIM_NOMEM,
    EL_SIM_INTERNAL  ///< SimGrid refused; the text is SimGrid's own
} el_sim_status;

/// Make the world. The network model is CM02 with every factor stated: latency 1,
/// bandwidth 1, no TCP window bound, no cross traffic, no RTT weight. So a lone transfer takes
/// latency + amount, and flows on a link share it equally.
/// @param[in]  user   handed to both callbacks
/// @param[out] world  written on success only
el_sim_status el_sim_new(void *user, el_sim_wake_fn *wake, el_sim_drop_fn *drop, el_sim **world);

/// Drop every tag and release what is ours. SimGrid's own state stays until the process ends.
void el_sim_free(el_sim *world);

/// Why the last call that failed did so; never NULL.
const char *el_sim_error(const el_sim *world);

/// "3.32.0": of the library at run time.
const char *el_sim_version(void);

/// Add a host that does one second of work in a second, shared by weight among what runs.
el_sim_status el_sim_host(el_sim *world, uint32_t *host);

/// Add a link of capacity one (a second of air time in a second), shared equally among flows.
/// @param[in] latency_s  before a transfer begins to use the capacity; finite, >= 0
/// @param[in] duplex     0: both directions share the capacity; 1: each has its own
el_sim_status el_sim_link(el_sim *world, double latency_s, int duplex, uint32_t *link);

/// End the description of the platform. Nothing can be started before, nothing added after.
el_sim_status el_sim_seal(el_sim *world);

/// Start `work_s` seconds of work on a host.
/// @param[in] weight  > 0; shares of a busy host are proportional to it
el_sim_status el_sim_exec(el_sim *world, uint32_t host, double work_s, double weight, void *tag,
                          el_sim_ticket *ticket);

/// Start a transfer of `airtime_s` seconds over one link (rounded to a nanosecond).
/// @param[in] up  which direction of a duplex link
el_sim_status el_sim_transfer(el_sim *world, uint32_t link, int up, double airtime_s, void *tag,
                              el_sim_ticket *ticket);

/// Wake `tag` at a date; a date in the past means now, after what is already due.
el_sim_status el_sim_timer(el_sim *world, double date_s, void *tag, el_sim_ticket *ticket);

/// Seconds of work or air time not yet done; the time left for a timer; 0 for a ticket whose
/// tag was woken or dropped.
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
