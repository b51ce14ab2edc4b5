/* One client of the gateway under test: what it sends, what it expects, what it counts.
 *
 * Its way: connect, upgrade, wait for argus/session, initialize, (leader: start a thread), ready,
 * stream. Everything here reacts to bytes; clients.c decides when to open, begin and end.
 */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"
#include "cost.h"
#include "json.h"
#include "websocket.h"

enum {
    READ_BYTES = 128 * 1024, NAME = 64, SAMPLES = 1 << 22, PROBE_GAP_US = 1000,
    ID_INITIALIZE = 1, ID_THREAD = 2, ID_TURN = 3, ID_PROBE = 4,
};

enum state { UNOPENED, CONNECTING, UPGRADING, GREETING, INITIALIZING, THREADING, READY, STREAMING,
             FINISHED, FAILED };

struct client {
    enum state state;
    int fd;
    bool leads, slow, probes;
    struct client *leader;
    struct buffer in;
    char session[NAME], thread[NAME];
    long turns_done, expected, delivered, wrong;
};

struct samples {
    int32_t *us;
    long count;
};

static struct {
    long port, sessions, clients, n, size, turns, probes, probe_ms, slow, hold_ms, spread_ms,
        timeout_ms;
    double rate;
    const char *target;
    struct processes gateway;
} opt = {.sessions = 1, .clients = 1, .size = 128, .turns = 1, .probe_ms = 5000,
         .timeout_ms = 60000, .target = "/ws"};

static struct client *all;
static long total; /* clients in `all`, the prober included: it is the last */
static long opening, ready, streaming, finished, failed;
static char first_failure[256];
static struct samples latency, round_trip;
static int64_t probe_sent_us, probe_next_us, probe_end_us;

/* ---- bookkeeping ---- */

static void note(struct samples *samples, int64_t us)
{
    if (samples->count < SAMPLES)
        samples->us[samples->count++] = (int32_t)us;
}

static void fail_client(struct client *c, const char *why)
{
    if (c->state == FAILED)
        return;
    if (!first_failure[0])
        snprintf(first_failure, sizeof first_failure, "%s (client %ld, state %d)", why,
                 (long)(c - all), c->state);
    opening -= c->state > UNOPENED && c->state < READY;
    streaming -= c->state == STREAMING;
    failed++;
    c->state = FAILED;
    close(c->fd);
}

static void become_ready(struct client *c)
{
    if (c->state == FAILED)
        return; /* its last request could not be sent */
    c->state = READY;
    opening--;
    ready++;
}

/* ---- sending ---- */

static void send_all(struct client *c, const char *bytes, size_t len)
{
    /* Requests are far smaller than an empty socket buffer: a short write is a fault. */
    if (send(c->fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
        fail_client(c, "the gateway does not read");
}

static void send_frame(struct client *c, int opcode, const char *payload, size_t len)
{
    char frame[2048];
    if (len + WS_HEADER_MAX > sizeof frame)
        len = 0;
    send_all(c, frame, ws_build(frame, opcode, payload, len));
}

static void send_text(struct client *c, const char *text)
{
    send_frame(c, WS_TEXT, text, strlen(text));
}

static void send_upgrade(struct client *c)
{
    char request[1024], attach[NAME + 16] = "";
    if (!c->leads)
        snprintf(attach, sizeof attach, "%csession=%s", strchr(opt.target, '?') ? '&' : '?',
                 c->leader->session);
    snprintf(request, sizeof request,
             "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%ld\r\nConnection: Upgrade\r\n"
             "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: " WS_KEY "\r\n\r\n", opt.target, attach, opt.port);
    c->state = UPGRADING;
    send_all(c, request, strlen(request));
}

static void send_turn(struct client *c)
{
    char text[512];
    snprintf(text, sizeof text,
             "{\"method\":\"turn/start\",\"id\":%d,\"params\":{\"threadId\":\"%s\",\"input\":[{"
             "\"type\":\"text\",\"text\":\"BENCH n=%ld size=%ld rate=%g\"}]}}",
             ID_TURN, c->thread, opt.n, opt.size, opt.rate);
    send_text(c, text);
}

/* ---- what arrives ---- */

static void on_delta(struct client *c, const char *text, size_t len)
{
    /* The stamp's place is the same in all lines of a thread's turn: look there first. */
    static size_t usual_place;
    size_t at = usual_place;
    if (at < 9 || at + STAMP_SIZE > len || memcmp(text + at - 9, "\"delta\":\"", 9)) {
        const char *found = memmem(text, len, "\"delta\":\"", 9);
        if (!found || found + 9 + STAMP_SIZE > text + len) {
            c->wrong++;
            return;
        }
        usual_place = at = (size_t)(found + 9 - text);
    }
    long number = (long)get_hex(text + at, STAMP_NUMBER);
    c->wrong += number != c->expected;
    c->expected = number + 1;
    c->delivered++;
    if (opt.rate > 0)
        note(&latency, now_us() - get_hex(text + at + STAMP_NUMBER + 1, STAMP_TIME));
}

static bool turns_go_on(const struct client *c)
{
    if (opt.probes)
        return round_trip.count < opt.probes && now_us() < probe_end_us;
    return c->turns_done < opt.turns;
}

static void on_turn_completed(struct client *c)
{
    c->wrong += c->expected != opt.n;
    c->expected = 0;
    c->turns_done++;
    if (turns_go_on(c)) {
        if (c->leads)
            send_turn(c);
        return;
    }
    c->state = FINISHED;
    streaming--;
    finished++;
}

static void on_initialized(struct client *c)
{
    bool needs_thread = c->leads && !c->probes && opt.n > 0;
    send_text(c, "{\"method\":\"initialized\"}");
    if (!needs_thread) {
        become_ready(c);
        return;
    }
    if (c->state == FAILED)
        return;
    c->state = THREADING;
    send_text(c, "{\"method\":\"thread/start\",\"id\":2,\"params\":{\"cwd\":\"/tmp\"}}");
}

static void on_response(struct client *c, struct text message, int id)
{
    struct text value = json_get(message, "result");
    if (!value.at) {
        fail_client(c, "a request was refused");
    } else if (id == ID_INITIALIZE && c->state == INITIALIZING) {
        on_initialized(c);
    } else if (id == ID_THREAD && c->state == THREADING) {
        json_copy(json_get(json_get(value, "thread"), "id"), c->thread, sizeof c->thread);
        become_ready(c);
    } else if (id == ID_PROBE && c->probes && probe_sent_us) {
        note(&round_trip, now_us() - probe_sent_us);
        probe_sent_us = 0;
        probe_next_us = now_us() + PROBE_GAP_US;
    }
}

static void on_message(struct client *c, struct text message)
{
    struct text id = json_get(message, "id");
    struct text method = json_get(message, "method");
    if (id.at && !method.at) {
        on_response(c, message, atoi(id.at));
    } else if (json_is(method, "argus/session") && c->state == GREETING) {
        json_copy(json_get(json_get(message, "params"), "id"), c->session, sizeof c->session);
        c->state = INITIALIZING;
        send_text(c, "{\"method\":\"initialize\",\"id\":1,\"params\":{\"clientInfo\":{"
                     "\"name\":\"bench\",\"title\":\"bench\",\"version\":\"1\"}}}");
    } else if (json_is(method, "turn/completed") && c->state == STREAMING) {
        on_turn_completed(c);
    }
}

static void on_text(struct client *c, const char *text, size_t len)
{
    static const char delta[] = "{\"method\":\"item/agentMessage/delta\"";
    if (len >= sizeof delta && !memcmp(text, delta, sizeof delta - 1))
        on_delta(c, text, len);
    else
        on_message(c, (struct text){text, len});
}

static void on_close(struct client *c, const struct frame *frame)
{
    char why[160];
    const unsigned char *p = (const unsigned char *)frame->payload;
    snprintf(why, sizeof why, "closed with %d %.*s", frame->len < 2 ? 1005 : p[0] << 8 | p[1],
             frame->len < 2 ? 0 : (int)frame->len - 2, frame->payload + 2);
    fail_client(c, why);
}

static void on_frames(struct client *c)
{
    struct frame frame;
    size_t size;
    while (c->state != FAILED &&
           (size = ws_parse(c->in.data + c->in.start, buffered(&c->in), &frame))) {
        c->in.start += size;
        if (!frame.whole)
            fail_client(c, "not a whole, plain frame");
        else if (frame.opcode == WS_TEXT)
            on_text(c, frame.payload, frame.len);
        else if (frame.opcode == WS_PING)
            send_frame(c, WS_PONG, frame.payload, frame.len);
        else if (frame.opcode == WS_CLOSE)
            on_close(c, &frame);
    }
}

static void on_upgrade_answer(struct client *c)
{
    char *head = c->in.data + c->in.start;
    char *end = memmem(head, buffered(&c->in), "\r\n\r\n", 4);
    if (!end)
        return;
    *end = 0;
    if (strncmp(head, "HTTP/1.1 101", 12) || !strstr(head, WS_ACCEPT)) {
        fail_client(c, "the upgrade was refused");
        return;
    }
    c->in.start += (size_t)(end + 4 - head);
    c->state = GREETING;
}

static void on_readable(struct client *c)
{
    char *room = buffer_room(&c->in, READ_BYTES);
    ssize_t got = recv(c->fd, room, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        fail_client(c, got ? strerror(errno) : "the gateway hung up");
        return;
    }
    c->in.end += (size_t)got;
    if (c->state == UPGRADING)
        on_upgrade_answer(c);
    if (c->state > UPGRADING)
        on_frames(c);
}

#endif
