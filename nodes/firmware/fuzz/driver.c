// Runs a target without libFuzzer: seeded mutations of a corpus, each input a function of the seed
// and its number alone, so that every finding can be had again.
//
//     target CORPUS SEED FIRST COUNT [FILE]     FILE gets the input FIRST instead of the target
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"

#define INPUT_LIMIT 4096u
#define SEEDS_LIMIT 4096u
#define HANG_S 20u

/// Chance: splitmix64 ///

static uint64_t chance;

static uint32_t pick(uint32_t below) {
    chance += 0x9E3779B97F4A7C15u;
    uint64_t z = chance;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (uint32_t)((z ^ (z >> 31)) >> 32) % below;
}

/// Corpus ///

typedef struct {
    uint8_t *data;
    uint32_t size;
} seed_t;

static seed_t seeds[SEEDS_LIMIT];
static uint32_t seed_count;

static void read_seed(const char *folder, const char *name) {
    char path[1024];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return;
    }
    seed_t *read = &seeds[seed_count++];
    read->data = malloc(INPUT_LIMIT);
    read->size = read->data == NULL ? 0u : (uint32_t)fread(read->data, 1, INPUT_LIMIT, file);
    (void)fclose(file);
}

static bool read_corpus(const char *folder) {
    struct dirent **entries;
    const int count = scandir(folder, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        if (entries[i]->d_name[0] != '.' && seed_count < SEEDS_LIMIT) {
            read_seed(folder, entries[i]->d_name);
        }
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    return seed_count > 0u;
}

/// Mutations ///

static uint8_t input[INPUT_LIMIT];
static uint32_t size;

static void insert(void) {
    const uint32_t length = 1u + pick(8), at = pick(size + 1u);
    if (size + length > INPUT_LIMIT) {
        return;
    }
    memmove(input + at + length, input + at, size - at);
    const uint8_t repeated = (uint8_t)pick(256);
    const bool repeats = pick(2) != 0u;
    for (uint32_t i = 0; i < length; i++) {
        input[at + i] = repeats ? repeated : (uint8_t)pick(256);
    }
    size += length;
}

static void erase(void) {
    const uint32_t at = pick(size), length = 1u + pick(8);
    const uint32_t cut = length < size - at ? length : size - at;
    memmove(input + at, input + at + cut, size - at - cut);
    size -= cut;
}

static void splice(void) {
    const seed_t *other = &seeds[pick(seed_count)];
    if (other->size == 0u) {
        return;
    }
    const uint32_t from = pick(other->size), at = pick(size + 1u);
    const uint32_t left = other->size - from, room = INPUT_LIMIT - at;
    const uint32_t length = left < room ? left : room;
    memcpy(input + at, other->data + from, length);
    size = at + length;
}

static void mutate(void) {
    static const uint8_t edges[] = {0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, '\r', '\n', ':', '0', '+'};
    const uint32_t kind = pick(8);
    if (size == 0u || kind == 0u) {
        insert();
        return;
    }
    const uint32_t at = pick(size);
    switch (kind) {
    case 1:
        erase();
        break;
    case 2:
        splice();
        break;
    case 3:
        size = pick(size + 1u);
        break;
    case 4:
        input[at] = edges[pick(sizeof edges)];
        break;
    case 5:
        input[at] = (uint8_t)(input[at] + pick(35) - 17u);
        break;
    case 6:
        input[at] = (uint8_t)pick(256);
        break;
    default:
        input[at] ^= (uint8_t)(1u << pick(8));
        break;
    }
}

static void make(uint64_t seed, uint64_t number) {
    chance = seed * 0xD1342543DE82EF95u + number;
    const seed_t *from = &seeds[pick(seed_count)];
    size = from->size;
    memcpy(input, from->data, size);
    for (uint32_t mutations = pick(2u + pick(8)); mutations > 0u; mutations--) {
        mutate();
    }
}

/// Running ///

static uint64_t seed, number;

static void tell(void) {
    (void)fprintf(stderr, "finding: seed %llu, input %llu\n", (unsigned long long)seed,
                  (unsigned long long)number);
}

// The sanitizers end in abort(), a hang in the alarm; the exit code tells which.
static void ends(int signal_number) {
    tell();
    _exit(128 + signal_number);
}

const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "abort_on_error=1:handle_abort=0"; }

const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void) { return "abort_on_error=1:print_stacktrace=1"; }

int main(int count, char **arguments) {
    if (count < 5 || !read_corpus(arguments[1])) {
        (void)fprintf(stderr, "usage: %s CORPUS SEED FIRST COUNT [FILE]\n", arguments[0]);
        return 2;
    }
    seed = strtoull(arguments[2], NULL, 10);
    const uint64_t first = strtoull(arguments[3], NULL, 10);
    const uint64_t end = first + strtoull(arguments[4], NULL, 10);
    if (count > 5) {
        make(seed, first);
        FILE *file = fopen(arguments[5], "wb");
        return file != NULL && fwrite(input, 1, size, file) == size && fclose(file) == 0 ? 0 : 1;
    }
    (void)signal(SIGABRT, ends);
    (void)signal(SIGALRM, ends);
    for (number = first; number < end; number++) {
        if (number % 256u == 0u) {
            (void)alarm(HANG_S);
        }
        make(seed, number);
        (void)LLVMFuzzerTestOneInput(input, size);
    }
    (void)printf("%llu executions\n", (unsigned long long)(end - first));
    return 0;
}
