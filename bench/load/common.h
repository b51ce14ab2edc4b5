/* What the load programs share: time, errors, growing buffers, and the stamp inside a delta. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* A delta's text starts with "SSSSSSS:TTTTTTTTTTTT": its number in the turn and the monotonic
 * microsecond at which it was made, both in hex. Short enough for lines of 128 bytes. */
enum { STAMP_NUMBER = 7, STAMP_TIME = 12, STAMP_SIZE = STAMP_NUMBER + 1 + STAMP_TIME };

static inline void die(const char *what)
{
    perror(what);
    exit(2);
}

static inline int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int64_t now_us(void)
{
    return now_ns() / 1000;
}

static inline void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("setrlimit");
}

/* ---- hex digits of a fixed width ---- */

static inline void put_hex(char *out, int digits, uint64_t value)
{
    while (digits-- > 0) {
        out[digits] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

/* Wrong characters give a wrong number, which the order check then reports. */
static inline int64_t get_hex(const char *text, int digits)
{
    int64_t value = 0;
    for (int i = 0; i < digits; i++) {
        char c = text[i];
        value = value * 16 + (c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return value;
}

static inline void put_stamp(char *out, long number, int64_t us)
{
    put_hex(out, STAMP_NUMBER, (uint64_t)number);
    out[STAMP_NUMBER] = ':';
    put_hex(out + STAMP_NUMBER + 1, STAMP_TIME, (uint64_t)us);
}

/* ---- a byte queue: bytes are appended at `end` and taken from `start` ---- */

struct buffer {
    char *data;
    size_t start, end, size;
};

static inline size_t buffered(const struct buffer *b)
{
    return b->end - b->start;
}

/* Makes room for `more` bytes behind `end`; moves the rest to the front before it grows. */
static inline char *buffer_room(struct buffer *b, size_t more)
{
    if (b->start == b->end)
        b->start = b->end = 0;
    if (b->size - b->end < more && b->start > 0) {
        memmove(b->data, b->data + b->start, buffered(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->size - b->end < more) {
        b->size = (b->end + more) * 2;
        b->data = realloc(b->data, b->size);
        if (!b->data)
            die("realloc");
    }
    return b->data + b->end;
}

static inline void buffer_append(struct buffer *b, const char *bytes, size_t count)
{
    memcpy(buffer_room(b, count), bytes, count);
    b->end += count;
}

#endif
