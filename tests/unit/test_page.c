/* Cursors, and pages made of a statement's rows: where they end, and what stands behind the rows.
 */
#include "common/page.h"
#include "tests/unit/suite.h"

#include <event2/buffer.h>
#include <stdlib.h>

/* ---- cursors --------------------------------------------------------------------------------- */

static const struct {
    const char *text, *microseconds, *name; /* NULL: absent */
} cursors[] = {
    {NULL, NULL, NULL},
    {"0-a", "0", "a"},
    {"1767323045678901-spiffe://td/agent/acme/a", "1767323045678901", "spiffe://td/agent/acme/a"},
    {"999999999999999999-x", "999999999999999999", "x"},
    {"1-2-3", "1", "2-3"},
    {"1--", "1", "-"},
    {"-a", NULL, "a"},
    {"--1", NULL, "-1"},
};

static void assert_str(struct str s, const char *text)
{
    ck_assert(str_equal(s, str_from(text)));
}

START_TEST(a_cursor_is_read)
{
    struct page_cursor cursor;

    ck_assert(page_cursor_parse(str_from(cursors[_i].text), &cursor));
    assert_str(cursor.microseconds, cursors[_i].microseconds);
    assert_str(cursor.name, cursors[_i].name);
}
END_TEST

static const char *const no_cursors[] = {
    "", "-", "1", "1-", "x-a", "1x-a", "+1-a", " 1-a", "1 -a", "0x1-a", "1000000000000000000-a",
};

START_TEST(what_is_no_cursor_is_refused)
{
    struct page_cursor cursor;

    ck_assert(!page_cursor_parse(str_from(no_cursors[_i]), &cursor));
}
END_TEST

static const struct {
    const char *cursor;
    long long before_us;
    const char *microseconds, *name;
} bounds[] = {
    {NULL, 1000, "1000", NULL},  {"1001-a", 1000, "1000", NULL}, {"1000-a", 1000, "1000", NULL},
    {"999-a", 1000, "999", "a"}, {"0-a", 0, "0", NULL},          {"0-a", 1, "0", "a"},
    {"-a", 1000, NULL, "a"}, /* is among the last already */
};

START_TEST(a_bound_moves_a_cursor_only_on)
{
    struct page_cursor cursor;
    char text[STR_NUMBER_BYTES];

    ck_assert(page_cursor_parse(str_from(bounds[_i].cursor), &cursor));
    page_cursor_bound(&cursor, bounds[_i].before_us, text);
    assert_str(cursor.microseconds, bounds[_i].microseconds);
    assert_str(cursor.name, bounds[_i].name);
}
END_TEST

/* ---- pages ----------------------------------------------------------------------------------- */

enum { ROWS_MAX = 16 };

/* A result of so many columns; a value NULL is SQL's. */
static PGresult *result_new(int columns)
{
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PGresAttDesc descriptions[3] = {{.name = "row"}, {.name = "cursor"}, {.name = "total"}};

    ck_assert(PQsetResultAttrs(result, columns, descriptions));
    return result;
}

static void set(PGresult *result, int row, int column, const char *value)
{
    char *copy = value ? strdup(value) : NULL;

    ck_assert(PQsetvalue(result, row, column, copy, value ? (int)strlen(value) : -1));
    free(copy);
}

/* Builds the page of the result's rows and compares it with text. */
static void assert_page(PGresult *result, int limit, const char *text)
{
    int rows[ROWS_MAX];
    struct pg_answer answer = {.result = result, .rows = rows, .row_count = PQntuples(result)};
    struct evbuffer *page;
    struct str built;

    for (int i = 0; i < ROWS_MAX; i++)
        rows[i] = i;
    page = page_build("things", &answer, limit);
    built = page_text(page);
    ck_assert_msg(str_equal(built, str_from(text)), "%.*s",
                  (int)(built.len > 400 ? 400 : built.len), built.ptr);
    evbuffer_free(page);
    PQclear(result);
}

static PGresult *three_rows(int columns)
{
    PGresult *result = result_new(columns);
    const char *const rows[] = {"{\"a\":1}", "{\"a\":2}", "{\"a\":3}"};
    const char *const names[] = {"\"9-x\"", "\"8-\\\"y\"", "\"7-z\""};

    for (int i = 0; i < 3; i++) {
        set(result, i, 0, rows[i]);
        set(result, i, 1, names[i]);
    }
    return result;
}

START_TEST(a_page_with_room_is_the_last)
{
    assert_page(three_rows(2), 3,
                "{\"things\":[{\"a\":1},{\"a\":2},{\"a\":3}],\"next_cursor\":null,\"count\":3}");
}
END_TEST

START_TEST(a_row_too_many_makes_a_next_page)
{
    assert_page(three_rows(2), 2,
                "{\"things\":[{\"a\":1},{\"a\":2}],\"next_cursor\":\"8-\\\"y\",\"count\":2}");
}
END_TEST

START_TEST(no_rows_are_an_empty_page)
{
    assert_page(result_new(2), 5, "{\"things\":[],\"next_cursor\":null,\"count\":0}");
}
END_TEST

START_TEST(the_total_comes_with_every_row)
{
    PGresult *result = three_rows(3);

    for (int i = 0; i < 3; i++)
        set(result, i, 2, "77");
    assert_page(result, 1,
                "{\"things\":[{\"a\":1}],\"next_cursor\":\"9-x\",\"count\":1,\"total\":77}");
}
END_TEST

START_TEST(a_total_that_is_null_was_not_asked_for)
{
    PGresult *result = three_rows(3);

    for (int i = 0; i < 3; i++)
        set(result, i, 2, NULL);
    assert_page(result, 1, "{\"things\":[{\"a\":1}],\"next_cursor\":\"9-x\",\"count\":1}");
}
END_TEST

START_TEST(a_row_of_nothing_carries_the_total)
{
    PGresult *result = result_new(3);

    set(result, 0, 0, NULL);
    set(result, 0, 1, NULL);
    set(result, 0, 2, "5");
    assert_page(result, 3, "{\"things\":[],\"next_cursor\":null,\"count\":0,\"total\":5}");
}
END_TEST

/* Two rows whose page, up to the second, has so many bytes: what the page's end brings is not
 * counted. */
static int rows_on_page_of(size_t bytes)
{
    static const char head[] = "{\"things\":[1,";
    size_t len = bytes - (sizeof(head) - 1);
    char *row = malloc(len + 1);
    int rows[] = {0, 1};
    PGresult *result = result_new(2);
    struct pg_answer answer = {.result = result, .rows = rows, .row_count = 2};
    struct evbuffer *page;
    struct str text;
    int count;

    memset(row, '7', len);
    row[len] = '\0';
    set(result, 0, 0, "1");
    set(result, 0, 1, "\"1-a\"");
    set(result, 1, 0, row);
    set(result, 1, 1, "\"0-b\"");
    page = page_build("things", &answer, 10);
    text = page_text(page);
    count = text.ptr[text.len - 2] - '0';
    evbuffer_free(page);
    PQclear(result);
    free(row);
    return count;
}

START_TEST(a_page_ends_at_its_bytes)
{
    ck_assert_int_eq(rows_on_page_of(PAGE_BYTES - 1), 2);
    ck_assert_int_eq(rows_on_page_of(PAGE_BYTES), 2);
    ck_assert_int_eq(rows_on_page_of(PAGE_BYTES + 1), 1);
}
END_TEST

START_TEST(the_first_row_is_on_the_page_however_long)
{
    size_t len = PAGE_BYTES + 10;
    char *row = malloc(len + 1), *wanted = malloc(len + 100);
    PGresult *result = three_rows(2);

    memset(row, '7', len);
    row[len] = '\0';
    set(result, 0, 0, row);
    snprintf(wanted, len + 100, "{\"things\":[%s],\"next_cursor\":\"9-x\",\"count\":1}", row);
    assert_page(result, 3, wanted);
    free(row);
    free(wanted);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page");
    TCase *places = suite_case(suite, "cursors"), *pages = suite_case(suite, "pages");

    tcase_add_loop_test(places, a_cursor_is_read, 0, COUNT_OF(cursors));
    tcase_add_loop_test(places, what_is_no_cursor_is_refused, 0, COUNT_OF(no_cursors));
    tcase_add_loop_test(places, a_bound_moves_a_cursor_only_on, 0, COUNT_OF(bounds));
    tcase_add_test(pages, a_page_with_room_is_the_last);
    tcase_add_test(pages, a_row_too_many_makes_a_next_page);
    tcase_add_test(pages, no_rows_are_an_empty_page);
    tcase_add_test(pages, the_total_comes_with_every_row);
    tcase_add_test(pages, a_total_that_is_null_was_not_asked_for);
    tcase_add_test(pages, a_row_of_nothing_carries_the_total);
    tcase_add_test(pages, a_page_ends_at_its_bytes);
    tcase_add_test(pages, the_first_row_is_on_the_page_however_long);
    return suite_run(suite);
}
