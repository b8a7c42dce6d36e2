// What the files of this room share: the shim, and how exceptions become statuses.
#ifndef EL_SHIM_H
#define EL_SHIM_H

#include "simgrid/el_simgrid.h"

#include <cstdint>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/s4u.hpp>

namespace el_shim {

namespace sg4 = simgrid::s4u;
using simgrid::kernel::timer::Timer;

// Amounts are in nanoseconds: SimGrid compares amounts with an absolute precision, and payloads are integers.
constexpr double kPerSecond = 1e9;
constexpr double kPerAmount = 1e3;
constexpr double kNever = std::numeric_limits<double>::infinity();

/// One activity: the handle that the world holds.
struct Flight {
    sg4::ActivityPtr activity;
    el_sim_ticket ticket;
    double unit;  // of what the world counts, in what SimGrid counts
};

struct Shim {
    el_sim *world = nullptr;  // null once the world is gone
    sg4::Engine *engine = nullptr;
    sg4::NetZone *zone = nullptr;
    sg4::Host *hub = nullptr;
    std::vector<sg4::Host *> hosts;
    std::vector<sg4::Host *> ports;  // one per link; port -> hub is up, hub -> port is down
    std::vector<std::pair<sg4::Link *, sg4::Link *>> streamed;  // by link: up and down; null where it is not
    std::map<std::vector<sg4::Link *>, sg4::Host *> routes;  // from that host to the hub
    std::unordered_map<const sg4::Activity *, std::unique_ptr<Flight>> flights;
    std::vector<Flight *> grounded;  // that begin when the clock has caught up with the world's
    std::vector<sg4::ActivityPtr> over;  // let go of at the next instant
    Timer *alarm = nullptr;  // at the world's next date
    double alarm_s = kNever;
    double instant_s = 0.0;  // the date that is to be woken
    bool waking = false;  // an alarm for that is set
    bool flying = false;  // the clock is the world's: activities begin at once
    bool broken = false;
    std::string error = "no error";

    Flight *add(sg4::ActivityPtr activity, el_sim_ticket ticket, double unit = kPerSecond);
    void take_off();
    void completed(const sg4::Activity *activity) noexcept;
    void arm();
    void ring() noexcept;
    void wake() noexcept;
    void fail(const char *text) noexcept;
};

/// The links of a way.
std::vector<sg4::Link *> links_of(const Shim *shim, const el_sim_hop *hops, std::size_t n);

/// Fill in the calls of activity.cpp.
void give_calls(el_solver *solver);

static inline el_sim_status refuse(Shim *shim, el_sim_status status, const char *text) noexcept
{
    try {
        shim->error = text;
    } catch (const std::bad_alloc &) {
        return EL_SIM_NOMEM;
    }
    return status;
}

// Run `body` with every exception turned into a status.
template <class Body> static inline el_sim_status guarded(Shim *shim, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return refuse(shim, EL_SIM_NOMEM, "out of memory");
    } catch (const std::exception &e) {
        return refuse(shim, EL_SIM_INTERNAL, e.what());
    } catch (...) {
        return refuse(shim, EL_SIM_INTERNAL, "SimGrid threw something unknown");
    }
}

}  // namespace el_shim

#endif
