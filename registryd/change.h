/* A change of an agent's row that its agent asks for, on its way to the database. */
#ifndef CAF_REGISTRYD_CHANGE_H
#define CAF_REGISTRYD_CHANGE_H

#include "registryd/registryd.h"

enum { CHANGE_PARAMS_MAX = 24 };

/* Every statement that changes an agent begins with these parameters. */
enum change_param { CHANGE_TENANT_ID, CHANGE_SPIFFE_ID };

/* Its parameters are kept: when the row was written after the statement's snapshot, the same
 * request is asked again. */
struct change {
    struct registryd *daemon;
    struct ipc_reply_to to;
    enum registryd_statement statement;
    pg_answer_fn *answer; /* gets the change, and ends with change_free, or with change_ask_again */
    uint64_t revision;    /* of the cache entry when the statement was sent */
    int64_t sent_ms;      /* monotonic */
    bool asked_again;
    struct str params[CHANGE_PARAMS_MAX];
    char *text; /* what the views in params point into */
};

/* Sends a copy of the change, with its parameters, behind what is noted of the agent's heartbeats:
 * a later write would be older than what is said here. On a full queue the request is answered and
 * done with. */
void change_submit(const struct change *change);

/* Another connection wrote this row while the statement looked: a new snapshot sees it. Returns
 * whether the statement is sent again, which it is once; the change is then no longer the
 * caller's. */
bool change_ask_again(struct change *change);

/* The agent's entry of the cache; see cache_get. */
struct cache_agent *change_agent(const struct change *change);

/* Notes what the statement told of the agent, where nothing else did meanwhile (cache_fill).
 * changed_xid: as the statement spells it. */
void change_applied(const struct change *change, struct str agent_id, enum agent_state state,
                    struct str changed_xid);

/* Answers that the agent's state does not allow it, whatever was believed of it. why: for people.
 */
void change_refuse_state(const struct change *change, const char *why);

void change_free(struct change *change);

#endif
