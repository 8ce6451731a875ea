/* The memory that frontd's processes count in: of one size for good, a struct for each, summed by
 * whoever is asked. */
#include "frontd/metrics.h"

#include "tests/unit/suite.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS = 3 };

static int memfd(off_t size, int seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_eq(ftruncate(fd, size), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

START_TEST(what_each_process_counts_is_summed)
{
    struct metrics_memory supervisors, workers;
    struct frontd_metrics *sum = calloc(1, sizeof(*sum));
    int fd = metrics_memory_create(&supervisors, SLOTS);

    ck_assert(metrics_memory_map(&workers, fd, SLOTS));
    metrics_memory_slot(&supervisors, 0)->workers = 2;
    for (size_t i = 1; i < SLOTS; i++) {
        struct frontd_metrics *own = metrics_memory_slot(&workers, i);

        own->connections += i;
        own->http_requests_total[ROUTE_COUNT - 1][CODE_COUNT - 1] += 10 * i;
        metric_observe_us(&own->http_request_duration_seconds[ROUTE_none], 7);
    }
    for (int again = 0; again < 2; again++) {
        metrics_memory_sum(&supervisors, sum);
        ck_assert_uint_eq(sum->workers, 2);
        ck_assert_uint_eq(sum->connections, 3);
        ck_assert_uint_eq(sum->http_requests_total[ROUTE_COUNT - 1][CODE_COUNT - 1], 30);
        ck_assert_uint_eq(sum->http_request_duration_seconds[ROUTE_none].sum, 14);
    }
    metrics_memory_unmap(&workers);
    metrics_memory_unmap(&supervisors);
    metrics_memory_unmap(&supervisors);
    close(fd);
    free(sum);
}
END_TEST

START_TEST(no_slot_reaches_into_another)
{
    struct metrics_memory memory;
    struct frontd_metrics *nothing = calloc(1, sizeof(*nothing));
    int fd = metrics_memory_create(&memory, SLOTS);

    memset(metrics_memory_slot(&memory, 1), 0xff, sizeof(*nothing));
    ck_assert_mem_eq(metrics_memory_slot(&memory, 0), nothing, sizeof(*nothing));
    ck_assert_mem_eq(metrics_memory_slot(&memory, 2), nothing, sizeof(*nothing));
    metrics_memory_unmap(&memory);
    close(fd);
    free(nothing);
}
END_TEST

START_TEST(nobody_can_change_its_size)
{
    struct metrics_memory memory;
    int fd = metrics_memory_create(&memory, SLOTS);
    off_t size = lseek(fd, 0, SEEK_END);

    ck_assert_int_ne(ftruncate(fd, 0), 0);
    ck_assert_int_ne(ftruncate(fd, size * 2), 0);
    ck_assert_int_ne(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    metrics_memory_unmap(&memory);
    close(fd);
}
END_TEST

START_TEST(what_is_not_such_memory_is_not_mapped)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct metrics_memory made, memory = {0};
    int fd = metrics_memory_create(&made, SLOTS);
    off_t size = lseek(fd, 0, SEEK_END);
    int unsealed = memfd(size, F_SEAL_GROW), small = memfd(size - 1, seals);
    int pipes[2];

    ck_assert_int_eq(pipe(pipes), 0);
    ck_assert(!metrics_memory_map(&memory, -1, SLOTS));
    ck_assert(!metrics_memory_map(&memory, pipes[0], SLOTS));
    ck_assert(!metrics_memory_map(&memory, unsealed, SLOTS));
    ck_assert(!metrics_memory_map(&memory, small, SLOTS));
    ck_assert(!metrics_memory_map(&memory, fd, SLOTS - 1));
    ck_assert(!metrics_memory_map(&memory, fd, SLOTS + 1));
    ck_assert_ptr_null(memory.slots);
    metrics_memory_unmap(&made);
    close(fd);
    close(unsealed);
    close(small);
    close(pipes[0]);
    close(pipes[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frontd_metrics");
    TCase *tests = suite_case(suite, "memory");

    tcase_add_test(tests, what_each_process_counts_is_summed);
    tcase_add_test(tests, no_slot_reaches_into_another);
    tcase_add_test(tests, nobody_can_change_its_size);
    tcase_add_test(tests, what_is_not_such_memory_is_not_mapped);
    return suite_run(suite);
}
