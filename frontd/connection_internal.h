/* A client connection, as the files that are it share it: connection.c (life and time), _io.c
 * (bytes in and out), _steps.c (what each state does). Nobody else includes this. */
#ifndef CAF_FRONTD_CONNECTION_INTERNAL_H
#define CAF_FRONTD_CONNECTION_INTERNAL_H

#include "frontd/connection.h"

enum connection_state {
    STATE_HANDSHAKE,
    STATE_HEAD,
    STATE_BODY,
    STATE_ANSWER, /* a handler has the request */
    STATE_WRITE,
    STATE_DISCARD, /* the last answer is out: read on until the client closes */
};

struct connection {
    struct worker *worker;
    int fd;
    char source_ip[64];
    SSL *ssl;
    struct tls_peer peer;
    struct signer_handshake handshake;
    struct event *readable, *writable, *timer;
    enum connection_state state;
    bool in_step;   /* advance() is on the stack: an answer only changes the state */
    bool had_bytes; /* of the request under way */
    bool answered;  /* a request before that one */
    bool end_of_input;
    bool close_after_answer;
    bool continue_said;
    char *in;
    size_t in_len, in_size, discarded;
    struct evbuffer *out;
    struct http_request request;
    struct exchange exchange;
    struct connection *prev, *next;
};

/* What a step leaves behind: it waits for an event; the next step can run; the connection is freed.
 */
enum progress { WAIT, GO_ON, GONE };

/* ---- life (connection.c) -------------------------------------------------------------------- */

/* Changes the state and sets its time-out. */
void connection_enter(struct connection *connection, enum connection_state state);

/* Sets the time-out of the state anew. */
void connection_set_timer(struct connection *connection);

/* Frees the connection, whatever is under way. */
void connection_close(struct connection *connection);

/* As connection_close, for a step to return: GONE. */
enum progress connection_end(struct connection *connection);

/* ---- steps (connection_steps.c) ------------------------------------------------------------- */

/* Goes on as far as it can, but for a bounded while: others wait for the loop too. The connection
 * may be freed when this returns. */
void connection_advance(struct connection *connection);

/* ---- bytes (connection_io.c) ---------------------------------------------------------------- */

/* What to do after an OpenSSL call that did not go through: WAIT for what ssl_error asks for, or
 * GONE. */
enum progress connection_wait(struct connection *connection, int ssl_error);

/* Reads what there is. GO_ON with more bytes or at the end of input. */
enum progress connection_fill(struct connection *connection);

/* Writes the output. GO_ON when all of it is with the kernel. */
enum progress connection_flush(struct connection *connection);

/* Drops the bytes of the request that was answered; what was pipelined behind it moves to the
 * front.
 */
void connection_consume_request(struct connection *connection);

/* Nothing more will be sent: the connection lingers until the client closes. */
void connection_say_goodbye(struct connection *connection);

/* Closing with unread bytes would reset the connection under the last answer or alert: reads them
 * away, within bounds. */
enum progress connection_discard(struct connection *connection);

#endif
