/* What solves activities instead of, or beside, the exact queues: its side and the world's side. */
#ifndef EL_SIM_SOLVER_H
#define EL_SIM_SOLVER_H

#include "sim/sim.h"

#ifdef __cplusplus
extern "C" {
#endif

/// A solver with a clock of its own, which moves in `run` only. Statuses other than EL_SIM_OK leave
/// nothing behind, and `error` says why. `handle` is the solver's name of an activity: it is good
/// until el_solver_ended or cancel.
typedef struct el_solver {
    void *self;
    el_sim_status (*host)(void *self);  ///< numbered from 0 in order of calling, as links are
    el_sim_status (*link)(void *self, double latency_s, bool duplex);
    el_sim_status (*streamed_link)(void *self, bool duplex, const double rate[2]);
    el_sim_status (*route)(void *self, const el_sim_hop *hops, size_t n);
    el_sim_status (*seal)(void *self);
    el_sim_status (*exec)(void *self, uint32_t host, double work_s, double weight, el_sim_ticket ticket,
                          void **handle);
    el_sim_status (*transfer)(void *self, uint32_t link, bool up, double airtime_s, el_sim_ticket ticket,
                              void **handle);
    /// Over a route that was named before, the same amount on every link; latency is over.
    el_sim_status (*stream)(void *self, const el_sim_hop *hops, size_t n, double amount, el_sim_ticket ticket,
                            void **handle);
    el_sim_status (*speed)(void *self, uint32_t host, double factor);
    double (*remaining)(const void *handle);  ///< seconds, of a stream: its amount
    void (*cancel)(void *self, void *handle);
    /// Run until nothing of the solver's own is in flight or the world was stopped, calling
    /// el_solver_instant at the end of every activity and at every date of el_solver_next.
    el_sim_status (*run)(void *self);
    const char *(*error)(const void *self);
    void (*close)(void *self);  ///< the world goes away
} el_solver;

/// Send every activity through a solver, rather than through the queues. Before any host or link.
el_sim_status el_sim_solve_with(el_sim *world, const el_solver *solver);

/// The date of the world's own next event; infinite if there is none.
double el_solver_next(const el_sim *world);

/// An activity of the solver is over: it is woken by the next el_solver_instant. Its handle is void.
void el_solver_ended(el_sim *world, el_sim_ticket ticket);

/// Go to a date (never back), and wake everything that is due until nothing more is.
/// @return false if the world was stopped
bool el_solver_instant(el_sim *world, double date_s);

#ifdef __cplusplus
}
#endif

#endif
