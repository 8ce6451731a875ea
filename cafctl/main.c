/* cafctl, the operator's command: a table of commands and nothing else.
 *
 * It runs as whoever calls it, with that user's rights in the database; it never runs as a daemon,
 * and no daemon needs it. Each command lives in a file of its own. */
#include "cafctl/command.h"

#include <stdio.h>
#include <string.h>

static const struct command commands[] = {
    {"migrate", command_migrate, "bring the database's schema, partitions and grants up to date"},
};

static void print_help(FILE *out)
{
    fputs("usage: cafctl COMMAND [OPTION]... [ARGUMENT]...\n"
          "       cafctl COMMAND --help | --help | --version\n\n"
          "commands:\n",
          out);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(out,
            "\nexit codes: %d done, %d failed or refused, %d wrong usage, %d something is pending "
            "(migrate --check)\n",
            EXIT_CODE_DONE, EXIT_CODE_FAILED, EXIT_CODE_USAGE, EXIT_CODE_PENDING);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* A report that was cut short (a full disk, a closed pipe) is a failure too. */
static int finish(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    perror("cafctl: standard output");
    return code == EXIT_CODE_DONE ? EXIT_CODE_FAILED : code;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2) {
        print_help(stderr);
        return EXIT_CODE_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return finish(EXIT_CODE_DONE);
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("cafctl " CAF_VERSION);
        return finish(EXIT_CODE_DONE);
    }
    const struct command *command = find_command(argv[1]);
    if (!command) {
        fprintf(stderr, "cafctl: no command '%s'; see cafctl --help\n", argv[1]);
        return EXIT_CODE_USAGE;
    }
    return finish(command->run(argc - 1, argv + 1));
}
