/* Allocation that ends the process when memory is out, and clean-up by scope. */
#ifndef CAF_COMMON_MEMORY_H
#define CAF_COMMON_MEMORY_H

#include <stddef.h>

/* Zeroed memory for count items of size bytes; the caller frees it. Never NULL: with memory out the
 * process logs that and ends, and its supervisor (systemd) starts it again; requests in flight are
 * sent again. */
void *memory_new(size_t count, size_t size);

/* Like realloc, with the same rule; contents beyond the old size are not set. */
void *memory_resize(void *old, size_t size);

/* A copy of len bytes that the caller frees, with one NUL byte after them. */
void *memory_copy(const void *bytes, size_t len);

/* Frees what the pointer-to-pointer holds: for __attribute__((cleanup)). */
void memory_free_pointer(void *pointer_to_pointer);

/* Closes the descriptor unless it is negative: for __attribute__((cleanup)). */
void memory_close_descriptor(int *descriptor);

#define cleanup_free  __attribute__((cleanup(memory_free_pointer)))
#define cleanup_close __attribute__((cleanup(memory_close_descriptor)))

/* Takes the value out of a variable that a cleanup guards, so that the cleanup finds nothing. */
#define steal_pointer(variable)                                                                    \
    (__extension__({                                                                               \
        __typeof__(variable) stolen_ = (variable);                                                 \
        (variable) = NULL;                                                                         \
        stolen_;                                                                                   \
    }))

static inline int steal_descriptor(int *descriptor)
{
    int stolen = *descriptor;
    *descriptor = -1;
    return stolen;
}

#endif
