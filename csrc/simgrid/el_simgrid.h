/* SimGrid's S4U as a solver of the simulated world: a C face of what is C++. One in a process. */
#ifndef EL_SIMGRID_H
#define EL_SIMGRID_H

#include "sim/solver.h"

#ifdef __cplusplus
extern "C" {
#endif

/// Make SimGrid's engine, which is a singleton that cannot be made twice: a second call in the same
/// process fails with EL_SIM_STATE (fork first; docs/decisions/0003), and what it made stays until the
/// process ends. The network model is CM02 with every factor stated: latency 1, bandwidth 1, no TCP
/// window bound, no cross traffic. Amounts are rounded to a nanosecond.
/// @param[in]  world   to which the solver is then given; it says its `next` and hears its `ended`
/// @param[out] solver  written on success only
el_sim_status el_simgrid_new(el_sim *world, el_solver *solver);

/// "3.32.0": of the library at run time.
const char *el_simgrid_version(void);

#ifdef __cplusplus
}
#endif

#endif
