/* frontd's option table, shared by the supervisor, which reads the file, and the workers, which get
 * its text. */
#include "frontd/options.h"

const struct config_option frontd_option_table[] = {
#define CONFIG_STRUCT struct frontd_options
#define OPTION        CONFIG_ROW
#include "frontd/options.def"
#undef OPTION
    CONFIG_END,
};
