/* Which notes have come already, sender by sender. */
#ifndef CAF_EVENTD_SENDERS_H
#define CAF_EVENTD_SENDERS_H

#include "proto/proto.h"

struct senders;

struct senders *senders_new(void);

/* Whether a note with this id, or a later one of its sender, came before; from now on it has. A
 * sender sends its notes in the order of their ids, and after a loss those again that had no
 * answer, in the same order: what is not beyond the last one has been here. */
bool senders_have_seen(struct senders *senders, const struct request_id *id);

void senders_free(struct senders *senders);

#endif
