/* Compares a request's path with the path of a row of routes.def. Touches nothing but the bytes. */
#include "frontd/route_path.h"

static bool ends_with(struct str path, struct str end)
{
    return path.len >= end.len && memcmp(path.ptr + path.len - end.len, end.ptr, end.len) == 0;
}

bool route_path_matches(const char *row, struct str path, struct str *parameter)
{
    const char *open = strchr(row, '{');
    struct str before, after, segment;

    *parameter = STR_ABSENT;
    if (!open)
        return str_equal(path, str_from(row));
    before = (struct str){row, (size_t)(open - row)};
    after = str_from(strchr(open, '}') + 1);
    if (path.len <= before.len + after.len || !str_starts(path, before) || !ends_with(path, after))
        return false;
    segment = (struct str){path.ptr + before.len, path.len - before.len - after.len};
    if (memchr(segment.ptr, '/', segment.len))
        return false;
    *parameter = segment;
    return true;
}
