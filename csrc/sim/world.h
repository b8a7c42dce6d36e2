/* What the files of this room share. */
#ifndef EL_SIM_WORLD_H
#define EL_SIM_WORLD_H

#include "sim/heap.h"
#include "sim/sim.h"
#include "sim/solver.h"

#define EL_SIM_MAX_S 1e9
/// Activities that end within one instant end together: SimGrid's precision, and far above rounding.
#define EL_SIM_INSTANT_S 1e-9

enum el_slot_kind {
    EL_SLOT_FREE,
    EL_SLOT_TIMER,
    EL_SLOT_LATENT,
    EL_SLOT_QUEUED,
    EL_SLOT_STREAMED,
    EL_SLOT_OUTSIDE,
    EL_SLOT_DUE
};

/// One activity or timer.
typedef struct el_slot {
    el_sim_ticket ticket;  ///< 0: free
    void *tag;
    void *handle;              ///< of the solver from outside
    struct el_stream *stream;  ///< NULL: it is none
    double left_s;         ///< of a transfer in its latency; in a queue with two budgets, at its date
    double weight, compute, memory;
    double pace;           ///< in a queue with two budgets
    uint32_t queue;        ///< or the next free slot
    enum el_slot_kind kind;
} el_slot;

/// A host, or what the transfers of a link share. While one budget bounds everything it is a heap of
/// finish tags in virtual time: `virtual_s` grows by pace / weight of all; an activity of weight w that
/// enters at v with work s ends at v + s / w, whoever comes or goes (docs/decisions/0021). Otherwise
/// `waiting` is in no order and paces are kept in the slots.
typedef struct el_queue {
    el_heap waiting;
    double virtual_s;
    double date_s;  ///< to which virtual_s and what is left are reckoned; up to one instant ahead of now
    double weight;  ///< of all
    double speed;
    uint32_t part_compute, part_memory;  ///< how many take less than all of a budget
    uint32_t changes;  ///< since virtual_s was zero
    bool budgets;  ///< both may bind
} el_queue;

typedef struct el_link {
    double latency_s;
    uint32_t way[2];  ///< by `up`: a queue, or a pipe where it is streamed
    bool streamed;
    double rate[2];  ///< where it is: by `up`
} el_link;

/// A stream on a pipe.
typedef struct el_crossing {
    struct el_stream *stream;
    uint32_t hop;
} el_crossing;

/// What the streams over one direction of a streamed link (or both) share.
typedef struct el_pipe {
    el_crossing *crossings;
    uint32_t n, room;
    uint64_t round;      ///< of reckoning, that came here last
    double spare, load;  ///< in it: air time not yet given away, and asked for at level 1 by who rises
    uint32_t rising;     ///< in it
    bool changed;        ///< streams came or went since
} el_pipe;

typedef struct el_streams {
    el_pipe *pipes;
    uint32_t *places, *changed, *met;  ///< one for each pipe
    el_heap ends;                      ///< (date, ticket)
    el_heap levels;                    ///< (level at which it is full, pipe)
    uint32_t n, room, changed_n, alive;
    uint64_t round;
} el_streams;

struct el_sim {
    void *user;
    el_sim_wake_fn *wake;
    el_sim_drop_fn *drop;
    el_slot *slots;
    uint32_t *places;  ///< of slots, in `timers` or in their queue
    el_sim_ticket *due;  ///< to be woken at this instant
    el_heap timers;  ///< (date, ticket)
    el_queue *queues;
    uint32_t *queue_places;
    el_heap ends;  ///< (date of the next end, queue)
    el_streams streams;
    uint32_t *hosts;  ///< their queues
    el_link *links;
    uint32_t slots_n, slots_room, free_slot, due_n, queues_n, queues_room, hosts_n, hosts_room, links_n,
        links_room;
    uint64_t started, events, outside;
    double now_s;
    bool due_sorted, sealed, running, stopped, solved;
    el_sim_status failure;  ///< ends the run
    el_solver solver;
    const char *error;
};

static inline el_sim_status el_sim_refuse(el_sim *world, el_sim_status status, const char *why)
{
    world->error = why;
    return status;
}

/// The activity or timer of a ticket; NULL if it is over.
static inline el_slot *el_sim_find(const el_sim *world, el_sim_ticket ticket)
{
    const uint32_t index = EL_INDEX(ticket);
    if (index >= world->slots_n || world->slots[index].ticket != ticket || ticket == 0) return NULL;
    return &world->slots[index];
}

static inline uint32_t el_sim_index(const el_sim *world, const el_slot *slot)
{
    return (uint32_t)(slot - world->slots);
}

/// There is always room: `due` is as long as there are slots.
static inline void el_sim_make_due(el_sim *world, el_slot *slot)
{
    slot->kind = EL_SLOT_DUE;
    if (world->due_n > 0 && world->due[world->due_n - 1] > slot->ticket) world->due_sorted = false;
    world->due[world->due_n++] = slot->ticket;
}

/* platform.c: pass on a status of the solver, with its text. */
el_sim_status el_sim_outside(el_sim *world, el_sim_status status);

/* activity.c */
bool el_sim_ready(el_sim *world);
/// A slot with a ticket of its own; NULL: no memory.
el_slot *el_sim_take(el_sim *world, void *tag, enum el_slot_kind kind);
/// Start what el_sim_take made after a latency, or at once.
el_sim_status el_sim_launch(el_sim *world, el_slot *slot, double latency_s, el_sim_ticket *ticket);
/// What was in its latency begins.
el_sim_status el_sim_begin(el_sim *world, el_slot *slot);
/// Free a slot that is in no heap. @return its tag
void *el_sim_let_go(el_sim *world, el_slot *slot);

/* queue.c. Each leaves the date of the queue's next end in `world->ends`. */
el_sim_status el_queue_new(el_sim *world, uint32_t *queue);
/// Let in what is in the slot: `left_s` seconds of work. @return false: no memory
bool el_queue_enter(el_sim *world, uint32_t queue, el_slot *slot);
void el_queue_leave(el_sim *world, el_slot *slot);
/// Make due all that ends until a date.
void el_queue_end(el_sim *world, uint32_t queue, double until_s);
void el_queue_speed(el_sim *world, uint32_t queue, double factor);
double el_queue_left_s(const el_sim *world, const el_slot *slot);
el_sim_load el_queue_load(const el_sim *world, uint32_t queue);
/// Note what the solver from outside runs on a host, for its load.
el_sim_status el_queue_list(el_sim *world, uint32_t queue, el_slot *slot);
void el_queue_unlist(el_sim *world, el_slot *slot);

/* streams.c and pipes.c */
el_sim_status el_pipe_new(el_sim *world, uint32_t *pipe);
void el_streams_free(el_streams *streams);
/// Let in a stream whose latency is over.
el_sim_status el_stream_enter(el_sim *world, el_slot *slot);
/// Forget the stream of a slot, wherever it is.
void el_stream_leave(el_sim *world, el_slot *slot);
/// Reckon paces anew where streams came or went, then make due all that ends until a date.
void el_streams_end(el_sim *world, double until_s);
double el_stream_left_s(const el_sim *world, const el_slot *slot);

/* budgets.c: a queue whose activities take different parts of two budgets. */
/// Reckon what is left to a date, paces as they are.
void el_budgets_settle(el_sim *world, el_queue *queue, double date_s);
/// Share the budgets anew. @return when the first activity ends, at the least queue->date_s
double el_budgets_fill(el_sim *world, el_queue *queue);
/// When an activity ends at its pace.
double el_budgets_end_s(const el_queue *queue, const el_slot *slot);

#endif
