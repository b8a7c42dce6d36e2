// The shim over S4U. SimGrid's traps, and what is done about each:
// - it keeps no reference to an activity: a slot holds one, and lets go of it in a later instant, never inside its own signal;
// - completions of one instant come in no promised order: they are collected and woken by (date, start order);
// - it can neither stop a run nor remove a timer cheaply: timers are in our heap behind one alarm, stopping cancels all;
// - exceptions must not cross its frames: nothing that can throw is let out of a callback.

#include "simgrid/el_simgrid.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <simgrid/kernel/Timer.hpp>
#include <simgrid/s4u.hpp>
#include <simgrid/version.h>

namespace sg4 = simgrid::s4u;
using simgrid::kernel::timer::Timer;

namespace {

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

bool world_exists = false;

}  // namespace

struct el_sim {
    void *user = nullptr;
    el_sim_wake_fn *wake = nullptr;
    el_sim_drop_fn *drop = nullptr;
    sg4::Engine *engine = nullptr;
    sg4::NetZone *zone = nullptr;
    sg4::Host *hub = nullptr;
    std::vector<sg4::Host *> hosts;
    std::vector<sg4::Host *> ports;  // one per link; port -> hub is up, hub -> port is down
    std::unordered_map<uint64_t, Slot> live;
    std::unordered_map<const sg4::Activity *, uint64_t> by_activity;
    std::priority_queue<Alarm, std::vector<Alarm>, std::greater<Alarm>> timers;
    std::vector<uint64_t> due;
    std::vector<sg4::ActivityPtr> over;  // let go of at the next instant
    uint64_t next_ticket = 1;
    uint64_t events = 0;
    double armed_s = kNever;
    double instant_s = 0.0;  // the date of what is being woken
    bool drain_armed = false;
    bool draining = false;
    bool sealed = false;
    bool running = false;
    bool stopped = false;
    bool broken = false;
    std::string error = "no error";

    uint64_t take(Kind kind, void *tag, sg4::ActivityPtr activity, double date_s);
    el_sim_status launch(const sg4::ActivityPtr &activity, void *tag, el_sim_ticket *ticket);
    void completed(const sg4::Activity *activity) noexcept;
    void arm();
    void ring() noexcept;
    void collect();
    void drain() noexcept;
    void fail(const char *text) noexcept;
    void stop_all() noexcept;
};

namespace {

el_sim_status refuse(el_sim *world, el_sim_status status, const char *text) noexcept
{
    try {
        world->error = text;
    } catch (const std::bad_alloc &) {
        return EL_SIM_NOMEM;
    }
    return status;
}

// Run `body` with every exception turned into a status.
template <class Body> el_sim_status guarded(el_sim *world, Body body) noexcept
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

void watch_everything(el_sim *world)
{
#if SIMGRID_VERSION >= 33500
    sg4::Exec::on_completion_cb([world](const sg4::Exec &a) { world->completed(&a); });
    sg4::Comm::on_completion_cb([world](const sg4::Comm &a) { world->completed(&a); });
#else
    sg4::Activity::on_completion_cb([world](const sg4::Activity &a) { world->completed(&a); });
#endif
}

void add_star_route(sg4::NetZone *zone, sg4::Host *host, const std::vector<sg4::LinkInRoute> &up,
                    const std::vector<sg4::LinkInRoute> &down)
{
#if SIMGRID_VERSION >= 33600
    zone->add_route(host, static_cast<const sg4::Host *>(nullptr), up, false);
    zone->add_route(static_cast<const sg4::Host *>(nullptr), host, down, false);
#else
    zone->add_route(host->get_netpoint(), nullptr, nullptr, nullptr, up, false);
    zone->add_route(nullptr, host->get_netpoint(), nullptr, nullptr, down, false);
#endif
}

}  // namespace

uint64_t el_sim::take(Kind kind, void *tag, sg4::ActivityPtr activity, double date_s)
{
    const uint64_t ticket = next_ticket;
    const sg4::Activity *key = activity.get();
    Slot &slot = live[ticket];
    slot.activity = std::move(activity);
    slot.tag = tag;
    slot.date_s = date_s;
    slot.kind = kind;
    if (key != nullptr) {
        try {
            by_activity[key] = ticket;
        } catch (...) {
            live.erase(ticket);
            throw;
        }
    }
    next_ticket++;
    return ticket;
}

el_sim_status el_sim::launch(const sg4::ActivityPtr &activity, void *tag, el_sim_ticket *ticket)
{
    const uint64_t taken = take(Kind::Activity, tag, activity, 0.0);
    try {
        activity->start();
    } catch (...) {  // the tag stays the caller's
        by_activity.erase(activity.get());
        live.erase(taken);
        throw;
    }
    *ticket = taken;
    return EL_SIM_OK;
}

// SimGrid's signal. The activity may be one that we cancelled: then it is no longer in the map.
void el_sim::completed(const sg4::Activity *activity) noexcept
{
    const auto found = by_activity.find(activity);
    if (found == by_activity.end()) return;
    try {
        const uint64_t ticket = found->second;
        by_activity.erase(found);
        Slot &slot = live.at(ticket);
        over.push_back(slot.activity);
        slot.kind = Kind::Due;
        due.push_back(ticket);
        if (!drain_armed) {
            drain_armed = true;
            instant_s = sg4::Engine::get_clock();
            Timer::set(instant_s, [this]() { this->drain(); });
        }
    } catch (const std::exception &e) {
        fail(e.what());
    }
}

void el_sim::fail(const char *text) noexcept
{
    broken = true;
    (void)refuse(this, EL_SIM_INTERNAL, text);
    stopped = true;
}

void el_sim::arm()
{
    while (!timers.empty() && live.find(timers.top().ticket) == live.end()) timers.pop();
    if (timers.empty() || timers.top().date_s >= armed_s) return;
    armed_s = timers.top().date_s;
    Timer::set(armed_s, [this]() { this->ring(); });
}

// SimGrid runs timers before it reports the activities that end at the same date. So that both can be
// ordered, the alarm puts the waking off to the next representable date: by then they are reported.
void el_sim::ring() noexcept
{
    armed_s = kNever;
    if (drain_armed) return;
    if (by_activity.empty()) {
        instant_s = sg4::Engine::get_clock();
        drain();
        return;
    }
    try {
        drain_armed = true;
        instant_s = sg4::Engine::get_clock();
        Timer::set(std::nextafter(instant_s, kNever), [this]() { this->drain(); });
    } catch (const std::exception &e) {
        fail(e.what());
    }
}

// Move the timers that are due to the list of this instant, and order the list.
void el_sim::collect()
{
    const double now = sg4::Engine::get_clock();
    while (!timers.empty() && timers.top().date_s <= now) {
        const auto found = live.find(timers.top().ticket);
        if (found != live.end()) {
            found->second.kind = Kind::Due;
            due.push_back(found->first);
        }
        timers.pop();
    }
    std::sort(due.begin(), due.end());
}

void el_sim::drain() noexcept
{
    try {
        drain_armed = false;
        draining = true;
        over.clear();
        for (collect(); !due.empty() && !stopped; collect()) {
            std::vector<uint64_t> batch;
            batch.swap(due);
            for (const uint64_t ticket : batch) {
                const auto found = live.find(ticket);
                if (found == live.end()) continue;  // cancelled by one woken before it
                void *tag = found->second.tag;
                live.erase(found);
                events++;
                if (wake(user, tag) != 0) stopped = true;
                if (stopped) break;
            }
        }
        draining = false;
        if (stopped)
            stop_all();
        else
            arm();
    } catch (const std::exception &e) {
        draining = false;
        fail(e.what());
        stop_all();
    }
}

void el_sim::stop_all() noexcept
{
    stopped = true;
    while (!live.empty()) el_sim_cancel(this, live.begin()->first);
    due.clear();
}

el_sim_status el_sim_new(void *user, el_sim_wake_fn *wake, el_sim_drop_fn *drop, el_sim **world)
{
    if (world_exists) return EL_SIM_STATE;
    std::unique_ptr<el_sim> made(new (std::nothrow) el_sim);
    if (made == nullptr) return EL_SIM_NOMEM;
    made->user = user;
    made->wake = wake;
    made->drop = drop;

    static const char *const kConfig[] = {
        "edgellm",
        "--log=xbt_cfg.thresh:warning",
        "--cfg=network/model:CM02",
        "--cfg=network/latency-factor:1",
        "--cfg=network/bandwidth-factor:1",
        "--cfg=network/weight-S:0",
        "--cfg=network/TCP-gamma:0",
        "--cfg=network/crosstraffic:0",
#if SIMGRID_VERSION >= 33300
        "--cfg=precision/timing:1e-9",
#else
        "--cfg=surf/precision:1e-9",
#endif
#if SIMGRID_VERSION >= 40000
        "--cfg=debug/clean-atexit:no",
#endif
    };
    struct sigaction before;
    const bool saved = sigaction(SIGINT, nullptr, &before) == 0;
    el_sim *w = made.get();
    const el_sim_status status = guarded(w, [w]() {
        std::vector<std::string> text(std::begin(kConfig), std::end(kConfig));
        std::vector<char *> argv;
        for (std::string &one : text) argv.push_back(&one[0]);
        argv.push_back(nullptr);
        int argc = static_cast<int>(text.size());
        w->engine = new sg4::Engine(&argc, argv.data());  // never deleted: SimGrid ends with the process
        w->zone = sg4::create_star_zone("world");
        w->hub = w->zone->create_host("hub", kPerSecond);
        add_star_route(w->zone, w->hub, {}, {});
        watch_everything(w);
        return EL_SIM_OK;
    });
    if (saved) (void)sigaction(SIGINT, &before, nullptr);  // SimGrid's own handler would end the process
    world_exists = true;
    if (status == EL_SIM_OK) *world = made.release();
    return status;
}

void el_sim_free(el_sim *world)
{
    if (world == nullptr || world->running) return;
    world->stop_all();
    world->stopped = true;
    // SimGrid's signals and alarms may still point here until the process ends: keep the shell.
}

const char *el_sim_error(const el_sim *world) { return world->error.c_str(); }

const char *el_sim_version(void)
{
    static char text[32];
    int major = 0, minor = 0, patch = 0;
    sg_version_get(&major, &minor, &patch);
    (void)std::snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}

el_sim_status el_sim_host(el_sim *world, uint32_t *host)
{
    if (world->sealed) return refuse(world, EL_SIM_STATE, "the platform is sealed");
    return guarded(world, [=]() {
        const std::size_t id = world->hosts.size();
        world->hosts.push_back(world->zone->create_host("h" + std::to_string(id), kPerSecond));
        *host = static_cast<uint32_t>(id);
        return EL_SIM_OK;
    });
}

el_sim_status el_sim_link(el_sim *world, double latency_s, int duplex, uint32_t *link)
{
    if (world->sealed) return refuse(world, EL_SIM_STATE, "the platform is sealed");
    if (!(latency_s >= 0.0 && latency_s <= kMaxSeconds))
        return refuse(world, EL_SIM_ARG, "latency_s must be between 0 and 1e9");
    return guarded(world, [=]() {
        const std::size_t id = world->ports.size();
        const std::string name = "l" + std::to_string(id);
        sg4::Link *up = world->zone->create_link(name + "u", kPerSecond)->set_latency(latency_s)->seal();
        sg4::Link *down = up;
        if (duplex) down = world->zone->create_link(name + "d", kPerSecond)->set_latency(latency_s)->seal();
        sg4::Host *port = world->zone->create_host("p" + std::to_string(id), kPerSecond);
        add_star_route(world->zone, port, {sg4::LinkInRoute(up)}, {sg4::LinkInRoute(down)});
        world->ports.push_back(port);
        *link = static_cast<uint32_t>(id);
        return EL_SIM_OK;
    });
}

el_sim_status el_sim_seal(el_sim *world)
{
    if (world->sealed) return refuse(world, EL_SIM_STATE, "the platform is sealed");
    return guarded(world, [=]() {
        for (sg4::Host *host : world->hosts) add_star_route(world->zone, host, {}, {});
        world->zone->seal();
        world->engine->seal_platform();
        world->sealed = true;
        return EL_SIM_OK;
    });
}

el_sim_status el_sim_exec(el_sim *world, uint32_t host, double work_s, double weight, void *tag,
                          el_sim_ticket *ticket)
{
    if (!world->sealed || world->stopped) return refuse(world, EL_SIM_STATE, "the world is not ready to run");
    if (host >= world->hosts.size()) return refuse(world, EL_SIM_ARG, "no such host");
    if (!(work_s >= 0.0 && work_s <= kMaxSeconds))
        return refuse(world, EL_SIM_ARG, "work_s must be between 0 and 1e9");
    if (!(weight > 0.0 && weight <= 1e6))
        return refuse(world, EL_SIM_ARG, "weight must be above 0, at most 1e6");
    return guarded(world, [=]() {
        sg4::ExecPtr exec = sg4::Exec::init();
        exec->set_flops_amount(work_s * kPerSecond)->set_priority(weight)->set_host(world->hosts[host]);
        return world->launch(exec, tag, ticket);
    });
}

el_sim_status el_sim_transfer(el_sim *world, uint32_t link, int up, double airtime_s, void *tag,
                              el_sim_ticket *ticket)
{
    if (!world->sealed || world->stopped) return refuse(world, EL_SIM_STATE, "the world is not ready to run");
    if (link >= world->ports.size()) return refuse(world, EL_SIM_ARG, "no such link");
    if (!(airtime_s >= 0.0 && airtime_s <= kMaxSeconds))
        return refuse(world, EL_SIM_ARG, "airtime_s must be between 0 and 1e9");
    return guarded(world, [=]() {
        sg4::Host *port = world->ports[link];
        sg4::CommPtr comm =
            up ? sg4::Comm::sendto_init(port, world->hub) : sg4::Comm::sendto_init(world->hub, port);
        comm->set_payload_size(static_cast<uint64_t>(std::llround(airtime_s * kPerSecond)));
        return world->launch(comm, tag, ticket);
    });
}

el_sim_status el_sim_timer(el_sim *world, double date_s, void *tag, el_sim_ticket *ticket)
{
    if (world->stopped) return refuse(world, EL_SIM_STATE, "the world is not ready to run");
    if (!(date_s <= kMaxSeconds * kPerSecond)) return refuse(world, EL_SIM_ARG, "date_s must be finite");
    return guarded(world, [=]() {
        const double date = std::max(date_s, world->instant_s);
        *ticket = world->take(Kind::Timer, tag, nullptr, date);
        world->timers.push(Alarm{date, *ticket});
        if (!world->draining) world->arm();
        return EL_SIM_OK;
    });
}

double el_sim_remaining(const el_sim *world, el_sim_ticket ticket)
{
    const auto found = world->live.find(ticket);
    if (found == world->live.end() || found->second.kind == Kind::Due) return 0.0;
    if (found->second.kind == Kind::Timer) return found->second.date_s - world->instant_s;
    return std::max(0.0, found->second.activity->get_remaining() / kPerSecond);
}

void el_sim_cancel(el_sim *world, el_sim_ticket ticket)
{
    const auto found = world->live.find(ticket);
    if (found == world->live.end()) return;
    Slot slot = std::move(found->second);
    world->live.erase(found);
    (void)guarded(world, [&]() {
        if (slot.kind == Kind::Activity) {
            world->by_activity.erase(slot.activity.get());
            world->over.push_back(slot.activity);
            slot.activity->cancel();
        }
        return EL_SIM_OK;
    });
    world->drop(world->user, slot.tag);
}

double el_sim_now(const el_sim *world) { return world->instant_s; }

uint64_t el_sim_events(const el_sim *world) { return world->events; }

el_sim_status el_sim_run(el_sim *world)
{
    if (!world->sealed || world->running || world->stopped)
        return refuse(world, EL_SIM_STATE, "the world is not ready to run");
    world->running = true;
    const el_sim_status status = guarded(world, [=]() {
        world->engine->run();
        return world->broken ? EL_SIM_INTERNAL : EL_SIM_OK;
    });
    world->running = false;
    return status;
}

void el_sim_stop(el_sim *world) { world->stop_all(); }
