// The shim over S4U. SimGrid's traps, and what is done about each:
// - it keeps no reference to an activity: a flight holds one, and lets go of it in a later instant, never inside its own signal;
// - completions of one instant come in no promised order: the world wakes them by the order of starting;
// - it runs from its first event to its last: the world's own dates come to it through one alarm;
// - its clock stands still while it has nothing to do: what begins then waits until the clock has caught up;
// - exceptions must not cross its frames: nothing that can throw is let out of a callback.

#include "simgrid/el_shim.h"

#include <algorithm>
#include <cmath>
#include <utility>

using namespace el_shim;

Flight *Shim::add(sg4::ActivityPtr activity, el_sim_ticket ticket, double unit)
{
    const sg4::Activity *key = activity.get();
    std::unique_ptr<Flight> made(new Flight{activity, ticket, unit});
    Flight *flight = made.get();
    flights[key] = std::move(made);
    try {
        if (flying)
            activity->start();
        else
            grounded.push_back(flight);
    } catch (...) {
        flights.erase(key);
        throw;
    }
    return flight;
}

void Shim::take_off()
{
    flying = true;
    for (const Flight *flight : grounded) flight->activity->start();
    grounded.clear();
    arm();
}

// SimGrid's signal. The activity may be one that was cancelled: then it is no longer in the map.
void Shim::completed(const sg4::Activity *activity) noexcept
{
    const auto found = flights.find(activity);
    if (found == flights.end()) return;
    try {
        over.push_back(found->second->activity);
        el_solver_ended(world, found->second->ticket);
        flights.erase(found);
        if (!waking) {
            waking = true;
            instant_s = sg4::Engine::get_clock();
            Timer::set(instant_s, [this]() { this->wake(); });
        }
    } catch (const std::exception &e) {
        fail(e.what());
    }
}

void Shim::fail(const char *text) noexcept
{
    broken = true;
    (void)refuse(this, EL_SIM_INTERNAL, text);
    el_sim_stop(world);
}

// The one alarm is at the world's next date, and there is none when nothing flies: then SimGrid's run ends.
void Shim::arm()
{
    const double next_s = flights.empty() ? kNever : el_solver_next(world);
    if (next_s == alarm_s) return;
    if (alarm != nullptr) alarm->remove();
    alarm = nullptr;
    alarm_s = next_s;
    if (next_s < kNever) alarm = Timer::set(next_s, [this]() { this->ring(); });
}

// SimGrid runs timers before it reports the activities that end at the same date. So that both can be
// ordered, the alarm puts the waking off to the next representable date: by then they are reported.
void Shim::ring() noexcept
{
    const double date_s = alarm_s;
    alarm = nullptr;
    alarm_s = kNever;
    if (waking) return;
    try {
        waking = true;
        instant_s = date_s;
        Timer::set(std::nextafter(sg4::Engine::get_clock(), kNever), [this]() { this->wake(); });
    } catch (const std::exception &e) {
        fail(e.what());
    }
}

void Shim::wake() noexcept
{
    try {
        waking = false;
        over.clear();
        (void)el_solver_instant(world, instant_s);
        arm();
    } catch (const std::exception &e) {
        fail(e.what());
    }
}

static el_sim_status exec_start(void *self, uint32_t host, double work_s, double weight, el_sim_ticket ticket,
                                void **handle)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        sg4::ExecPtr exec = sg4::Exec::init();
        exec->set_flops_amount(work_s * kPerSecond)->set_priority(weight)->set_host(shim->hosts[host]);
        *handle = shim->add(exec, ticket);
        return EL_SIM_OK;
    });
}

static el_sim_status transfer_start(void *self, uint32_t link, bool up, double airtime_s,
                                    el_sim_ticket ticket, void **handle)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        sg4::Host *port = shim->ports[link];
        sg4::CommPtr comm =
            up ? sg4::Comm::sendto_init(port, shim->hub) : sg4::Comm::sendto_init(shim->hub, port);
        comm->set_payload_size(static_cast<uint64_t>(std::llround(airtime_s * kPerSecond)));
        *handle = shim->add(comm, ticket);
        return EL_SIM_OK;
    });
}

static el_sim_status speed_set(void *self, uint32_t, double factor)
{
    if (factor == 1.0) return EL_SIM_OK;
    return refuse(static_cast<Shim *>(self), EL_SIM_STATE,
                  "SimGrid cannot change the speed of a host by a factor");
}

static el_sim_status stream_start(void *self, const el_sim_hop *hops, size_t n, double amount,
                                  el_sim_ticket ticket, void **handle)
{
    Shim *shim = static_cast<Shim *>(self);
    if (amount * kPerAmount > 1e18)
        return refuse(shim, EL_SIM_ARG, "SimGrid's flows are at most 1e15 amounts");
    return guarded(shim, [=]() {
        const auto route = shim->routes.find(links_of(shim, hops, n));
        if (route == shim->routes.end())
            return refuse(shim, EL_SIM_STATE, "SimGrid knows only routes that were named before it began");
        sg4::CommPtr comm = sg4::Comm::sendto_init(route->second, shim->hub);
        comm->set_payload_size(static_cast<uint64_t>(std::llround(amount * kPerAmount)));
        *handle = shim->add(comm, ticket, kPerAmount);
        return EL_SIM_OK;
    });
}

static double remaining(const void *handle)
{
    const Flight *flight = static_cast<const Flight *>(handle);
    return std::max(0.0, flight->activity->get_remaining() / flight->unit);
}

static void cancel(void *self, void *handle)
{
    Shim *shim = static_cast<Shim *>(self);
    const sg4::ActivityPtr activity = static_cast<Flight *>(handle)->activity;
    const auto at = std::find(shim->grounded.begin(), shim->grounded.end(), handle);
    shim->flights.erase(activity.get());
    if (at != shim->grounded.end()) {
        shim->grounded.erase(at);
        return;  // it has not begun
    }
    (void)guarded(shim, [&]() {
        shim->over.push_back(activity);
        activity->cancel();
        return EL_SIM_OK;
    });
}

static el_sim_status run(void *self)
{
    Shim *shim = static_cast<Shim *>(self);
    const el_sim_status status = guarded(shim, [=]() {
        if (sg4::Engine::get_clock() >= el_sim_now(shim->world)) {
            shim->take_off();
        } else {
            Timer::set(el_sim_now(shim->world), [shim]() {
                if (guarded(shim, [shim]() { return shim->take_off(), EL_SIM_OK; }) != EL_SIM_OK)
                    shim->fail(shim->error.c_str());
            });
        }
        shim->engine->run();
        return shim->broken ? EL_SIM_INTERNAL : EL_SIM_OK;
    });
    shim->flying = false;
    return status;
}

static const char *error_text(const void *self) { return static_cast<const Shim *>(self)->error.c_str(); }

void el_shim::give_calls(el_solver *solver)
{
    solver->exec = exec_start;
    solver->transfer = transfer_start;
    solver->speed = speed_set;
    solver->remaining = remaining;
    solver->stream = stream_start;
    solver->cancel = cancel;
    solver->run = run;
    solver->error = error_text;
}
