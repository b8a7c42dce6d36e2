// Making the world: SimGrid's engine with every factor stated, hosts, and links as ports of one star.

#include "simgrid/el_world.h"

#include <csignal>
#include <cstdio>
#include <memory>
#include <vector>

#include <simgrid/version.h>

using namespace el_world;

namespace {

bool world_exists = false;

void watch_everything(el_sim *world)
{
#if SIMGRID_VERSION >= 33500
    sg4::Exec::on_completion_cb([world](const sg4::Exec &a) { world->completed(&a); });
    sg4::Comm::on_completion_cb([world](const sg4::Comm &a) { world->completed(&a); });
#else
    sg4::Activity::on_completion_cb([world](const sg4::Activity &a) { world->completed(&a); });
#endif
}

// 4.0 renamed what makes a platform, and gave every platform a root zone.
sg4::NetZone *make_zone(const sg4::Engine *engine)
{
#if SIMGRID_VERSION >= 40000
    return engine->get_netzone_root()->add_netzone_star("world");
#else
    (void)engine;
    return sg4::create_star_zone("world");
#endif
}

sg4::Host *make_host(sg4::NetZone *zone, const std::string &name)
{
#if SIMGRID_VERSION >= 40000
    return zone->add_host(name, kPerSecond);
#else
    return zone->create_host(name, kPerSecond);
#endif
}

sg4::Link *make_link(sg4::NetZone *zone, const std::string &name, double latency_s)
{
#if SIMGRID_VERSION >= 40000
    sg4::Link *link = zone->add_link(name, kPerSecond);
#else
    sg4::Link *link = zone->create_link(name, kPerSecond);
#endif
    return link->set_latency(latency_s)->seal();
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
        w->zone = make_zone(w->engine);
        w->hub = make_host(w->zone, "hub");
        add_star_route(w->zone, w->hub, {}, {});
        watch_everything(w);
        return EL_SIM_OK;
    });
    if (saved) (void)sigaction(SIGINT, &before, nullptr);  // SimGrid's own handler would end the process
    world_exists = true;
    (void)made.release();  // SimGrid may hold callbacks to it by now, also where it has failed
    if (status == EL_SIM_OK) *world = w;
    return status;
}

void el_sim_free(el_sim *world)
{
    if (world == nullptr || world->running) return;
    world->stop_all();
    world->stopped = true;
    // SimGrid's signals and alarms may still point here until the process ends: keep the shell.
}

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
        world->hosts.push_back(make_host(world->zone, "h" + std::to_string(id)));
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
        sg4::Link *up = make_link(world->zone, name + "u", latency_s);
        sg4::Link *down = up;
        if (duplex) down = make_link(world->zone, name + "d", latency_s);
        sg4::Host *port = make_host(world->zone, "p" + std::to_string(id));
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
