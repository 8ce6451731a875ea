/* The decisions of the change feed, on values alone: touches no database, no cache, no clock.
 *
 * A transaction's number says when it began, not when it committed, so that no number alone can be
 * a watermark: a snapshot is. A sweep brings what its first page's snapshot sees and the one
 * applied before does not. Its other pages are held to that same snapshot: what is committed
 * meanwhile, a row changed once more too, belongs to the next sweep, whatever its place in the
 * order. */
#include "registryd/watermark.h"

#include "common/memory.h"

#include <stdlib.h>

static void replace(char **kept, struct str text)
{
    free(*kept);
    *kept = str_dup(text);
}

static void forget(char **kept)
{
    free(*kept);
    *kept = NULL;
}

static void end_sweep(struct watermark *watermark)
{
    forget(&watermark->sweep);
    forget(&watermark->changed_xid);
    forget(&watermark->tenant_id);
    forget(&watermark->spiffe_id);
}

static void note_place(struct watermark *watermark, const struct watermark_page *page)
{
    if (!watermark->sweep) {
        watermark->sweep = str_dup(page->snapshot);
        watermark->sweep_sent_ms = page->sent_ms;
    }
    replace(&watermark->changed_xid, page->changed_xid);
    replace(&watermark->tenant_id, page->tenant_id);
    replace(&watermark->spiffe_id, page->spiffe_id);
}

bool watermark_is_new_history(const struct watermark *watermark, const struct watermark_page *page)
{
    return !watermark->history || !str_equal(page->history, str_from(watermark->history));
}

enum watermark_step watermark_advance(struct watermark *watermark,
                                      const struct watermark_page *page)
{
    bool is_new = watermark_is_new_history(watermark, page);

    if (!is_new && page->is_full) {
        note_place(watermark, page);
        return WATERMARK_MORE;
    }
    if (!is_new && watermark->sweep) {
        replace(&watermark->applied, str_from(watermark->sweep));
        watermark->applied_sent_ms = watermark->sweep_sent_ms;
    } else {
        replace(&watermark->applied, page->snapshot);
        watermark->applied_sent_ms = page->sent_ms;
    }
    if (is_new)
        replace(&watermark->history, page->history);
    end_sweep(watermark);
    return is_new ? WATERMARK_NEW_HISTORY : WATERMARK_DONE;
}

bool watermark_is_fresh(const struct watermark *watermark, int64_t now_ms, int64_t authority_ms)
{
    return watermark->applied && now_ms - watermark->applied_sent_ms < authority_ms;
}

void watermark_clear(struct watermark *watermark)
{
    end_sweep(watermark);
    forget(&watermark->applied);
    forget(&watermark->history);
}
