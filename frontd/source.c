/* From a connection's peer and a request's head to the address that goes on record. Believes a
 * header only from a trusted proxy; what anyone else says is kept as a claim, made harmless.
 * Touches only what it is given. */
#include "frontd/source.h"

#include "common/memory.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- what a trusted proxy says -------------------------------------------------------------- */

/* The entry behind the last comma, without the blanks around it; list loses it, and its comma. */
static struct str take_last(struct str *list)
{
    const char *comma = memrchr(list->ptr, ',', list->len);
    size_t start = comma ? (size_t)(comma - list->ptr) + 1 : 0;
    struct str entry = {list->ptr + start, list->len - start};

    list->len = comma ? start - 1 : 0;
    return http_trim(entry);
}

enum found { FOUND, FOUND_NOTHING, SEARCH_ON };

/* Searches one line of the list from its right. */
static enum found search_line(const struct networks *trusted, struct str list,
                              struct address *address)
{
    while (list.len > 0) {
        struct str entry = take_last(&list);

        if (entry.len == 0)
            continue; /* RFC 9110 5.6.1: an empty element counts for nothing */
        if (!address_parse(entry, address))
            return FOUND_NOTHING;
        if (!networks_have(trusted, address))
            return FOUND;
    }
    return SEARCH_ON;
}

/* Several lines are one list, in their order (RFC 9110 5.3). */
static bool find_forwarded(const struct networks *trusted, const struct http_request *request,
                           const char *head, struct address *address)
{
    struct str lines[HTTP_FIELDS_MAX];
    size_t count = 0;
    uint32_t at = 0;
    enum found found = SEARCH_ON;

    while (count < HTTP_FIELDS_MAX &&
           http_request_next(request, head, HTTP_X_FORWARDED_FOR, &at, &lines[count]))
        count++;
    while (found == SEARCH_ON && count > 0)
        found = search_line(trusted, lines[--count], address);
    return found == FOUND;
}

static struct str connecting_ip(const struct http_request *request, const char *head)
{
    return http_span_view(head, request->fields[HTTP_CF_CONNECTING_IP]);
}

static struct address believe(const struct networks *trusted, const struct address *peer,
                              const struct http_request *request, const char *head)
{
    struct address address;

    if (request->given[HTTP_CF_CONNECTING_IP] &&
        address_parse(connecting_ip(request, head), &address))
        return address;
    if (find_forwarded(trusted, request, head, &address))
        return address;
    return *peer;
}

/* ---- what anyone else says ------------------------------------------------------------------ */

/* Appends what still fits; false: it was cut. */
static bool append(char *claimed, const char *piece)
{
    size_t used = strlen(claimed), more = strlen(piece);

    if (used + more > SOURCE_CLAIMED_MAX)
        return false;
    memcpy(claimed + used, piece, more + 1);
    return true;
}

static void append_claim(char *claimed, struct str value)
{
    char piece[5];

    if (*claimed && !append(claimed, ", "))
        return;
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];

        snprintf(piece, sizeof(piece), c >= ' ' && c < 0x7f && c != '\\' ? "%c" : "\\x%02x", c);
        if (!append(claimed, piece))
            return;
    }
}

static char *keep_claims(const struct http_request *request, const char *head)
{
    char *claimed = memory_new(1, SOURCE_CLAIMED_MAX + 1);
    struct str line;
    uint32_t at = 0;

    if (request->given[HTTP_CF_CONNECTING_IP])
        append_claim(claimed, connecting_ip(request, head));
    while (http_request_next(request, head, HTTP_X_FORWARDED_FOR, &at, &line))
        append_claim(claimed, line);
    return claimed;
}

/* ---- both ----------------------------------------------------------------------------------- */

void source_find(const struct networks *trusted, const struct address *peer,
                 const struct http_request *request, const char *head, struct source *source)
{
    bool believed = networks_have(trusted, peer);
    bool given = request->given[HTTP_CF_CONNECTING_IP] || request->given[HTTP_X_FORWARDED_FOR];
    struct address address = believed && given ? believe(trusted, peer, request, head) : *peer;

    source_clear(source);
    address_format(&address, source->ip);
    if (given && !believed)
        source->claimed = keep_claims(request, head);
    if (source->claimed && !*source->claimed)
        source_clear(source);
}

void source_clear(struct source *source)
{
    free(source->claimed);
    source->claimed = NULL;
}
