/* The handlers that frontd/routes.def names. */
#ifndef CAF_FRONTD_HANDLERS_H
#define CAF_FRONTD_HANDLERS_H

#include "frontd/exchange.h"

#define ROUTE(method, path, permission, query, handler) exchange_handler handler;
#include "frontd/routes.def"
#undef ROUTE

#endif
