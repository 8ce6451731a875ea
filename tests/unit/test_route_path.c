/* Paths of routes, with and without a {name}, against paths of requests: bytes, nothing decoded. */
#include "frontd/route_path.h"
#include "tests/unit/suite.h"

#include <stdlib.h>

/* Matches a copy of exactly the path's bytes; the parameter as its offset and length. */
static bool matches(const char *row, const char *path, size_t path_len, size_t *at, size_t *len)
{
    char *copy = malloc(path_len ? path_len : 1);
    struct str parameter;
    bool match;

    memcpy(copy, path, path_len);
    match = route_path_matches(row, (struct str){copy, path_len}, &parameter);
    *at = parameter.ptr ? (size_t)(parameter.ptr - copy) : 0;
    *len = parameter.len;
    free(copy);
    return match;
}

static const struct {
    const char *row, *path, *parameter; /* parameter "": the row has none */
} matching[] = {
    {"/livez", "/livez", ""},       {"/v1/mesh/agents", "/v1/mesh/agents", ""},
    {"/a/{id}", "/a/b", "b"},       {"/a/{id}", "/a/agent-1", "agent-1"},
    {"/a/{id}", "/a/{id}", "{id}"}, {"/a/{id}", "/a/%2e%2E", "%2e%2E"}, /* nothing is decoded */
    {"/a/{id}", "/a/..", ".."},     {"/a/{id}", "/a/~!$&'()*+,;=:@", "~!$&'()*+,;=:@"},
    {"/a/{id}/b", "/a/x/b", "x"},   {"/a/{id}/b", "/a/b/b", "b"},
    {"/{id}", "/x", "x"},
};

START_TEST(a_path_matches)
{
    size_t at, len, wanted = strlen(matching[_i].parameter);

    ck_assert(matches(matching[_i].row, matching[_i].path, strlen(matching[_i].path), &at, &len));
    ck_assert_uint_eq(len, wanted);
    ck_assert(strncmp(matching[_i].path + at, matching[_i].parameter, wanted) == 0);
}
END_TEST

static const struct {
    const char *row, *path;
} others[] = {
    {"/livez", ""},           {"/livez", "/livez/"},     {"/livez", "/live"},
    {"/livez", "/livezz"},    {"/livez", "/LIVEZ"},      {"/livez", "//livez"},
    {"/a/{id}", ""},          {"/a/{id}", "/"},          {"/a/{id}", "/a"},
    {"/a/{id}", "/a/"}, /* a segment is not empty */
    {"/a/{id}", "/a//"},      {"/a/{id}", "/a//b"},      {"/a/{id}", "/a/b/"},
    {"/a/{id}", "/a/b/c"},    {"/a/{id}", "/A/b"},       {"/a/{id}", "/b/b"},
    {"/a/{id}", "x/a/b"},     {"/a/{id}/b", "/a/b"}, /* the ends may not share bytes */
    {"/a/{id}/b", "/a/x"},    {"/a/{id}/b", "/a//b"},    {"/a/{id}/b", "/a/x/c"},
    {"/a/{id}/b", "/a/x/b/"}, {"/a/{id}/b", "/a/x/y/b"},
};

START_TEST(another_path_does_not)
{
    size_t at, len;

    ck_assert(!matches(others[_i].row, others[_i].path, strlen(others[_i].path), &at, &len));
    ck_assert_uint_eq(len, 0);
}
END_TEST

START_TEST(any_byte_but_a_slash_can_be_in_a_segment)
{
    size_t at, len;

    for (int c = 0; c < 256; c++) {
        char path[] = {'/', 'a', '/', 'x', (char)c, 'y'};
        bool match = matches("/a/{id}", path, sizeof(path), &at, &len);

        ASSERT_QUIETLY(match == (c != '/'), "byte %d", c);
        ASSERT_QUIETLY(len == (match ? 3U : 0U), "byte %d: %zu", c, len);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("route_path");
    TCase *tests = suite_case(suite, "paths");

    tcase_add_loop_test(tests, a_path_matches, 0, COUNT_OF(matching));
    tcase_add_loop_test(tests, another_path_does_not, 0, COUNT_OF(others));
    tcase_add_test(tests, any_byte_but_a_slash_can_be_in_a_segment);
    return suite_run(suite);
}
