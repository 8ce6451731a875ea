/* Writes log lines to stderr. Under journald (JOURNAL_STREAM is set) a line begins with the
 * priority prefix that it reads; elsewhere with the time. Holds no secret and is given none:
 * callers log identities, counts and reasons, never credentials or bodies. */
#include "common/log.h"

#include "common/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 8192, VALUE_BYTES = 1024 };

struct line {
    char text[LINE_BYTES];
    size_t used;
};

static struct {
    const char *name;
    enum log_level threshold;
    bool under_journald;
} log_state = {"caf", LOG_LEVEL_INFO, false};

static const struct {
    const char *word;
    int priority; /* of syslog(3), as sd-daemon(3) prefixes it */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARN] = {"warn", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

void log_open(const char *name, enum log_level threshold)
{
    log_state.name = name;
    log_state.threshold = threshold;
    log_state.under_journald = getenv("JOURNAL_STREAM") != NULL;
}

static void line_add(struct line *line, const char *bytes, size_t len)
{
    size_t room = sizeof(line->text) - 1 - line->used; /* one byte is kept for the newline */

    if (len > room)
        len = room;
    memcpy(line->text + line->used, bytes, len);
    line->used += len;
}

static void line_add_text(struct line *line, const char *text)
{
    line_add(line, text, strlen(text));
}

static bool needs_quotes(struct str value)
{
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];

        if (c <= ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '=')
            return true;
    }
    return value.len == 0;
}

static void line_add_escaped(struct line *line, unsigned char c)
{
    char escape[8];

    if (c == '"' || c == '\\')
        snprintf(escape, sizeof(escape), "\\%c", c);
    else if (c < ' ' || c >= 0x7f)
        snprintf(escape, sizeof(escape), "\\x%02x", c);
    else
        snprintf(escape, sizeof(escape), "%c", c);
    line_add_text(line, escape);
}

static void line_add_value(struct line *line, struct str value)
{
    if (value.len > VALUE_BYTES)
        value.len = VALUE_BYTES;
    if (!needs_quotes(value)) {
        line_add(line, value.ptr, value.len);
        return;
    }
    line_add_text(line, "\"");
    for (size_t i = 0; i < value.len; i++)
        line_add_escaped(line, (unsigned char)value.ptr[i]);
    line_add_text(line, "\"");
}

static void line_add_head(struct line *line, enum log_level level)
{
    char head[64];
    struct timespec now;
    struct tm utc;

    if (log_state.under_journald) {
        snprintf(head, sizeof(head), "<%d>", levels[level].priority);
    } else {
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        size_t len = strftime(head, sizeof(head), "time=%Y-%m-%dT%H:%M:%S", &utc);
        snprintf(head + len, sizeof(head) - len, ".%03ldZ ", now.tv_nsec / 1000000);
    }
    line_add_text(line, head);
}

static void line_add_field(struct line *line, const struct log_field *field)
{
    char number[STR_NUMBER_BYTES];

    line_add_text(line, " ");
    line_add_text(line, field->key);
    line_add_text(line, "=");
    if (field->is_number)
        line_add_text(line, str_from_number(field->number, number).ptr);
    else
        line_add_value(line, field->text);
}

bool log_site_passes(struct log_site *site, int64_t now_ms, long long *suppressed)
{
    int64_t used_ms = site->full_at_ms > now_ms ? site->full_at_ms - now_ms : 0;

    if (used_ms > (LOG_BURST - 1) * LOG_INTERVAL_MS) {
        site->suppressed++;
        return false;
    }
    *suppressed = site->suppressed;
    *site = (struct log_site){.full_at_ms = now_ms + used_ms + LOG_INTERVAL_MS};
    return true;
}

static void write_line(enum log_level level, const char *function, const char *message,
                       const struct log_field *fields, size_t count, long long suppressed)
{
    struct line line = {.used = 0};

    line_add_head(&line, level);
    line_add_text(&line, "level=");
    line_add_text(&line, levels[level].word);
    line_add_text(&line, " daemon=");
    line_add_text(&line, log_state.name);
    line_add_field(&line, &(struct log_field)LOG_TEXT("msg", message));
    for (size_t i = 1; i < count; i++)
        line_add_field(&line, &fields[i]);
    if (suppressed > 0)
        line_add_field(&line, &(struct log_field)LOG_NUMBER("suppressed", suppressed));
    if (level <= LOG_LEVEL_WARN)
        line_add_field(&line, &(struct log_field)LOG_TEXT("func", function));
    line.text[line.used++] = '\n';
    /* A log that cannot be written must not stop the service: there is nobody left to tell. */
    if (write(STDERR_FILENO, line.text, line.used) < 0)
        return;
}

void log_write(struct log_site *site, enum log_level level, const char *function,
               const char *message, const struct log_field *fields, size_t count)
{
    long long suppressed = 0;

    if (level > log_state.threshold)
        return;
    if (level < LOG_LEVEL_DEBUG && !log_site_passes(site, clock_monotonic_ms(), &suppressed))
        return;
    write_line(level, function, message, fields, count, suppressed);
}

void log_write_fatal(const char *function, const char *message, const struct log_field *fields,
                     size_t count)
{
    write_line(LOG_LEVEL_ERROR, function, message, fields, count, 0);
    exit(1);
}
