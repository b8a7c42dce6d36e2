// The shim over S4U. SimGrid's traps, and what is done about each:
// - it keeps no reference to an activity: a slot holds one, and lets go of it in a later instant, never inside its own signal;
// - completions of one instant come in no promised order: they are collected and woken by (date, start order);
// - it can neither stop a run nor remove a timer cheaply: timers are in our heap behind one alarm, stopping cancels all;
// - exceptions must not cross its frames: nothing that can throw is let out of a callback.

#include "simgrid/el_world.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <simgrid/kernel/Timer.hpp>

using namespace el_world;
using simgrid::kernel::timer::Timer;

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
    if (found == by_activity.end() || stopped) return;
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
    if (drain_armed || stopped) return;  // SimGrid still rings what was set before a stop
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

const char *el_sim_error(const el_sim *world) { return world->error.c_str(); }

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
