/* WebSocket clients of a gateway: they check and time what they get, and weigh the gateway.
 *
 * usage: clients port=N target=/ws?... pids=1,2 [sessions= clients= n= size= rate= turns= ...]
 *
 * Opens `sessions` sessions with `clients` sockets each: the first one of a session (its leader)
 * makes the session, the others attach to it. Each waits for argus/session and initializes; the
 * leader starts a thread. When all are ready the measured phase begins: every leader starts
 * `turns` turns, one after the other, of `n` lines of `size` bytes at `rate` lines a second, and
 * every client checks the number of every line. Prints one JSON object; times are microseconds.
 *
 *   probes=N      one more client, on a session of its own, makes N requests one after the other;
 *                 turns then go on until it has its answers or `probe_ms` have passed
 *   slow=1        the last client of each session reads 20 KB/s; nobody waits for it
 *   spread_ms=N   the leaders start their first turns one after the other within this time
 *   hold_ms=N     wait so long between "all are ready" and the measured phase
 *   timeout_ms=N  give up then
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>

#include "client.h"

enum { OPENING_AT_ONCE = 64, EVENTS = 256, SLOW_EVERY_US = 50000, SLOW_BYTES = 1024,
       SETTLE_US = 3000 };
enum phase { OPEN_LEADERS, OPEN_FOLLOWERS, HOLD, MEASURE, OVER };

static int poller;
static long opened;

static struct {
    int64_t begin_us, end_us, cpu_begin, cpu_end;
    long pss_before_kb, pss_ready_kb, rss_kb, peak_kb;
} result;

/* ---- opening ---- */

static void connect_client(struct client *c)
{
    int one = 1, small = 8192;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->state = CONNECTING;
    opening++;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->slow)
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS)
        fail_client(c, "connect failed");
    else
        epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
}

static void on_connected(struct client *c)
{
    int fault = 0;
    socklen_t size = sizeof fault;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &fault, &size);
    if (fault) {
        fail_client(c, strerror(fault));
        return;
    }
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    send_upgrade(c);
}

/* Opens clients of one kind, a few at a time; true when all of that kind are through. */
static bool open_clients(bool leaders)
{
    while (opened < total && opening < OPENING_AT_ONCE) {
        struct client *c = &all[opened++];
        if (c->leads == leaders)
            connect_client(c);
    }
    return opened == total && opening == 0;
}

static void make_clients(void)
{
    long streamers = opt.sessions * opt.clients;
    total = streamers + (opt.probes > 0);
    all = calloc((size_t)total, sizeof *all);
    latency.us = malloc(sizeof(int32_t) * SAMPLES);
    round_trip.us = malloc(sizeof(int32_t) * SAMPLES);
    if (!all || !latency.us || !round_trip.us)
        die("malloc");
    for (long i = 0; i < total; i++) {
        long place = i % opt.clients;
        all[i].probes = i == streamers;
        all[i].leads = place == 0 || all[i].probes;
        all[i].leader = &all[i - place];
        all[i].slow = opt.slow && place == opt.clients - 1;
    }
}

/* ---- the measured phase ---- */

static void begin_measuring(void)
{
    result.pss_ready_kb = memory_kb(&opt.gateway, "smaps_rollup", "Pss:");
    forget_peaks(&opt.gateway);
    result.rss_kb = memory_kb(&opt.gateway, "status", "VmHWM:");
    result.cpu_begin = cpu_ns(&opt.gateway);
    result.begin_us = now_us();
    probe_next_us = result.begin_us;
    probe_end_us = result.begin_us + opt.probe_ms * 1000;
    for (long i = 0; opt.n && i < total; i++) {
        struct client *c = &all[i];
        if (c->state != READY || c->probes)
            continue;
        c->state = STREAMING;
        streaming++;
        if (c->slow)
            epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
    }
}

/* The first turns begin spread over `spread_ms`: many at one moment would be another question. */
static void start_turns(void)
{
    static long next;
    int64_t passed_us = now_us() - result.begin_us;
    for (; next < total && next * opt.spread_ms * 1000 <= passed_us * total; next++)
        if (all[next].state == STREAMING && all[next].leads)
            send_turn(&all[next]);
}

static void end_measuring(void)
{
    result.end_us = now_us();
    /* schedstat misses up to a tick of whoever is on the CPU: let the gateway go to sleep. */
    usleep(SETTLE_US);
    result.cpu_end = cpu_ns(&opt.gateway);
    result.peak_kb = memory_kb(&opt.gateway, "status", "VmHWM:");
}

static void read_slowly(void)
{
    static int64_t next_us;
    char bytes[SLOW_BYTES];
    if (!opt.slow || now_us() < next_us)
        return;
    next_us = now_us() + SLOW_EVERY_US;
    for (long i = 0; i < total; i++)
        if (all[i].slow && recv(all[i].fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0)
            continue; /* nothing there yet, or cut by the gateway: both are fine */
}

static void probe(void)
{
    struct client *c = &all[total - 1];
    bool wanted = round_trip.count < opt.probes && c->state == READY;
    if (!wanted || probe_sent_us || now_us() < probe_next_us)
        return;
    probe_sent_us = now_us();
    send_text(c, "{\"method\":\"thread/list\",\"id\":4,\"params\":{}}");
}

static bool all_finished(void)
{
    return streaming == (opt.slow && opt.n ? opt.sessions : 0);
}

static void serve(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        struct client *c = events[i].data.ptr;
        if (c->state == CONNECTING)
            on_connected(c);
        else if (c->state != FAILED)
            on_readable(c);
    }
}

/* Returns the phase in which it ended: OVER, or the one that the time ran out in. */
static enum phase run(void)
{
    enum phase phase = OPEN_LEADERS;
    int64_t deadline = now_us() + opt.timeout_ms * 1000, hold_until = 0;
    while (phase != OVER && now_us() < deadline) {
        if (phase == OPEN_LEADERS && open_clients(true)) {
            phase = OPEN_FOLLOWERS;
            opened = 0;
        }
        if (phase == OPEN_FOLLOWERS && open_clients(false)) {
            phase = HOLD;
            hold_until = now_us() + opt.hold_ms * 1000;
        }
        if (phase == HOLD && now_us() >= hold_until) {
            phase = MEASURE;
            begin_measuring();
        }
        if (phase == MEASURE)
            start_turns();
        serve(phase == MEASURE && (opt.probes || opt.spread_ms) ? 1 : 20);
        if (phase == MEASURE) {
            read_slowly();
            probe();
            phase = all_finished() ? OVER : MEASURE;
        }
    }
    if (phase >= MEASURE)
        end_measuring();
    return phase;
}

/* ---- the report ---- */

static int by_size(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static void print_samples(const char *name, struct samples *s)
{
    qsort(s->us, (size_t)s->count, sizeof *s->us, by_size);
    printf("\"%s\":{\"count\":%ld", name, s->count);
    if (s->count > 0)
        printf(",\"p50\":%d,\"p99\":%d,\"max\":%d", s->us[s->count / 2],
               s->us[s->count * 99 / 100], s->us[s->count - 1]);
    printf("},");
}

static void report(enum phase phase)
{
    long delivered = 0, wrong = 0, sent = 0;
    for (long i = 0; i < total; i++) {
        delivered += all[i].delivered;
        wrong += all[i].wrong;
        sent += all[i].leads ? all[i].turns_done * opt.n : 0;
    }
    double cpu_us = (double)(result.cpu_end - result.cpu_begin) / 1000;
    printf("{\"clients\":%ld,\"ready\":%ld,\"failed\":%ld,\"finished\":%ld,\"wrong\":%ld,", total,
           ready, failed, finished, wrong);
    printf("\"timed_out\":%s,\"phase\":%d,\"seconds\":%.4f,", phase == OVER ? "false" : "true",
           phase, (double)(result.end_us - result.begin_us) / 1e6);
    printf("\"messages\":%ld,\"delivered\":%ld,\"cpu_us\":%.1f,\"cpu_us_per_message\":%.4f,", sent,
           delivered, cpu_us, sent ? cpu_us / (double)sent : 0);
    printf("\"pss_before_kb\":%ld,\"pss_ready_kb\":%ld,\"pss_kb_per_client\":%.2f,",
           result.pss_before_kb, result.pss_ready_kb,
           (double)(result.pss_ready_kb - result.pss_before_kb) / (double)total);
    printf("\"peak_growth_kb\":%ld,", result.peak_kb - result.rss_kb);
    print_samples("latency", &latency);
    print_samples("round_trip", &round_trip);
    printf("\"failure\":\"");
    for (const char *p = first_failure; *p; p++)
        putchar(*p < ' ' || *p == '"' || *p == '\\' ? ' ' : *p);
    printf("\"}\n");
}

static void read_option(const char *argument)
{
    const struct { const char *name; long *place; } numbers[] = {
        {"port", &opt.port}, {"sessions", &opt.sessions}, {"clients", &opt.clients}, {"n", &opt.n},
        {"size", &opt.size}, {"turns", &opt.turns}, {"probes", &opt.probes}, {"slow", &opt.slow},
        {"probe_ms", &opt.probe_ms}, {"hold_ms", &opt.hold_ms}, {"spread_ms", &opt.spread_ms},
        {"timeout_ms", &opt.timeout_ms},
    };
    const char *value = strchr(argument, '=');
    size_t len = value ? (size_t)(value - argument) : 0;
    for (size_t i = 0; len && i < sizeof numbers / sizeof *numbers; i++)
        if (strlen(numbers[i].name) == len && !memcmp(numbers[i].name, argument, len)) {
            *numbers[i].place = atol(value + 1);
            return;
        }
    if (!strncmp(argument, "rate=", 5)) {
        opt.rate = atof(value + 1);
    } else if (!strncmp(argument, "target=", 7)) {
        opt.target = value + 1;
    } else if (!strncmp(argument, "pids=", 5)) {
        parse_pids(&opt.gateway, value + 1);
    } else {
        fprintf(stderr, "unknown option: %s\n", argument);
        exit(2);
    }
}

int main(int count, char **arguments)
{
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    for (int i = 1; i < count; i++)
        read_option(arguments[i]);
    make_clients();
    poller = epoll_create1(EPOLL_CLOEXEC);
    result.pss_before_kb = memory_kb(&opt.gateway, "smaps_rollup", "Pss:");
    report(run());
    return 0;
}
