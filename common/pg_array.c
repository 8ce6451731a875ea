/* Builds array literals for PostgreSQL. Touches nothing but the memory it is given; talks to
 * nobody. */
#include "common/pg_array.h"

#include "common/memory.h"

#include <stdlib.h>

/* Room for len more bytes; doubling keeps the copying linear in the text. */
static void array_reserve(struct pg_array *array, size_t len)
{
    size_t size = array->size ? array->size : 256;

    while (size - array->used < len)
        size *= 2;
    if (size == array->size)
        return;
    array->text = memory_resize(array->text, size);
    array->size = size;
}

static void array_put_quoted(struct pg_array *array, struct str element)
{
    char *out = array->text + array->used;

    *out++ = '"';
    for (size_t i = 0; i < element.len; i++) {
        if (element.ptr[i] == '"' || element.ptr[i] == '\\')
            *out++ = '\\';
        *out++ = element.ptr[i];
    }
    *out++ = '"';
    array->used = (size_t)(out - array->text);
}

void pg_array_add(struct pg_array *array, struct str element)
{
    array_reserve(array, 2 * element.len + sizeof(",\"\"NULL"));
    array->text[array->used] = array->used ? ',' : '{';
    array->used++;
    if (element.ptr) {
        array_put_quoted(array, element);
    } else {
        memcpy(array->text + array->used, "NULL", 4);
        array->used += 4;
    }
}

const char *pg_array_close(struct pg_array *array)
{
    array_reserve(array, sizeof("{}"));
    if (!array->used)
        array->text[array->used++] = '{';
    array->text[array->used++] = '}';
    array->text[array->used] = '\0';
    return array->text;
}

void pg_array_free(struct pg_array *array)
{
    free(array->text);
    *array = (struct pg_array){.text = NULL};
}
