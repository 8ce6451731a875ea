/* The constants of the label sets in METRIC_SETS, a file of
 *     SET(SET)
 *         NAME(SET, NAME, "value of the label")
 *     SET_END(SET, "label")
 * namely SET_NAME…, and SET_COUNT behind the last. Included once for each such file. */
#define SET(set)              enum {
#define NAME(set, name, text) set##_##name,
#define SET_END(set, label)                                                                        \
    set##_COUNT                                                                                    \
    }                                                                                              \
    ;
#include METRIC_SETS
#undef SET
#undef NAME
#undef SET_END
