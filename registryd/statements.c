/* registryd's statements, one row each, and what an agent's state means to a caller. */
#include "registryd/registryd.h"

#define STATEMENT(name, text) static const char sql_##name[] = text;
#include "registryd_sql.h"
#undef STATEMENT

const struct pg_statement registryd_statements[] = {
    [STATEMENT_REGISTER] = {"register", sql_register, 17, true},
    [STATEMENT_LOOKUP] = {"lookup", sql_lookup, 2, true},
    [STATEMENT_SELF] = {"self", sql_self, 2, true},
    [STATEMENT_WRITE_HEARTBEAT] = {"write_heartbeat", sql_write_heartbeat, 6, true},
    [STATEMENT_FEED] = {"feed", sql_feed, 8, false},
    [STATEMENT_REVOKED] = {"revoked", sql_revoked, 3, false},
    [STATEMENT_FORGET_NODES] = {"forget_nodes", sql_forget_nodes, 1, false},
    [STATEMENT_DEREGISTER] = {"deregister", sql_deregister, 8, true},
    [STATEMENT_LIST_AGENTS] = {"list_agents", sql_list_agents, 9, false},
    [STATEMENT_FIND_AGENT] = {"find_agent", sql_find_agent, 2, true},
    {NULL, NULL, 0, false},
};

void registryd_refuse_state(struct ipc_reply_to to, enum agent_state state)
{
    if (state == AGENT_REVOKED)
        ipc_fail(to, ERROR_FORBIDDEN, "the identity is revoked");
    else
        ipc_fail(to, ERROR_NOT_REGISTERED, "this identity is not registered");
}
