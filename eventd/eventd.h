/* The daemon's state and the entry points of its parts. */
#ifndef CAF_EVENTD_EVENTD_H
#define CAF_EVENTD_EVENTD_H

#include "common/back.h"
#include "eventd/metrics.h"

struct eventd_options {
    struct back_options back;
#define OPTION CONFIG_MEMBER
#include "eventd/options.def"
#undef OPTION
};

struct eventd {
    struct back back;
    struct eventd_options options;
    struct eventd_metrics metrics;
    struct event *sweep;
    struct insist *insist;
    struct notes *notes;
    struct aggregate *aggregate;
};

/* ---- statements (sql/eventd.sql) ------------------------------------------------------------ */

enum eventd_statement {
    STATEMENT_NOTE,
    STATEMENT_KNOWN,
    STATEMENT_COLLECT,
    STATEMENT_SWEEP,
    STATEMENT_LIST,
    STATEMENT_LIST_FILTERED,
};

/* The table, ended by a row without a name. */
extern const struct pg_statement eventd_statements[];

/* ---- handlers of the dispatch table (main.c) ------------------------------------------------ */

/* The table, ended by a row without a handler. */
extern const struct ipc_handler eventd_handlers[];

void eventd_note(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_collect(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_list(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_status(void *daemon, struct ipc_reply_to to, const struct message *message);

/* ---- notes (note.c) ------------------------------------------------------------------------- */

/* Needs insist and aggregate when the first note comes. */
void notes_open(struct eventd *daemon);
void notes_close(struct eventd *daemon);

/* Answers all who sent the note with this request_id: stored, or refused by the database. */
void notes_settle(struct eventd *daemon, const struct request_id *id,
                  const struct pg_answer *answer);

/* ---- outbox --------------------------------------------------------------------------------- */

/* Sweeps the outbox now and then every outbox.sweep_seconds. */
void outbox_open(struct eventd *daemon);

#endif
