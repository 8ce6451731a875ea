/* Where a worker counts: in the memory that the supervisor handed to all workers. Maps it; opens
 * nothing. */
#include "frontd/worker.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <string.h>

enum { UPDATE_MS = 1000 };

static void on_update(evutil_socket_t fd, short what, void *arg)
{
    struct worker *worker = arg;

    (void)fd;
    (void)what;
    process_metrics_update(&worker->metrics->process, &worker->cpu_seen_us);
}

void worker_metrics_share(struct worker *worker, const struct msg_metrics_memory *body)
{
    const struct timeval interval = clock_timeval(UPDATE_MS);
    const uint64_t layout = metrics_layout(frontd_metrics_table);
    cleanup_close int fd = ipc_channel_take_descriptor(worker->control);

    if (worker->configured || worker->metrics_timer)
        return;
    if (memcmp(body->layout.ptr, &layout, sizeof(layout)) != 0 || body->slot >= body->slots ||
        !metrics_memory_map(&worker->metrics_memory, fd, body->slots))
        log_warn("metrics are not shared: the supervisor is of another build");
    else
        worker->metrics = metrics_memory_slot(&worker->metrics_memory, body->slot);
    worker->metrics_timer = event_new(worker->service.base, -1, EV_PERSIST, on_update, worker);
    if (!worker->metrics_timer)
        log_fatal("out of memory");
    event_add(worker->metrics_timer, &interval);
}

void worker_metrics_close(struct worker *worker)
{
    if (worker->metrics_timer)
        event_free(worker->metrics_timer);
    metrics_memory_unmap(&worker->metrics_memory);
}
