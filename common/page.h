/* Pages of a list as JSON, and the cursors between them: what every list has in common.
 *
 * A list's statement orders its rows by a time, newest first, then by a name, and is asked for one
 * row more than the page may hold. Its columns: the row as JSON; its cursor as JSON, with quotes;
 * and, where the list can have one, the total, the same in every row, NULL when it was not asked
 * for. A row whose JSON is NULL stands for no row and only carries the total. */
#ifndef CAF_COMMON_PAGE_H
#define CAF_COMMON_PAGE_H

#include "common/pg.h"

#include <event2/buffer.h>

enum { PAGE_BYTES = 512 * 1024 }; /* the contract, Routes */

/* Where a page begins: behind the row with this time and name. Both absent: at the first row. A
 * time that is absent beside a name is one that the row does not have, which makes it one of the
 * last; a name that is absent beside a time is the least: no row of that time is on the page. */
struct page_cursor {
    struct str microseconds; /* since 1970, decimal */
    struct str name;
};

/* Reads "MICROSECONDS-NAME", as next_cursor spelled it; without digits the time is absent. An
 * absent text gives the cursor of the first page. The views are into text. False: it is no cursor.
 * What a name may be, the caller checks. */
bool page_cursor_parse(struct str text, struct page_cursor *cursor);

/* Moves the cursor on, if need be, to the first row that is older than before_us, microseconds
 * since 1970: a bound of the list, which so costs nothing to get to. text holds the time. */
void page_cursor_bound(struct page_cursor *cursor, long long before_us,
                       char text[STR_NUMBER_BYTES]);

/* {"MEMBER":[row,…],"next_cursor":…,"count":n[,"total":n]} of the answer's rows: at most limit of
 * them, and none that would make the page longer than PAGE_BYTES, but for the first. next_cursor is
 * null when the answer holds no more. The caller frees the buffer. */
struct evbuffer *page_build(const char *member, const struct pg_answer *answer, int limit);

/* The whole of a built page, which lives as long as the buffer. */
struct str page_text(struct evbuffer *page);

#endif
