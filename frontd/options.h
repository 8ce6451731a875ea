/* frontd.conf as a struct: read by the supervisor, handed to the workers as text. */
#ifndef CAF_FRONTD_OPTIONS_H
#define CAF_FRONTD_OPTIONS_H

#include "common/config.h"

struct frontd_options {
#define OPTION CONFIG_MEMBER
#include "frontd/options.def"
#undef OPTION
};

enum { CLIENT_CERT_OPTIONAL, CLIENT_CERT_REQUIRED }; /* listen.client_cert */

/* The option table, ended by CONFIG_END. */
extern const struct config_option frontd_option_table[];

#endif
