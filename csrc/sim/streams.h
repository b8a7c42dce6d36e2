/* A stream, for the two files that know what is in one. */
#ifndef EL_SIM_STREAMS_H
#define EL_SIM_STREAMS_H

#include "sim/world.h"

/// One link of a stream's way.
typedef struct el_stream_hop {
    double airtime_s;  ///< of one amount
    uint32_t pipe;
    uint32_t place;  ///< among the pipe's crossings
    el_sim_hop asked;
} el_stream_hop;

typedef struct el_stream {
    el_sim_ticket ticket;
    double amount, slowest_s;  ///< in all; alone, on its slowest link
    double left, date_s;       ///< of the amount, at a date
    double pace;               ///< amount per second since then
    uint64_t round;            ///< of reckoning, that came here last
    bool rising;               ///< in it: not held by a full pipe
    uint32_t n;
    el_stream_hop hops[];
} el_stream;

/// Go on at another pace from now.
void el_stream_pace(el_sim *world, el_stream *stream, double pace);
/// Reckon the paces of all streams that what changed may have an effect on.
void el_pipes_fill(el_sim *world);

#endif
