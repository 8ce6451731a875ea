/* Reads the configuration and the files that it names again, on SIGHUP and from time to time, and
 * puts what has changed into force as a whole or not at all: everything is checked here, as the
 * workers would, and by the keeper, before any worker hears of it; at the start, too. */
#include "frontd/supervisor.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <stdlib.h>
#include <string.h>

/* What of frontd.conf may change without a restart. */
static const struct {
    const char *section, *key;
} reloadable[] = {
    {"operators", "map"}, {"tls", "certificates"},   {"tls", "client_ca"},
    {"tls", "crl"},       {"tls", "reload_seconds"},
};

static bool is_reloadable(const struct config_option *option)
{
    for (size_t i = 0; i < sizeof(reloadable) / sizeof(reloadable[0]); i++)
        if (strcmp(option->section, reloadable[i].section) == 0 &&
            strcmp(option->key, reloadable[i].key) == 0)
            return true;
    return false;
}

/* ---- the end of a reload -------------------------------------------------------------------- */

static void wait_for_interval(struct supervisor *supervisor)
{
    bool again = supervisor->reload.again; /* then at once */
    int64_t seconds = again ? 0 : supervisor->options.tls_reload_seconds;
    struct timeval interval = clock_timeval(seconds * 1000);

    if (seconds > 0 || again)
        event_add(supervisor->reload.interval, &interval);
    else
        event_del(supervisor->reload.interval);
}

static void finish(struct supervisor *supervisor)
{
    struct supervisor_reload *reload = &supervisor->reload;

    config_free(frontd_option_table, &reload->options);
    reload->options = (struct frontd_options){0};
    supervisor_free_material(&reload->material);
    reload->running = reload->by_signal = false;
    wait_for_interval(supervisor);
}

/* What nobody has mended since it was last said is said again only to somebody who asks. */
static void refuse(struct supervisor *supervisor, const char *why)
{
    struct supervisor_reload *reload = &supervisor->reload;

    if (reload->by_signal || strcmp(reload->refused, why) != 0)
        log_error("reload refused: all that was in force stays", LOG_TEXT("reason", why));
    snprintf(reload->refused, sizeof(reload->refused), "%s", why);
    supervisor->metrics->tls_reloads_total[RELOAD_REFUSED]++;
    finish(supervisor);
}

/* ---- what has changed ----------------------------------------------------------------------- */

static bool text_differs(const char *one, const char *other)
{
    return strcmp(one, other) != 0;
}

/* Names the options whose change needs a restart, once. */
static void name_the_rest(struct supervisor *supervisor)
{
    struct supervisor_reload *reload = &supervisor->reload;
    char names[sizeof(reload->needs_restart)] = "";

    for (const struct config_option *option = frontd_option_table; option->section; option++) {
        size_t len = strlen(names);

        if (!is_reloadable(option) && !config_equal(option, &supervisor->options, &reload->options))
            snprintf(names + len, sizeof(names) - len, "%s%s.%s", len ? ", " : "", option->section,
                     option->key);
    }
    if (*names && (reload->by_signal || text_differs(names, reload->needs_restart)))
        log_warn("changed options that need a restart", LOG_TEXT("options", names));
    snprintf(reload->needs_restart, sizeof(reload->needs_restart), "%s", names);
}

static bool roles_differ(const struct supervisor *supervisor)
{
    for (const struct config_option *option = frontd_option_table; option->section; option++)
        if (option->type == CONFIG_MAP &&
            !config_equal(option, &supervisor->options, &supervisor->reload.options))
            return true;
    return false;
}

static void compare(struct supervisor *supervisor)
{
    const struct supervisor_material *old = &supervisor->material;
    struct supervisor_reload *reload = &supervisor->reload;

    reload->roles = roles_differ(supervisor);
    reload->certificates = text_differs(old->certificates, reload->material.certificates);
    reload->crls = text_differs(old->crls, reload->material.crls);
    reload->trust = reload->crls || text_differs(old->client_ca, reload->material.client_ca);
}

/* ---- into force ----------------------------------------------------------------------------- */

static void adopt_options(struct supervisor *supervisor)
{
    for (const struct config_option *option = frontd_option_table; option->section; option++)
        if (is_reloadable(option))
            config_exchange(option, &supervisor->options, &supervisor->reload.options);
}

static void adopt_material(struct supervisor *supervisor)
{
    struct supervisor_material old = supervisor->material;

    supervisor->material = supervisor->reload.material;
    supervisor->reload.material = old;
}

static void adopt(struct supervisor *supervisor)
{
    struct supervisor_reload *reload = &supervisor->reload;
    bool any = reload->roles || reload->certificates || reload->trust;

    reload->refused[0] = '\0';
    supervisor->metrics->tls_reloads_total[any ? RELOAD_TAKEN : RELOAD_UNCHANGED]++;
    name_the_rest(supervisor);
    adopt_options(supervisor);
    adopt_material(supervisor);
    if (reload->certificates)
        supervisor_tell_out_of_date(&supervisor->material);
    if (reload->roles)
        supervisor_send_configuration(supervisor);
    if (reload->certificates || reload->trust)
        supervisor_send_material(supervisor, reload->trust);
    if (reload->trust)
        supervisor_end_tickets(supervisor, TICKETS_END_TRUST);
    if (any || reload->by_signal)
        log_info("reloaded", LOG_TEXT("certificates", reload->certificates ? "new" : "unchanged"),
                 LOG_TEXT("ca_and_crls", reload->trust ? "new" : "unchanged"),
                 LOG_TEXT("roles", reload->roles ? "new" : "unchanged"));
    finish(supervisor);
}

static void on_keeper(struct supervisor *supervisor, const char *why)
{
    if (why)
        refuse(supervisor, why);
    else
        adopt(supervisor);
}

/* ---- begin ---------------------------------------------------------------------------------- */

/* Reads everything anew; false with the file and the reason in error. */
static bool read_all(struct supervisor *supervisor, char *error, size_t error_size)
{
    struct supervisor_reload *reload = &supervisor->reload;
    const char *problem;

    if (config_load(frontd_option_table, &reload->options, supervisor->configuration_file, error,
                    error_size) != 0)
        return false;
    problem = supervisor->check_options(&reload->options);
    if (problem) {
        snprintf(error, error_size, "%s:0: %s", supervisor->configuration_file, problem);
        return false;
    }
    return supervisor_read_material(&reload->options, &reload->material, error, error_size);
}

/* Whether what is new is within its dates; false with the file in error. What is in force may be as
 * old: then a set in which only some is renewed is better than none. */
static bool dates_hold(const struct supervisor *supervisor, char *error, size_t error_size)
{
    const struct supervisor_reload *reload = &supervisor->reload;
    const char *file = supervisor_out_of_date(&reload->material);

    if (reload->crls && !supervisor_crls_in_date(&reload->material))
        snprintf(error, error_size, "%s: a CRL has expired or is not valid yet",
                 reload->options.tls_crl);
    else if (reload->certificates && file && !supervisor_out_of_date(&supervisor->material))
        snprintf(error, error_size, "%s: a certificate has expired or is not valid yet", file);
    else
        return true;
    return false;
}

void supervisor_reload(struct supervisor *supervisor, bool by_signal)
{
    struct supervisor_reload *reload = &supervisor->reload;
    char error[4608];

    if (supervisor->service.draining)
        return;
    if (reload->running) {
        reload->again |= by_signal;
        return;
    }
    reload->running = true;
    reload->by_signal = by_signal;
    if (!read_all(supervisor, error, sizeof(error))) {
        refuse(supervisor, error);
        return;
    }
    compare(supervisor);
    if (!dates_hold(supervisor, error, sizeof(error))) {
        refuse(supervisor, error);
        return;
    }
    if (reload->certificates)
        supervisor_ask_keeper(supervisor, &reload->material, on_keeper);
    else
        adopt(supervisor);
}

static void on_interval(evutil_socket_t fd, short what, void *arg)
{
    struct supervisor *supervisor = arg;
    bool by_signal = supervisor->reload.again;

    (void)fd;
    (void)what;
    supervisor->reload.again = false;
    supervisor_reload(supervisor, by_signal);
}

/* ---- the start ------------------------------------------------------------------------------ */

static void on_first_keeper(struct supervisor *supervisor, const char *why)
{
    if (supervisor->service.draining)
        return;
    if (why)
        log_fatal("TLS material refused", LOG_TEXT("reason", why));
    supervisor_start_workers(supervisor);
    finish(supervisor);
}

void supervisor_start_serving(struct supervisor *supervisor)
{
    supervisor->reload.interval = evtimer_new(supervisor->service.base, on_interval, supervisor);
    if (!supervisor->reload.interval)
        log_fatal("out of memory");
    supervisor->reload.running = true;
    supervisor_ask_keeper(supervisor, &supervisor->material, on_first_keeper);
}

void supervisor_free_reload(struct supervisor *supervisor)
{
    config_free(frontd_option_table, &supervisor->reload.options);
    supervisor_free_material(&supervisor->reload.material);
    event_free(supervisor->reload.interval);
}
