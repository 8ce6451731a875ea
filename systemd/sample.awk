# Makes a sample configuration of what `DAEMON -o` prints: every option with its default, its range and its meaning.
# usage: DAEMON -o | awk -v daemon=DAEMON -f sample.awk

# A section of lines that the operator names has none at first: what one may look like is shown instead.
BEGIN {
    example["operators"] = "# acme/admin = admin\n# acme/* = auditor"
}

# "section.key = default"
/^[^ ]/ {
    dot = index($0, ".")
    equals = index($0, " =")
    section = substr($0, 1, dot - 1)
    key = substr($0, dot + 1, equals - dot - 1)
    value = substr($0, equals + 3)
    if (!(section in text))
        order[++sections] = section
}

# "    type range: meaning"
/^    / {
    colon = index($0, ": ")
    range = substr($0, 5, colon - 5)
    meaning = substr($0, colon + 2)
    if (range == "choice") {
        range = value
        gsub(/\|/, ", ", range)
        range = "one of " range
        sub(/\|.*/, "", value)
    }
    line = key " = " value
    sub(/ $/, "", line)
    if (key == "*")
        line = example[section]
    text[section] = text[section] "\n# " meaning "\n# (" range ")\n" line "\n"
}

END {
    print "# The configuration of caf's " daemon ", every option with its default. `" daemon " -t -c FILE` checks a file."
    for (i = 1; i <= sections; i++)
        printf "\n[%s]%s", order[i], text[order[i]]
}
