/* The rows of other nodes in `nodes`. */
#ifndef CAF_REGISTRYD_NODES_H
#define CAF_REGISTRYD_NODES_H

struct registryd;

/* Removes the rows of nodes that have not been heard from for nodes.forget_days, and logs each.
 * Nothing while that is under way; what the database does not do now, the next call has done. */
void nodes_forget(struct registryd *daemon);

#endif
