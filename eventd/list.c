/* GET /v1/security/events: pages of one tenant's events, newest first, as the database spells them
 * in JSON. */
#include "eventd/eventd.h"

#include "common/ids.h"
#include "common/memory.h"
#include "common/page.h"

#include <stdlib.h>

struct listing {
    struct ipc_reply_to to;
    int limit;
};

static bool is_uuid(struct str text)
{
    char uuid[UUID_TEXT_BYTES] = {0};
    uint8_t bytes[16];

    if (text.len != UUID_TEXT_BYTES - 1)
        return false;
    memcpy(uuid, text.ptr, text.len);
    return ids_uuid_parse(uuid, bytes) == 0;
}

/* Every event has a time and a UUID. */
static bool parse_cursor(struct str text, struct page_cursor *cursor)
{
    return page_cursor_parse(text, cursor) &&
           (!text.ptr || (cursor->microseconds.ptr && is_uuid(cursor->name)));
}

static void on_listed(void *arg, const struct pg_answer *answer)
{
    struct listing *listing = arg;
    struct evbuffer *page;

    if (answer->outcome == PG_OK) {
        page = page_build("events", answer, listing->limit);
        ipc_reply(listing->to, MSG_event_page, &(struct msg_event_page){.page = page_text(page)});
        evbuffer_free(page);
    } else {
        back_fail(listing->to, answer);
    }
    free(listing);
}

static bool is_filtered(const struct msg_event_list *body)
{
    return body->type.ptr || body->severity.ptr || body->spiffe_id.ptr;
}

void eventd_list(void *arg, struct ipc_reply_to to, const struct message *message)
{
    struct eventd *daemon = arg;
    const struct msg_event_list *body = &message->body.event_list;
    enum eventd_statement statement = is_filtered(body) ? STATEMENT_LIST_FILTERED : STATEMENT_LIST;
    char since[STR_NUMBER_BYTES], bound[STR_NUMBER_BYTES], limit[STR_NUMBER_BYTES];
    bool prefix = body->type.ptr && body->type.ptr[body->type.len - 1] == '*';
    struct page_cursor cursor;
    struct listing *listing;

    if (!parse_cursor(body->cursor, &cursor)) {
        ipc_fail(to, ERROR_VALIDATION, "cursor: not one that this list gave");
        return;
    }
    if (body->until.present)
        page_cursor_bound(&cursor, body->until.value * 1000, bound);
    const struct str params[] = {
        body->tenant_id,
        body->since.present ? str_from_number(body->since.value, since) : STR_ABSENT,
        cursor.microseconds,
        cursor.name,
        str_from_number((long long)body->limit + 1, limit), /* one more: is there a next page? */
        prefix ? STR_ABSENT : body->type, /* from here on: STATEMENT_LIST_FILTERED's alone */
        prefix ? (struct str){body->type.ptr, body->type.len - 1} : STR_ABSENT,
        body->severity,
        body->spiffe_id,
    };
    listing = memory_new(1, sizeof(*listing));
    *listing = (struct listing){.to = to, .limit = (int)body->limit};
    if (back_submit(&daemon->back, &eventd_statements[statement], STR_ABSENT, params, on_listed,
                    listing))
        return;
    free(listing);
    back_fail_full(to);
}
