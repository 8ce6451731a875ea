/* Writes tables of metrics as Prometheus' text (exposition format 0.0.4): HELP, TYPE, samples,
 * escaped. Reads the values that it is given, and knows nothing of what is counted or who asks. */
#include "common/metrics.h"

#include "common/ids.h"

#include <inttypes.h>
#include <string.h>

enum { MICRO_DIGITS = 6, MILLI_DIGITS = 3, BOUNDS = METRIC_BUCKETS - 1, NUMBER_BYTES = 32 };

/* What a type is to Prometheus, how many digits of what is kept are behind the point, and whether
 * it is a histogram. */
static const struct {
    const char *name;
    int digits;
    const uint64_t *bounds;
} types[] = {
    [METRIC_COUNTER] = {"counter", 0, NULL},
    [METRIC_COUNTER_US] = {"counter", MICRO_DIGITS, NULL},
    [METRIC_GAUGE] = {"gauge", 0, NULL},
    [METRIC_GAUGE_MS] = {"gauge", MILLI_DIGITS, NULL},
    [METRIC_SECONDS] = {"histogram", MICRO_DIGITS,
                        (const uint64_t[BOUNDS]){250, 500, 1000, 2500, 5000, 10000, 25000, 50000,
                                                 100000, 250000, 500000, 1000000, 2500000, 10000000,
                                                 30000000}},
    [METRIC_SIZES] = {"histogram", 0,
                      (const uint64_t[BOUNDS]){1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048,
                                               4096, 8192, 16384}},
};

/* ---- counting ------------------------------------------------------------------------------- */

static void observe(struct metric_histogram *histogram, enum metric_type type, uint64_t value)
{
    const uint64_t *bounds = types[type].bounds;
    size_t bucket = 0;

    while (bucket < BOUNDS && value > bounds[bucket])
        bucket++;
    histogram->taken[bucket]++;
    histogram->sum += value;
}

void metric_observe_us(struct metric_histogram *histogram, int64_t microseconds)
{
    observe(histogram, METRIC_SECONDS, microseconds > 0 ? (uint64_t)microseconds : 0);
}

void metric_observe_size(struct metric_histogram *histogram, uint64_t size)
{
    observe(histogram, METRIC_SIZES, size);
}

/* ---- where a table's values are ------------------------------------------------------------- */

const char *metric_text_name(const void *texts, size_t n)
{
    return ((const char *const *)texts)[n];
}

static const char *set_name(const struct metric_set *set, size_t n)
{
    return set->name(set->table, n);
}

static size_t set_size(const struct metric_set *set)
{
    size_t size = 0;

    while (set && set_name(set, size))
        size++;
    return set ? size : 1;
}

static size_t value_size(const struct metric *metric)
{
    return types[metric->type].bounds ? sizeof(struct metric_histogram) : sizeof(uint64_t);
}

static bool is_gauge(const struct metric *metric)
{
    return metric->type == METRIC_GAUGE || metric->type == METRIC_GAUGE_MS;
}

void metrics_add(void *sum, const void *values, size_t size)
{
    uint64_t *to = sum;
    const uint64_t *from = values;

    for (size_t i = 0; i < size / sizeof(*to); i++)
        to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void metrics_clear_gauges(const struct metric *table, void *values)
{
    for (const struct metric *metric = table; metric->name; metric++)
        if (is_gauge(metric))
            memset((char *)values + metric->offset, 0,
                   set_size(metric->sets[0]) * set_size(metric->sets[1]) * value_size(metric));
}

/* ---- text ----------------------------------------------------------------------------------- */

static void write_escaped(FILE *out, const char *text, bool quotes_too)
{
    for (; *text; text++) {
        if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '\\' || (*text == '"' && quotes_too))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

/* A number whose last digits are behind the point, without zeros at its end. */
static const char *format_number(char text[NUMBER_BYTES], uint64_t number, int digits)
{
    uint64_t unit = 1;
    int len;

    for (int i = 0; i < digits; i++)
        unit *= 10;
    len = snprintf(text, NUMBER_BYTES, "%" PRIu64, number / unit);
    if (number % unit == 0)
        return text;
    len += snprintf(text + len, NUMBER_BYTES - (size_t)len, ".%0*" PRIu64, digits, number % unit);
    while (text[len - 1] == '0')
        text[--len] = '\0';
    return text;
}

/* The labels of one series, but for a histogram's "le". */
struct labels {
    const struct metric *metric;
    const char *daemon;
    size_t at[2];
};

static void write_label(FILE *out, const char **before, const char *label, const char *value)
{
    fprintf(out, "%s%s=\"", *before, label);
    write_escaped(out, value, true);
    fputc('"', out);
    *before = ",";
}

/* bound: the digits of the bucket's upper end, NULL for none. */
static void write_series(FILE *out, const struct labels *labels, const char *suffix,
                         const char *bound)
{
    const struct metric *metric = labels->metric;
    const char *before = "{";

    fprintf(out, "caf_%s%s", metric->name, suffix);
    if (metric->shared)
        write_label(out, &before, "daemon", labels->daemon);
    for (int i = 0; i < 2; i++)
        if (metric->sets[i])
            write_label(out, &before, metric->sets[i]->label,
                        set_name(metric->sets[i], labels->at[i]));
    if (bound)
        write_label(out, &before, "le", bound);
    fputs(*before == ',' ? "} " : " ", out);
}

static void write_histogram(FILE *out, const struct labels *labels,
                            const struct metric_histogram *histogram)
{
    const uint64_t *bounds = types[labels->metric->type].bounds;
    int digits = types[labels->metric->type].digits;
    char number[NUMBER_BYTES];
    uint64_t count = 0;

    for (size_t i = 0; i < METRIC_BUCKETS; i++) {
        count += histogram->taken[i];
        write_series(out, labels, "_bucket",
                     i < BOUNDS ? format_number(number, bounds[i], digits) : "+Inf");
        fprintf(out, "%" PRIu64 "\n", count);
    }
    write_series(out, labels, "_sum", NULL);
    fprintf(out, "%s\n", format_number(number, histogram->sum, digits));
    write_series(out, labels, "_count", NULL);
    fprintf(out, "%" PRIu64 "\n", count);
}

static void write_value(FILE *out, const struct labels *labels, const void *value)
{
    int digits = types[labels->metric->type].digits;
    char number[NUMBER_BYTES];

    if (types[labels->metric->type].bounds) {
        write_histogram(out, labels, value);
        return;
    }
    write_series(out, labels, "", NULL);
    fprintf(out, "%s\n", format_number(number, *(const uint64_t *)value, digits));
}

static void write_metric(FILE *out, const struct metric *metric, const char *values,
                         const char *daemon)
{
    size_t rows = set_size(metric->sets[0]), columns = set_size(metric->sets[1]);

    if (rows * columns == 0)
        return;
    fprintf(out, "# HELP caf_%s ", metric->name);
    write_escaped(out, metric->help, false);
    fprintf(out, "\n# TYPE caf_%s %s\n", metric->name, types[metric->type].name);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++)
            write_value(out, &(struct labels){metric, daemon, {i, k}},
                        values + metric->offset + (i * columns + k) * value_size(metric));
}

void metrics_write(FILE *out, const struct metric *table, const void *values, const char *daemon)
{
    for (const struct metric *metric = table; metric->name; metric++)
        write_metric(out, metric, values, daemon);
}

/* ---- about a table -------------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t next)
{
    const uint64_t both[] = {hash, next};

    return ids_hash(both, sizeof(both));
}

static uint64_t mix_text(uint64_t hash, const char *text)
{
    return mix(hash, ids_hash(text, strlen(text)));
}

uint64_t metrics_layout(const struct metric *table)
{
    uint64_t hash = 0;

    for (const struct metric *metric = table; metric->name; metric++) {
        hash = mix_text(hash, metric->name);
        hash = mix(hash, (uint64_t)metric->type);
        for (int i = 0; i < 2; i++)
            for (size_t n = 0; metric->sets[i] && set_name(metric->sets[i], n); n++)
                hash = mix_text(hash, set_name(metric->sets[i], n));
    }
    return hash;
}

/* A set's names as text, "a, b, c". */
static void print_set(FILE *out, const struct metric_set *set)
{
    fprintf(out, "%s:", set->label);
    for (size_t n = 0; set_name(set, n); n++)
        fprintf(out, "%s %s", n ? "," : "", set_name(set, n));
}

void metrics_print_table(FILE *out, const struct metric *table, const char *daemon)
{
    for (const struct metric *metric = table; metric->name; metric++) {
        fprintf(out, "caf_%s\t%s\t", metric->name, types[metric->type].name);
        if (metric->shared)
            fprintf(out, "daemon: %s", daemon);
        for (int i = 0; i < 2; i++)
            if (metric->sets[i]) {
                fputs(metric->shared || i ? "; " : "", out);
                print_set(out, metric->sets[i]);
            }
        fprintf(out, "\t%s\n", metric->help);
    }
}
