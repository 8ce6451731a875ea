/* What cafctl's table of commands is made of. */
#ifndef CAF_CAFCTL_COMMAND_H
#define CAF_CAFCTL_COMMAND_H

/* What cafctl ends with; `cafctl --help` tells the same. */
enum exit_code {
    EXIT_CODE_DONE = 0,
    EXIT_CODE_FAILED = 1,
    EXIT_CODE_USAGE = 2,
    EXIT_CODE_PENDING = 3,
};

/* One line of the table. run gets the command line from the command's own name on, as main gets the
 * whole one, and returns an exit_code; it has told on stderr what went wrong. */
struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

/* `cafctl migrate`: brings the database's schema, partitions and grants up to date. */
int command_migrate(int argc, char **argv);

#endif
