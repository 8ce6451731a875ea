/* The small parsers of text: configuration, UUIDs, numbers. */
#include "common/ids.h"
#include "frontd/options.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str text = {(const char *)data, size};
    char *copy = str_dup(text), error[256], spelled[UUID_TEXT_BYTES];
    struct frontd_options options = {0};
    uint8_t uuid[16];
    long long number;

    if (ids_uuid_parse(copy, uuid) == 0)
        ids_uuid_text(uuid, spelled);
    if (str_to_number(text, INT64_MAX, &number))
        MUST_HOLD(number >= 0 && size <= 18);
    if (config_parse(frontd_option_table, &options, text, "fuzz", error, sizeof(error)) == 0)
        MUST_HOLD(options.workers_count >= 1);
    config_free(frontd_option_table, &options);
    free(copy);
    return 0;
}
