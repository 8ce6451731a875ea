/* The table of registryd's metrics, with its label sets, and those values that show how things
 * stand. */
#include "registryd/registryd.h"

#include "registryd/deny_list.h"
#include "registryd/feed.h"
#include "registryd/hints.h"

static const struct metric_set IPC_HANDLER_SET = {"message", server_handler_name,
                                                  registryd_handlers};
static const struct metric_set PG_STATEMENT_SET = {"statement", back_statement_name,
                                                   registryd_statements};

#define METRIC_SETS "registryd/metric_sets.def"
#include "common/metric_set_names.h"
#undef METRIC_SETS

const struct metric registryd_metrics_table[] = {
#define METRIC_STRUCT struct registryd_metrics
#include "common/metrics_back.def"
#define METRIC METRIC_ROW
#include "registryd/metrics.def"
#undef METRIC
    METRIC_END,
};

void registryd_update_metrics(struct back *back)
{
    struct registryd *daemon = (struct registryd *)back;

    daemon->metrics.registry_cache_agents = HASH_COUNT(daemon->cache.by_key);
    daemon->metrics.registry_cache_evictions_total = daemon->cache.evictions;
    daemon->metrics.registry_write_behind_agents = daemon->cache.dirty_count;
    daemon->metrics.registry_hints_connected = daemon->hints && hints_connected(daemon->hints);
    daemon->metrics.registry_feed_lag_seconds = (uint64_t)feed_lag_ms(daemon->feed);
    daemon->metrics.registry_denied_identities = deny_list_count(daemon->deny);
    daemon->metrics.registry_deny_subscribers = deny_list_subscribers(daemon->deny);
}
