/* Log lines for people and for journald: one line an event on stderr, key=value, every value that
 * needs it quoted and escaped, so that nothing from outside can forge a line. */
#ifndef CAF_COMMON_LOG_H
#define CAF_COMMON_LOG_H

#include "common/str.h"

#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* One key=value pair of a line. key is a literal; the value is text or a number. */
struct log_field {
    const char *key;
    struct str text;
    long long number;
    bool is_number;
};

#define LOG_TEXT(key_, value_)                                                                     \
    {                                                                                              \
        .key = (key_), .text = str_from(value_)                                                    \
    }
#define LOG_STR(key_, value_)                                                                      \
    {                                                                                              \
        .key = (key_), .text = (value_)                                                            \
    }
#define LOG_NUMBER(key_, value_)                                                                   \
    {                                                                                              \
        .key = (key_), .number = (value_), .is_number = true                                       \
    }

/* How much one place in the code may say: as much as it likes for a while, then a line a second, so
 * that nobody outside can fill a disk by making it speak. */
struct log_site {
    int64_t full_at_ms; /* monotonic: from then on it may say LOG_BURST lines at once again */
    long long suppressed;
};

enum { LOG_BURST = 100, LOG_INTERVAL_MS = 1000 };

/* Whether a line of that place may be written at now_ms; *suppressed is then how many were not
 * since the last that was. */
bool log_site_passes(struct log_site *site, int64_t now_ms, long long *suppressed);

/* Names this process in every line from now on. name must outlive the process. */
void log_open(const char *name, enum log_level threshold);

/* Writes one line: level, process, function, message, fields, and how many of this place were left
 * out before it. Values are cut at 1,024 bytes each. The first field is a placeholder that log_*
 * below put there so that a list may be empty. */
void log_write(struct log_site *site, enum log_level level, const char *function,
               const char *message, const struct log_field *fields, size_t count);

/* As log_write at level error, then ends the process with status 1. */
void log_write_fatal(const char *function, const char *message, const struct log_field *fields,
                     size_t count) __attribute__((noreturn));

#define LOG_FIELDS_(...)                                                                           \
    ((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__}),                                    \
        sizeof((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__}) /                         \
            sizeof(struct log_field)

#define LOG_AT_(level, message, ...)                                                               \
    do {                                                                                           \
        static struct log_site log_site_;                                                          \
        log_write(&log_site_, level, __func__, message, LOG_FIELDS_(__VA_ARGS__));                 \
    } while (0)

#define log_error(message, ...) LOG_AT_(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)
#define log_warn(message, ...)  LOG_AT_(LOG_LEVEL_WARN, message, ##__VA_ARGS__)
#define log_info(message, ...)  LOG_AT_(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
#define log_debug(message, ...) LOG_AT_(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)
#define log_fatal(message, ...) log_write_fatal(__func__, message, LOG_FIELDS_(__VA_ARGS__))

#endif
