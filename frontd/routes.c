/* The table of routes and the one way through it: route, right, media type, query, handler. The
 * default is refusal: what has no row is 404, and a row's permission is checked here and nowhere
 * else. */
#include "frontd/worker.h"

#include "frontd/handlers.h"
#include "frontd/members.h"
#include "frontd/route_path.h"

#include <stdio.h>
#include <strings.h>

static const struct route routes[] = {
#define ROUTE(method, path, permission, query, handler)                                            \
    {ROUTE_##handler, method, path, permission, query, handler},
#include "frontd/routes.def"
#undef ROUTE
};

enum { ROUTES = sizeof(routes) / sizeof(routes[0]), ALLOW_BYTES = 64 };

/* /api/v1/… is /v1/… */
static struct str without_alias(struct str path)
{
    const struct str alias = STR("/api/v1/");
    const size_t api = sizeof("/api") - 1;

    return str_starts(path, alias) ? (struct str){path.ptr + api, path.len - api} : path;
}

/* The route, with what stands for its {name} in parameter; or NULL with the path's other methods in
 * allow. */
static const struct route *find_route(struct str method, struct str path, struct str *parameter,
                                      char allow[ALLOW_BYTES])
{
    *allow = '\0';
    for (size_t i = 0; i < ROUTES; i++) {
        size_t used = strlen(allow);

        if (!route_path_matches(routes[i].path, path, parameter))
            continue;
        if (str_equal(method, str_from(routes[i].method)))
            return &routes[i];
        snprintf(allow + used, ALLOW_BYTES - used, "%s%s", used ? ", " : "", routes[i].method);
    }
    return NULL;
}

static void refuse_right(struct exchange *exchange)
{
    const struct recovery show_certificate = {
        .action = "present_client_certificate",
        .method = exchange->route->method,
        .path = exchange->route->path,
        .hint = "Connect with a client certificate (X.509-SVID) of this trust domain and repeat "
                "the request.",
    };
    const bool is_mesh = exchange->route->permission == MAY_MESH;

    if (exchange->identity->kind != IDENTITY_NONE)
        exchange_fail(exchange, ERROR_FORBIDDEN, "the caller's role does not allow this", NULL);
    else if (exchange->certificate_expired)
        exchange_fail(exchange, is_mesh ? ERROR_MTLS_REQUIRED : ERROR_UNAUTHORIZED,
                      "the client certificate has expired since the handshake", &show_certificate);
    else if (is_mesh)
        exchange_fail(exchange, ERROR_MTLS_REQUIRED, "this route needs a client certificate",
                      &show_certificate);
    else
        exchange_fail(exchange, ERROR_UNAUTHORIZED,
                      "this route needs a client certificate or an API key", NULL);
}

/* JSON, or nothing said about it, or nothing there to say it of. */
static bool media_type_accepted(const struct exchange *exchange)
{
    static const char json[] = "application/json";
    struct str type = exchange->content_type;
    size_t len = sizeof(json) - 1;

    if (exchange->body.len == 0 || !type.ptr)
        return true;
    return type.len >= len && strncasecmp(type.ptr, json, len) == 0 &&
           (type.len == len || type.ptr[len] == ';' || type.ptr[len] == ' ');
}

/* False: the exchange has been answered. */
static bool query_accepted(struct exchange *exchange)
{
    struct parameter_value none;

    return exchange->route->query != NO_QUERY || parameters_read(exchange, NULL, 0, &none);
}

void routes_dispatch(struct exchange *exchange)
{
    char allow[ALLOW_BYTES];
    unsigned needed;

    exchange->route =
        find_route(exchange->method, without_alias(exchange->path), &exchange->parameter, allow);
    if (!exchange->route) {
        if (*allow)
            exchange_fail_method(exchange, allow);
        else
            exchange_fail(exchange, ERROR_NOT_FOUND, "no such route", NULL);
        return;
    }
    needed = exchange->route->permission;
    if ((role_permissions(exchange->identity->role) & needed) != needed)
        refuse_right(exchange);
    else if (!media_type_accepted(exchange))
        exchange_fail(exchange, ERROR_UNSUPPORTED_MEDIA_TYPE, "the body must be application/json",
                      NULL);
    else if (query_accepted(exchange))
        exchange->route->handle(exchange);
}
