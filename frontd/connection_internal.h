/* A client connection, as the files that are it share it: connection.c (life and time), _io.c
 * (bytes in and out), _steps.c (what each state does), _trust.c (whether its client is still
 * believed). Nobody else includes this. */
#ifndef CAF_FRONTD_CONNECTION_INTERNAL_H
#define CAF_FRONTD_CONNECTION_INTERNAL_H

#include "frontd/connection.h"
#include "frontd/source.h"

enum connection_state {
    STATE_PROXY, /* from a trusted proxy: its header, or at once the handshake */
    STATE_HANDSHAKE,
    STATE_HEAD,
    STATE_BODY,
    STATE_ANSWER, /* a handler has the request */
    STATE_WRITE,
    STATE_CLOSED, /* and about to be freed */
};

struct connection {
    struct worker *worker;
    int fd;
    struct address address; /* the client's: the kernel's word, or a trusted proxy's */
    char source_ip[ADDRESS_TEXT_BYTES];
    struct admission_place place;
    SSL *ssl; /* NULL until the client has said something */
    struct tls_peer peer;
    uint64_t trust; /* the worker's, when the client was last verified */
    struct signer_handshake handshake;
    struct event *readable, *writable, *timer;
    enum connection_state state;
    bool queued;    /* for a turn at its handshake (connection_queue.c) */
    bool reserved;  /* it has a place of the operators' share */
    bool in_step;   /* connection_advance() is on the stack: an answer only changes the state */
    bool had_bytes; /* of the request under way */
    bool answered;  /* a request before that one */
    bool end_of_input;
    bool close_after_answer;
    bool continue_said;
    char *in; /* exists only while there are bytes in it */
    size_t in_len, in_size;
    struct evbuffer *out;
    struct http_request request;
    struct source source; /* of the request under way */
    struct exchange exchange;
    struct connection *prev, *next;
    struct connection *queue_prev, *queue_next;
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

/* The same after the last byte was sent: close_notify goes out, and the socket lingers until the
 * client has read it all. */
enum progress connection_part(struct connection *connection);

/* ---- turns (connection_queue.c) ------------------------------------------------------------- */

/* The connection, which is in its handshake, has something to do: it comes in line for a turn. */
void connection_queue(struct connection *connection);

/* Takes it out of the line, if it is in it. */
void connection_unqueue(struct connection *connection);

/* No answer is due any more: a turn that waited for them comes next. */
void connection_queue_resume(struct worker *worker);

/* ---- steps (connection_steps.c) ------------------------------------------------------------- */

/* Goes on as far as it can, but for a bounded while: others wait for the loop too. Returns WAIT,
 * GONE, or GO_ON when it goes on in the next turn. */
enum progress connection_advance(struct connection *connection);

/* The step of STATE_PROXY (connection_proxy.c): reads the header, byte for byte no more than that.
 */
enum progress connection_step_proxy(struct connection *connection);

/* ---- trust (connection_trust.c) ------------------------------------------------------------- */

/* Whether its client would be accepted by the CA bundle and CRLs that are in force now; false with
 * the reason in its peer. Costs nothing when they have not changed since it was last verified. */
bool connection_is_trusted(struct connection *connection);

/* True: a certificate of its client's chain has ended since it was verified, and the client is
 * nobody from now on. */
bool connection_drop_expired(struct connection *connection);

/* ---- bytes (connection_io.c) ---------------------------------------------------------------- */

/* What to do after an OpenSSL call that did not go through: WAIT for what ssl_error asks for, or
 * GONE. */
enum progress connection_wait(struct connection *connection, int ssl_error);

/* Reads what there is. GO_ON with more bytes or at the end of input. */
enum progress connection_fill(struct connection *connection);

/* Reads at most len bytes that are not TLS, so that what follows them stays in the socket. GO_ON
 * with more bytes. */
enum progress connection_fill_plain(struct connection *connection, size_t len);

/* Frees the input's buffer. */
void connection_drop_input(struct connection *connection);

/* Writes the output. GO_ON when all of it is with the kernel. */
enum progress connection_flush(struct connection *connection);

/* Drops the bytes of the request that was answered; what was pipelined behind it moves to the
 * front.
 */
void connection_consume_request(struct connection *connection);

#endif
