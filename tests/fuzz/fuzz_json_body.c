/* JSON bodies, from bytes to validated requests: the first byte says which route. */
#include "tests/fuzz/handlers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exchange exchange = {.method = STR("POST")};

    if (size == 0)
        return 0;
    exchange.body = (struct str){(const char *)data + 1, size - 1};
    run_handler(&exchange, data[0] % 16);
    return 0;
}
