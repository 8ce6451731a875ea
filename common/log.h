/* Log lines for people and for journald: one line an event on stderr, key=value, every value that
 * needs it quoted and escaped, so that nothing from outside can forge a line. */
#ifndef CAF_COMMON_LOG_H
#define CAF_COMMON_LOG_H

#include "common/str.h"

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

/* Names this process in every line from now on. name must outlive the process. */
void log_open(const char *name, enum log_level threshold);

/* Writes one line: level, process, function, message, fields. Values are cut at 1,024 bytes each.
 * The first field is a placeholder that log_* below put there so that a list may be empty. */
void log_write(enum log_level level, const char *function, const char *message,
               const struct log_field *fields, size_t count);

/* As log_write at level error, then ends the process with status 1. */
void log_write_fatal(const char *function, const char *message, const struct log_field *fields,
                     size_t count) __attribute__((noreturn));

#define LOG_FIELDS_(...)                                                                           \
    ((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__}),                                    \
        sizeof((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__}) /                         \
            sizeof(struct log_field)

#define log_error(message, ...)                                                                    \
    log_write(LOG_LEVEL_ERROR, __func__, message, LOG_FIELDS_(__VA_ARGS__))
#define log_warn(message, ...)                                                                     \
    log_write(LOG_LEVEL_WARN, __func__, message, LOG_FIELDS_(__VA_ARGS__))
#define log_info(message, ...)                                                                     \
    log_write(LOG_LEVEL_INFO, __func__, message, LOG_FIELDS_(__VA_ARGS__))
#define log_debug(message, ...)                                                                    \
    log_write(LOG_LEVEL_DEBUG, __func__, message, LOG_FIELDS_(__VA_ARGS__))
#define log_fatal(message, ...) log_write_fatal(__func__, message, LOG_FIELDS_(__VA_ARGS__))

#endif
