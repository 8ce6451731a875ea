/* Metrics: counters, gauges and histograms, by tables, in Prometheus' text format.
 *
 * A daemon lists its metrics once, one line each, in a .def file:
 *     METRIC(name, TYPE, ALONE, "help")             one value
 *     METRIC(name, TYPE, BY(SET), "help")           one for each name of a closed set
 *     METRIC(name, TYPE, BY_TWO(SET, SET), "help")  one for each pair of names
 * TYPE is one of enum metric_type. The name is what Prometheus shows behind "caf_", and the member
 * that counts: adding a metric is its line and, where it happens, a plain
 *     metrics->name++;   metrics->name[i]++;   metrics->name[i][k]++;
 *     metric_observe_us(&metrics->name[i], microseconds);
 * Names follow Prometheus' rules: base units (seconds, bytes), …_total for counters. The values of
 * a label come from a table (routes, error codes, …) and never from outside, so that their number
 * is bounded by construction; what has not happened yet is shown as 0.
 *     #define METRIC METRIC_MEMBER      inside the struct
 *     #define METRIC METRIC_ROW         inside the table (METRIC_STRUCT names the struct)
 * A set SET is a `const struct metric_set SET_SET` where the table is, and a constant SET_COUNT
 * where the struct is: as many as it has names (of a first set, at least as many). A struct of
 * metrics holds nothing else, and is all uint64_t. */
#ifndef CAF_COMMON_METRICS_H
#define CAF_COMMON_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum metric_type {
    METRIC_COUNTER,
    METRIC_COUNTER_US, /* kept in microseconds, shown in seconds */
    METRIC_GAUGE,
    METRIC_GAUGE_MS, /* kept in milliseconds, shown in seconds */
    METRIC_SECONDS,  /* a histogram of times */
    METRIC_SIZES,    /* a histogram of how many at once */
};

enum { METRIC_BUCKETS = 16 };

/* How many values each bucket took for itself (the last has no upper bound), and their sum: of
 * microseconds, or of sizes. */
struct metric_histogram {
    uint64_t taken[METRIC_BUCKETS];
    uint64_t sum;
};

typedef uint64_t metric_COUNTER;
typedef uint64_t metric_COUNTER_US;
typedef uint64_t metric_GAUGE;
typedef uint64_t metric_GAUGE_MS;
typedef struct metric_histogram metric_SECONDS;
typedef struct metric_histogram metric_SIZES;

/* The values of one label, from a table: name gives its n-th (0…), NULL behind the last. */
struct metric_set {
    const char *label;
    const char *(*name)(const void *table, size_t n);
    const void *table;
};

/* For a table of texts that NULL ends. */
const char *metric_text_name(const void *texts, size_t n);

struct metric {
    const char *name; /* without "caf_"; NULL ends a table */
    enum metric_type type;
    size_t offset;
    const struct metric_set *sets[2]; /* NULL: none */
    bool shared;                      /* several daemons have it: a label says whose it is */
    const char *help;
};

#define METRIC_ARRAY_ALONE
#define METRIC_ARRAY_BY(set)            [set##_COUNT]
#define METRIC_ARRAY_BY_TWO(set, other) [set##_COUNT][other##_COUNT]

#define METRIC_SETS_ALONE                                                                          \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }
#define METRIC_SETS_BY(set)                                                                        \
    {                                                                                              \
        &set##_SET, NULL                                                                           \
    }
#define METRIC_SETS_BY_TWO(set, other)                                                             \
    {                                                                                              \
        &set##_SET, &other##_SET                                                                   \
    }

#define METRIC_MEMBER(name, type, labels, help) metric_##type name METRIC_ARRAY_##labels;
#define METRIC_ROW(name, type, labels, help)                                                       \
    {#name, METRIC_##type, offsetof(METRIC_STRUCT, name), METRIC_SETS_##labels, false, help},
/* For rows that several daemons share, whose struct is the member METRIC_PART of METRIC_STRUCT. */
#define METRIC_SHARED_ROW(name, type, labels, help)                                                \
    {#name, METRIC_##type, offsetof(METRIC_STRUCT, METRIC_PART.name), METRIC_SETS_##labels,        \
     true,  help},
#define METRIC_END                                                                                 \
    {                                                                                              \
        .name = NULL                                                                               \
    }

/* Adds a time to a histogram of the type SECONDS; negative counts as 0. */
void metric_observe_us(struct metric_histogram *histogram, int64_t microseconds);

/* Adds a number of things to a histogram of the type SIZES. */
void metric_observe_size(struct metric_histogram *histogram, uint64_t size);

/* Writes every metric of the table in Prometheus' text format (version 0.0.4). values: the table's
 * struct. daemon: whose they are, the value of the label "daemon" of the shared ones. */
void metrics_write(FILE *out, const struct metric *table, const void *values, const char *daemon);

/* Adds a struct of metrics of that many bytes to another of the same. values may be another
 * process's, which counts meanwhile. */
void metrics_add(void *sum, const void *values, size_t size);

/* Sets every gauge of the struct to 0: what counted them is gone. */
void metrics_clear_gauges(const struct metric *table, void *values);

/* A number that two builds share whose tables lay the same metrics out in the same way. */
uint64_t metrics_layout(const struct metric *table);

/* Writes the table for people: name, type, labels and help, one metric a line, apart by tabs. */
void metrics_print_table(FILE *out, const struct metric *table, const char *daemon);

#endif
