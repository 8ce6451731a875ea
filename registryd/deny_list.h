/* The deny list: the identities that are revoked, kept here and pushed to every worker. */
#ifndef CAF_REGISTRYD_DENY_LIST_H
#define CAF_REGISTRYD_DENY_LIST_H

#include "common/ipc.h"

struct registryd;
struct deny_list;

struct deny_list *deny_list_open(struct registryd *daemon);

/* The list may miss anything: loads it from the database, page by page, and from the beginning
 * should a load be under way. What deny_list_add is told meanwhile stays; what is neither found nor
 * told leaves the list when the load is complete, and not before. */
void deny_list_load(struct deny_list *deny);

/* The same for a list that nothing speaks against; nothing while a load is under way. */
void deny_list_check(struct deny_list *deny);

/* Whether a load has been complete since deny_list_load. Before the first nothing is pushed. */
bool deny_list_is_whole(const struct deny_list *deny);

/* This identity is revoked: puts it on the list and pushes it. False: it is there already, or
 * deny.identities_max are. */
bool deny_list_add(struct deny_list *deny, struct str tenant_id, struct str spiffe_id);

/* Pushes the list, once it is loaded, and from then on its changes on the request's channel, as
 * long as that lives. Answers the request at once. */
void deny_list_subscribe(struct deny_list *deny, struct ipc_reply_to to);

size_t deny_list_count(const struct deny_list *deny);

/* To how many channels it is pushed. One that ended counts until another subscribes. */
size_t deny_list_subscribers(const struct deny_list *deny);

/* Whether identities are missing because the list is full. */
bool deny_list_is_full(const struct deny_list *deny);

/* Pages that the database has not answered: 0 or 1. */
unsigned deny_list_pending(const struct deny_list *deny);

/* Loads and pushes no more: the daemon is about to end. */
void deny_list_stop(struct deny_list *deny);

/* After the loop has ended. */
void deny_list_close(struct deny_list *deny);

#endif
