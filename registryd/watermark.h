/* How far this node has applied the changes of agent_registry: a snapshot of PostgreSQL, and the
 * place in a sweep that goes on from there page by page. Decides; reads nothing itself. */
#ifndef CAF_REGISTRYD_WATERMARK_H
#define CAF_REGISTRYD_WATERMARK_H

#include "common/str.h"

#include <stdint.h>

/* Zeroed: nothing read yet. The texts are owned. */
struct watermark {
    char *history;           /* of the server: system identifier and timeline */
    char *applied;           /* pg_snapshot: every change that it sees is applied */
    int64_t applied_sent_ms; /* monotonic: when the read was sent that took it */
    char *sweep;             /* pg_snapshot of the sweep under way, NULL for none… */
    int64_t sweep_sent_ms;
    char *changed_xid, *tenant_id, *spiffe_id; /* …and the last row that it has applied */
};

/* What one read brought. The views live as long as the answer. */
struct watermark_page {
    struct str snapshot, history;
    int64_t sent_ms; /* monotonic: when the read was sent */
    bool is_full;    /* it has as many rows as it may: there may be more */
    struct str changed_xid, tenant_id, spiffe_id; /* its last row; absent for none */
};

enum watermark_step {
    WATERMARK_NEW_HISTORY, /* another server, another timeline, or the first read: what was believed
                              counts no more, and reading begins with this page's snapshot */
    WATERMARK_MORE,        /* the sweep goes on: read its next page at once */
    WATERMARK_DONE,        /* everything that the sweep's snapshot sees is applied */
};

/* Whether the page belongs to another history than what was read so far: its rows then say nothing.
 */
bool watermark_is_new_history(const struct watermark *watermark, const struct watermark_page *page);

/* Moves on; to be called when the page's rows are applied. */
enum watermark_step watermark_advance(struct watermark *watermark,
                                      const struct watermark_page *page);

/* Whether all changes that were committed until authority_ms before now_ms are applied. */
bool watermark_is_fresh(const struct watermark *watermark, int64_t now_ms, int64_t authority_ms);

void watermark_clear(struct watermark *watermark);

#endif
