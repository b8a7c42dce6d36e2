// Making the solver: SimGrid's engine with every factor stated, hosts, and links as ports of one star.

#include "simgrid/el_shim.h"

#include <csignal>
#include <cstdio>
#include <memory>
#include <vector>

#include <simgrid/version.h>

using namespace el_shim;

namespace {

bool engine_exists = false;

void watch_everything(Shim *shim)
{
#if SIMGRID_VERSION >= 33500
    sg4::Exec::on_completion_cb([shim](const sg4::Exec &a) { shim->completed(&a); });
    sg4::Comm::on_completion_cb([shim](const sg4::Comm &a) { shim->completed(&a); });
#else
    sg4::Activity::on_completion_cb([shim](const sg4::Activity &a) { shim->completed(&a); });
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

sg4::Link *make_link(sg4::NetZone *zone, const std::string &name, double latency_s, double rate = kPerSecond)
{
#if SIMGRID_VERSION >= 40000
    sg4::Link *link = zone->add_link(name, rate);
#else
    sg4::Link *link = zone->create_link(name, rate);
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

static el_sim_status host_add(void *self)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        shim->hosts.push_back(make_host(shim->zone, "h" + std::to_string(shim->hosts.size())));
        return EL_SIM_OK;
    });
}

std::vector<sg4::Link *> el_shim::links_of(const Shim *shim, const el_sim_hop *hops, std::size_t n)
{
    std::vector<sg4::Link *> links;
    for (std::size_t i = 0; i < n; i++) {
        const auto &ways = shim->streamed[hops[i].link];
        links.push_back(hops[i].up ? ways.first : ways.second);
    }
    return links;
}

static el_sim_status route_add(void *self, const el_sim_hop *hops, std::size_t n)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        const std::vector<sg4::Link *> links = links_of(shim, hops, n);
        if (shim->routes.count(links) > 0) return EL_SIM_OK;
        sg4::Host *from = make_host(shim->zone, "r" + std::to_string(shim->routes.size()));
        add_star_route(shim->zone, from, std::vector<sg4::LinkInRoute>(links.begin(), links.end()), {});
        shim->routes[links] = from;
        return EL_SIM_OK;
    });
}

static el_sim_status link_add(void *self, double latency_s, bool duplex)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        const std::string id = std::to_string(shim->ports.size());
        sg4::Link *up = make_link(shim->zone, "l" + id + "u", latency_s);
        sg4::Link *down = up;
        if (duplex) down = make_link(shim->zone, "l" + id + "d", latency_s);
        sg4::Host *port = make_host(shim->zone, "p" + id);
        add_star_route(shim->zone, port, {sg4::LinkInRoute(up)}, {sg4::LinkInRoute(down)});
        shim->ports.push_back(port);
        shim->streamed.emplace_back(nullptr, nullptr);
        return EL_SIM_OK;
    });
}

// The world keeps the latency of what streams, so flows of all ways weigh the same in SimGrid.
static el_sim_status streamed_link_add(void *self, bool duplex, const double rate[2])
{
    Shim *shim = static_cast<Shim *>(self);
    if (!duplex && rate[0] != rate[1])
        return refuse(shim, EL_SIM_ARG, "SimGrid has one rate for a link whose directions share it");
    return guarded(shim, [=]() {
        const std::string id = std::to_string(shim->ports.size());
        sg4::Link *up = make_link(shim->zone, "l" + id + "u", 0.0, rate[1] * kPerAmount);
        sg4::Link *down = up;
        if (duplex) down = make_link(shim->zone, "l" + id + "d", 0.0, rate[0] * kPerAmount);
        shim->ports.push_back(nullptr);
        shim->streamed.emplace_back(up, down);
        for (const bool way : {false, true}) {
            const el_sim_hop hop = {static_cast<uint32_t>(shim->ports.size() - 1), way, 0.0};
            const el_sim_status status = route_add(shim, &hop, 1);
            if (status != EL_SIM_OK) return status;
        }
        return EL_SIM_OK;
    });
}

static el_sim_status seal(void *self)
{
    Shim *shim = static_cast<Shim *>(self);
    return guarded(shim, [=]() {
        for (sg4::Host *host : shim->hosts) add_star_route(shim->zone, host, {}, {});
        shim->zone->seal();
        shim->engine->seal_platform();
        return EL_SIM_OK;
    });
}

// SimGrid's signals may still point to the shim until the process ends: it stays.
static void close(void *self) { static_cast<Shim *>(self)->world = nullptr; }

el_sim_status el_simgrid_new(el_sim *world, el_solver *solver)
{
    if (engine_exists) return EL_SIM_STATE;
    std::unique_ptr<Shim> made(new (std::nothrow) Shim);
    if (made == nullptr) return EL_SIM_NOMEM;
    made->world = world;

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
    Shim *shim = made.get();
    const el_sim_status status = guarded(shim, [shim]() {
        std::vector<std::string> text(std::begin(kConfig), std::end(kConfig));
        std::vector<char *> argv;
        for (std::string &one : text) argv.push_back(&one[0]);
        argv.push_back(nullptr);
        int argc = static_cast<int>(text.size());
        shim->engine = new sg4::Engine(&argc, argv.data());  // never deleted: SimGrid ends with the process
        shim->zone = make_zone(shim->engine);
        shim->hub = make_host(shim->zone, "hub");
        add_star_route(shim->zone, shim->hub, {}, {});
        watch_everything(shim);
        return EL_SIM_OK;
    });
    if (saved) (void)sigaction(SIGINT, &before, nullptr);  // SimGrid's own handler would end the process
    engine_exists = true;
    (void)made.release();  // SimGrid may hold callbacks to it by now, also where it has failed
    if (status != EL_SIM_OK) return status;
    *solver = el_solver();
    solver->self = shim;
    solver->host = host_add;
    solver->link = link_add;
    solver->streamed_link = streamed_link_add;
    solver->route = route_add;
    solver->seal = seal;
    solver->close = close;
    give_calls(solver);
    return EL_SIM_OK;
}

const char *el_simgrid_version(void)
{
    static char text[32];
    int major = 0, minor = 0, patch = 0;
    sg_version_get(&major, &minor, &patch);
    (void)std::snprintf(text, sizeof text, "%d.%d.%d", major, minor, patch);
    return text;
}
