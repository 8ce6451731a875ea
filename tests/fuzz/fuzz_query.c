/* Query strings, from what the HTTP parser lets through (visible ASCII) to validated requests: the
 * first byte says which route; the same text, never empty, stands for a {name} in its path. */
#include "tests/fuzz/handlers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exchange exchange = {.method = STR("GET")};

    if (size < 2)
        return 0;
    for (size_t i = 1; i < size; i++)
        if (data[i] <= ' ' || data[i] >= 0x7f)
            return 0;
    exchange.query = exchange.parameter = (struct str){(const char *)data + 1, size - 1};
    run_handler(&exchange, data[0] % 16);
    return 0;
}
