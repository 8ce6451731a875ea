/* The HTTP parser beside a second one, Node.js' http_parser: where the two see a request end in
 * different places, ours must refuse it: whoever stands before or behind caf then cannot be
 * smuggled past. */
#include "frontd/http_request.h"
#include "tests/fuzz/fuzz.h"

#include <http_parser.h>

static int note_end(http_parser *parser)
{
    *(bool *)parser->data = true;
    http_parser_pause(parser, 1);
    return 0;
}

/* Where the other parser sees the first request end; SIZE_MAX: beyond these bytes; 0: it refuses
 * them. */
static size_t other_end(const char *bytes, size_t size)
{
    const http_parser_settings settings = {.on_message_complete = note_end};
    bool ended = false;
    http_parser parser = {.data = &ended};
    size_t parsed;

    http_parser_init(&parser, HTTP_REQUEST);
    parsed = http_parser_execute(&parser, &settings, bytes, size);
    if (ended)
        return parsed;
    return HTTP_PARSER_ERRNO(&parser) == HPE_OK ? SIZE_MAX : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request request = {0};
    const char *bytes = (const char *)data, *why;
    enum error_code code = http_request_feed(&request, bytes, size, &why);
    size_t ours = request.scanned + (size_t)request.content_length, other;

    if (code != ERROR_NONE || !request.complete || request.content_length > HTTP_BODY_MAX)
        return 0; /* refused, or unfinished */
    other = other_end(bytes, size);
    MUST_HOLD(other == 0 || other == (ours <= size ? ours : SIZE_MAX));
    return 0;
}
