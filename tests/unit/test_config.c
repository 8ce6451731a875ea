/* Configuration by tables: what each type takes and refuses, with file, line and reason; and that
 * what is printed reads back to the same. */
#include "common/config.h"

#include "common/memory.h"
#include "frontd/options.h"
#include "tests/unit/suite.h"

#include <unistd.h>

#define SAMPLE(OPTION)                                                                             \
    OPTION(text, name, TEXT, "dflt", 2, 8, "a text")                                               \
    OPTION(text, empty, TEXT, "", 0, 300, "a text that may be empty")                              \
    OPTION(list, words, LIST, "a, b", 1, 3, "a list")                                              \
    OPTION(list, none, LIST, "", 0, 2, "a list that may be empty")                                 \
    OPTION(number, port, NUMBER, "7", 5, 10, "a number")                                           \
    OPTION(number, big, NUMBER, "0", 0, 999999999999999999, "a big number")                        \
    OPTION(flag, on, FLAG, "yes", 0, 0, "a flag")                                                  \
    OPTION(flag, off, FLAG, "no", 0, 0, "a flag")                                                  \
    OPTION(choice, mode, CHOICE, "first|second|third", 0, 0, "a choice")                           \
    OPTION(map, lines, MAP, "", 0, 3, "lines of one's own")

struct sample {
    SAMPLE(CONFIG_MEMBER)
};

static const struct config_option options[] = {
#define CONFIG_STRUCT struct sample
    SAMPLE(CONFIG_ROW) CONFIG_END,
#undef CONFIG_STRUCT
};

static char error[256];

static int parse(struct sample *values, struct str text)
{
    *values = (struct sample){0};
    strcpy(error, "");
    return config_parse(options, values, text, "x.conf", error, sizeof(error));
}

static void assert_list(const struct config_list *list, const char *joined)
{
    char text[256] = "";

    for (size_t i = 0; i < list->count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s|", list->items[i]);
    ck_assert_str_eq(text, joined);
}

static void assert_map(const struct config_map *map, const char *joined)
{
    char text[256] = "";

    for (size_t i = 0; i < map->count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s>%s|", map->items[i].key,
                 map->items[i].value);
    ck_assert_str_eq(text, joined);
}

/* ---- what is taken --------------------------------------------------------------------------- */

static void assert_defaults(const struct sample *values)
{
    ck_assert_str_eq(values->text_name, "dflt");
    ck_assert_str_eq(values->text_empty, "");
    assert_list(&values->list_words, "a|b|");
    assert_list(&values->list_none, "");
    ck_assert_int_eq(values->number_port, 7);
    ck_assert_int_eq(values->number_big, 0);
    ck_assert(values->flag_on);
    ck_assert(!values->flag_off);
    ck_assert_int_eq(values->choice_mode, 0);
    assert_map(&values->map_lines, "");
}

START_TEST(what_is_not_given_has_its_default)
{
    static const struct str texts[] = {STR(""), STR("\n\n# a comment\n; another\n[text]\n[map]\n"),
                                       STR_ABSENT};
    struct sample values = {0};

    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        ck_assert_msg(parse(&values, texts[i]) == 0, "%s", error);
        assert_defaults(&values);
        config_free(options, &values);
    }
    ck_assert_int_eq(config_load(options, &values, NULL, error, sizeof(error)), 0);
    assert_defaults(&values);
    config_free(options, &values);
}
END_TEST

START_TEST(what_is_given_is_read)
{
    struct sample values;

    ck_assert_msg(parse(&values, STR("\xef\xbb\xbf[text]\r\n"
                                     "name:  a = b \r\n"
                                     "empty = c;d ; a comment\n"
                                     "[list]\n"
                                     "words = x, y\n"
                                     "none = ,,\n"
                                     "[number]\n"
                                     "port=10\n"
                                     "big = 999999999999999999\n"
                                     "[flag]\n"
                                     "on = no\n"
                                     "off = yes\n"
                                     "[choice]\n"
                                     "mode = third\n"
                                     "[map]\n"
                                     "b/* = two\n"
                                     "a = \n"
                                     "[list]\n"
                                     "words = z")) == 0,
                  "%s", error);
    ck_assert_str_eq(values.text_name, "a = b");
    ck_assert_str_eq(values.text_empty, "c;d");
    assert_list(&values.list_words, "x|y|z|");
    assert_list(&values.list_none, "");
    ck_assert_int_eq(values.number_port, 10);
    ck_assert_int_eq(values.number_big, 999999999999999999);
    ck_assert(!values.flag_on);
    ck_assert(values.flag_off);
    ck_assert_int_eq(values.choice_mode, 2);
    assert_map(&values.map_lines, "b/*>two|a>|");
    config_free(options, &values);
}
END_TEST

START_TEST(a_list_goes_on_in_indented_lines)
{
    struct sample values;

    ck_assert_msg(parse(&values, STR("[list]\nwords = x,\n  # a comment\n  y\n\tz\n")) == 0, "%s",
                  error);
    assert_list(&values.list_words, "x|y|z|");
    config_free(options, &values);
}
END_TEST

START_TEST(the_words_of_a_choice_are_counted_from_their_first)
{
    static const char *const words[] = {"first", "second", "third"};

    for (int i = 0; i < 3; i++) {
        struct sample values;
        char text[64];

        snprintf(text, sizeof(text), "[choice]\nmode = %s\n", words[i]);
        ck_assert_int_eq(parse(&values, str_from(text)), 0);
        ck_assert_int_eq(values.choice_mode, i);
        config_free(options, &values);
    }
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------- */

static const struct {
    struct str text;
    int line;
    const char *reason; /* the error holds it */
} refused[] = {
    {STR("[nothing]\nname = a\n"), 2, "[nothing] name is not an option"},
    {STR("[text]\n\nnames = a\n"), 3, "[text] names is not an option"},
    {STR("[text]\nNAME = aa\n"), 2, "[text] NAME is not an option"},
    {STR("name = aa\n"), 1, "name is not an option"},
    {STR("[Text]\nname = aa\n"), 2, "is not an option"},
    {STR("[text]\n= aa\n"), 2, "is not an option"},
    {STR("[text]\nname = aa\nname = aa\n"), 3, "[text] name is given twice"},
    {STR("[text]\nname = aa\n[flag]\n[text]\nname = bb\n"), 5, "is given twice"},
    {STR("[text]\nname = aa\n bb\n"), 3, "is given twice"},
    {STR("[text]\nname\n"), 2, "neither a [section] nor a key = value"},
    {STR("[text\nname = aa\n"), 1, "neither a [section] nor a key = value"},
    {STR("[text]\nname = a\n"), 2, "too short or too long"},
    {STR("[text]\nname =\n"), 2, "too short or too long"},
    {STR("[text]\nname = 123456789\n"), 2, "too short or too long"},
    {STR("[text]\nname = a\x01z\n"), 2, "not printable ASCII"},
    {STR("[text]\nname = a\tz\n"), 2, "not printable ASCII"},
    {STR("[text]\nname = a\x7fz\n"), 2, "not printable ASCII"},
    {STR("[text]\nname = h\xc3\xa9\n"), 2, "not printable ASCII"},
    {STR("[text]\nname = aa\0bb\n"), 2, "NUL"},
    {STR("[text]\nname = aa\0"), 2, "NUL"},
    {STR("[text]\n\0\nname = aa\n"), 2, "NUL"},
    {STR("[text]\nempty=;a\n"), 2, "begins with ';'"},
    {STR("[list]\nwords = a,;b\n"), 2, "begins with ';'"},
    {STR("[map]\na=;b\n"), 2, "begins with ';'"},
    {STR("[list]\nwords =\n"), 2, "too few"},
    {STR("[list]\nwords = , ,\n"), 2, "too few"},
    {STR("[list]\nwords = a b c d\n"), 2, "too many"},
    {STR("[list]\nwords = a, b\nwords = c,\nwords = d\n"), 4, "too many"},
    {STR("[list]\nwords = a, b\xff\n"), 2, "not printable ASCII"},
    {STR("[number]\nport = 4\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport = 11\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport =\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport = 7.0\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport = +7\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport = 0x7\n"), 2, "not a whole number in the range"},
    {STR("[number]\nport = 7 s\n"), 2, "not a whole number in the range"},
    {STR("[number]\nbig = -1\n"), 2, "not a whole number in the range"},
    {STR("[number]\nbig = 1000000000000000000\n"), 2, "not a whole number in the range"},
    {STR("[number]\nbig = 18446744073709551616\n"), 2, "not a whole number in the range"},
    {STR("[flag]\non = true\n"), 2, "neither yes nor no"},
    {STR("[flag]\non = Yes\n"), 2, "neither yes nor no"},
    {STR("[flag]\non =\n"), 2, "neither yes nor no"},
    {STR("[choice]\nmode = fourth\n"), 2, "not one of the words"},
    {STR("[choice]\nmode = first|second\n"), 2, "not one of the words"},
    {STR("[choice]\nmode = sec\n"), 2, "not one of the words"},
    {STR("[choice]\nmode =\n"), 2, "not one of the words"},
    {STR("[map]\na = 1\nb = 2\na = 3\n"), 4, "[map] a is given twice"},
    {STR("[map]\na = 1\nb = 2\nc = 3\nd = 4\n"), 5, "one too many"},
    {STR("[map]\na = 1\n= 2\n"), 3, "without a name"},
    {STR("[map]\na\xff = 1\n"), 2, "not printable ASCII"},
    {STR("[map]\na = \x01\n"), 2, "not printable ASCII"},
    {STR("# 1\n# 2\n[text]\nname = aa\n\n[number]\nport = x\n[flag]\non = x\n"), 7, "port"},
};

START_TEST(what_is_wrong_is_refused_with_its_line)
{
    struct sample values;
    char place[16];

    ck_assert_int_eq(parse(&values, refused[_i].text), -1);
    snprintf(place, sizeof(place), "x.conf:%d: ", refused[_i].line);
    ck_assert_msg(strncmp(error, place, strlen(place)) == 0, "%s", error);
    ck_assert_msg(strstr(error, refused[_i].reason) != NULL, "%s", error);
    config_free(options, &values);
}
END_TEST

/* Parses [text] and a line that begins so and is len bytes long, with its newline. */
static int parse_line(struct sample *values, const char *beginning, size_t len)
{
    char text[512] = "[text]\n", *line = text + strlen(text);

    memset(line, 'x', len - 1);
    memcpy(line, beginning, strlen(beginning));
    line[len - 1] = '\n';
    return parse(values, (struct str){text, strlen("[text]\n") + len});
}

START_TEST(a_line_is_at_most_199_bytes)
{
    struct sample values;

    ck_assert_msg(parse_line(&values, "empty = ", 199) == 0, "%s", error);
    ck_assert_uint_eq(strlen(values.text_empty), 199 - strlen("empty = \n"));
    config_free(options, &values);
    for (int len = 200; len < 400; len++) {
        ck_assert_int_eq(parse_line(&values, "empty = ", len), -1);
        ck_assert_str_eq(error, "x.conf:2: []  the line is too long");
        config_free(options, &values);
    }
    ck_assert_int_eq(parse_line(&values, "# ", 200), -1); /* a comment no less */
    config_free(options, &values);
}
END_TEST

START_TEST(a_line_that_could_not_be_printed_is_refused)
{
    struct sample values;

    ck_assert_msg(parse_line(&values, "empty=", 197) == 0, "%s", error);
    config_free(options, &values);
    ck_assert_int_eq(parse_line(&values, "empty=", 198), -1);
    ck_assert_str_eq(error, "x.conf:2: [text] empty is too long to be printed as one line");
    config_free(options, &values);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_an_error)
{
    struct sample values = {0};
    char path[] = "/tmp/caf-test-XXXXXX";
    int file = mkstemp(path);

    ck_assert_int_eq(write(file, "[number]\nport = 8\n", 18), 18);
    close(file);
    ck_assert_int_eq(config_load(options, &values, path, error, sizeof(error)), 0);
    ck_assert_int_eq(values.number_port, 8);
    config_free(options, &values);
    unlink(path);
    ck_assert_int_eq(config_load(options, &values, path, error, sizeof(error)), -1);
    ck_assert_msg(strstr(error, ":0: No such file") != NULL, "%s", error);
    config_free(options, &values);
    ck_assert_int_eq(config_load(options, &values, "/tmp", error, sizeof(error)), -1);
    ck_assert_str_eq(error, "/tmp:0: Is a directory");
    config_free(options, &values);
}
END_TEST

START_TEST(a_long_error_is_cut)
{
    struct sample values = {0};
    char small[10];

    ck_assert_int_eq(config_parse(options, &values, STR("[a]\nb = c\n"), "x.conf", small, 10), -1);
    ck_assert_str_eq(small, "x.conf:2:");
    config_free(options, &values);
}
END_TEST

/* ---- printing -------------------------------------------------------------------------------- */

/* What config_print writes; the caller frees it. */
static char *print(const struct config_option *table, const void *values)
{
    char *text;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    config_print(table, values, out);
    fclose(out);
    return text;
}

START_TEST(what_is_printed_reads_back_to_the_same)
{
    static const struct str texts[] = {
        STR(""),
        STR("[text]\nname=#;=a:\nempty = \"quoted\" [x]\n[flag]\non = "
            "no\n[choice]\nmode=second\n"),
        STR("[list]\nwords = x;,#y,[z]\nnone = =,:\n[map]\n*/?x = a = b\ny=\nz = c;\n"),
        STR("[list]\nwords = x\n  y\n[number]\nport = 0010\nbig = 123456789012345678\n"),
    };
    struct sample first, second;
    cleanup_free char *printed = NULL, *again = NULL;

    ck_assert_msg(parse(&first, texts[_i]) == 0, "%s", error);
    printed = print(options, &first);
    ck_assert_msg(parse(&second, str_from(printed)) == 0, "%s in:\n%s", error, printed);
    again = print(options, &second);
    ck_assert_str_eq(again, printed);
    ck_assert_str_eq(first.text_name, second.text_name);
    ck_assert_uint_eq(first.list_words.count, second.list_words.count);
    ck_assert_uint_eq(first.map_lines.count, second.map_lines.count);
    ck_assert_int_eq(first.number_port, second.number_port);
    ck_assert_int_eq(first.flag_on, second.flag_on);
    ck_assert_int_eq(first.choice_mode, second.choice_mode);
    config_free(options, &first);
    config_free(options, &second);
}
END_TEST

START_TEST(sections_are_printed_once_in_the_tables_order)
{
    struct sample values;
    cleanup_free char *printed = NULL;

    parse(&values, STR("[map]\nb = 1\na = 2\n[number]\nport = 8\n"));
    printed = print(options, &values);
    ck_assert_str_eq(printed,
                     "[text]\nname = dflt\nempty = \n\n[list]\nwords = a\nwords = b\nnone =\n\n"
                     "[number]\nport = 8\nbig = 0\n\n[flag]\non = yes\noff = no\n\n"
                     "[choice]\nmode = first\n\n[map]\nb = 1\na = 2\n");
    config_free(options, &values);
}
END_TEST

START_TEST(the_table_is_printed_an_option_at_a_time)
{
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");

    config_print_table(options, out);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "text.name = dflt\n    text, bytes 2 to 8: a text\n"));
    ck_assert_ptr_nonnull(strstr(text, "number.port = 7\n    number 5 to 10: a number\n"));
    ck_assert_ptr_nonnull(strstr(text, "flag.on = yes\n    yes or no: a flag\n"));
    ck_assert_ptr_nonnull(strstr(text, "choice.mode = first|second|third\n    choice: a choice\n"));
    ck_assert_ptr_nonnull(strstr(text, "map.* = \n    lines 0 to 3: lines of one's own\n"));
}
END_TEST

/* ---- the real tables ------------------------------------------------------------------------- */

struct keeper_sample {
#define OPTION CONFIG_MEMBER
#include "frontd/keeper_options.def"
#undef OPTION
};

static const struct config_option keeper_options[] = {
#define CONFIG_STRUCT struct keeper_sample
#define OPTION        CONFIG_ROW
#include "frontd/keeper_options.def"
#undef OPTION
#undef CONFIG_STRUCT
    CONFIG_END,
};

struct back_sample {
#define BACK_NAME "registryd"
#define BACK_ROLE "caf_registry"
#define OPTION    CONFIG_MEMBER
#include "common/options_back.def"
#include "eventd/options.def"
#include "registryd/options.def"
#undef OPTION
};

static const struct config_option back_options[] = {
#define CONFIG_STRUCT struct back_sample
#define OPTION        CONFIG_ROW
#include "common/options_back.def"
#include "eventd/options.def"
#include "registryd/options.def"
#undef OPTION
#undef CONFIG_STRUCT
    CONFIG_END,
};

START_TEST(every_default_is_one_that_a_file_could_give)
{
    static const struct config_option *const tables[] = {frontd_option_table, keeper_options,
                                                         back_options};
    const struct config_option *table = tables[_i];
    void *values = calloc(1, sizeof(struct frontd_options) + sizeof(struct back_sample)),
         *again = calloc(1, sizeof(struct frontd_options) + sizeof(struct back_sample));
    cleanup_free char *printed = NULL, *reprinted = NULL;

    ck_assert_int_eq(config_load(table, values, NULL, error, sizeof(error)), 0);
    printed = print(table, values);
    ck_assert_msg(config_parse(table, again, str_from(printed), "x", error, sizeof(error)) == 0,
                  "%s", error);
    reprinted = print(table, again);
    ck_assert_str_eq(reprinted, printed);
    for (const struct config_option *option = table; option->section; option++)
        if (option->type == CONFIG_NUMBER)
            ck_assert_int_eq(*(int64_t *)((char *)values + option->offset),
                             atoll(option->fallback));
    config_free(table, values);
    config_free(table, again);
    free(values);
    free(again);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *taken = suite_case(suite, "taken");
    TCase *wrong = suite_case(suite, "wrong");
    TCase *printed = suite_case(suite, "printed");

    tcase_add_test(taken, what_is_not_given_has_its_default);
    tcase_add_test(taken, what_is_given_is_read);
    tcase_add_test(taken, a_list_goes_on_in_indented_lines);
    tcase_add_test(taken, the_words_of_a_choice_are_counted_from_their_first);
    tcase_add_loop_test(wrong, what_is_wrong_is_refused_with_its_line, 0, COUNT_OF(refused));
    tcase_add_test(wrong, a_line_is_at_most_199_bytes);
    tcase_add_test(wrong, a_line_that_could_not_be_printed_is_refused);
    tcase_add_test(wrong, a_file_that_cannot_be_read_is_an_error);
    tcase_add_test(wrong, a_long_error_is_cut);
    tcase_add_loop_test(printed, what_is_printed_reads_back_to_the_same, 0, 4);
    tcase_add_test(printed, sections_are_printed_once_in_the_tables_order);
    tcase_add_test(printed, the_table_is_printed_an_option_at_a_time);
    tcase_add_loop_test(printed, every_default_is_one_that_a_file_could_give, 0, 3);
    return suite_run(suite);
}
