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

/* Checks what the table cannot, for service_configure: identity_check_options, and that
 * listen.trusted_proxies are networks. NULL, or a literal that says what is wrong. */
const char *frontd_check_options(const void *options);

#endif
