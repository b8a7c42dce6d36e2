/* Weighted max-min fairness over two budgets, by filling: the common level x rises, and everything runs
 * at weight x, until a budget is full or somebody is at pace 1; those it holds keep their pace, and the
 * level goes on rising for the others. At most one round for each activity, three where weights are equal. */
#include "sim/world.h"

#include <math.h>

/// A budget this near to full is full: far above the rounding of the sums.
#define FULL (1.0 - 1e-12)

/// What the activities that still rise would take at level 1, and the level at which one of them is at pace 1.
typedef struct demand {
    double compute, memory, cap;
} demand;

static el_slot *slot_at(const el_sim *world, const el_queue *queue, uint32_t i)
{
    return &world->slots[EL_INDEX(queue->waiting.items[i].id)];
}

static demand demand_of(const el_sim *world, const el_queue *queue)
{
    demand all = {0.0, 0.0, INFINITY};
    for (uint32_t i = 0; i < queue->waiting.n; i++) {
        const el_slot *slot = slot_at(world, queue, i);
        if (slot->pace >= 0.0) continue;
        all.compute += slot->weight * slot->compute;
        all.memory += slot->weight * slot->memory;
        all.cap = fmin(all.cap, 1.0 / slot->weight);
    }
    return all;
}

static void fill(el_sim *world, el_queue *queue)
{
    double compute = 1.0, memory = 1.0, level = 0.0;
    for (uint32_t i = 0; i < queue->waiting.n; i++) slot_at(world, queue, i)->pace = -1.0;  // still rising
    for (;;) {
        const demand all = demand_of(world, queue);
        if (all.cap == INFINITY) return;
        double next = all.cap;
        if (all.compute > 0.0) next = fmin(next, compute / all.compute);
        if (all.memory > 0.0) next = fmin(next, memory / all.memory);
        level = fmax(level, next);
        const bool compute_full = all.compute * level >= compute * FULL;
        const bool memory_full = all.memory * level >= memory * FULL;
        for (uint32_t i = 0; i < queue->waiting.n; i++) {
            el_slot *slot = slot_at(world, queue, i);
            const double pace = slot->weight * level;
            const bool held = (compute_full && slot->compute > 0.0) || (memory_full && slot->memory > 0.0);
            if (slot->pace >= 0.0 || !(held || pace >= FULL)) continue;
            slot->pace = fmin(1.0, pace);
            compute -= slot->pace * slot->compute;
            memory -= slot->pace * slot->memory;
        }
    }
}

double el_budgets_end_s(const el_queue *queue, const el_slot *slot)
{
    return slot->left_s > 0.0 ? queue->date_s + slot->left_s / (slot->pace * queue->speed) : queue->date_s;
}

double el_budgets_fill(el_sim *world, el_queue *queue)
{
    double first_s = INFINITY;
    fill(world, queue);
    for (uint32_t i = 0; i < queue->waiting.n; i++)
        first_s = fmin(first_s, el_budgets_end_s(queue, slot_at(world, queue, i)));
    return first_s;
}

void el_budgets_settle(el_sim *world, el_queue *queue, double date_s)
{
    const double done_s = (date_s - queue->date_s) * queue->speed;
    for (uint32_t i = 0; i < queue->waiting.n; i++) {
        el_slot *slot = slot_at(world, queue, i);
        slot->left_s = fmax(0.0, slot->left_s - done_s * slot->pace);
    }
    queue->date_s = date_s;
}
