/* The table of eventd's statements: the name, the text (from sql/eventd.sql) and the shape of each.
 * Says nothing to the database itself. */
#include "eventd/eventd.h"

#define STATEMENT(name, text) static const char sql_##name[] = text;
#include "eventd_sql.h"
#undef STATEMENT

const struct pg_statement eventd_statements[] = {
    [STATEMENT_NOTE] = {"note", sql_note, 12, true},
    [STATEMENT_KNOWN] = {"known", sql_known, 4, true},
    [STATEMENT_COLLECT] = {"collect", sql_collect, 2, true},
    [STATEMENT_SWEEP] = {"sweep", sql_sweep, 2, false},
    [STATEMENT_LIST] = {"list", sql_list, 5, false},
    [STATEMENT_LIST_FILTERED] = {"list_filtered", sql_list_filtered, 9, false},
    {NULL, NULL, 0, false},
};
