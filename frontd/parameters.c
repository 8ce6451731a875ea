/* Query strings to validated values, by tables: percent-decoding, UTF-8, numbers, RFC 3339 times.
 * What a table does not name is refused, with its name. Touches only the exchange's bytes. */
#include "frontd/members.h"

#include "common/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MESSAGE_BYTES = 256, NAME_SHOWN = 64 };

/* ---- times ---------------------------------------------------------------------------------- */

/* Fixed-width decimal digits at text; -1 when one is not a digit. */
static int digits(const char *text, int width)
{
    int value = 0;

    for (int i = 0; i < width; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        value = value * 10 + text[i] - '0';
    }
    return value;
}

/* ".123456" as milliseconds, cut; text moves behind it. Absent: 0. */
static int take_fraction(const char **text)
{
    int ms = 0, weight = 100;

    if (**text != '.')
        return 0;
    if (digits(++*text, 1) < 0)
        return -1;
    for (; digits(*text, 1) >= 0; ++*text, weight /= 10)
        ms += digits(*text, 1) * weight;
    return ms;
}

/* "Z" or "+hh:mm" as minutes east of UTC; text must end with it. */
static bool take_offset(const char *text, int *minutes)
{
    int hours, rest;

    *minutes = 0;
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return true;
    if ((*text != '+' && *text != '-') || strlen(text) != 6 || text[3] != ':')
        return false;
    hours = digits(text + 1, 2);
    rest = digits(text + 4, 2);
    *minutes = (hours * 60 + rest) * (*text == '-' ? -1 : 1);
    return hours >= 0 && hours < 24 && rest >= 0 && rest < 60;
}

/* RFC 3339 5.6 to milliseconds since 1970; false when it is none, lies before 1970, or by its
 * offset behind the year 9999, whose end is the last time that can be said. */
static bool parse_time(const char *text, int64_t *ms)
{
    struct tm utc = {0}, normal;
    int fraction, offset;
    time_t seconds;

    if (strlen(text) < sizeof("2026-01-02T03:04:05Z") - 1 || text[4] != '-' || text[7] != '-' ||
        (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':')
        return false;
    utc.tm_year = digits(text, 4) - 1900;
    utc.tm_mon = digits(text + 5, 2) - 1;
    utc.tm_mday = digits(text + 8, 2);
    utc.tm_hour = digits(text + 11, 2);
    utc.tm_min = digits(text + 14, 2);
    utc.tm_sec = digits(text + 17, 2);
    text += 19;
    fraction = take_fraction(&text);
    if (utc.tm_year < 70 || utc.tm_hour < 0 || utc.tm_min < 0 || utc.tm_sec < 0 || fraction < 0 ||
        !take_offset(text, &offset))
        return false;
    normal = utc;
    seconds = timegm(&normal);
    if (normal.tm_mon != utc.tm_mon || normal.tm_mday != utc.tm_mday ||
        normal.tm_hour != utc.tm_hour || normal.tm_min != utc.tm_min || normal.tm_sec != utc.tm_sec)
        return false; /* the 30th of February */
    *ms = ((int64_t)seconds - offset * 60) * 1000 + fraction;
    return *ms >= 0 && *ms <= PROTO_TIME_MAX;
}

/* ---- decoding ------------------------------------------------------------------------------- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Percent-decoded text that the caller frees; NULL for a wrong escape, NUL or text that is not
 * UTF-8. */
static char *decode(struct str raw)
{
    cleanup_free char *text = memory_new(1, raw.len + 1);
    size_t len = 0;

    for (size_t i = 0; i < raw.len; i++) {
        int high, low;

        if (raw.ptr[i] != '%') {
            text[len++] = raw.ptr[i] == '+' ? ' ' : raw.ptr[i];
            continue;
        }
        high = i + 2 < raw.len ? hex_value(raw.ptr[i + 1]) : -1;
        low = i + 2 < raw.len ? hex_value(raw.ptr[i + 2]) : -1;
        if (high < 0 || low < 0)
            return NULL;
        text[len++] = (char)(high << 4 | low);
        i += 2;
    }
    return str_is_utf8((struct str){text, len}) ? steal_pointer(text) : NULL;
}

/* The part before the separator; rest moves behind it. */
static struct str next_part(struct str *rest, char separator)
{
    const char *at = memchr(rest->ptr, separator, rest->len);
    struct str part = {rest->ptr, at ? (size_t)(at - rest->ptr) : rest->len};
    size_t taken = part.len + (at ? 1 : 0);

    *rest = (struct str){rest->ptr + taken, rest->len - taken};
    return part;
}

/* ---- the query ------------------------------------------------------------------------------ */

/* Whether text is one of "one, two, three". */
static bool is_choice(struct str text, struct str choices)
{
    while (choices.len > 0) {
        struct str choice = next_part(&choices, ',');

        if (str_equal(text, choice))
            return true;
        if (choices.len > 0)
            choices = (struct str){choices.ptr + 1, choices.len - 1};
    }
    return false;
}

/* Whether the decoded text is what the row asks for; it becomes the value's. */
static bool take_value(const struct parameter *parameter, char *text, struct parameter_value *value)
{
    long long number;

    value->present = true;
    value->text = text;
    switch (parameter->type) {
    case PARAMETER_NUMBER:
        if (!str_to_number(str_from(text), parameter->max, &number) || number < parameter->min)
            return false;
        value->number = number;
        return true;
    case PARAMETER_TIME:
        return parse_time(text, &value->number);
    case PARAMETER_HOSTNAME:
        return members_make_hostname(text, (size_t)parameter->max);
    case PARAMETER_CHOICE:
        return is_choice(str_from(text), str_from(parameter->choices));
    default:
        return (int64_t)strlen(text) >= parameter->min && (int64_t)strlen(text) <= parameter->max;
    }
}

/* NULL, or what is wrong with this one "name=value", to be followed by the choices unless they are
 * NULL. */
static const char *take_pair(struct str name, struct str raw, const struct parameter *parameters,
                             size_t count, struct parameter_value *values, const char **choices)
{
    *choices = NULL;
    for (size_t i = 0; i < count; i++) {
        char *text;

        if (!str_equal(name, str_from(parameters[i].name)))
            continue;
        if (values[i].present)
            return "given twice";
        text = decode(raw);
        if (!text)
            return "a wrong escape, or not UTF-8";
        if (take_value(&parameters[i], text, &values[i]))
            return NULL;
        *choices = parameters[i].choices;
        return *choices ? "none of " : "of the wrong form or out of range";
    }
    return "not a parameter of this route";
}

void parameters_free(struct parameter_value *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(values[i].text);
}

bool parameters_read(struct exchange *exchange, const struct parameter *parameters, size_t count,
                     struct parameter_value *values)
{
    struct str rest = exchange->query;
    char message[MESSAGE_BYTES];

    memset(values, 0, count * sizeof(*values));
    while (rest.len > 0) {
        struct str raw = next_part(&rest, '&');
        struct str name = next_part(&raw, '=');
        const char *choices;
        const char *problem = take_pair(name, raw, parameters, count, values, &choices);

        if (!problem)
            continue;
        parameters_free(values, count);
        if (name.len > NAME_SHOWN)
            name.len = NAME_SHOWN;
        snprintf(message, sizeof(message), "%.*s: %s%s", STR_ARGS(name), problem,
                 choices ? choices : "");
        exchange_fail(exchange, ERROR_VALIDATION, message, NULL);
        return false;
    }
    return true;
}
