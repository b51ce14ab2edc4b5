/* An app-server that only talks: the other end of a bridge under measurement.
 *
 * usage: lines COUNT SIZE CPU
 *
 * Moves to that CPU, waits for one line on stdin, prints COUNT lines of SIZE bytes (without the
 * newline) as fast as they are taken, then {"method":"bench/done"}, and ends when stdin closes.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>

#include "common.h"

enum { BATCH_BYTES = 64 * 1024, LIFE_S = 120 };

static void write_all(const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = write(1, bytes, len);
        if (written <= 0)
            exit(1); /* nobody reads any more */
        bytes += written;
        len -= (size_t)written;
    }
}

static void wait_for_line(void)
{
    char c = 0;
    while (c != '\n')
        if (read(0, &c, 1) <= 0)
            exit(0);
}

int main(int count, char **arguments)
{
    static const char done[] = "{\"method\":\"bench/done\"}\n";
    static const char head[] = "{\"method\":\"bench/line\",\"params\":{\"text\":\"";
    if (count != 4)
        return 2;
    alarm(LIFE_S); /* nobody forgets us */
    long lines = atol(arguments[1]);
    size_t size = (size_t)atol(arguments[2]) + 1;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET((size_t)atol(arguments[3]), &cpu);
    sched_setaffinity(0, sizeof cpu, &cpu);
    if (size < sizeof head + 4)
        return 2;

    long batch = (long)(BATCH_BYTES / size) + 1;
    char *block = malloc((size_t)batch * size);
    if (!block)
        die("malloc");
    memset(block, 'x', (size_t)batch * size);
    for (long i = 0; i < batch; i++) {
        char *line = block + (size_t)i * size;
        memcpy(line, head, sizeof head - 1);
        memcpy(line + size - 4, "\"}}\n", 4);
    }
    wait_for_line();
    for (long left = lines; left > 0; left -= batch)
        write_all(block, (size_t)(left < batch ? left : batch) * size);
    write_all(done, sizeof done - 1);
    for (;;)
        wait_for_line();
}
