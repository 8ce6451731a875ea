/* JSON bodies to validated values, by tables. Jansson parses; everything that it lets through and
 * the contract does not is refused here, with the member named. Touches only the exchange's bytes.
 */
#include "frontd/members.h"

#include "common/memory.h"
#include "frontd/json_numbers.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum { LABEL_MAX = 63, MESSAGE_BYTES = 256 };

/* ---- single values -------------------------------------------------------------------------- */

static bool is_label(const char *label, size_t len)
{
    if (len == 0 || len > LABEL_MAX || label[0] == '-' || label[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!isalnum((unsigned char)label[i]) && label[i] != '-')
            return false;
    return true;
}

bool members_make_hostname(char *text, size_t max)
{
    size_t len = strlen(text);

    if (len > 1 && text[len - 1] == '.')
        text[--len] = '\0';
    if (len == 0 || len > max)
        return false;
    for (size_t at = 0; at <= len;) {
        size_t label = strcspn(text + at, ".");

        if (!is_label(text + at, label))
            return false;
        at += label + 1;
    }
    for (size_t i = 0; i < len; i++)
        text[i] = (char)tolower((unsigned char)text[i]);
    return true;
}

static bool strings_accepted(const struct member *member, const json_t *array)
{
    if (!json_is_array(array) || json_array_size(array) > member->min)
        return false;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);

        if (!json_is_string(item) || json_string_length(item) > member->max)
            return false;
    }
    return true;
}

/* Text of a string member in bounds, else NULL. */
static char *take_text(const struct member *member, const json_t *value)
{
    size_t len = json_string_length(value);
    struct str text = {json_string_value(value), len};

    if (!json_is_string(value) || len < member->min ||
        (member->type != MEMBER_HOSTNAME && len > member->max))
        return NULL;
    if (member->type == MEMBER_PRINTABLE && !str_is_printable(text))
        return NULL;
    return str_dup(text);
}

/* A body as Jansson sees it, and as it came. */
struct body {
    json_t *root;
    struct str text;
};

/* The value as text that the caller frees; NULL when it is not what the row asks for. */
static char *take_value(const struct body *body, const struct member *member, const json_t *value)
{
    cleanup_free char *text = NULL;

    switch (member->type) {
    case MEMBER_STRINGS:
        return strings_accepted(member, value) ? json_dumps(value, JSON_COMPACT) : NULL;
    case MEMBER_OBJECT:
        text = json_is_object(value) ? json_dump_as_spelled(body->root, value, body->text) : NULL;
        return text && strlen(text) <= member->max ? steal_pointer(text) : NULL;
    case MEMBER_HOSTNAME:
        text = take_text(member, value);
        return text && members_make_hostname(text, member->max) ? steal_pointer(text) : NULL;
    default:
        return take_text(member, value);
    }
}

static void describe(const struct member *member, const char *problem, char message[MESSAGE_BYTES])
{
    static const char *const kinds[] = {
        [MEMBER_TEXT] = "a string",
        [MEMBER_PRINTABLE] = "a string of printable ASCII",
        [MEMBER_HOSTNAME] = "a host name (RFC 1123)",
        [MEMBER_STRINGS] = "an array of strings",
        [MEMBER_OBJECT] = "an object",
    };

    if (member->type == MEMBER_STRINGS)
        snprintf(message, MESSAGE_BYTES, "%s: %s; it must be %s, at most %zu of at most %zu bytes",
                 member->name, problem, kinds[member->type], member->min, member->max);
    else
        snprintf(message, MESSAGE_BYTES, "%s: %s; it must be %s of %zu to %zu bytes%s",
                 member->name, problem, kinds[member->type], member->min, member->max,
                 member->type == MEMBER_OBJECT ? ", no number with an exponent beyond 308" : "");
}

/* ---- the body ------------------------------------------------------------------------------- */

static bool depth_accepted(const json_t *value, int left)
{
    const char *key;
    const json_t *item;
    size_t i;

    if (!json_is_object(value) && !json_is_array(value))
        return true;
    if (left == 0)
        return false;
    json_object_foreach((json_t *)value, key,
                        item) if (!depth_accepted(item, left - 1)) return false;
    json_array_foreach(value, i, item) if (!depth_accepted(item, left - 1)) return false;
    return true;
}

/* The body as a JSON object, or NULL with a message. */
static json_t *parse_body(struct str body, char message[MESSAGE_BYTES])
{
    json_error_t error;
    json_t *root;

    if (body.len == 0)
        return json_object();
    root = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    if (!root) {
        snprintf(message, MESSAGE_BYTES, "body: not JSON (line %d, column %d): %.120s", error.line,
                 error.column, error.text);
        return NULL;
    }
    if (json_is_object(root) && depth_accepted(root, BODY_DEPTH_MAX))
        return root;
    snprintf(message, MESSAGE_BYTES, "body: %s",
             json_is_object(root) ? "nested deeper than 32" : "not a JSON object");
    json_decref(root);
    return NULL;
}

void members_free(char **values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(values[i]);
}

static bool take_members(const struct body *body, const struct member *members, size_t count,
                         char **values, char message[MESSAGE_BYTES])
{
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_object_get(body->root, members[i].name);

        if (!value || json_is_null(value)) {
            if (!members[i].required)
                continue;
            describe(&members[i], "missing", message);
            return false;
        }
        values[i] = take_value(body, &members[i], value);
        if (!values[i]) {
            describe(&members[i], "not accepted", message);
            return false;
        }
    }
    return true;
}

bool members_read(struct exchange *exchange, const struct member *members, size_t count,
                  char **values)
{
    char message[MESSAGE_BYTES];
    struct body body = {parse_body(exchange->body, message), exchange->body};
    bool good;

    memset(values, 0, count * sizeof(*values));
    good = body.root && take_members(&body, members, count, values, message);
    json_decref(body.root);
    if (good)
        return true;
    members_free(values, count);
    if (!str_is_utf8(str_from(message))) /* Jansson quotes the text it stumbled over */
        snprintf(message, sizeof(message), "body: not valid UTF-8");
    exchange_fail(exchange, ERROR_VALIDATION, message, NULL);
    return false;
}
