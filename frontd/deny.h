/* The worker's copy of the deny list: the identities that are revoked. */
#ifndef CAF_FRONTD_DENY_H
#define CAF_FRONTD_DENY_H

#include "common/deny_set.h"
#include "frontd/identity.h"
#include "proto/proto.h"

/* As deny_open makes it: nothing received yet. */
struct deny {
    struct deny_set in_force;
    struct deny_set coming; /* a whole new list that is not complete yet */
    bool is_coming;
    bool complete;   /* a whole list has been received, once */
    bool full;       /* identities are missing, as there were more than max */
    uint64_t serial; /* of registryd's list, up to which the one in force is complete */
};

/* A list holds at most max identities. */
void deny_open(struct deny *deny, size_t max);

/* Takes a part of the list. What is in force stays in force until a list that takes its place is
 * complete; a change applies at once. Returns whether what is in force is another than before:
 * connections must then be looked at. A part that is malformed is logged and taken as far as it is
 * none. */
bool deny_take(struct deny *deny, const struct msg_deny_list *part);

/* The one question, at each handshake, whole or resumed, and for live connections: NULL, or a
 * literal that says why this identity is refused. */
const char *deny_refusal(const struct deny *deny, const struct identity *identity);

/* Identities in force. */
size_t deny_count(const struct deny *deny);

void deny_clear(struct deny *deny);

#endif
