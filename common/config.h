/* Configuration: an INI file read into a struct, by a table of options.
 *
 * A daemon lists its options once, one line each, in a .def file:
 *     OPTION(section, key, TYPE, default, min, max, "help")
 * TYPE is one of TEXT, LIST, NUMBER, FLAG, CHOICE, MAP. From that one list come the struct (member
 * section_key), the table that reads and checks a file, `-p`, and the manual page.
 *     #define OPTION CONFIG_MEMBER      inside the struct
 *     #define OPTION CONFIG_ROW         inside the table (CONFIG_STRUCT names the struct)
 */
#ifndef CAF_COMMON_CONFIG_H
#define CAF_COMMON_CONFIG_H

#include "common/str.h"

#include <stdint.h>
#include <stdio.h>

enum config_type {
    CONFIG_TEXT, /* min..max bytes of printable text */
    CONFIG_LIST, /* words apart by commas; min..max of them; the key may be given again to add more
                  */
    CONFIG_NUMBER, /* a decimal integer, min..max */
    CONFIG_FLAG,   /* yes or no */
    CONFIG_CHOICE, /* one of the words in the default, "first|second|third"; the first is the
                      default */
    CONFIG_MAP,    /* the whole section: any key = value, in the order of the file; at most max */
};

struct config_list {
    char **items;
    size_t count;
};

struct config_pair {
    char *key, *value;
};

struct config_map {
    struct config_pair *items;
    size_t count;
};

typedef char *config_member_TEXT;
typedef struct config_list config_member_LIST;
typedef int64_t config_member_NUMBER;
typedef bool config_member_FLAG;
typedef int config_member_CHOICE; /* index of the word */
typedef struct config_map config_member_MAP;

struct config_option {
    const char *section, *key; /* key is "*" for a MAP */
    enum config_type type;
    size_t offset;
    const char *fallback;
    int64_t min, max;
    const char *help;
};

#define CONFIG_MEMBER(section, key, type, fallback, min, max, help)                                \
    config_member_##type section##_##key;
#define CONFIG_ROW(section, key, type, fallback, min, max, help)                                   \
    {#section, #key, CONFIG_##type, offsetof(CONFIG_STRUCT, section##_##key),                      \
     fallback, min,  max,           help},
#define CONFIG_END                                                                                 \
    {                                                                                              \
        NULL, NULL, CONFIG_TEXT, 0, NULL, 0, 0, NULL                                               \
    }

/* Fills values (a zeroed struct that the table describes) with the defaults, then with the file's
 * content. Returns 0; or -1 with error set to "FILE:LINE: reason". Refused: an unknown section or
 * key, a key given twice (but for LIST), a value out of type or range, text that is not printable
 * ASCII or begins with ';', a line over 199 bytes (libinih's bound; over 199 as "key = value" too,
 * so that it can be printed), an unreadable file. file NULL leaves the defaults alone. The strings
 * in values are owned by it: config_free. */
int config_load(const struct config_option *options, void *values, const char *file, char *error,
                size_t error_size);

/* The same from text in memory; name stands for the file's in errors. */
int config_parse(const struct config_option *options, void *values, struct str text,
                 const char *name, char *error, size_t error_size);

/* Writes what is in force, as a file that config_load reads back to the same values. */
void config_print(const struct config_option *options, const void *values, FILE *out);

/* Writes the table: section.key, type, default, range and help, one option a line. */
void config_print_table(const struct config_option *options, FILE *out);

/* Whether both structs, which the table describes, hold the same for this option of it. */
bool config_equal(const struct config_option *option, const void *one, const void *other);

/* Exchanges what the two structs hold for this option. */
void config_exchange(const struct config_option *option, void *one, void *other);

/* Frees what values holds, not values itself. */
void config_free(const struct config_option *options, void *values);

#endif
