/* Reads an INI file into a daemon's options struct by its table, with libinih as the parser. Opens
 * the one file it is given, read-only. Every refusal names file, line and reason. */
#include "common/config.h"

#include "common/memory.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>

struct reading {
    const struct config_option *options;
    void *values;
    const char *name;
    FILE *file;
    int line;
    size_t line_size; /* libinih's bound: a line, its newline and a NUL */
    bool *given;      /* one an option: was it in the file? */
    char *error;
    size_t error_size;
    bool failed;
};

static const size_t value_sizes[] = {
    [CONFIG_TEXT] = sizeof(config_member_TEXT),     [CONFIG_LIST] = sizeof(config_member_LIST),
    [CONFIG_NUMBER] = sizeof(config_member_NUMBER), [CONFIG_FLAG] = sizeof(config_member_FLAG),
    [CONFIG_CHOICE] = sizeof(config_member_CHOICE), [CONFIG_MAP] = sizeof(config_member_MAP),
};

enum { VALUE_SIZE_MAX = sizeof(config_member_MAP) }; /* and of a LIST */

static void *member(const struct config_option *option, const void *values)
{
    return (char *)values + option->offset;
}

/* ---- one value ------------------------------------------------------------------------------ */

/* Why the text could not be printed and read back; NULL: it can. */
static const char *check_text(struct str s)
{
    if (!str_is_printable(s))
        return "holds a character that is not printable ASCII";
    return s.len > 0 && s.ptr[0] == ';' ? "begins with ';', as a comment does" : NULL;
}

static const char *set_text(const struct config_option *option, const char *value, void *at)
{
    char **text = at;
    struct str s = str_from(value);
    const char *why = check_text(s);

    if (why)
        return why;
    if ((int64_t)s.len < option->min || (int64_t)s.len > option->max)
        return "is too short or too long";
    free(*text);
    *text = str_dup(s);
    return NULL;
}

static const char *set_number(const struct config_option *option, const char *value, void *at)
{
    long long number;

    if (!str_to_number(str_from(value), option->max, &number) || number < option->min)
        return "is not a whole number in the range";
    *(int64_t *)at = number;
    return NULL;
}

static const char *set_flag(const char *value, void *at)
{
    bool yes = strcmp(value, "yes") == 0;

    if (!yes && strcmp(value, "no") != 0)
        return "is neither yes nor no";
    *(bool *)at = yes;
    return NULL;
}

/* The index-th word of "first|second|third". */
static struct str choice_word(const char *words, int index)
{
    for (; index > 0 && words; index--)
        words = (words = strchr(words, '|')) ? words + 1 : NULL;
    return words ? (struct str){words, strcspn(words, "|")} : STR_ABSENT;
}

static const char *set_choice(const struct config_option *option, const char *value, void *at)
{
    struct str word;

    for (int i = 0; (word = choice_word(option->fallback, i)).ptr; i++) {
        if (str_equal(word, str_from(value))) {
            *(int *)at = i;
            return NULL;
        }
    }
    return "is not one of the words allowed";
}

static void list_add(struct config_list *list, struct str item)
{
    list->items = memory_resize(list->items, (list->count + 1) * sizeof(*list->items));
    list->items[list->count++] = str_dup(item);
}

static const char *set_list(const struct config_option *option, const char *value, void *at)
{
    struct config_list *list = at;

    for (const char *p = value; *p;) {
        struct str item = {p, strcspn(p, ", \t")};
        const char *why = check_text(item);

        if (why)
            return why;
        if (item.len)
            list_add(list, item);
        p += item.len;
        p += strspn(p, ", \t");
    }
    if ((int64_t)list->count > option->max)
        return "has too many items";
    return (int64_t)list->count < option->min ? "has too few items" : NULL;
}

static const char *set_value(const struct config_option *option, const char *value, void *values)
{
    void *at = member(option, values);

    switch (option->type) {
    case CONFIG_TEXT:
        return set_text(option, value, at);
    case CONFIG_LIST:
        return set_list(option, value, at);
    case CONFIG_NUMBER:
        return set_number(option, value, at);
    case CONFIG_FLAG:
        return set_flag(value, at);
    case CONFIG_CHOICE:
        return set_choice(option, value, at);
    default:
        return "cannot be set";
    }
}

static const char *add_pair(const struct config_option *option, const char *key, const char *value,
                            void *values)
{
    struct config_map *map = member(option, values);
    const char *why = check_text(str_from(key));

    if (!*key)
        return "has a line without a name";
    if (why || (why = check_text(str_from(value))))
        return why;
    if ((int64_t)map->count >= option->max)
        return "is one too many for this section";
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->items[i].key, key) == 0)
            return "is given twice";
    map->items = memory_resize(map->items, (map->count + 1) * sizeof(*map->items));
    map->items[map->count].key = str_dup(str_from(key));
    map->items[map->count++].value = str_dup(str_from(value));
    return NULL;
}

static void list_free(struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct config_list){NULL, 0};
}

static void map_free(struct config_map *map)
{
    for (size_t i = 0; i < map->count; i++) {
        free(map->items[i].key);
        free(map->items[i].value);
    }
    free(map->items);
    *map = (struct config_map){NULL, 0};
}

void config_free(const struct config_option *options, void *values)
{
    for (const struct config_option *option = options; option->section; option++) {
        char **text = member(option, values);

        if (option->type == CONFIG_LIST)
            list_free(member(option, values));
        else if (option->type == CONFIG_MAP)
            map_free(member(option, values));
        else if (option->type == CONFIG_TEXT) {
            free(*text);
            *text = NULL;
        }
    }
}

/* ---- two structs ---------------------------------------------------------------------------- */

static bool lists_equal(const struct config_list *one, const struct config_list *other)
{
    if (one->count != other->count)
        return false;
    for (size_t i = 0; i < one->count; i++)
        if (strcmp(one->items[i], other->items[i]) != 0)
            return false;
    return true;
}

static bool maps_equal(const struct config_map *one, const struct config_map *other)
{
    if (one->count != other->count)
        return false;
    for (size_t i = 0; i < one->count; i++)
        if (strcmp(one->items[i].key, other->items[i].key) != 0 ||
            strcmp(one->items[i].value, other->items[i].value) != 0)
            return false;
    return true;
}

bool config_equal(const struct config_option *option, const void *one, const void *other)
{
    const void *left = member(option, one), *right = member(option, other);

    switch (option->type) {
    case CONFIG_TEXT:
        return strcmp(*(char *const *)left, *(char *const *)right) == 0;
    case CONFIG_LIST:
        return lists_equal(left, right);
    case CONFIG_MAP:
        return maps_equal(left, right);
    default:
        return memcmp(left, right, value_sizes[option->type]) == 0;
    }
}

void config_exchange(const struct config_option *option, void *one, void *other)
{
    unsigned char kept[VALUE_SIZE_MAX];
    size_t size = value_sizes[option->type];

    memcpy(kept, member(option, one), size);
    memcpy(member(option, one), member(option, other), size);
    memcpy(member(option, other), kept, size);
}

/* ---- a file --------------------------------------------------------------------------------- */

static int refuse(struct reading *reading, const char *section, const char *key, const char *why)
{
    if (!reading->failed)
        snprintf(reading->error, reading->error_size, "%s:%d: [%s] %s %s", reading->name,
                 reading->line, section, key, why);
    reading->failed = true;
    return 0;
}

static const struct config_option *find_option(const struct config_option *options,
                                               const char *section, const char *key)
{
    for (const struct config_option *option = options; option->section; option++)
        if (strcmp(option->section, section) == 0 &&
            (option->type == CONFIG_MAP || strcmp(option->key, key) == 0))
            return option;
    return NULL;
}

static int take_pair(void *arg, const char *section, const char *key, const char *value)
{
    struct reading *reading = arg;
    const struct config_option *option = find_option(reading->options, section, key);
    const char *why;
    bool *given;

    if (reading->failed)
        return 0;
    if (!option)
        return refuse(reading, section, key, "is not an option");
    if (strlen(key) + strlen(" = \n") + strlen(value) >= reading->line_size)
        return refuse(reading, section, key, "is too long to be printed as one line");
    given = &reading->given[option - reading->options];
    if (option->type == CONFIG_MAP) {
        why = add_pair(option, key, value, reading->values);
    } else if (*given && option->type != CONFIG_LIST) {
        why = "is given twice";
    } else {
        if (!*given && option->type == CONFIG_LIST)
            list_free(member(option, reading->values)); /* the file's items replace the default */
        why = set_value(option, value, reading->values);
    }
    *given = true;
    return why ? refuse(reading, section, key, why) : 1;
}

/* libinih's reader: counts lines, and refuses what libinih would silently cut: a long line in two,
 * and one with a NUL at that. */
static char *read_line(char *line, int size, void *arg)
{
    struct reading *reading = arg;
    cleanup_free char *whole = NULL;
    size_t room = 0;
    ssize_t len;

    if (reading->failed || (len = getline(&whole, &room, reading->file)) < 0)
        return NULL;
    reading->line++;
    reading->line_size = (size_t)size;
    if (len >= size)
        refuse(reading, "", "", "the line is too long");
    else if (memchr(whole, '\0', (size_t)len))
        refuse(reading, "", "", "the line holds a NUL byte");
    return reading->failed ? NULL : memcpy(line, whole, (size_t)len + 1);
}

static int read_stream(struct reading *reading)
{
    int first_bad = ini_parse_stream(read_line, reading, take_pair, reading);

    if (first_bad != 0 && (!reading->failed || first_bad < reading->line)) {
        reading->line = first_bad; /* libinih goes on behind a line that is none */
        reading->failed = false;
        refuse(reading, "", "", "neither a [section] nor a key = value");
    }
    return reading->failed ? -1 : 0;
}

static void set_defaults(const struct config_option *options, void *values)
{
    for (const struct config_option *option = options; option->section; option++)
        if (option->type != CONFIG_MAP && option->type != CONFIG_CHOICE)
            set_value(option, option->fallback, values);
}

static int read_file(const struct config_option *options, void *values, FILE *file,
                     const char *name, char *error, size_t error_size)
{
    struct reading reading = {.options = options,
                              .values = values,
                              .name = name,
                              .file = file,
                              .error = error,
                              .error_size = error_size};
    size_t count = 0;
    int result;

    while (options[count].section)
        count++;
    set_defaults(options, values);
    reading.given = memory_new(count, sizeof(bool));
    result = read_stream(&reading);
    free(reading.given);
    return result;
}

int config_load(const struct config_option *options, void *values, const char *file, char *error,
                size_t error_size)
{
    FILE *stream;
    int result;

    if (!file) {
        set_defaults(options, values);
        return 0;
    }
    stream = fopen(file, "re");
    if (!stream) {
        snprintf(error, error_size, "%s:0: %s", file, strerror(errno));
        return -1;
    }
    result = read_file(options, values, stream, file, error, error_size);
    if (result == 0 && ferror(stream)) {
        snprintf(error, error_size, "%s:0: %s", file, strerror(errno));
        result = -1;
    }
    fclose(stream);
    return result;
}

int config_parse(const struct config_option *options, void *values, struct str text,
                 const char *name, char *error, size_t error_size)
{
    FILE *stream = fmemopen((void *)text.ptr, text.len, "r");
    int result;

    if (!stream) {
        snprintf(error, error_size, "%s:0: %s", name, strerror(errno));
        return -1;
    }
    result = read_file(options, values, stream, name, error, error_size);
    fclose(stream);
    return result;
}

/* ---- printing ------------------------------------------------------------------------------- */

static void print_list(const struct config_option *option, const struct config_list *list,
                       FILE *out)
{
    if (list->count == 0)
        fprintf(out, "%s =\n", option->key);
    for (size_t i = 0; i < list->count; i++)
        fprintf(out, "%s = %s\n", option->key, list->items[i]);
}

static void print_value(const struct config_option *option, const void *values, FILE *out)
{
    const void *at = member(option, values);
    const struct config_map *map = at;

    switch (option->type) {
    case CONFIG_TEXT:
        fprintf(out, "%s = %s\n", option->key, *(char *const *)at);
        break;
    case CONFIG_NUMBER:
        fprintf(out, "%s = %lld\n", option->key, (long long)*(const int64_t *)at);
        break;
    case CONFIG_FLAG:
        fprintf(out, "%s = %s\n", option->key, *(const bool *)at ? "yes" : "no");
        break;
    case CONFIG_CHOICE:
        fprintf(out, "%s = %.*s\n", option->key,
                STR_ARGS(choice_word(option->fallback, *(const int *)at)));
        break;
    case CONFIG_LIST:
        print_list(option, at, out);
        break;
    case CONFIG_MAP:
        for (size_t i = 0; i < map->count; i++)
            fprintf(out, "%s = %s\n", map->items[i].key, map->items[i].value);
    }
}

void config_print(const struct config_option *options, const void *values, FILE *out)
{
    const char *section = "";

    for (const struct config_option *option = options; option->section; option++) {
        if (strcmp(section, option->section) != 0)
            fprintf(out, "%s[%s]\n", *section ? "\n" : "", option->section);
        section = option->section;
        print_value(option, values, out);
    }
}

void config_print_table(const struct config_option *options, FILE *out)
{
    static const char *const types[] = {
        [CONFIG_TEXT] = "text, bytes", [CONFIG_LIST] = "list, items", [CONFIG_NUMBER] = "number",
        [CONFIG_FLAG] = "yes or no",   [CONFIG_CHOICE] = "choice",    [CONFIG_MAP] = "lines",
    };

    for (const struct config_option *option = options; option->section; option++) {
        fprintf(out, "%s.%s = %s\n    %s", option->section,
                option->type == CONFIG_MAP ? "*" : option->key, option->fallback,
                types[option->type]);
        if (option->max)
            fprintf(out, " %lld to %lld", (long long)option->min, (long long)option->max);
        fprintf(out, ": %s\n", option->help);
    }
}
