/* HTTP/1.1 requests, strictly (RFC 9112): fed bytes as they come, refused at the first wrong one.
 */
#ifndef CAF_FRONTD_HTTP_REQUEST_H
#define CAF_FRONTD_HTTP_REQUEST_H

#include "common/errors.h"
#include "common/str.h"

#include <stdint.h>

enum {
    HTTP_REQUEST_LINE_MAX = 8192,
    HTTP_FIELDS_MAX = 100,
    HTTP_FIELDS_BYTES_MAX = 16384,
    HTTP_BODY_MAX = 65536,
};

/* The fields that somebody reads; all others are checked for syntax and forgotten. */
enum http_field {
    HTTP_HOST,
    HTTP_CONTENT_LENGTH,
    HTTP_TRANSFER_ENCODING,
    HTTP_CONTENT_TYPE,
    HTTP_CONNECTION,
    HTTP_EXPECT,
    HTTP_CF_CONNECTING_IP,
    HTTP_X_FORWARDED_FOR, /* here the last line of it: http_request_next gives them all */
    HTTP_FIELD_COUNT,
};

/* A part of the head by place, so that the buffer may move. */
struct http_span {
    uint32_t at, len;
};

/* A request's head as far as it has been read. Zeroed: nothing yet. */
struct http_request {
    uint32_t scanned, line_start; /* bytes seen; where the line under way begins */
    uint32_t fields_start;        /* where the fields begin; 0: still in the request line */
    uint16_t field_count;
    bool complete;
    bool is_http_1_0;
    bool keep_alive;
    bool expects_continue;
    struct http_span method, path, query; /* query without '?' */
    bool has_query;
    bool given[HTTP_FIELD_COUNT];
    struct http_span fields[HTTP_FIELD_COUNT];
    uint64_t content_length; /* exact up to HTTP_BODY_MAX; else some number beyond it */
};

/* Reads on in the head, whose bytes begin at `bytes` (all of it each time; len only grows). Returns
 * ERROR_NONE when all is well so far: request->complete says whether the head is whole, and
 * request->scanned then where it ends. Else the code to answer with, a literal in *why, and the
 * connection must end. */
enum error_code http_request_feed(struct http_request *request, const char *bytes, size_t len,
                                  const char **why);

/* The next line of that field in a complete head, without the blanks around it: *at is 0 for the
 * first, and then what the last call left in it. False: there is none. */
bool http_request_next(const struct http_request *request, const char *bytes, enum http_field field,
                       uint32_t *at, struct str *value);

/* Without the spaces and tabs at both ends. */
struct str http_trim(struct str s);

/* The view of a span. */
static inline struct str http_span_view(const char *bytes, struct http_span span)
{
    return (struct str){bytes + span.at, span.len};
}

#endif
