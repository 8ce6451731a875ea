/* Every message decoder, as each sender: what decodes is within bounds, so it encodes, and decodes
 * again. */
#include "proto/proto.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (unsigned sender = PEER_FRONTD; sender <= PEER_EVENTD; sender <<= 1) {
        struct message message, again;
        struct frame frame;
        const char *why;

        if (!proto_decode(data, size, (enum proto_peer)sender, &message, &why))
            continue;
        MUST_HOLD(proto_encode(message.type, &message.id, &message.body, &frame, &why));
        MUST_HOLD(proto_decode(frame.bytes + PROTO_FRAME_HEAD, frame.len - PROTO_FRAME_HEAD,
                               (enum proto_peer)sender, &again, &why));
        MUST_HOLD(again.type == message.type);
        free(frame.bytes);
    }
    return 0;
}
