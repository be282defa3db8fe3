// A disk that fails: preloaded, it makes one call of a process to the system fail, or its last.
// FAULT_FOLDER: calls on files in it count. FAULT_AT: which one, from 1. FAULT_HOW: an error's
// number; "short" (every write takes half); "before" or "after" (the process ends there).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count;

static int in_folder(const char * path) {
    const char * folder = getenv("FAULT_FOLDER");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return in_folder(path);
}

static int how_is(const char * word) {
    const char * how = getenv("FAULT_HOW");
    return how && strcmp(how, word) == 0;
}

// Counts a call; returns whether it is the one, and then fails it or ends the process.
static int fails(void) {
    const char * at = getenv("FAULT_AT"), * how = getenv("FAULT_HOW");
    if (++count != (at ? atoi(at) : 0)) return 0;
    if (how_is("before")) _exit(9);
    errno = how ? atoi(how) : 0;
    return errno != 0;
}

static void done(void) {
    const char * at = getenv("FAULT_AT");
    if (how_is("after") && at && count == atoi(at)) _exit(9);
}

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))
#define FAIL(ours, call)                 \
    if (!(ours)) return call;            \
    if (fails()) return -1;              \
    __typeof__(call) result = call;      \
    done();                              \
    return result;

ssize_t write(int fd, const void * data, size_t n) {
    if (is_ours(fd) && how_is("short") && n > 1) n /= 2;
    FAIL(is_ours(fd), REAL(write)(fd, data, n))
}

int fsync(int fd) { FAIL(is_ours(fd), REAL(fsync)(fd)) }

int close(int fd) { FAIL(is_ours(fd) && !how_is("5") && !how_is("28"), REAL(close)(fd)) }

int rename(const char * from, const char * to) { FAIL(in_folder(to), REAL(rename)(from, to)) }

int renameat(int a, const char * from, int b, const char * to) {
    FAIL(in_folder(to), REAL(renameat)(a, from, b, to))
}

int open64(const char * path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    FAIL(in_folder(path) && (flags & O_CREAT), REAL(open64)(path, flags, mode))
}

// At the end the count goes to where FAULT_REPORT says, as text.
__attribute__((destructor)) static void report(void) {
    const char * path = getenv("FAULT_REPORT");
    FILE * file = path ? fopen(path, "w") : NULL;
    if (file) fprintf(file, "%d", count), fclose(file);
}
