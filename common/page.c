/* Builds pages from a statement's rows, which it passes through unread, and reads cursors. Touches
 * only what it is given. */
#include "common/page.h"

#include "common/log.h"

enum { COLUMN_ROW, COLUMN_CURSOR, COLUMN_TOTAL };

bool page_cursor_parse(struct str text, struct page_cursor *cursor)
{
    const char *dash = text.ptr ? memchr(text.ptr, '-', text.len) : NULL;
    long long microseconds;
    struct str digits;

    *cursor = (struct page_cursor){STR_ABSENT, STR_ABSENT};
    if (!text.ptr)
        return true;
    if (!dash)
        return false;
    digits = (struct str){text.ptr, (size_t)(dash - text.ptr)};
    cursor->name = (struct str){dash + 1, text.len - digits.len - 1};
    if (digits.len == 0)
        return cursor->name.len > 0;
    cursor->microseconds = digits;
    return cursor->name.len > 0 && str_to_number(digits, INT64_MAX, &microseconds);
}

void page_cursor_bound(struct page_cursor *cursor, long long before_us, char text[STR_NUMBER_BYTES])
{
    long long microseconds;
    bool later = cursor->microseconds.ptr &&
                 str_to_number(cursor->microseconds, INT64_MAX, &microseconds) &&
                 microseconds >= before_us;

    if (later || !cursor->name.ptr)
        *cursor = (struct page_cursor){str_from_number(before_us, text), STR_ABSENT};
}

static bool has_row(const struct pg_answer *answer, int row)
{
    return row < answer->row_count && pg_value(answer, row, COLUMN_ROW).ptr;
}

/* Adds rows until the page is full; returns how many. */
static int add_rows(struct evbuffer *page, const struct pg_answer *answer, int limit)
{
    int count = 0;

    for (; count < limit && has_row(answer, count); count++) {
        struct str row = pg_value(answer, count, COLUMN_ROW);

        if (count > 0 && evbuffer_get_length(page) + 1 + row.len > PAGE_BYTES)
            break;
        if (count > 0)
            evbuffer_add(page, ",", 1);
        evbuffer_add(page, row.ptr, row.len);
    }
    return count;
}

static struct str total_of(const struct pg_answer *answer)
{
    bool has_total =
        answer->row_count > 0 && answer->first_column + COLUMN_TOTAL < PQnfields(answer->result);

    return has_total ? pg_value(answer, 0, COLUMN_TOTAL) : STR_ABSENT;
}

struct evbuffer *page_build(const char *member, const struct pg_answer *answer, int limit)
{
    struct evbuffer *page = evbuffer_new();
    struct str cursor = STR("null"), total = total_of(answer);
    int count;

    if (!page)
        log_fatal("out of memory");
    evbuffer_add_printf(page, "{\"%s\":[", member);
    count = add_rows(page, answer, limit);
    if (has_row(answer, count))
        cursor = pg_value(answer, count - 1, COLUMN_CURSOR);
    evbuffer_add_printf(page, "],\"next_cursor\":%.*s,\"count\":%d", STR_ARGS(cursor), count);
    if (total.ptr)
        evbuffer_add_printf(page, ",\"total\":%.*s", STR_ARGS(total));
    evbuffer_add(page, "}", 1);
    return page;
}

struct str page_text(struct evbuffer *page)
{
    return (struct str){(const char *)evbuffer_pullup(page, -1), evbuffer_get_length(page)};
}
