/* Requests to the database that are never given up. */
#ifndef CAF_EVENTD_INSIST_H
#define CAF_EVENTD_INSIST_H

#include "common/pg.h"

struct insist;

/* Submits to pg, which must outlive it. */
struct insist *insist_new(struct event_base *base, struct pg *pg);

/* Submits a request, now or when pg has room, again and again until it is done or refused. params
 * are copied. fn is called exactly once, never from within; with PG_UNAVAILABLE only by
 * insist_free. Whoever calls sees to it that these are bounded. */
void insist_submit(struct insist *insist, const struct pg_statement *statement,
                   const struct str *params, pg_answer_fn *fn, void *arg);

/* Requests not yet answered. */
size_t insist_pending(const struct insist *insist);

/* Calls done(arg) once, from the loop, when none is pending. */
void insist_when_done(struct insist *insist, void (*done)(void *arg), void *arg);

/* Answers what is pending with PG_UNAVAILABLE. pg is to be freed next. */
void insist_free(struct insist *insist);

#endif
