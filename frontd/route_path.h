/* A route's path against a request's. */
#ifndef CAF_FRONTD_ROUTE_PATH_H
#define CAF_FRONTD_ROUTE_PATH_H

#include "common/str.h"

/* Whether the request's path is the row's. Both are compared as bytes, nothing is decoded or
 * normalised (contract, Details); where the row has a {name}, which it may have once, as a whole
 * segment, any bytes but none and '/' match, and *parameter is the view of them. *parameter is
 * absent when the row has no {name} or the path does not match. */
bool route_path_matches(const char *row, struct str path, struct str *parameter);

#endif
