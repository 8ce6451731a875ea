/* How a change of an agent's row gets to the database and, once, again. Touches the cache and
 * submits the statement that it is given; what its answer means is its caller's (register.c,
 * deregister.c). */
#include "registryd/change.h"

#include "common/clock.h"
#include "common/memory.h"

#include <stdlib.h>

struct cache_agent *change_agent(const struct change *change)
{
    return cache_get(&change->daemon->cache, change->params[CHANGE_TENANT_ID],
                     change->params[CHANGE_SPIFFE_ID]);
}

void change_free(struct change *change)
{
    free(change->text);
    free(change);
}

static void send_statement(struct change *change)
{
    struct registryd *daemon = change->daemon;
    struct cache_agent *agent = change_agent(change);

    change->revision = agent->revision;
    change->sent_ms = clock_monotonic_ms();
    if (back_submit(&daemon->back, &registryd_statements[change->statement], cache_key(agent),
                    change->params, change->answer, change))
        return;
    back_fail_full(change->to);
    change_free(change);
}

void change_submit(const struct change *change)
{
    struct change *kept = memory_copy(change, sizeof(*change));
    struct cache_agent *agent;

    kept->text = str_keep_all(kept->params, (size_t)registryd_statements[kept->statement].params);
    agent = change_agent(kept);
    if (agent->dirty) /* its key makes this statement wait for that write, which is older */
        heartbeat_write(kept->daemon, agent);
    send_statement(kept);
}

bool change_ask_again(struct change *change)
{
    if (change->asked_again)
        return false;
    change->asked_again = true;
    send_statement(change);
    return true;
}

void change_applied(const struct change *change, struct str agent_id, enum agent_state state,
                    struct str changed_xid)
{
    cache_fill(change_agent(change), agent_id, state, cache_changed_from(changed_xid),
               change->revision, change->sent_ms);
}

void change_refuse_state(const struct change *change, const char *why)
{
    cache_invalidate(&change->daemon->cache, change_agent(change));
    ipc_fail(change->to, ERROR_FORBIDDEN, why);
}
