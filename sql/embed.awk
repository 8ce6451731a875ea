# Turns a file of named SQL statements into lines STATEMENT(name, "text") for C, so that SQL is read and edited as SQL.
# A statement begins after `-- name: IDENT` and ends before the next; lines that are only a comment or blank are dropped.
# A file without names gives nothing.

function fail(reason) {
    printf "%s:%d: %s\n", FILENAME, FNR, reason > "/dev/stderr"
    failed = 1
    exit 1
}

function finish_statement() {
    if (name != "" && !lines)
        fail("statement " name " is empty")
    if (name != "")
        print ")"
}

/^-- name:/ {
    finish_statement()
    name = $3
    if (NF != 3 || name !~ /^[a-z][a-z0-9_]*$/)
        fail("a statement's name is one word of lower-case letters, digits and _")
    if (name in seen)
        fail("statement " name " is there twice")
    seen[name] = 1
    lines = 0
    printf "STATEMENT(%s", name
    next
}

/^[ \t]*(--.*)?$/ { next }

name == "" { stray = 1; next }

{
    gsub(/[\\"]/, "\\\\&")
    gsub(/\t/, "\\t")
    printf "%s\n          \"%s\\n\"", lines++ ? "" : ",", $0
}

END {
    if (failed)
        exit 1
    finish_statement()
    if (stray && name != "")
        fail("there is SQL before the first name")
}
