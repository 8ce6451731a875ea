/* The two protocols of systemd that concern sockets, each a few lines: descriptors passed in
 * (sd_listen_fds(3)) and notification (sd_notify(3)). Without systemd, makes the listener itself.
 */
#include "common/service.h"

#include "common/log.h"
#include "common/memory.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    FIRST_PASSED_DESCRIPTOR = 3,
    UNIX_BACKLOG = 1024,
    BIND_ATTEMPTS = 100,
    BIND_PAUSE_US = 50000,
};

union address {
    struct sockaddr any;
    struct sockaddr_un local;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;
};

void service_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    socklen_t len;
    cleanup_close int fd = -1;

    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof(to.sun_path))
        return;
    memcpy(to.sun_path, path, strlen(path));
    len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (to.sun_path[0] == '@')
        to.sun_path[0] = '\0'; /* the abstract namespace */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, len) < 0)
        log_warn("cannot notify the service manager", LOG_TEXT("error", strerror(errno)));
}

/* How many descriptors systemd passed to this very process. */
static int passed_count(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    long long number;

    if (!pid || !count || !str_to_number(str_from(pid), INT32_MAX, &number) || number != getpid())
        return 0;
    return str_to_number(str_from(count), 64, &number) ? (int)number : 0;
}

static in_port_t inet_port(const union address *address)
{
    return address->any.sa_family == AF_INET ? address->ip4.sin_port : address->ip6.sin6_port;
}

/* A Unix socket is known by its path, a TCP one by its port: systemd binds one socket for both
 * families. */
static bool same_address(const union address *a, const union address *b)
{
    if (a->any.sa_family == AF_UNIX || b->any.sa_family == AF_UNIX)
        return a->any.sa_family == b->any.sa_family &&
               strcmp(a->local.sun_path, b->local.sun_path) == 0;
    return inet_port(a) == inet_port(b);
}

static void set_flags(int fd)
{
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
        log_fatal("cannot prepare a listener", LOG_TEXT("error", strerror(errno)));
}

/* The passed descriptor that listens on the wanted address, -1 for none. */
static int find_passed(const union address *wanted)
{
    for (int fd = FIRST_PASSED_DESCRIPTOR; fd < FIRST_PASSED_DESCRIPTOR + passed_count(); fd++) {
        union address bound = {0};
        socklen_t len = sizeof(bound);

        if (getsockname(fd, &bound.any, &len) == 0 && same_address(&bound, wanted)) {
            set_flags(fd);
            return fd;
        }
    }
    return -1;
}

/* Workers of an earlier life may hold the port for a moment yet. */
static bool bind_patiently(int fd, const union address *address, socklen_t len)
{
    for (int attempt = 0; attempt < BIND_ATTEMPTS; attempt++) {
        if (bind(fd, &address->any, len) == 0)
            return true;
        if (errno != EADDRINUSE)
            return false;
        usleep(BIND_PAUSE_US);
    }
    return false;
}

static int new_listener(const union address *address, socklen_t len, int backlog, const char *name)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;

    if (fd >= 0 && address->any.sa_family != AF_UNIX)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (fd < 0 || !bind_patiently(fd, address, len) || listen(fd, backlog) != 0)
        log_fatal("cannot listen", LOG_TEXT("address", name), LOG_TEXT("error", strerror(errno)));
    return fd;
}

/* Removes the socket file that an earlier life left behind; anything else under that name stays. */
static void remove_stale_socket(const char *path)
{
    struct stat status;

    if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
        unlink(path);
}

int service_unix_listener(const char *path, mode_t mode)
{
    union address address = {.local = {.sun_family = AF_UNIX}};
    mode_t mask;
    int fd;

    if (strlen(path) >= sizeof(address.local.sun_path))
        log_fatal("socket path too long", LOG_TEXT("path", path));
    memcpy(address.local.sun_path, path, strlen(path) + 1);
    fd = find_passed(&address);
    if (fd >= 0)
        return fd;
    remove_stale_socket(path);
    mask = umask(~mode & 0777);
    fd = new_listener(&address, sizeof(address.local), UNIX_BACKLOG, path);
    umask(mask);
    return fd;
}

int service_tcp_listener(const char *text, int64_t port, int64_t backlog)
{
    union address address = {0};
    socklen_t len = sizeof(address.ip4);
    int fd;

    if (inet_pton(AF_INET, text, &address.ip4.sin_addr) == 1) {
        address.ip4.sin_family = AF_INET;
        address.ip4.sin_port = htons((uint16_t)port);
    } else if (inet_pton(AF_INET6, text, &address.ip6.sin6_addr) == 1) {
        address.ip6.sin6_family = AF_INET6;
        address.ip6.sin6_port = htons((uint16_t)port);
        len = sizeof(address.ip6);
    } else {
        log_fatal("not an IP address", LOG_TEXT("address", text));
    }
    fd = find_passed(&address);
    return fd >= 0 ? fd : new_listener(&address, len, (int)backlog, text);
}
