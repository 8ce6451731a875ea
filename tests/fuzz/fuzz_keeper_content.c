/* What a worker may have the keeper sign: whatever is signed has the shape of a TLS handshake's
 * content. The first byte picks the SignatureScheme. */
#include "frontd/keeper_sign.h"
#include "tests/fuzz/fuzz.h"

#include <openssl/ec.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t schemes[] = {0x0403, 0x0503, 0x0603, 0x0804, 0x0401};
    static EVP_PKEY *key;
    struct tls_signature signature;
    const char *why;

    if (!key)
        key = EVP_EC_gen("P-256");
    if (size == 0)
        return 0;
    if (keeper_sign(key, schemes[data[0] % 5], data + 1, size - 1, &signature, &why) != 0)
        MUST_HOLD(signature.length == 0 && why);
    else /* RFC 8446 4.4.3; or two randoms and ECDHE parameters, curve_type named_curve (RFC
            8422 5.4) */
        MUST_HOLD(data[1] == 0x20 ? size - 1 >= 64 + 33 + 1 + 32
                                  : size - 1 > 64 + 4 && data[65] == 3);
    return 0;
}
