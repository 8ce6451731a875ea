/* The HTTP parser: bytes in one piece and one at a time are the same request. */
#include "frontd/http_request.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request whole = {0}, pieces = {0};
    const char *bytes = (const char *)data, *why;
    enum error_code at_once = http_request_feed(&whole, bytes, size, &why);
    enum error_code in_pieces = ERROR_NONE;

    for (size_t len = 1; len <= size && in_pieces == ERROR_NONE && !pieces.complete; len++)
        in_pieces = http_request_feed(&pieces, bytes, len, &why);
    MUST_HOLD(at_once == in_pieces);
    MUST_HOLD(whole.complete == pieces.complete && whole.scanned == pieces.scanned);
    MUST_HOLD(whole.content_length == pieces.content_length);
    MUST_HOLD(whole.scanned <= size && whole.path.at + whole.path.len <= size);
    return 0;
}
