/* A strict HTTP/1.1 head parser, line by line: no folding, no bare CR or LF, no ambiguous length,
 * no chunked bodies. Touches only the bytes it is given. Where it is unsure, it refuses. */
#include "frontd/http_request.h"

#include <strings.h>

static const char *const field_names[HTTP_FIELD_COUNT] = {
    [HTTP_HOST] = "host",
    [HTTP_CONTENT_LENGTH] = "content-length",
    [HTTP_TRANSFER_ENCODING] = "transfer-encoding",
    [HTTP_CONTENT_TYPE] = "content-type",
    [HTTP_CONNECTION] = "connection",
    [HTTP_EXPECT] = "expect",
    [HTTP_CF_CONNECTING_IP] = "cf-connecting-ip",
    [HTTP_X_FORWARDED_FOR] = "x-forwarded-for",
};

/* Lists, of which several lines are one; the others may stand once. */
static const bool is_list[HTTP_FIELD_COUNT] = {
    [HTTP_CONNECTION] = true,
    [HTTP_X_FORWARDED_FOR] = true,
};

/* A letter, a digit, or one of the others. */
static bool is_one_of(char c, const char *others)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr(others, c));
}

/* RFC 9110 5.6.2. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_one_of(s.ptr[i], "!#$%&'*+-.^_`|~"))
            return false;
    return s.len > 0;
}

struct str http_trim(struct str s)
{
    while (s.len > 0 && (*s.ptr == ' ' || *s.ptr == '\t'))
        s = (struct str){s.ptr + 1, s.len - 1};
    while (s.len > 0 && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool equal_ignoring_case(struct str a, const char *b)
{
    return a.len == strlen(b) && strncasecmp(a.ptr, b, a.len) == 0;
}

static struct http_span span_of(const char *bytes, struct str view)
{
    return (struct http_span){(uint32_t)(view.ptr - bytes), (uint32_t)view.len};
}

/* ---- the request line ----------------------------------------------------------------------- */

/* The word before the next space; line moves behind that space. False without one. */
static bool take_word(struct str *line, struct str *word)
{
    const char *space = memchr(line->ptr, ' ', line->len);

    if (!space)
        return false;
    *word = (struct str){line->ptr, (size_t)(space - line->ptr)};
    *line = (struct str){space + 1, line->len - word->len - 1};
    return true;
}

static const char *take_target(struct http_request *request, const char *bytes, struct str target)
{
    const char *question;

    if (target.len == 0 || target.ptr[0] != '/')
        return "the request target is not a path";
    for (size_t i = 0; i < target.len; i++)
        if (target.ptr[i] <= ' ' || target.ptr[i] >= 0x7f || target.ptr[i] == '#')
            return "the request target has a character that is not allowed";
    question = memchr(target.ptr, '?', target.len);
    if (question) {
        request->has_query = true;
        request->query = span_of(
            bytes, (struct str){question + 1, (size_t)(target.ptr + target.len - question - 1)});
        target.len = (size_t)(question - target.ptr);
    }
    request->path = span_of(bytes, target);
    return NULL;
}

static const char *take_request_line(struct http_request *request, const char *bytes,
                                     struct str line)
{
    struct str method, target;

    if (!take_word(&line, &method) || !take_word(&line, &target) || !is_token(method))
        return "the request line is malformed";
    if (str_equal(method, STR("CONNECT"))) /* with a path: others see no body behind it */
        return "CONNECT needs an authority, and there is no tunnel here";
    if (str_equal(line, STR("HTTP/1.0")))
        request->is_http_1_0 = true;
    else if (!str_equal(line, STR("HTTP/1.1")))
        return "the protocol version is not HTTP/1.1";
    request->method = span_of(bytes, method);
    request->keep_alive = !request->is_http_1_0;
    return take_target(request, bytes, target);
}

/* ---- fields --------------------------------------------------------------------------------- */

/* Whether "close" stands in the comma-separated list. */
static bool list_has_close(struct str list)
{
    while (list.len > 0) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;

        if (equal_ignoring_case(http_trim((struct str){list.ptr, len}), "close"))
            return true;
        len += comma ? 1 : 0;
        list = (struct str){list.ptr + len, list.len - len};
    }
    return false;
}

/* Cuts a line in two. False: it has no colon. */
static bool split_field(struct str line, struct str *name, struct str *value)
{
    const char *colon = memchr(line.ptr, ':', line.len);

    if (!colon)
        return false;
    *name = (struct str){line.ptr, (size_t)(colon - line.ptr)};
    *value = http_trim((struct str){colon + 1, (size_t)(line.ptr + line.len - colon - 1)});
    return true;
}

static const char *take_field(struct http_request *request, const char *bytes, struct str line)
{
    struct str name, value;

    if (!split_field(line, &name, &value))
        return "a header field has no colon";
    if (!is_token(name))
        return "a header field's name is malformed";
    for (int i = 0; i < HTTP_FIELD_COUNT; i++) {
        if (!equal_ignoring_case(name, field_names[i]))
            continue;
        if (request->given[i] && !is_list[i])
            return "a header field that may stand once stands twice";
        request->given[i] = true;
        request->fields[i] = span_of(bytes, value);
        if (i == HTTP_CONNECTION && list_has_close(value))
            request->keep_alive = false;
    }
    return NULL;
}

bool http_request_next(const struct http_request *request, const char *bytes, enum http_field field,
                       uint32_t *at, struct str *value)
{
    uint32_t start = *at ? *at : request->fields_start;

    while (start < request->scanned) {
        const char *end = memchr(bytes + start, '\n', request->scanned - start);
        struct str line = {bytes + start, (size_t)(end - bytes) - 1 - start};
        struct str name;

        start = (uint32_t)(end - bytes) + 1;
        if (split_field(line, &name, value) && equal_ignoring_case(name, field_names[field])) {
            *at = start;
            return true;
        }
    }
    return false;
}

/* ---- the head as a whole -------------------------------------------------------------------- */

/* Whether each byte can stand in uri-host [":" port] (RFC 9110 7.2, RFC 3986 3.2.2). Whom it names
 * is nobody's concern: identity comes from the certificate. */
static bool is_host(struct str value)
{
    for (size_t i = 0; i < value.len; i++)
        if (!is_one_of(value.ptr[i], "-._~%!$&'()*+,;=:[]"))
            return false;
    return true;
}

/* Decimal digits as a number; one beyond HTTP_BODY_MAX is only known to be beyond it. */
static bool read_length(struct str text, uint64_t *length)
{
    *length = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        if (*length <= HTTP_BODY_MAX)
            *length = *length * 10 + (uint64_t)(text.ptr[i] - '0');
    }
    return text.len > 0;
}

static enum error_code take_length(struct http_request *request, const char *bytes,
                                   const char **why)
{
    struct str text = http_span_view(bytes, request->fields[HTTP_CONTENT_LENGTH]);

    if (request->given[HTTP_TRANSFER_ENCODING]) {
        *why = request->given[HTTP_CONTENT_LENGTH] ? "both Content-Length and Transfer-Encoding"
                                                   : "a request body needs Content-Length";
        return request->given[HTTP_CONTENT_LENGTH] ? ERROR_VALIDATION : ERROR_LENGTH_REQUIRED;
    }
    *why = "Content-Length is not a number";
    if (request->given[HTTP_CONTENT_LENGTH] && !read_length(text, &request->content_length))
        return ERROR_VALIDATION;
    return ERROR_NONE;
}

static enum error_code finish_head(struct http_request *request, const char *bytes,
                                   const char **why)
{
    struct str expect = http_span_view(bytes, request->fields[HTTP_EXPECT]);
    struct str host = http_span_view(bytes, request->fields[HTTP_HOST]);

    request->complete = true;
    *why = "HTTP/1.1 needs exactly one Host";
    if (!request->given[HTTP_HOST] && !request->is_http_1_0)
        return ERROR_VALIDATION;
    *why = "Host is malformed";
    if (request->given[HTTP_HOST] && !is_host(host))
        return ERROR_VALIDATION;
    request->expects_continue = request->given[HTTP_EXPECT] && !request->is_http_1_0 &&
                                equal_ignoring_case(expect, "100-continue");
    return take_length(request, bytes, why);
}

/* Takes the line that ends (with CR LF) right before `end`. */
static enum error_code take_line(struct http_request *request, const char *bytes, uint32_t end,
                                 const char **why)
{
    struct str line = {bytes + request->line_start, end - 2 - request->line_start};

    request->line_start = end;
    if (!request->fields_start) {
        request->fields_start = end;
        *why = take_request_line(request, bytes, line);
    } else if (line.len == 0) {
        return finish_head(request, bytes, why);
    } else if (++request->field_count > HTTP_FIELDS_MAX) {
        *why = "more than 100 header fields";
        return ERROR_HEADERS_TOO_LARGE;
    } else {
        *why = take_field(request, bytes, line);
    }
    return *why ? ERROR_VALIDATION : ERROR_NONE;
}

/* The bounds of the part under way, whose last byte is c. The CR LF that ends the request line, and
 * the empty line behind the fields, do not count. */
static enum error_code check_size(const struct http_request *request, char c, const char **why)
{
    uint32_t line_end = c == '\n' ? 2 : c == '\r' ? 1 : 0;
    uint32_t size = request->scanned - request->fields_start - line_end;

    *why = "the request line is longer than 8 KiB";
    if (!request->fields_start)
        return size > HTTP_REQUEST_LINE_MAX ? ERROR_URI_TOO_LONG : ERROR_NONE;
    *why = "the header fields are longer than 16 KiB";
    return size > HTTP_FIELDS_BYTES_MAX ? ERROR_HEADERS_TOO_LARGE : ERROR_NONE;
}

/* Whether c may follow previous: CR and LF only as a pair, no other control but HTAB. */
static bool byte_allowed(char previous, char c)
{
    if ((previous == '\r') != (c == '\n'))
        return false;
    return (unsigned char)c >= ' ' ? c != 0x7f : c == '\r' || c == '\n' || c == '\t';
}

enum error_code http_request_feed(struct http_request *request, const char *bytes, size_t len,
                                  const char **why)
{
    enum error_code code = ERROR_NONE;

    while (code == ERROR_NONE && !request->complete && request->scanned < len) {
        char previous = request->scanned ? bytes[request->scanned - 1] : '\0';
        char c = bytes[request->scanned++];

        *why = "a control character or a bare CR or LF";
        if (!byte_allowed(previous, c))
            return ERROR_VALIDATION;
        code = check_size(request, c, why);
        if (code == ERROR_NONE && c == '\n')
            code = take_line(request, bytes, request->scanned, why);
    }
    return code;
}
