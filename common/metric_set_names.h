/* The label sets in METRIC_SETS (see common/metric_set_enums.h) as tables of metrics name them:
 * SET_SET. Included once for each such file, where the table is. */
#define SET(set)                                                                                   \
    static const char *set##_name(size_t n)                                                        \
    {                                                                                              \
        static const char *const names[] = {
#define NAME(set, name, text) text,
#define SET_END(set, label)                                                                        \
    NULL                                                                                           \
    }                                                                                              \
    ;                                                                                              \
    return names[n];                                                                               \
    }                                                                                              \
    static const struct metric_set set##_SET = {label, set##_name};
#include METRIC_SETS
#undef SET
#undef NAME
#undef SET_END
