/* Several daemons' metrics as one text. */
#ifndef CAF_FRONTD_METRICS_MERGE_H
#define CAF_FRONTD_METRICS_MERGE_H

#include "common/str.h"

#include <event2/buffer.h>

/* Appends texts in Prometheus' format to out as one such text, in which every metric has one HELP,
 * one TYPE and all its samples behind them, as the format wants it: the first text's HELP and TYPE
 * count. What stands before a text's first HELP is left out. */
void metrics_merge(struct evbuffer *out, const struct str *texts, size_t count);

#endif
