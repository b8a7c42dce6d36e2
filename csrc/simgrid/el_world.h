// What the files of this room share: the world, and how exceptions become statuses.
#ifndef EL_SIM_WORLD_H
#define EL_SIM_WORLD_H

#include "simgrid/el_simgrid.h"

#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <new>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include <simgrid/s4u.hpp>

namespace el_world {

namespace sg4 = simgrid::s4u;

// Amounts are in nanoseconds: SimGrid compares amounts with an absolute precision, and payloads are integers.
constexpr double kPerSecond = 1e9;
constexpr double kMaxSeconds = 1e9;
constexpr double kNever = std::numeric_limits<double>::infinity();

enum class Kind { Activity, Timer, Due };

struct Slot {
    sg4::ActivityPtr activity;
    void *tag = nullptr;
    double date_s = 0.0;  // of a timer
    Kind kind = Kind::Timer;
};

struct Alarm {
    double date_s;
    uint64_t ticket;
    bool operator>(const Alarm &other) const
    {
        return date_s != other.date_s ? date_s > other.date_s : ticket > other.ticket;
    }
};

}  // namespace el_world

struct el_sim {
    void *user = nullptr;
    el_sim_wake_fn *wake = nullptr;
    el_sim_drop_fn *drop = nullptr;
    el_world::sg4::Engine *engine = nullptr;
    el_world::sg4::NetZone *zone = nullptr;
    el_world::sg4::Host *hub = nullptr;
    std::vector<el_world::sg4::Host *> hosts;
    std::vector<el_world::sg4::Host *> ports;  // one per link; port -> hub is up, hub -> port is down
    std::unordered_map<uint64_t, el_world::Slot> live;
    std::unordered_map<const el_world::sg4::Activity *, uint64_t> by_activity;
    std::priority_queue<el_world::Alarm, std::vector<el_world::Alarm>, std::greater<el_world::Alarm>> timers;
    std::vector<uint64_t> due;
    std::vector<el_world::sg4::ActivityPtr> over;  // let go of at the next instant
    uint64_t next_ticket = 1;
    uint64_t events = 0;
    double armed_s = el_world::kNever;
    double instant_s = 0.0;  // the date of what is being woken
    bool drain_armed = false;
    bool draining = false;
    bool sealed = false;
    bool running = false;
    bool stopped = false;
    bool broken = false;
    std::string error = "no error";

    uint64_t take(el_world::Kind kind, void *tag, el_world::sg4::ActivityPtr activity, double date_s);
    el_sim_status launch(const el_world::sg4::ActivityPtr &activity, void *tag, el_sim_ticket *ticket);
    void completed(const el_world::sg4::Activity *activity) noexcept;
    void arm();
    void ring() noexcept;
    void collect();
    void drain() noexcept;
    void fail(const char *text) noexcept;
    void stop_all() noexcept;
};

namespace el_world {

static inline el_sim_status refuse(el_sim *world, el_sim_status status, const char *text) noexcept
{
    try {
        world->error = text;
    } catch (const std::bad_alloc &) {
        return EL_SIM_NOMEM;
    }
    return status;
}

// Run `body` with every exception turned into a status.
template <class Body> static inline el_sim_status guarded(el_sim *world, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return refuse(world, EL_SIM_NOMEM, "out of memory");
    } catch (const std::exception &e) {
        return refuse(world, EL_SIM_INTERNAL, e.what());
    } catch (...) {
        return refuse(world, EL_SIM_INTERNAL, "SimGrid threw something unknown");
    }
}

}  // namespace el_world

#endif
