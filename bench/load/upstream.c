/* An app-server on TCP that streams on demand.
 *
 * usage: upstream          listens on a free port of 127.0.0.1, prints it, ends when stdin closes
 *
 * One JSON message per line. Every request is answered. A turn/start whose text holds
 * "BENCH n=<lines> size=<bytes> rate=<lines per second>" streams n numbered, time-stamped
 * item/agentMessage/delta lines of `size` bytes each (without the newline) and then
 * turn/completed; rate 0 means as fast as the reader takes them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"
#include "json.h"

enum { BACKLOG = 4096, BATCH_BYTES = 64 * 1024, READ_BYTES = 16 * 1024, EVENTS = 256, NAME = 64 };

struct turn {
    struct turn *next;
    char thread[NAME];
    long number;
    long total, sent;
    int64_t interval_ns, due_ns; /* interval 0: saturated, never waits for a due time */
    char *line;                  /* the whole line with its newline; only the stamp changes */
    size_t line_len, stamp_at;
};

struct link {
    struct link *next, **self; /* `self` is the pointer that points here */
    int fd;
    bool armed; /* EPOLLOUT is asked for */
    struct buffer in, out;
    struct turn *turns;
};

static int poller, timer;
static struct link *links;
static long threads_made, turns_made;

/* ---- turns ---- */

static void make_line(struct turn *turn, size_t size)
{
    char head[512];
    int head_len = snprintf(head, sizeof head,
                            "{\"method\":\"item/agentMessage/delta\",\"params\":{\"threadId\":\"%s\","
                            "\"turnId\":\"u%lx\",\"itemId\":\"m1\",\"delta\":\"",
                            turn->thread, turn->number);
    size_t fixed = (size_t)head_len + STAMP_SIZE + 3;
    size_t padding = size > fixed ? size - fixed : 0;
    turn->stamp_at = (size_t)head_len;
    turn->line_len = fixed + padding + 1;
    turn->line = malloc(turn->line_len + 1);
    if (!turn->line)
        die("malloc");
    memcpy(turn->line, head, (size_t)head_len);
    memset(turn->line + head_len, ' ', STAMP_SIZE + padding);
    for (size_t i = 0; i < padding; i++)
        turn->line[(size_t)head_len + STAMP_SIZE + i] = " an answer grows word by word"[i % 29];
    memcpy(turn->line + turn->line_len - 4, "\"}}\n", 4);
}

static double wish(const char *text, const char *name, double fallback)
{
    const char *found = text ? strstr(text, name) : NULL;
    return found ? atof(found + strlen(name)) : fallback;
}

static struct turn *make_turn(struct text params, const char *bench)
{
    struct turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        die("calloc");
    double rate = wish(bench, "rate=", 0);
    json_copy(json_get(params, "threadId"), turn->thread, sizeof turn->thread);
    turn->number = ++turns_made;
    turn->total = (long)wish(bench, "n=", 1);
    turn->interval_ns = rate > 0 ? (int64_t)(1e9 / rate) : 0;
    /* Phases are spread evenly (golden ratio), so that many sessions do not tick as one. */
    double phase = (double)turn->number * 0.6180339887;
    turn->due_ns = now_ns() + (int64_t)((phase - (long)phase) * (double)turn->interval_ns);
    make_line(turn, (size_t)wish(bench, "size=", 128));
    return turn;
}

static void free_turn(struct turn *turn)
{
    free(turn->line);
    free(turn);
}

static void announce(struct link *link, const char *method, const struct turn *turn,
                     const char *status)
{
    char line[512];
    int len = snprintf(line, sizeof line,
                       "{\"method\":\"%s\",\"params\":{\"threadId\":\"%s\",\"turn\":{\"id\":\"u%lx\","
                       "\"items\":[],\"status\":\"%s\",\"error\":null}}}\n",
                       method, turn->thread, turn->number, status);
    buffer_append(&link->out, line, (size_t)len);
}

static void write_lines(struct link *link, struct turn *turn, long count)
{
    int64_t us = now_us();
    char *at = buffer_room(&link->out, (size_t)count * turn->line_len);
    for (long i = 0; i < count; i++, at += turn->line_len) {
        memcpy(at, turn->line, turn->line_len);
        put_stamp(at + turn->stamp_at, turn->sent++, us);
    }
    link->out.end += (size_t)count * turn->line_len;
}

/* How many lines of this turn may be written now; one batch at most. */
static long lines_due(struct turn *turn, int64_t now)
{
    long left = turn->total - turn->sent;
    long most = BATCH_BYTES / (long)turn->line_len;
    if (turn->interval_ns > 0) {
        long late = now < turn->due_ns ? 0 : 1 + (long)((now - turn->due_ns) / turn->interval_ns);
        left = late < left ? late : left;
        turn->due_ns += left * turn->interval_ns;
        return left;
    }
    most = most > 0 ? most : 1;
    return left < most ? left : most;
}

/* Writes what is due on this link; finished turns are announced and removed. */
static void advance_turns(struct link *link)
{
    int64_t now = now_ns();
    struct turn **at = &link->turns;
    while (*at) {
        struct turn *turn = *at;
        /* A saturated turn waits for an empty buffer: the reader sets the pace. */
        if (turn->interval_ns > 0 || buffered(&link->out) == 0)
            write_lines(link, turn, lines_due(turn, now));
        if (turn->sent < turn->total) {
            at = &turn->next;
            continue;
        }
        announce(link, "turn/completed", turn, "completed");
        *at = turn->next;
        free_turn(turn);
    }
}

/* ---- links ---- */

static bool saturated(const struct link *link)
{
    for (const struct turn *turn = link->turns; turn; turn = turn->next)
        if (turn->interval_ns == 0)
            return true;
    return false;
}

static void close_link(struct link *link)
{
    close(link->fd);
    *link->self = link->next;
    if (link->next)
        link->next->self = link->self;
    while (link->turns) {
        struct turn *turn = link->turns;
        link->turns = turn->next;
        free_turn(turn);
    }
    free(link->in.data);
    free(link->out.data);
    free(link);
}

/* One batch and one send per call, so that a saturated link cannot starve the others. */
static bool serve_link(struct link *link)
{
    advance_turns(link);
    if (buffered(&link->out) > 0) {
        ssize_t sent = send(link->fd, link->out.data + link->out.start, buffered(&link->out),
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return false;
        link->out.start += sent > 0 ? (size_t)sent : 0;
    }
    bool arm = buffered(&link->out) > 0 || saturated(link);
    if (arm != link->armed) {
        struct epoll_event event = {.events = EPOLLIN | (arm ? EPOLLOUT : 0), .data.ptr = link};
        epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event);
        link->armed = arm;
    }
    return true;
}

static void reply(struct link *link, struct text id, const char *result)
{
    buffer_append(&link->out, "{\"id\":", 6);
    buffer_append(&link->out, id.at, id.len);
    buffer_append(&link->out, ",\"result\":", 10);
    buffer_append(&link->out, result, strlen(result));
    buffer_append(&link->out, "}\n", 2);
}

static void start_thread(struct link *link, struct text id)
{
    char thread[64], text[256];
    snprintf(thread, sizeof thread, "{\"id\":\"t%lx\",\"preview\":\"\",\"turns\":[]}", ++threads_made);
    snprintf(text, sizeof text, "{\"thread\":%s,\"model\":\"bench\"}", thread);
    reply(link, id, text);
    int len = snprintf(text, sizeof text,
                       "{\"method\":\"thread/started\",\"params\":{\"thread\":%s}}\n", thread);
    buffer_append(&link->out, text, (size_t)len);
}

static void start_turn(struct link *link, struct text id, struct text params)
{
    char result[256];
    /* The line is a C string here: `handle_line` ended it. */
    struct turn *turn = make_turn(params, params.at ? strstr(params.at, "BENCH ") : NULL);
    snprintf(result, sizeof result,
             "{\"turn\":{\"id\":\"u%lx\",\"items\":[],\"status\":\"inProgress\",\"error\":null}}",
             turn->number);
    reply(link, id, result);
    announce(link, "turn/started", turn, "inProgress");
    struct turn **last = &link->turns;
    while (*last)
        last = &(*last)->next;
    *last = turn;
}

static void handle_line(struct link *link, char *line, size_t len)
{
    line[len] = 0; /* where the newline was */
    struct text message = {line, len};
    struct text method = json_get(message, "method");
    struct text id = json_get(message, "id");
    if (!method.at || !id.at)
        return; /* notifications and answers need no reply */
    if (json_is(method, "turn/start")) {
        start_turn(link, id, json_get(message, "params"));
    } else if (json_is(method, "thread/start")) {
        start_thread(link, id);
    } else if (json_is(method, "initialize")) {
        reply(link, id, "{\"userAgent\":\"bench_upstream/1.0\"}");
    } else {
        reply(link, id, "{\"data\":[],\"nextCursor\":null}");
    }
}

static bool read_link(struct link *link)
{
    char *room = buffer_room(&link->in, READ_BYTES);
    ssize_t got = recv(link->fd, room, READ_BYTES, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN))
        return false;
    link->in.end += got > 0 ? (size_t)got : 0;
    char *newline;
    while ((newline = memchr(link->in.data + link->in.start, '\n', buffered(&link->in)))) {
        char *line = link->in.data + link->in.start;
        link->in.start += (size_t)(newline - line) + 1;
        handle_line(link, line, (size_t)(newline - line));
    }
    return true;
}

static void accept_link(int listener)
{
    int one = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        die("calloc");
    link->fd = fd;
    link->next = links;
    link->self = &links;
    if (links)
        links->self = &link->next;
    links = link;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
}

/* ---- the loop ---- */

/* A timerfd, because epoll's own timeout counts whole milliseconds: too coarse for 1000 lines/s. */
static void set_timer(void)
{
    int64_t first = 0;
    for (struct link *link = links; link; link = link->next)
        for (struct turn *turn = link->turns; turn; turn = turn->next)
            if (turn->interval_ns > 0 && (first == 0 || turn->due_ns < first))
                first = turn->due_ns;
    struct itimerspec when = {.it_value = {first / 1000000000, first % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void serve_paced_links(void)
{
    int64_t now = now_ns();
    struct link *next;
    for (struct link *link = links; link; link = next) {
        next = link->next;
        bool due = false;
        for (struct turn *turn = link->turns; turn; turn = turn->next)
            due = due || (turn->interval_ns > 0 && turn->due_ns <= now);
        if (due && !serve_link(link))
            close_link(link);
    }
}

static int listen_anywhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (void *)&address, size) || listen(fd, BACKLOG))
        die("listen");
    getsockname(fd, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void watch(int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = what};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

int main(void)
{
    static char parent, clock_tick, door; /* only their addresses are used, as event tags */
    struct epoll_event events[EVENTS];
    uint64_t ticks;
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_anywhere();
    watch(0, &parent);
    watch(timer, &clock_tick);
    watch(listener, &door);
    for (;;) {
        set_timer();
        int count = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            void *what = events[i].data.ptr;
            if (what == &parent) {
                return 0; /* whoever started us is gone or done */
            } else if (what == &door) {
                accept_link(listener);
            } else if (what == &clock_tick) {
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                    die("timer");
            } else {
                struct link *link = what;
                bool readable = events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR);
                if ((readable && !read_link(link)) || !serve_link(link))
                    close_link(link);
            }
        }
        serve_paced_links();
    }
}
