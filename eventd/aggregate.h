/* Repeats of auth.* events, counted and written as few rows: bounded in memory and on disk, however
 * many come. */
#ifndef CAF_EVENTD_AGGREGATE_H
#define CAF_EVENTD_AGGREGATE_H

#include "eventd/eventd.h"

struct aggregate;

/* What happened since the start; sums of the notes' counts unless said otherwise. */
struct aggregate_counters {
    uint64_t noted;      /* all */
    uint64_t repeats;    /* counted with a note before them */
    uint64_t overflowed; /* counted where identities or addresses are not told apart */
    uint64_t rows;       /* rows that the database has */
    uint64_t refused;    /* not stored: the database refused their row */
};

struct aggregate *aggregate_new(struct eventd *daemon);

/* Takes a note in. Either it is the first of its kind: true, its row is on its way, and
 * notes_settle is called for id; or it was counted with the first, and false: it is as good as
 * done. note's strings are copied; severity is a literal. */
bool aggregate_take(struct aggregate *aggregate, const struct request_id *id,
                    const struct msg_event_note *note, const char *severity);

/* Sends what is counted to the database now. */
void aggregate_flush(struct aggregate *aggregate);

/* Buckets in use. */
size_t aggregate_buckets(const struct aggregate *aggregate);

/* Repeats that are in no row of the database yet. */
uint64_t aggregate_unwritten(const struct aggregate *aggregate);

const struct aggregate_counters *aggregate_counters(const struct aggregate *aggregate);

/* Forgets what is counted and not in the database, and says how much that is. */
void aggregate_free(struct aggregate *aggregate);

#endif
