/* A binary heap of requests, the oldest first. Touches its array and the requests' heap_index, and
 * nothing else. */
#include "common/memory.h"
#include "common/pg_internal.h"

static void heap_put(struct pg_heap *heap, size_t at, struct pg_request *request)
{
    heap->items[at] = request;
    request->heap_index = at;
}

static void heap_move_up(struct pg_heap *heap, size_t at, struct pg_request *request)
{
    while (at > 0 && heap->items[(at - 1) / 2]->sequence > request->sequence) {
        heap_put(heap, at, heap->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(heap, at, request);
}

static void heap_move_down(struct pg_heap *heap, size_t at, struct pg_request *request)
{
    for (size_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count &&
            heap->items[child + 1]->sequence < heap->items[child]->sequence)
            child++;
        if (heap->items[child]->sequence > request->sequence)
            break;
        heap_put(heap, at, heap->items[child]);
    }
    heap_put(heap, at, request);
}

void pg_heap_push(struct pg_heap *heap, struct pg_request *request)
{
    if (heap->count == heap->size) {
        heap->size = heap->size ? 2 * heap->size : 64;
        heap->items = memory_resize(heap->items, heap->size * sizeof(*heap->items));
    }
    heap_move_up(heap, heap->count++, request);
}

void pg_heap_remove(struct pg_heap *heap, struct pg_request *request)
{
    size_t at = request->heap_index;
    struct pg_request *last = heap->items[--heap->count];

    if (last == request)
        return;
    if (last->sequence < request->sequence)
        heap_move_up(heap, at, last);
    else
        heap_move_down(heap, at, last);
}

struct pg_request *pg_heap_first(const struct pg_heap *heap)
{
    return heap->count ? heap->items[0] : NULL;
}
