/* JSON bodies by tables: what each type of member takes at its bounds, what JSON is not taken at
 * all, and that every refusal is 400 with the member named. */
#include "common/memory.h"
#include "frontd/members.h"
#include "tests/unit/exchange_stand_in.h"

enum { HOST, TEXT, PRINTABLE, STRINGS, OBJECT, WIDE, COUNT };

static const struct member rows[COUNT] = {
    [HOST] = {"host", MEMBER_HOSTNAME, 1, 253, true},
    [TEXT] = {"text", MEMBER_TEXT, 0, 8, false},
    [PRINTABLE] = {"printable", MEMBER_PRINTABLE, 1, 8, false},
    [STRINGS] = {"strings", MEMBER_STRINGS, 3, 4, false},
    [OBJECT] = {"object", MEMBER_OBJECT, 0, 20, false},
    [WIDE] = {"wide", MEMBER_OBJECT, 0, 400, false},
};

/* Reads the body from a copy of exactly its bytes. */
static bool read_body(struct str body, char *values[COUNT])
{
    struct exchange exchange = {.body = {malloc(body.len ? body.len : 1), body.len}};
    bool good;

    if (body.len)
        memcpy((char *)exchange.body.ptr, body.ptr, body.len);
    forget_answer();
    good = members_read(&exchange, rows, COUNT, values);
    ASSERT_QUIETLY(answered.count == !good, "answered %d times", answered.count);
    free((char *)exchange.body.ptr);
    return good;
}

/* {"host":"h",NAME:VALUE} */
static bool read_member(int member, const char *value, char *values[COUNT])
{
    char body[4096];

    if (member == HOST)
        snprintf(body, sizeof(body), "{\"host\":%s}", value);
    else
        snprintf(body, sizeof(body), "{\"host\":\"h\",\"%s\":%s}", rows[member].name, value);
    return read_body(str_from(body), values);
}

/* ---- single members -------------------------------------------------------------------------- */

static const struct {
    int member;
    const char *value, *text; /* text NULL: refused */
} singles[] = {
    {TEXT, "\"\"", ""},
    {TEXT, "\"12345678\"", "12345678"},
    {TEXT, "\"123456789\"", NULL},
    {TEXT, "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\"", "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"},
    {TEXT, "\"\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9.\"", NULL}, /* bytes are counted */
    {TEXT, "\"\\u00e9\\n\\t\\\"\\/\\\\\"", "\xc3\xa9\n\t\"/\\"},
    {TEXT, "\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80"},
    {PRINTABLE, "\"\"", NULL},
    {PRINTABLE, "\" ~\"", " ~"},
    {PRINTABLE, "\"12345678\"", "12345678"},
    {PRINTABLE, "\"123456789\"", NULL},
    {PRINTABLE, "\"\\u0041\"", "A"},
    {PRINTABLE, "\"a\\tb\"", NULL},
    {PRINTABLE, "\"a\\u007fb\"", NULL},
    {PRINTABLE, "\"\xc3\xa9\"", NULL},
    {STRINGS, "[]", "[]"},
    {STRINGS, "[ \"a\" , \"\" ]", "[\"a\",\"\"]"},
    {STRINGS, "[\"1234\",\"1234\",\"1234\"]", "[\"1234\",\"1234\",\"1234\"]"},
    {STRINGS, "[\"a\",\"a\",\"a\",\"a\"]", NULL},
    {STRINGS, "[\"12345\"]", NULL},
    {STRINGS, "[\"\\u00e9\\u00e9\"]", "[\"\xc3\xa9\xc3\xa9\"]"},
    {STRINGS, "[\"\\u00e9\\u00e9.\"]", NULL},
    {STRINGS, "[\"a\",1]", NULL},
    {STRINGS, "[null]", NULL},
    {STRINGS, "[[\"a\"]]", NULL},
    {OBJECT, "{}", "{}"},
    {OBJECT, "{ \"b\" : [ 1 , true , null ] }", "{\"b\":[1,true,null]}"},
    {OBJECT, "{\"b\":1,\"a\":2}", "{\"b\":1,\"a\":2}"},               /* the order stays */
    {OBJECT, "{\"k\":\"123456789012\"}", "{\"k\":\"123456789012\"}"}, /* 20 bytes */
    {OBJECT, "{  \"k\"  :  \"123456789012\"  }", "{\"k\":\"123456789012\"}"},
    {OBJECT, "{\"k\":\"1234567890123\"}", NULL},
    {HOST, "\"h\"", "h"},
    {HOST, "\"Web-1.Example.COM\"", "web-1.example.com"},
    {HOST, "\"web.example.com.\"", "web.example.com"},
    {HOST, "\"10.0.0.1\"", "10.0.0.1"},
    {HOST, "\"1a.2b\"", "1a.2b"},
    {HOST, "\"a--b\"", "a--b"},
    {HOST, "\"\"", NULL},
    {HOST, "\".\"", NULL},
    {HOST, "\"a..\"", NULL},
    {HOST, "\".a\"", NULL},
    {HOST, "\"a..b\"", NULL},
    {HOST, "\"-a\"", NULL},
    {HOST, "\"a-\"", NULL},
    {HOST, "\"a.-b\"", NULL},
    {HOST, "\"a-.b\"", NULL},
    {HOST, "\"a-.\"", NULL},
    {HOST, "\"a_b\"", NULL},
    {HOST, "\"a b\"", NULL},
    {HOST, "\"a \"", NULL},
    {HOST, "\"a/b\"", NULL},
    {HOST, "\"a:1\"", NULL},
    {HOST, "\"[::1]\"", NULL},
    {HOST, "\"*.a\"", NULL},
    {HOST, "\"a\\n\"", NULL},
    {HOST, "\"h\xc3\xa9\"", NULL},
};

START_TEST(a_member_is_taken_within_its_bounds)
{
    const int member = singles[_i].member;
    char *values[COUNT], name[32];

    if (!singles[_i].text) {
        ck_assert(!read_member(member, singles[_i].value, values));
        snprintf(name, sizeof(name), "%s: not accepted", rows[member].name);
        assert_refused(name);
        return;
    }
    ck_assert_msg(read_member(member, singles[_i].value, values), "%s", answered.message);
    ck_assert_str_eq(values[member], singles[_i].text);
    for (int i = HOST + 1; i < COUNT; i++)
        ck_assert(i == member || !values[i]);
    members_free(values, COUNT);
}
END_TEST

/* A host name of len bytes, in labels of at most `label`, as a JSON string. */
static char *long_name(char name[512], size_t len, size_t label, const char *end)
{
    snprintf(name, 512, "\"%0*d%s\"", (int)len, 0, end);
    for (size_t i = label; i < len; i += label + 1)
        name[1 + i] = '.';
    return name;
}

START_TEST(a_label_is_at_most_63_bytes_and_a_name_at_most_253)
{
    char *values[COUNT], name[512];

    ck_assert(read_member(HOST, long_name(name, 63, 63, ""), values));
    members_free(values, COUNT);
    ck_assert(!read_member(HOST, long_name(name, 64, 64, ""), values));
    ck_assert(read_member(HOST, long_name(name, 253, 62, ""), values));
    ck_assert_uint_eq(strlen(values[HOST]), 253);
    members_free(values, COUNT);
    ck_assert(read_member(HOST, long_name(name, 253, 62, "."), values)); /* the dot goes */
    ck_assert_uint_eq(strlen(values[HOST]), 253);
    members_free(values, COUNT);
    ck_assert(!read_member(HOST, long_name(name, 254, 62, ""), values));
    ck_assert(!read_member(HOST, long_name(name, 253, 62, ".."), values));
}
END_TEST

static const struct {
    const char *json;
    unsigned fits; /* members, as bits */
} types[] = {
    {"true", 0},
    {"false", 0},
    {"0", 0},
    {"-1", 0},
    {"1.5", 0},
    {"\"a\"", 1 << HOST | 1 << TEXT | 1 << PRINTABLE},
    {"[]", 1 << STRINGS},
    {"[\"a\"]", 1 << STRINGS},
    {"[1]", 0},
    {"{}", 1 << OBJECT | 1 << WIDE},
    {"{\"a\":1}", 1 << OBJECT | 1 << WIDE},
};

START_TEST(a_member_of_another_type_is_refused)
{
    for (int member = 0; member < COUNT; member++) {
        char *values[COUNT];
        bool good = read_member(member, types[_i].json, values);

        ck_assert_msg(good == (types[_i].fits >> member & 1), "%s as %s", types[_i].json,
                      rows[member].name);
        if (good)
            members_free(values, COUNT);
    }
}
END_TEST

START_TEST(null_is_absent)
{
    char *values[COUNT];

    ck_assert(read_body(STR("{\"host\":\"h\",\"text\":null,\"printable\":null,\"strings\":null,"
                            "\"object\":null}"),
                        values));
    for (int i = HOST + 1; i < COUNT; i++)
        ck_assert_ptr_null(values[i]);
    members_free(values, COUNT);
    ck_assert(!read_member(HOST, "null", values));
    assert_refused("host: missing");
}
END_TEST

START_TEST(an_optional_member_may_be_missing_and_a_required_one_not)
{
    static const struct str without[] = {STR(""), STR("{}"), STR(" {\n}\t"),
                                         STR("{\"text\":\"a\"}"),
                                         STR("{\"Host\":\"h\",\"host \":\"h\"}")};
    char *values[COUNT];

    for (size_t i = 0; i < COUNT_OF(without); i++) {
        ck_assert(!read_body(without[i], values));
        assert_refused("host: missing");
    }
}
END_TEST

START_TEST(what_no_row_names_is_ignored)
{
    char *values[COUNT];

    ck_assert(
        read_body(STR("{\"x\":[{\"host\":1}],\"host\":\"h\",\"agent_id\":\"other\"}"), values));
    ck_assert_str_eq(values[HOST], "h");
    members_free(values, COUNT);
}
END_TEST

/* ---- bodies ---------------------------------------------------------------------------------- */

static const struct {
    struct str body;
    const char *message;
} wrong_bodies[] = {
    {STR(" "), "body: not JSON"},
    {STR("host"), "body: not JSON"},
    {STR("{"), "body: not JSON"},
    {STR("{\"host\":\"h\""), "body: not JSON"},
    {STR("{\"host\":\"h\"}}"), "body: not JSON"},
    {STR("{\"host\":\"h\"}{\"host\":\"h\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\"} x"), "body: not JSON"},
    {STR("{\"host\":\"h\"}\0"), "body: not JSON"},
    {STR("\0{\"host\":\"h\"}"), "body: not JSON"},
    {STR("\xef\xbb\xbf{\"host\":\"h\"}"), "body: not"},
    {STR("{\"host\":\"h\",}"), "body: not JSON"},
    {STR("{'host':'h'}"), "body: not JSON"},
    {STR("{host:\"h\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\"/**/}"), "body: not JSON"},
    {STR("{\"host\":h}"), "body: not JSON"},
    {STR("{\"host\":\"a\tb\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":01}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":+1}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":.5}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":NaN}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":1e999}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":\"\\x\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":\"\\u0000\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\\u0000y\":1}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":\"\\ud800\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":\"\\udc00\\ud800\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":\"\xff\"}"), "body: not"},
    {STR("{\"host\":\"h\",\"x\":\"\xc3\"}"), "body: not"},
    {STR("{\"host\":\"h\",\"x\":\"\xc0\x80\"}"), "body: not"},
    {STR("{\"host\":\"h\",\"x\":\"\xed\xa0\x80\"}"), "body: not"},
    {STR("{\"host\":\"h\",\"\xff\":1}"), "body: not"},
    {STR("{\"host\":\"h\"}\xff"), "body: not"},
    {STR("[]"), "body: not a JSON object"},
    {STR("[{\"host\":\"h\"}]"), "body: not a JSON object"},
    {STR("\"host\""), "body: not"},
    {STR("1"), "body: not"},
    {STR("null"), "body: not"},
    /* duplicate keys, at any depth, whether a row names them or not */
    {STR("{\"host\":\"h\",\"host\":\"h\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"h\\u006fst\":\"i\"}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":1,\"x\":1}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"object\":{\"a\":1,\"a\":2}}"), "body: not JSON"},
    {STR("{\"host\":\"h\",\"x\":[[{\"a\":1,\"b\":2,\"a\":2}]]}"), "body: not JSON"},
};

/* ---- numbers --------------------------------------------------------------------------------- */

static const struct {
    const char *value, *text; /* text NULL: as value */
} spelled[] = {
    {"{\"a\":0.1}", NULL},
    {"{\"a\":-0}", NULL},
    {"{\"a\":[1.0,1.50,100,1E2,1e+02,1e-2,-1.5e-07]}", NULL},
    {"{\"a\":18446744073709551616,\"b\":-9223372036854775809}", NULL},
    {"{\"a\":123456789012345678901234567890123456789012345678901234567890}", NULL},
    {"{\"a\":0.1234567890123456789012345678901234567890}", NULL},
    {"{ \"a\" : [ 0.1 , { \"b\" : 2.0 } ] , \"c\" : 3e0 }", "{\"a\":[0.1,{\"b\":2.0}],\"c\":3e0}"},
    {"{\"1\":\"2\",\"\\\"3\":\"\\\\\",\"4\\u0035\":0.6,\"t\":[true,false,null]}",
     "{\"1\":\"2\",\"\\\"3\":\"\\\\\",\"45\":0.6,\"t\":[true,false,null]}"},
    {"{\"a\":1e308,\"b\":1E-308,\"c\":0e0000308}", NULL},
};

START_TEST(a_number_stays_as_it_was_spelled)
{
    static const char *const others[] = {
        "", "\"x\":9,", "\"x\":[8,{\"y\":-7.0,\"6\":\"5\"}],\"z\":4,", "\"object\":{\"k\":0.3},"};
    const char *text = spelled[_i].text ? spelled[_i].text : spelled[_i].value;
    char *values[COUNT], body[1024];

    for (size_t i = 0; i < COUNT_OF(others); i++) {
        snprintf(body, sizeof(body), "{%s\"wide\":%s,\"host\":\"h\",\"w\":2.5}", others[i],
                 spelled[_i].value);
        ck_assert_msg(read_body(str_from(body), values), "%s", answered.message);
        ck_assert_str_eq(values[WIDE], text);
        ck_assert(!values[OBJECT] || strcmp(values[OBJECT], "{\"k\":0.3}") == 0);
        members_free(values, COUNT);
    }
}
END_TEST

START_TEST(a_number_of_another_scale_is_refused)
{
    static const char *const beyond[] = {"1e309",
                                         "1e-309",
                                         "0e309",
                                         "0.0E+309",
                                         "1e400",
                                         "0e999999",
                                         "1e-999999",
                                         "1e-2147483648",
                                         "123e-0000000000000000000000000000000000000000000309",
                                         "0e99999999999999999999999999999999999999999999999999"};
    char *values[COUNT], value[128];

    for (size_t i = 0; i < COUNT_OF(beyond); i++) {
        snprintf(value, sizeof(value), "{\"k\":[1,%s]}", beyond[i]);
        ck_assert_msg(!read_member(WIDE, value, values), "%s", value);
        ck_assert_int_eq(answered.code, ERROR_VALIDATION);
        ck_assert_msg(strncmp(answered.message, "wide: not accepted", 18) == 0 ||
                          strstr(answered.message, "real number overflow"),
                      "%s", answered.message);
    }
}
END_TEST

START_TEST(the_size_is_that_of_the_spelled_text)
{
    char *values[COUNT];

    ck_assert(read_member(OBJECT, "{\"k\":0.100000000000}", values)); /* 20 bytes */
    members_free(values, COUNT);
    ck_assert(!read_member(OBJECT, "{\"k\":0.1000000000000}", values));
}
END_TEST

START_TEST(what_is_no_json_object_is_refused)
{
    char *values[COUNT];

    ck_assert(!read_body(wrong_bodies[_i].body, values));
    assert_refused(wrong_bodies[_i].message);
}
END_TEST

/* {"host":"h","x":… nested, the root counted, depth deep: arrays, objects, or both by turns. */
static bool read_nested(int depth, int kind)
{
    char *body = malloc((size_t)depth * 6 + 64), *at = body, *values[COUNT];
    bool good;

    at += sprintf(at, "{\"host\":\"h\",\"x\":");
    for (int i = 1; i < depth; i++)
        at += sprintf(at, "%s", (kind + i * (kind == 2)) % 2 ? "{\"a\":" : "[");
    at += sprintf(at, "1");
    for (int i = depth - 1; i >= 1; i--)
        at += sprintf(at, "%s", (kind + i * (kind == 2)) % 2 ? "}" : "]");
    at += sprintf(at, "}");
    good = read_body((struct str){body, (size_t)(at - body)}, values);
    if (good)
        members_free(values, COUNT);
    free(body);
    return good;
}

START_TEST(a_body_is_at_most_32_deep)
{
    static const int too_deep[] = {33, 34, 100, 2047, 2048, 2049, 10000};

    ck_assert(read_nested(1, _i));
    ck_assert(read_nested(32, _i));
    for (size_t i = 0; i < COUNT_OF(too_deep); i++) {
        ck_assert_msg(!read_nested(too_deep[i], _i), "%d deep", too_deep[i]);
        assert_refused("body: ");
    }
}
END_TEST

START_TEST(a_body_cut_or_changed_anywhere_does_no_harm)
{
    const struct str whole =
        STR("{\"host\":\"h\xc3\xa9.\\u00e9\",\"text\":\"\xf0\x9f\x92\xa9\",\"strings\":[\"a\"],"
            "\"object\":{\"a\":[1.5e3,-0,true,null]},\"x\":{\"y\":{}}}");
    char *values[COUNT], body[256];

    for (size_t len = 0; len < whole.len; len++)
        ASSERT_QUIETLY(!read_body((struct str){whole.ptr, len}, values), "cut at %zu", len);
    for (size_t bit = 0; bit < whole.len * 8; bit++) {
        memcpy(body, whole.ptr, whole.len);
        body[bit / 8] = (char)(body[bit / 8] ^ 1 << bit % 8);
        if (read_body((struct str){body, whole.len}, values))
            members_free(values, COUNT);
    }
}
END_TEST

START_TEST(a_refused_body_leaves_nothing_behind)
{
    char *values[COUNT]; /* the members before the wrong one were taken: a sanitizer sees a leak */

    ck_assert(
        !read_body(STR("{\"host\":\"h\",\"text\":\"a\",\"strings\":[],\"object\":1}"), values));
    assert_refused("object: not accepted; it must be an object of 0 to 20 bytes");
    ck_assert(!read_body(STR("{\"host\":\"h\",\"strings\":1}"), values));
    assert_refused("strings: not accepted; it must be an array of strings, at most 3 of at most 4");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("members");
    TCase *members = suite_case(suite, "members");
    TCase *numbers = suite_case(suite, "numbers");
    TCase *bodies = suite_case(suite, "bodies");

    tcase_add_loop_test(members, a_member_is_taken_within_its_bounds, 0, COUNT_OF(singles));
    tcase_add_test(members, a_label_is_at_most_63_bytes_and_a_name_at_most_253);
    tcase_add_loop_test(members, a_member_of_another_type_is_refused, 0, COUNT_OF(types));
    tcase_add_test(members, null_is_absent);
    tcase_add_test(members, an_optional_member_may_be_missing_and_a_required_one_not);
    tcase_add_test(members, what_no_row_names_is_ignored);
    tcase_add_loop_test(numbers, a_number_stays_as_it_was_spelled, 0, COUNT_OF(spelled));
    tcase_add_test(numbers, a_number_of_another_scale_is_refused);
    tcase_add_test(numbers, the_size_is_that_of_the_spelled_text);
    tcase_add_loop_test(bodies, what_is_no_json_object_is_refused, 0, COUNT_OF(wrong_bodies));
    tcase_add_loop_test(bodies, a_body_is_at_most_32_deep, 0, 3);
    tcase_add_test(bodies, a_body_cut_or_changed_anywhere_does_no_harm);
    tcase_add_test(bodies, a_refused_body_leaves_nothing_behind);
    return suite_run(suite);
}
