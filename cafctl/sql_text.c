/* The lexer behind sql_text.h: just enough of PostgreSQL's lexical rules to find the semicolons
 * that end statements.
 *
 * Touches nothing but the text it is given. A mistake here cannot run half a statement unseen:
 * PostgreSQL refuses what is cut wrongly, and the whole file's transaction with it. */
#include "cafctl/sql_text.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || (unsigned char)c >= 0x80;
}

/* All skip_ functions return the byte behind what they skip, or NULL where it does not end. */

static const char *skip_quoted(const char *at, bool backslash_escapes)
{
    const char quote = *at++;
    for (; *at; at++) {
        if (backslash_escapes && *at == '\\' && at[1])
            at++;
        else if (*at == quote && at[1] == quote)
            at++;
        else if (*at == quote)
            return at + 1;
    }
    return NULL;
}

static const char *skip_line_comment(const char *at)
{
    return at + strcspn(at, "\n");
}

static const char *skip_block_comment(const char *at)
{
    unsigned depth = 0;
    while (*at) {
        if (at[0] == '/' && at[1] == '*') {
            depth++;
            at += 2;
        } else if (at[0] == '*' && at[1] == '/') {
            at += 2;
            if (--depth == 0)
                return at;
        } else {
            at++;
        }
    }
    return NULL;
}

/* A dollar-quoted string, or only the dollar when it is a parameter such as $1. */
static const char *skip_dollar(const char *at)
{
    const char *tag_end = at + 1;
    if (!isdigit((unsigned char)*tag_end))
        while (is_word(*tag_end))
            tag_end++;
    if (*tag_end != '$')
        return at + 1;
    size_t tag_len = (size_t)(tag_end - at) + 1;
    for (const char *close = tag_end + 1; (close = strchr(close, '$')); close++)
        if (strncmp(close, at, tag_len) == 0)
            return close + tag_len;
    return NULL;
}

/* A name, keyword or number. A dollar inside a name opens no string; an E alone before a quote
 * makes that string one with backslash escapes. */
static const char *skip_word(const char *at)
{
    const char *end = at;
    while (is_word(*end) || *end == '$')
        end++;
    if (*end == '\'' && end - at == 1 && (*at == 'e' || *at == 'E'))
        return skip_quoted(end, true);
    return end;
}

static const char *skip_token(const char *at)
{
    if (*at == '\'' || *at == '"')
        return skip_quoted(at, false);
    if (at[0] == '-' && at[1] == '-')
        return skip_line_comment(at);
    if (at[0] == '/' && at[1] == '*')
        return skip_block_comment(at);
    if (*at == '$')
        return skip_dollar(at);
    return is_word(*at) ? skip_word(at) : at + 1;
}

/* White space, comments and empty statements. */
static const char *skip_between(const char *at)
{
    while (at && *at) {
        bool comment = (at[0] == '-' && at[1] == '-') || (at[0] == '/' && at[1] == '*');
        if (!comment && *at != ';' && !isspace((unsigned char)*at))
            break;
        at = skip_token(at);
    }
    return at;
}

static unsigned count_lines(const char *from, const char *to)
{
    unsigned lines = 0;
    for (; from < to; from++)
        lines += *from == '\n';
    return lines;
}

enum sql_found sql_next(struct sql_cursor *cursor, struct sql_statement *statement)
{
    const char *start = skip_between(cursor->at);
    *statement = (struct sql_statement){.start = start, .line = cursor->line};
    if (!start)
        return SQL_UNTERMINATED;
    statement->line += count_lines(cursor->at, start);
    if (!*start)
        return SQL_END;
    const char *end = start;
    while (end && *end && *end != ';')
        end = skip_token(end);
    if (!end)
        return SQL_UNTERMINATED;
    statement->len = (size_t)(end - start);
    cursor->line = statement->line + count_lines(start, end);
    cursor->at = *end ? end + 1 : end;
    return SQL_STATEMENT;
}

bool sql_controls_transaction(const struct sql_statement *statement)
{
    static const char *const words[] = {"abort",   "begin",    "commit", "end",
                                        "prepare", "rollback", "start"};
    size_t len = 0;
    while (len < statement->len && is_word(statement->start[len]))
        len++;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strlen(words[i]) == len && strncasecmp(words[i], statement->start, len) == 0)
            return true;
    return false;
}

unsigned sql_line_of(const struct sql_statement *statement, unsigned long position)
{
    const char *at = statement->start;
    const char *end = at + statement->len;
    while (at < end && position > 1) {
        at++;
        if (at == end || ((unsigned char)*at & 0xc0) != 0x80)
            position--;
    }
    return statement->line + count_lines(statement->start, at);
}
