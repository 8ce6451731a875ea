/* Names that must not repeat, and their spellings. */
#ifndef CAF_COMMON_IDS_H
#define CAF_COMMON_IDS_H

#include <stddef.h>
#include <stdint.h>

enum { TRACE_ID_LEN = 16, UUID_TEXT_BYTES = 37 };

/* Fills bytes from the kernel's random source; ends the process when it gives none. */
void ids_random(void *bytes, size_t len);

/* A new trace_id: 16 lower-case hex characters, all random, and a NUL (contract, terms). */
void ids_trace(char text[TRACE_ID_LEN + 1]);

/* Writes len bytes as 2*len lower-case hex characters and a NUL. */
void ids_hex(const void *bytes, size_t len, char *text);

/* Writes 16 bytes in UUID spelling, 8-4-4-4-12. */
void ids_uuid_text(const uint8_t bytes[16], char text[UUID_TEXT_BYTES]);

/* Reads the UUID spelling back into 16 bytes; returns 0, or -1 when text is not one. */
int ids_uuid_parse(const char *text, uint8_t bytes[16]);

/* A 64-bit hash of len bytes for tables and for spreading load; equal in every process and build.
 */
uint64_t ids_hash(const void *bytes, size_t len);

#endif
