/* The client's half of RFC 6455: enough to read what a server sends and to answer it. */
#ifndef BENCH_WEBSOCKET_H
#define BENCH_WEBSOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WS_TEXT = 1, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10, WS_HEADER_MAX = 14 };

/* The key and answer of RFC 6455 section 1.3: a fixed pair, so that no SHA-1 is needed here. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

struct frame {
    int opcode;
    bool whole; /* neither continued nor a continuation, no extension bits, not masked */
    char *payload;
    size_t len;
};

/* Returns the size of the frame at `bytes`, or 0 when more bytes are needed. */
static inline size_t ws_parse(char *bytes, size_t available, struct frame *frame)
{
    const unsigned char *head = (const unsigned char *)bytes;
    if (available < 2)
        return 0;
    size_t header = head[1] == 127 ? 10 : head[1] == 126 ? 4 : 2;
    if (available < header)
        return 0;
    uint64_t len = head[1] & 127;
    if (header > 2) {
        len = 0;
        for (size_t i = 2; i < header; i++)
            len = len << 8 | head[i];
    }
    if (available - header < len)
        return 0;
    frame->opcode = head[0] & 15;
    frame->whole = (head[0] & 0xf0) == 0x80 && frame->opcode != 0 && !(head[1] & 0x80);
    frame->payload = bytes + header;
    frame->len = (size_t)len;
    return header + (size_t)len;
}

/* Writes a masked frame of less than 64 KB; `out` has room for WS_HEADER_MAX + len. */
static inline size_t ws_build(char *out, int opcode, const char *payload, size_t len)
{
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x17, 0x8e};
    size_t size = 0;
    out[size++] = (char)(0x80 | opcode);
    if (len < 126) {
        out[size++] = (char)(0x80 | len);
    } else {
        out[size++] = (char)(0x80 | 126);
        out[size++] = (char)(len >> 8);
        out[size++] = (char)len;
    }
    for (int i = 0; i < 4; i++)
        out[size++] = (char)mask[i];
    for (size_t i = 0; i < len; i++)
        out[size++] = (char)(payload[i] ^ mask[i & 3]);
    return size;
}

#endif
