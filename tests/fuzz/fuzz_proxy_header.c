/* PROXY protocol headers: read as a connection does, never more than the parser asks for, the
 * outcome is that of the whole. */
#include "frontd/proxy_header.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header whole, asked = {0};
    enum proxy_header_kind at_once = proxy_header_parse(data, size, &whole);
    enum proxy_header_kind as_asked;
    size_t len = 0;

    while ((as_asked = proxy_header_parse(data, len, &asked)) == PROXY_HEADER_PARTIAL &&
           len < size) {
        MUST_HOLD(asked.len > len && asked.len <= PROXY_HEADER_MAX);
        len = asked.len < size ? asked.len : size;
    }
    MUST_HOLD(at_once == as_asked);
    if (at_once == PROXY_HEADER_ADDRESS || at_once == PROXY_HEADER_LOCAL)
        MUST_HOLD(whole.len == len && asked.len == len);
    return 0;
}
