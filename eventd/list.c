/* GET /v1/security/events: pages of one tenant's events, newest first, as the database spells them
 * in JSON. */
#include "eventd/eventd.h"

#include "common/ids.h"
#include "common/memory.h"

#include <event2/buffer.h>
#include <stdio.h>
#include <stdlib.h>

enum { PAGE_BYTES = 512 * 1024, NUMBER_TEXT_BYTES = 24 };

struct listing {
    struct ipc_reply_to to;
    int limit;
};

/* Where a page begins: "MICROSECONDS-UUID", as next_cursor spelled it. */
struct cursor {
    struct str occurred_us, event_id;
};

static bool parse_cursor(struct str text, struct cursor *cursor)
{
    const char *dash = text.ptr ? memchr(text.ptr, '-', text.len) : NULL;
    char uuid[UUID_TEXT_BYTES] = {0};
    uint8_t bytes[16];
    long long microseconds;

    *cursor = (struct cursor){STR_ABSENT, STR_ABSENT};
    if (!text.ptr)
        return true;
    if (!dash || text.ptr + text.len - (dash + 1) != UUID_TEXT_BYTES - 1)
        return false;
    cursor->occurred_us = (struct str){text.ptr, (size_t)(dash - text.ptr)};
    cursor->event_id = (struct str){dash + 1, UUID_TEXT_BYTES - 1};
    memcpy(uuid, dash + 1, UUID_TEXT_BYTES - 1);
    return str_to_number(cursor->occurred_us, INT64_MAX, &microseconds) &&
           ids_uuid_parse(uuid, bytes) == 0;
}

/* Adds rows until the page is full; returns how many. */
static int add_rows(struct evbuffer *page, const struct pg_answer *answer, int limit)
{
    int count = 0;

    for (; count < answer->row_count && count < limit; count++) {
        struct str row = pg_value(answer, count, 0);

        if (count > 0 && evbuffer_get_length(page) + row.len > PAGE_BYTES)
            break;
        if (count > 0)
            evbuffer_add(page, ",", 1);
        evbuffer_add(page, row.ptr, row.len);
    }
    return count;
}

static void send_page(const struct listing *listing, const struct pg_answer *answer)
{
    struct evbuffer *page = evbuffer_new();
    struct msg_event_page reply;
    struct str last;
    int count;

    evbuffer_add_printf(page, "{\"events\":[");
    count = add_rows(page, answer, listing->limit);
    if (count < answer->row_count) {
        last = pg_value(answer, count - 1, 1);
        evbuffer_add_printf(page, "],\"next_cursor\":\"%.*s\",\"count\":%d}", STR_ARGS(last),
                            count);
    } else {
        evbuffer_add_printf(page, "],\"next_cursor\":null,\"count\":%d}", count);
    }
    reply.page = (struct str){(const char *)evbuffer_pullup(page, -1), evbuffer_get_length(page)};
    ipc_reply(listing->to, MSG_event_page, &reply);
    evbuffer_free(page);
}

static void on_listed(void *arg, const struct pg_answer *answer)
{
    struct listing *listing = arg;

    if (answer->outcome == PG_OK)
        send_page(listing, answer);
    else
        back_fail(listing->to, answer);
    free(listing);
}

static struct str optional_number(proto_opt_i64 number, char text[NUMBER_TEXT_BYTES])
{
    if (!number.present)
        return STR_ABSENT;
    snprintf(text, NUMBER_TEXT_BYTES, "%lld", (long long)number.value);
    return str_from(text);
}

void eventd_list(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    const struct msg_event_list *body = &message->body.event_list;
    char since[NUMBER_TEXT_BYTES], until[NUMBER_TEXT_BYTES], limit[NUMBER_TEXT_BYTES];
    bool prefix = body->type.ptr && body->type.ptr[body->type.len - 1] == '*';
    struct cursor cursor;
    struct listing *listing;

    if (!parse_cursor(body->cursor, &cursor)) {
        ipc_fail(to, ERROR_VALIDATION, "cursor: not one that this list gave");
        return;
    }
    snprintf(limit, sizeof(limit), "%lld",
             (long long)body->limit + 1); /* one more: is there a next page? */
    const struct str params[] = {
        body->tenant_id,
        prefix ? STR_ABSENT : body->type,
        prefix ? (struct str){body->type.ptr, body->type.len - 1} : STR_ABSENT,
        body->severity,
        body->spiffe_id,
        optional_number(body->since, since),
        optional_number(body->until, until),
        cursor.occurred_us,
        cursor.event_id,
        str_from(limit),
    };
    listing = memory_new(1, sizeof(*listing));
    *listing = (struct listing){.to = to, .limit = (int)body->limit};
    if (back_submit(&daemon->back, &eventd_statements[STATEMENT_LIST], STR_ABSENT, params,
                    on_listed, listing))
        return;
    free(listing);
    back_fail_full(to);
}
