/* frontd's option table, shared by the supervisor, which reads the file, and the workers, which get
 * its text. */
#include "frontd/options.h"

#include "frontd/address.h"
#include "frontd/identity.h"

#include <stdlib.h>

const struct config_option frontd_option_table[] = {
#define CONFIG_STRUCT struct frontd_options
#define OPTION        CONFIG_ROW
#include "frontd/options.def"
#undef OPTION
    CONFIG_END,
};

const char *frontd_check_options(const void *values)
{
    const struct frontd_options *options = values;
    const char *why = identity_check_options(values);
    struct networks networks;
    bool good = networks_read(&options->listen_trusted_proxies, &networks);

    free(networks.items);
    if (!why && !good)
        why = "listen.trusted_proxies: an item is neither ADDRESS nor ADDRESS/BITS without bits "
              "behind "
              "these";
    return why;
}
