/* Looks up members of a JSON object in place. Keys may come in any order and with any spacing;
 * the text is trusted to be valid JSON (it was written by the other end of the benchmark). */
#ifndef BENCH_JSON_H
#define BENCH_JSON_H

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

struct text {
    const char *at;
    size_t len;
};

static inline const char *json_space(const char *p, const char *end)
{
    while (p < end && isspace((unsigned char)*p))
        p++;
    return p;
}

/* p is at the opening quote; the answer is behind the closing one. */
static inline const char *json_string_end(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++)
        if (*p == '\\')
            p++;
    return p < end ? p + 1 : end;
}

static inline const char *json_value_end(const char *p, const char *end)
{
    int depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = json_string_end(p, end);
            if (depth == 0)
                return p;
            continue;
        }
        if (depth == 0 && (*p == ',' || *p == '}' || *p == ']'))
            return p;
        if (*p == '{' || *p == '[')
            depth++;
        if ((*p == '}' || *p == ']') && --depth == 0)
            return p + 1;
        p++;
    }
    return end;
}

/* The raw text of the member `key` of the object `object`; `at` is NULL where there is none. */
static inline struct text json_get(struct text object, const char *key)
{
    const char *end = object.at + object.len;
    const char *p = object.at ? json_space(object.at, end) : NULL;
    size_t key_len = strlen(key);
    if (!p || p >= end || *p != '{')
        return (struct text){0};
    p = json_space(p + 1, end);
    while (p < end && *p == '"') {
        const char *name = p + 1;
        const char *after = json_string_end(p, end);
        bool found = (size_t)(after - 1 - name) == key_len && !memcmp(name, key, key_len);
        p = json_space(after, end);
        if (p < end && *p == ':')
            p = json_space(p + 1, end);
        const char *value_end = json_value_end(p, end);
        if (found)
            return (struct text){p, (size_t)(value_end - p)};
        p = json_space(value_end, end);
        if (p < end && *p == ',')
            p = json_space(p + 1, end);
    }
    return (struct text){0};
}

static inline bool json_is(struct text value, const char *string)
{
    size_t len = strlen(string);
    return value.at && value.len == len + 2 && *value.at == '"' && !memcmp(value.at + 1, string, len);
}

/* Copies a string value without its quotes, or any other value as it stands; cut to fit. */
static inline void json_copy(struct text value, char *out, size_t size)
{
    if (value.at && value.len >= 2 && *value.at == '"') {
        value.at++;
        value.len -= 2;
    }
    size_t len = !value.at ? 0 : value.len < size ? value.len : size - 1;
    if (len)
        memcpy(out, value.at, len);
    out[len] = 0;
}

#endif
