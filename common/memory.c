/* Allocation and clean-up for every daemon. Touches nothing but memory and descriptors it is given.
 */
#include "common/memory.h"

#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *memory_new(size_t count, size_t size)
{
    void *fresh = calloc(count ? count : 1, size ? size : 1);

    if (!fresh)
        log_fatal("out of memory", LOG_NUMBER("bytes", (long long)(count * size)));
    return fresh;
}

void *memory_resize(void *old, size_t size)
{
    void *moved = realloc(old, size ? size : 1);

    if (!moved)
        log_fatal("out of memory", LOG_NUMBER("bytes", (long long)size));
    return moved;
}

void *memory_copy(const void *bytes, size_t len)
{
    char *copy = memory_new(1, len + 1);

    if (len)
        memcpy(copy, bytes, len);
    return copy;
}

void memory_free_pointer(void *pointer_to_pointer)
{
    free(*(void **)pointer_to_pointer);
}

void memory_close_descriptor(int *descriptor)
{
    int saved = errno;

    if (*descriptor >= 0)
        close(*descriptor);
    errno = saved;
}
