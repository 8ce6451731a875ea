/* The table of frontd's metrics with its label sets, and the memory in which supervisor and workers
 * count. Maps that memory; touches nothing else. */
#include "frontd/metrics.h"

#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the table ------------------------------------------------------------------------------ */

static const char *const route_names[] = {
    [ROUTE_none] = "none",
#define ROUTE(method, path, permission, query, handler) [ROUTE_##handler] = method " " path,
#include "frontd/routes.def"
#undef ROUTE
    NULL,
};

static const char *code_name(const void *table, size_t n)
{
    (void)table;
    if (n >= CODE_COUNT)
        return NULL;
    return n == ERROR_NONE ? "OK" : error_name((enum error_code)n);
}

static const char *const daemon_names[] = {
    [BACKEND_KEEPER] = "keeper", [BACKEND_REGISTRYD] = "registryd", [BACKEND_AUDITD] = "auditd",
    [BACKEND_EVENTD] = "eventd", [BACKEND_COUNT] = "frontd",        NULL,
};

static const char *backend_name(const void *table, size_t n)
{
    return n < BACKEND_COUNT ? metric_text_name(table, n) : NULL;
}

static const char *const refusal_names[] = {
#define REFUSAL(name, help) #name,
#include "frontd/refusals.def"
#undef REFUSAL
    NULL,
};

static const struct metric_set ROUTE_SET = {"route", metric_text_name, route_names};
static const struct metric_set CODE_SET = {"code", code_name, NULL};
static const struct metric_set REFUSAL_SET = {"reason", metric_text_name, refusal_names};
static const struct metric_set DAEMON_SET = {"daemon", metric_text_name, daemon_names};
static const struct metric_set BACKEND_SET = {"backend", backend_name, daemon_names};
static const struct metric_set IPC_REFUSAL_SET = {"reason", metric_text_name, ipc_refusal_names};

#define METRIC_SETS "frontd/metric_sets.def"
#include "common/metric_set_names.h"
#undef METRIC_SETS

const struct metric frontd_metrics_table[] = {
#define METRIC_STRUCT struct frontd_metrics
#define METRIC        METRIC_SHARED_ROW
#define METRIC_PART   process
#include "common/metrics_process.def"
#undef METRIC_PART
#undef METRIC
#define METRIC METRIC_ROW
#include "frontd/metrics.def"
#undef METRIC
    METRIC_END,
};

/* ---- shared memory -------------------------------------------------------------------------- */

/* Slots begin on lines of the processor's cache of their own: no worker waits for another. */
enum { LINE_BYTES = 64 };

static size_t slot_size(void)
{
    return (sizeof(struct frontd_metrics) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

/* Whether the descriptor is memory of that size, for good: reading it can never fail. */
static bool is_whole(int fd, size_t size)
{
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat status;

    return (fcntl(fd, F_GET_SEALS) & wanted) == wanted && fstat(fd, &status) == 0 &&
           (size_t)status.st_size == size;
}

bool metrics_memory_map(struct metrics_memory *memory, int fd, size_t count)
{
    size_t size = count * slot_size();
    void *slots;

    if (fd < 0 || !is_whole(fd, size))
        return false;
    slots = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (slots == MAP_FAILED)
        return false;
    *memory = (struct metrics_memory){slots, count};
    return true;
}

int metrics_memory_create(struct metrics_memory *memory, size_t count)
{
    int fd = memfd_create("caf-metrics", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0 || ftruncate(fd, (off_t)(count * slot_size())) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        !metrics_memory_map(memory, fd, count))
        log_fatal("cannot make the memory of metrics", LOG_TEXT("error", strerror(errno)));
    return fd;
}

struct frontd_metrics *metrics_memory_slot(const struct metrics_memory *memory, size_t n)
{
    return (struct frontd_metrics *)(memory->slots + n * slot_size());
}

void metrics_memory_sum(const struct metrics_memory *memory, struct frontd_metrics *sum)
{
    *sum = (struct frontd_metrics){0};
    for (size_t i = 0; i < memory->count; i++)
        metrics_add(sum, metrics_memory_slot(memory, i), sizeof(*sum));
}

void metrics_memory_unmap(struct metrics_memory *memory)
{
    if (memory->slots)
        munmap(memory->slots, memory->count * slot_size());
    *memory = (struct metrics_memory){0};
}
