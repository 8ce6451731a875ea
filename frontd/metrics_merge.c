/* Brings the samples of one metric from several texts together, line by line, in one pass. Looks at
 * how lines begin and at nothing else; touches only the texts that it is given. */
#include "frontd/metrics_merge.h"

#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <uthash.h>

/* A metric, with the lines that were found of it so far. */
struct family {
    struct evbuffer *lines;
    bool head_done; /* HELP and TYPE are the first text's */
    UT_hash_handle hh;
    size_t len;
    char name[];
};

static struct family *family_get(struct family **families, struct str name)
{
    struct family *family;

    HASH_FIND(hh, *families, name.ptr, name.len, family);
    if (family) {
        family->head_done = true;
        return family;
    }
    family = memory_new(1, sizeof(*family) + name.len);
    family->lines = evbuffer_new();
    if (!family->lines)
        log_fatal("out of memory");
    family->len = name.len;
    memcpy(family->name, name.ptr, name.len);
    HASH_ADD_KEYPTR(hh, *families, family->name, family->len, family);
    return family;
}

/* The next line with its end, taken off the text. */
static struct str take_line(struct str *text)
{
    const char *end = memchr(text->ptr, '\n', text->len);
    struct str line = {text->ptr, end ? (size_t)(end + 1 - text->ptr) : text->len};

    *text = (struct str){text->ptr + line.len, text->len - line.len};
    return line;
}

static struct str first_word(struct str text)
{
    size_t len = 0;

    while (len < text.len && text.ptr[len] != ' ' && text.ptr[len] != '\n')
        len++;
    return (struct str){text.ptr, len};
}

static void sort_lines(struct family **families, struct str text)
{
    const struct str help = STR("# HELP "), comment = STR("#");
    struct family *family = NULL;

    while (text.len > 0) {
        struct str line = take_line(&text);

        if (str_starts(line, help))
            family = family_get(families,
                                first_word((struct str){line.ptr + help.len, line.len - help.len}));
        if (family && !(str_starts(line, comment) && family->head_done))
            evbuffer_add(family->lines, line.ptr, line.len);
    }
}

void metrics_merge(struct evbuffer *out, const struct str *texts, size_t count)
{
    struct family *families = NULL, *family, *next;

    for (size_t i = 0; i < count; i++)
        sort_lines(&families, texts[i]);
    HASH_ITER(hh, families, family, next)
    {
        evbuffer_add_buffer(out, family->lines);
        evbuffer_free(family->lines);
        HASH_DEL(families, family);
        free(family);
    }
}
