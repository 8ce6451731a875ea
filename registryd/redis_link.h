/* One connection to Redis, of which nothing is expected: whatever is at the other end may flood,
 * hang, or speak another protocol, and costs a bounded amount of memory and time. */
#ifndef CAF_REGISTRYD_REDIS_LINK_H
#define CAF_REGISTRYD_REDIS_LINK_H

#include "common/str.h"

#include <event2/event.h>
#include <stdint.h>

enum {
    REDIS_WORDS_MAX = 3,  /* of a command, and of a reply: a longer one ends the link */
    REDIS_TEXT_MAX = 128, /* bytes kept of each */
};

enum redis_word_type { REDIS_WORD_TEXT, REDIS_WORD_NUMBER, REDIS_WORD_ERROR, REDIS_WORD_NOTHING };

/* A reply, flat: an array of scalars, or one scalar as an array of one. */
struct redis_reply {
    size_t count;
    struct redis_word {
        enum redis_word_type type;
        size_t len; /* of what came: the text has at most REDIS_TEXT_MAX of it */
        char text[REDIS_TEXT_MAX];
    } words[REDIS_WORDS_MAX];
};

/* The text of a word, absent when it is none, or longer than what was kept. */
struct str redis_word_text(const struct redis_word *word);

/* What was kept of a word's text, for the log. */
struct str redis_word_excerpt(const struct redis_word *word);

struct redis_link;

struct redis_link_events {
    void (*reply)(void *arg, struct redis_link *link, const struct redis_reply *reply);
    /* The link ended (why: text); it is freed when this returns. Never from within a call. */
    void (*ended)(void *arg, struct redis_link *link, const char *why);
};

/* Connects to Redis' Unix socket. Reads at most a few thousand bytes in each pause_ms. NULL, when
 * there is nobody. */
struct redis_link *redis_link_open(struct event_base *base, const char *socket, int64_t pause_ms,
                                   const struct redis_link_events *events, void *arg);

/* Sends a command of at most REDIS_WORDS_MAX words, each without NUL. False: it was not sent, as
 * Redis takes nothing just now; it is not kept. */
bool redis_link_send(struct redis_link *link, int count, const char *const words[]);

/* Ends the link, which is told from the loop by ended. why: a literal. */
void redis_link_end(struct redis_link *link, const char *why);

/* Frees the link without a call of ended. */
void redis_link_close(struct redis_link *link);

#endif
