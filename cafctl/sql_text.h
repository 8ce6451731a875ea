/* Cuts the text of an SQL file into its statements, so that a failing one can be told by its line.
 */
#ifndef CAF_CAFCTL_SQL_TEXT_H
#define CAF_CAFCTL_SQL_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Where reading stands. Start with {text, 1}. */
struct sql_cursor {
    const char *at;
    unsigned line;
};

/* One statement, without its semicolon: a view into the text. line: of its first byte, from 1. */
struct sql_statement {
    const char *start;
    size_t len;
    unsigned line;
};

enum sql_found { SQL_STATEMENT, SQL_END, SQL_UNTERMINATED };

/* Finds the next statement and moves the cursor behind it. Knows PostgreSQL's strings ('…', E'…',
 * "…", $tag$…$tag$) and comments (nested ones too), with standard_conforming_strings on; not the
 * body of BEGIN ATOMIC. At an unterminated string or comment, statement->line tells where the
 * statement began. */
enum sql_found sql_next(struct sql_cursor *cursor, struct sql_statement *statement);

/* Whether the statement begins, ends or leaves a transaction: BEGIN, COMMIT, PREPARE TRANSACTION
 * and the like. */
bool sql_controls_transaction(const struct sql_statement *statement);

/* The line of the file for PostgreSQL's statement position (characters of UTF-8, from 1; 0:
 * unknown). */
unsigned sql_line_of(const struct sql_statement *statement, unsigned long position);

#endif
