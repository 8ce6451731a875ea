/* The daemon's state and the entry points of its parts. */
#ifndef CAF_EVENTD_EVENTD_H
#define CAF_EVENTD_EVENTD_H

#include "common/back.h"

struct eventd_options {
    struct back_options back;
#define OPTION CONFIG_MEMBER
#include "eventd/options.def"
#undef OPTION
};

struct eventd {
    struct back back;
    struct eventd_options options;
    struct event *sweep;
};

/* ---- statements (sql/eventd.sql) ------------------------------------------------------------ */

enum eventd_statement {
    STATEMENT_NOTE,
    STATEMENT_COLLECT,
    STATEMENT_SWEEP,
    STATEMENT_LIST,
};

/* The table, ended by a row without a name. */
extern const struct pg_statement eventd_statements[];

/* Submits a request whose answer is MSG_event_done once the statement has succeeded. An event is
 * not given up because the database is away: it waits as long as the queue has room. */
void eventd_submit_and_confirm(struct eventd *daemon, enum eventd_statement statement,
                               const struct str *params, struct ipc_reply_to to);

/* ---- handlers of the dispatch table (main.c) ------------------------------------------------ */

void eventd_note(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_collect(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_list(void *daemon, struct ipc_reply_to to, const struct message *message);
void eventd_status(void *daemon, struct ipc_reply_to to, const struct message *message);

/* ---- outbox --------------------------------------------------------------------------------- */

/* Sweeps the outbox now and then every outbox.sweep_seconds. */
void outbox_open(struct eventd *daemon);

#endif
