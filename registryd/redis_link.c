/* A socket to Redis and hiredis' reader of its protocol. Opens Redis' Unix socket and nothing else.
 * hiredis' own connection would keep whatever Redis sends until a reply is whole; here a reply that
 * is not whole after a bounded number of bytes ends the link, and no reply is ever a tree. */
#include "registryd/redis_link.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    READ_BYTES = 8192,      /* at once, and in each pause */
    UNFINISHED_MAX = 16384, /* bytes without a whole reply; our own have about a hundred */
};

struct redis_link {
    int fd;
    struct event *readable, *pause, *ended;
    int64_t pause_ms;
    redisReader *reader;
    size_t unfinished; /* bytes fed since the last whole reply */
    struct redis_reply reply;
    const struct redis_link_events *events;
    void *arg;
    const char *why;
};

struct str redis_word_text(const struct redis_word *word)
{
    if (word->type != REDIS_WORD_TEXT || word->len > sizeof(word->text))
        return STR_ABSENT;
    return (struct str){word->text, word->len};
}

struct str redis_word_excerpt(const struct redis_word *word)
{
    return (struct str){word->text,
                        word->len < sizeof(word->text) ? word->len : sizeof(word->text)};
}

/* ---- what the reader makes of a reply ------------------------------------------------------- */

/* The next word; NULL, which ends the link, where a reply has too many. */
static void *add_word(const redisReadTask *task, enum redis_word_type type, const char *text,
                      size_t len)
{
    struct redis_reply *reply = task->privdata;
    struct redis_word *word;

    if (reply->count == REDIS_WORDS_MAX)
        return NULL;
    word = &reply->words[reply->count++];
    word->type = type;
    word->len = len;
    if (len > 0)
        memcpy(word->text, text, len < sizeof(word->text) ? len : sizeof(word->text));
    return reply;
}

static void *take_string(const redisReadTask *task, char *text, size_t len)
{
    bool is_error = task->type == REDIS_REPLY_ERROR;

    return add_word(task, is_error ? REDIS_WORD_ERROR : REDIS_WORD_TEXT, text, len);
}

static void *take_array(const redisReadTask *task, int elements)
{
    return task->parent || elements > REDIS_WORDS_MAX ? NULL : task->privdata;
}

static void *take_number(const redisReadTask *task, long long number)
{
    (void)number;
    return add_word(task, REDIS_WORD_NUMBER, NULL, 0);
}

static void *take_nil(const redisReadTask *task)
{
    return add_word(task, REDIS_WORD_NOTHING, NULL, 0);
}

static void free_nothing(void *reply)
{
    (void)reply;
}

static redisReplyObjectFunctions functions = {
    .createString = take_string,
    .createArray = take_array,
    .createInteger = take_number,
    .createNil = take_nil,
    .freeObject = free_nothing,
};

/* ---- reading -------------------------------------------------------------------------------- */

void redis_link_end(struct redis_link *link, const char *why)
{
    if (link->why)
        return;
    link->why = why;
    event_del(link->readable);
    event_del(link->pause);
    event_active(link->ended, EV_TIMEOUT, 0);
}

/* False: no whole reply is left, or the link ended. */
static bool take_reply(struct redis_link *link)
{
    void *whole = NULL;

    if (redisReaderGetReply(link->reader, &whole) != REDIS_OK) {
        redis_link_end(link, "what it says is not Redis' protocol, or none of our messages");
        return false;
    }
    if (!whole)
        return false;
    link->unfinished = 0;
    link->events->reply(link->arg, link, &link->reply);
    link->reply.count = 0;
    return !link->why;
}

static void take_bytes(struct redis_link *link, const char *bytes, size_t len)
{
    if (redisReaderFeed(link->reader, bytes, len) != REDIS_OK) {
        redis_link_end(link, "out of memory");
        return;
    }
    link->unfinished += len;
    while (take_reply(link))
        ;
    if (link->unfinished > UNFINISHED_MAX)
        redis_link_end(link, "a message is too long");
}

/* Then it listens again after the pause: who floods waits, and nobody waits for him. */
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct redis_link *link = arg;
    struct timeval pause = clock_timeval(link->pause_ms);
    char bytes[READ_BYTES];
    ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    (void)what;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        event_add(link->readable, NULL);
        return;
    }
    if (got <= 0) {
        redis_link_end(link, got == 0 ? "end of file" : "cannot receive");
        return;
    }
    event_add(link->pause, &pause);
    take_bytes(link, bytes, (size_t)got);
}

static void on_pause_over(evutil_socket_t fd, short what, void *arg)
{
    struct redis_link *link = arg;

    (void)fd;
    (void)what;
    event_add(link->readable, NULL);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct redis_link *link = arg;

    (void)fd;
    (void)what;
    link->events->ended(link->arg, link, link->why);
    redis_link_close(link);
}

/* ---- outside -------------------------------------------------------------------------------- */

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memcpy(address.sun_path, path, strnlen(path, sizeof(address.sun_path) - 1));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

struct redis_link *redis_link_open(struct event_base *base, const char *socket, int64_t pause_ms,
                                   const struct redis_link_events *events, void *arg)
{
    int fd = connect_to(socket);
    struct redis_link *link;

    if (fd < 0)
        return NULL;
    link = memory_new(1, sizeof(*link));
    *link = (struct redis_link){.fd = fd, .pause_ms = pause_ms, .events = events, .arg = arg};
    link->reader = redisReaderCreateWithFunctions(&functions);
    link->readable = event_new(base, fd, EV_READ, on_readable, link);
    link->pause = evtimer_new(base, on_pause_over, link);
    link->ended = evtimer_new(base, on_ended, link);
    if (!link->reader || !link->readable || !link->pause || !link->ended)
        log_fatal("out of memory");
    link->reader->privdata = &link->reply; /* the macro for it casts a pointer to int */
    event_add(link->readable, NULL);
    return link;
}

bool redis_link_send(struct redis_link *link, int count, const char *const words[])
{
    const char *copies[REDIS_WORDS_MAX]; /* hiredis wants the array as its own */
    char *command;
    ssize_t sent;
    int len;

    memcpy(copies, words, (size_t)count * sizeof(words[0]));
    len = redisFormatCommandArgv(&command, count, copies, NULL);
    if (len < 0)
        log_fatal("out of memory");
    sent = send(link->fd, command, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
    redisFreeCommand(command);
    if (sent > 0 && sent < len) /* what follows would be read as its rest */
        redis_link_end(link, "it takes only half a command");
    else if (sent < 0 && errno != EAGAIN)
        redis_link_end(link, "cannot send");
    return sent == len;
}

void redis_link_close(struct redis_link *link)
{
    event_free(link->readable);
    event_free(link->pause);
    event_free(link->ended);
    redisReaderFree(link->reader);
    close(link->fd);
    free(link);
}
