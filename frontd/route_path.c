/* Compares a request's path with the path of a row of routes.def. Touches nothing but the bytes. */
#include "frontd/route_path.h"

bool route_path_matches(const char *row, struct str path, struct str *parameter)
{
    const char *open = strchr(row, '{'), *after;
    size_t before_len, after_len;
    struct str segment;

    *parameter = STR_ABSENT;
    if (!open)
        return str_equal(path, str_from(row));
    before_len = (size_t)(open - row);
    after = strchr(open, '}') + 1;
    after_len = strlen(after);
    if (path.len <= before_len + after_len || memcmp(path.ptr, row, before_len) != 0 ||
        memcmp(path.ptr + path.len - after_len, after, after_len) != 0)
        return false;
    segment = (struct str){path.ptr + before_len, path.len - before_len - after_len};
    if (memchr(segment.ptr, '/', segment.len))
        return false;
    *parameter = segment;
    return true;
}
