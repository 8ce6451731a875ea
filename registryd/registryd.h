/* The daemon's state and the entry points of its parts. */
#ifndef CAF_REGISTRYD_REGISTRYD_H
#define CAF_REGISTRYD_REGISTRYD_H

#include "common/back.h"
#include "registryd/cache.h"
#include "registryd/metrics.h"

struct registryd_options {
    struct back_options back;
#define OPTION CONFIG_MEMBER
#include "registryd/options.def"
#undef OPTION
};

struct deny_list;
struct feed;
struct hints;

struct registryd {
    struct back back;
    struct registryd_options options;
    struct registryd_metrics metrics;
    struct cache cache;
    struct deny_list *deny;
    struct feed *feed;
    struct hints *hints;
    unsigned nodes_pending; /* requests of nodes.c that the database has not answered: 0 or 1 */
    struct event *write_behind;
    size_t waiter_count;          /* heartbeats that wait for a look-up */
    size_t round_left;            /* agents that this round of writing behind has yet to write */
    int64_t beat_window_start_ms; /* beats are counted over one second at a time… */
    int64_t beats_in_window;
    double beat_stretch; /* …and when they were too many the next are asked for later */
};

/* ---- statements (sql/registryd.sql) --------------------------------------------------------- */

enum registryd_statement {
    STATEMENT_REGISTER,
    STATEMENT_LOOKUP,
    STATEMENT_SELF,
    STATEMENT_WRITE_HEARTBEAT,
    STATEMENT_FEED,
    STATEMENT_REVOKED,
    STATEMENT_FORGET_NODES,
    STATEMENT_DEREGISTER,
    STATEMENT_LIST_AGENTS,
    STATEMENT_FIND_AGENT,
};

/* The table, ended by a row without a name. */
extern const struct pg_statement registryd_statements[];

/* Answers a request of an agent whose state does not serve it: never registered, deregistered or
 * revoked. */
void registryd_refuse_state(struct ipc_reply_to to, enum agent_state state);

/* ---- metrics (metrics.c) -------------------------------------------------------------------- */

/* The table of what registryd counts. */
extern const struct metric registryd_metrics_table[];

/* Sets what is not counted as it happens: for back_spec. */
void registryd_update_metrics(struct back *back);

/* ---- handlers of the dispatch table (main.c) ------------------------------------------------ */

/* The table, ended by a row without a handler. */
extern const struct ipc_handler registryd_handlers[];

void registryd_register(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_heartbeat(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_self(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_deny_subscribe(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_deregister(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_list(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_get(void *daemon, struct ipc_reply_to to, const struct message *message);
void registryd_status(void *daemon, struct ipc_reply_to to, const struct message *message);

/* ---- heartbeats ----------------------------------------------------------------------------- */

/* Milliseconds until an agent should beat again: at most the interval (stretched under load), at
 * least half of it, at a phase of the interval that is the agent's own, so that a restart brings no
 * herd. */
int64_t heartbeat_next_due_ms(const struct registryd *daemon, struct str key, int64_t now_ms);

/* Sends the agent's noted heartbeat values to the database. False: its queue is full, and they stay
 * noted. */
bool heartbeat_write(struct registryd *daemon, struct cache_agent *agent);

/* heartbeat_write for at most `most` agents that have some, those first that have waited longest;
 * fewer when the database's queue fills: half of it is kept for those who wait for an answer.
 * Returns how many. */
size_t heartbeat_write_some(struct registryd *daemon, size_t most);

#endif
