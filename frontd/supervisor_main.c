/* frontd: the supervisor. Opens the configuration, certificates, CA and CRLs and the listener,
 * connects to the keeper and the back daemons, and hands all of it to the workers that it starts.
 * It reads no client's byte and holds no private key. */
#include "frontd/supervisor.h"

#include "common/log.h"
#include "common/memory.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* The workers' program lies beside this one. The caller frees. */
static char *find_worker_program(void)
{
    char path[PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
    char *program = NULL;

    if (len < 0)
        log_fatal("cannot read /proc/self/exe");
    path[len] = '\0';
    if (asprintf(&program, "%s/frontd-worker", dirname(path)) < 0)
        log_fatal("out of memory");
    return program;
}

static void read_first_material(struct supervisor *supervisor)
{
    char error[4608];

    if (!supervisor_read_material(&supervisor->options, &supervisor->material, error,
                                  sizeof(error)))
        log_fatal("TLS material refused", LOG_TEXT("reason", error));
    supervisor_tell_out_of_date(&supervisor->material);
    if (!supervisor_crls_in_date(&supervisor->material))
        log_error("a CRL is out of date: no client of its issuer is let in",
                  LOG_TEXT("file", supervisor->options.tls_crl));
}

static void reload(void *arg)
{
    supervisor_reload(arg, true);
}

static void drain(void *arg)
{
    struct supervisor *supervisor = arg;

    close(supervisor->listener);
    if (supervisor->admin_listener >= 0)
        close(supervisor->admin_listener);
    supervisor->listener = supervisor->admin_listener = -1;
    supervisor_drain_workers(supervisor);
}

static const char *check_options(const void *values)
{
    const char *problem = frontd_check_options(values);

    return problem ? problem : supervisor_check_admin_listen(values);
}

static const struct service_program frontd_program = {
    .name = "frontd",
    .default_file = CAF_SYSCONF "/frontd.conf",
    .options = frontd_option_table,
    .check = check_options,
    .metrics = frontd_metrics_table,
};

int main(int argc, char **argv)
{
    static const struct service_events events = {.drain = drain, .reload = reload};
    struct supervisor supervisor = {0};
    cleanup_free char *program = find_worker_program();
    int status;

    supervisor.program = program;
    supervisor.check_options = check_options;
    supervisor.configuration_file =
        service_configure(&frontd_program, argc, argv, &supervisor.options);
    service_open(&supervisor.service, "frontd", &events, &supervisor,
                 supervisor.options.service_stop_seconds + 1);
    read_first_material(&supervisor);
    supervisor_make_ticket_keys(&supervisor);
    supervisor_find_backend_users(&supervisor);
    supervisor.listener =
        service_tcp_listener(supervisor.options.listen_address, supervisor.options.listen_port,
                             supervisor.options.listen_backlog);
    supervisor.admin_listener = supervisor_open_admin_listener(&supervisor.options);
    supervisor_open_metrics(&supervisor);
    supervisor_open_keeper(&supervisor);
    supervisor_watch_children(&supervisor);
    supervisor_open_workers(&supervisor);
    supervisor_start_serving(&supervisor);
    status = service_run(&supervisor.service);
    supervisor_free_workers(&supervisor);
    supervisor_close_keeper(&supervisor);
    supervisor_close_metrics(&supervisor);
    supervisor_free_reload(&supervisor);
    supervisor_free_ticket_keys(&supervisor);
    supervisor_free_material(&supervisor.material);
    free(supervisor.backend_users);
    service_close(&supervisor.service);
    config_free(frontd_option_table, &supervisor.options);
    return status;
}
