/* The label sets in METRIC_SETS (see common/metric_set_enums.h) as tables of metrics name them:
 * SET_SET, of the texts SET_names. Included once for each such file, where the table is. */
#define SET(set)              static const char *const set##_names[] = {
#define NAME(set, name, text) text,
#define SET_END(set, label)                                                                        \
    NULL                                                                                           \
    }                                                                                              \
    ;                                                                                              \
    static const struct metric_set set##_SET = {label, metric_text_name, set##_names};
#include METRIC_SETS
#undef SET
#undef NAME
#undef SET_END
