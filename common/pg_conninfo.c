/* Where to connect and how: the operator's conninfo between our defaults and what must hold. Holds
 * the password that conninfo may carry, and logs none of it. Talks to libpq only. */
#include "common/log.h"
#include "common/memory.h"
#include "common/pg_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* libpq takes the last value of a keyword: the operator's overrides these… */
static const char *const defaults[][2] = {
    {"keepalives_idle", "10"},     {"keepalives_interval", "5"}, {"keepalives_count", "3"},
    {"tcp_user_timeout", "10000"}, {"connect_timeout", "5"}, /* libpq leaves this one to us:
                                                                pg_conninfo_connect_ms */
};

/* …and these override the operator's. */
static const char *const required[][2] = {
    {"target_session_attrs", "read-write"},
    {"client_encoding", "UTF8"},
};

enum { CONNECT_SECONDS_MAX = 3600 };

static size_t conninfo_add(struct pg_conninfo *info, size_t at, const char *keyword,
                           const char *value)
{
    if (at + 1 >= PG_CONNINFO_MAX)
        log_fatal("the database's conninfo has too many settings");
    info->keywords[at] = keyword;
    info->values[at] = value;
    return at + 1;
}

void pg_conninfo_load(struct pg_conninfo *info, const struct pg_options *options)
{
    size_t at = 0;

    info->parsed = PQconninfoParse(options->conninfo, NULL);
    if (!info->parsed)
        log_fatal("the database's conninfo is no libpq connection string");
    at = conninfo_add(info, at, "application_name", options->application_name);
    for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
        at = conninfo_add(info, at, defaults[i][0], defaults[i][1]);
    for (const PQconninfoOption *option = info->parsed; option->keyword; option++)
        if (option->val)
            at = conninfo_add(info, at, option->keyword, option->val);
    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++)
        at = conninfo_add(info, at, required[i][0], required[i][1]);
}

static bool keyword_is_per_host(const char *keyword)
{
    return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 ||
           strcmp(keyword, "port") == 0;
}

/* "a,b,c" by 1 is "b,c,a"; a single value stands for all hosts and stays. The caller frees. */
static char *list_rotate(const char *list, unsigned by)
{
    size_t len = strlen(list), items = 1;
    const char *start = list;
    char *rotated = memory_new(1, len + 2);

    for (const char *p = list; *p; p++)
        items += *p == ',';
    for (size_t skip = by % items; skip > 0; skip--)
        start = strchr(start, ',') + 1;
    if (start == list)
        memcpy(rotated, list, len);
    else
        snprintf(rotated, len + 1, "%s,%.*s", start, (int)(start - list - 1), list);
    return rotated;
}

PGconn *pg_conninfo_connect(const struct pg_conninfo *info, unsigned first_host)
{
    const char *values[PG_CONNINFO_MAX];
    char *rotated[PG_CONNINFO_MAX] = {NULL};
    PGconn *link;

    for (size_t i = 0; i < PG_CONNINFO_MAX; i++) {
        values[i] = info->values[i];
        if (values[i] && keyword_is_per_host(info->keywords[i]))
            values[i] = rotated[i] = list_rotate(values[i], first_host);
    }
    link = PQconnectStartParams(info->keywords, values, 0);
    for (size_t i = 0; i < PG_CONNINFO_MAX; i++)
        free(rotated[i]);
    return link;
}

int64_t pg_conninfo_connect_ms(const struct pg_conninfo *info)
{
    long long seconds = 0;

    for (size_t i = 0; info->keywords[i]; i++)
        if (strcmp(info->keywords[i], "connect_timeout") == 0 &&
            !str_to_number(str_from(info->values[i]), CONNECT_SECONDS_MAX, &seconds))
            log_fatal("connect_timeout in the database's conninfo is no number of seconds");
    return seconds ? seconds * 1000 : CONNECT_SECONDS_MAX * INT64_C(1000);
}

void pg_conninfo_free(struct pg_conninfo *info)
{
    PQconninfoFree(info->parsed);
}
