/* What the measured processes have used so far, from /proc. */
#ifndef BENCH_COST_H
#define BENCH_COST_H

#include <dirent.h>

#include "common.h"

enum { MAX_PIDS = 64 };

struct processes {
    int count;
    int pid[MAX_PIDS];
};

static inline void parse_pids(struct processes *list, const char *text)
{
    for (char *end; *text && list->count < MAX_PIDS; text = *end ? end + 1 : end)
        list->pid[list->count++] = (int)strtol(text, &end, 10);
}

/* schedstat counts nanoseconds on the CPU, where utime and stime count ticks. */
static inline int64_t cpu_ns_of(int pid)
{
    char path[300];
    int64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        unsigned long long ns = 0;
        if (task->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, task->d_name);
        FILE *file = fopen(path, "r");
        if (file && fscanf(file, "%llu", &ns) == 1)
            total += (int64_t)ns;
        if (file)
            fclose(file);
    }
    if (tasks)
        closedir(tasks);
    return total;
}

static inline int64_t cpu_ns(const struct processes *list)
{
    int64_t total = 0;
    for (int i = 0; i < list->count; i++)
        total += cpu_ns_of(list->pid[i]);
    return total;
}

/* Sums a line "<name> <n> kB" of /proc/<pid>/<file>: Pss of smaps_rollup, VmHWM of status. */
static inline long memory_kb(const struct processes *list, const char *file, const char *name)
{
    char path[64], line[256];
    long total = 0;
    for (int i = 0; i < list->count; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", list->pid[i], file);
        FILE *stream = fopen(path, "r");
        while (stream && fgets(line, sizeof line, stream))
            if (!strncmp(line, name, strlen(name)))
                total += atol(line + strlen(name));
        if (stream)
            fclose(stream);
    }
    return total;
}

/* Writing 5 to clear_refs sets the peak (VmHWM) back to what is resident now; see proc(5). */
static inline void forget_peaks(const struct processes *list)
{
    char path[64];
    for (int i = 0; i < list->count; i++) {
        snprintf(path, sizeof path, "/proc/%d/clear_refs", list->pid[i]);
        FILE *stream = fopen(path, "w");
        if (stream) {
            fputs("5", stream);
            fclose(stream);
        }
    }
}

#endif
