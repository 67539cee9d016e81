/* Records what a process writes below POWERLOG_FOLDER, and when it syncs, into the file POWERLOG.
 *
 * Loaded with LD_PRELOAD, below SQLite and Python alike. A record: kind, length of the path, offset, length of the data
 * (little-endian: u8, u16, i64, u32), path, data. `W`: data written at offset; `T`: cut to offset; `S`: synced;
 * `R`: renamed, the data is the new path; `U`: unlinked; `D`: folder made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t one_writes = PTHREAD_MUTEX_INITIALIZER;
static int log_descriptor = -1;
static char folder[4096];
static size_t folder_length;

#define REAL(name, ...) static __typeof__(name) *real; if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

static ssize_t plain_write(int descriptor, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return real(descriptor, data, size);
}

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("POWERLOG_FOLDER"), *log = getenv("POWERLOG");
    if (!where || !log || !realpath(where, folder)) return;
    folder_length = strlen(folder);
    log_descriptor = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) {
    return log_descriptor >= 0 && !strncmp(path, folder, folder_length) &&
           (path[folder_length] == '/' || !path[folder_length]);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, 4095);
    if (length < 0) return 0;
    path[length] = 0;
    return is_ours(path);
}

static void put(char kind, const char *path, int64_t offset, const void *data, uint32_t size) {
    unsigned char head[15];
    uint16_t length = (uint16_t)strlen(path);
    head[0] = (unsigned char)kind;
    memcpy(head + 1, &length, 2);
    memcpy(head + 3, &offset, 8);
    memcpy(head + 11, &size, 4);
    plain_write(log_descriptor, head, sizeof head);
    plain_write(log_descriptor, path, length);
    if (size) plain_write(log_descriptor, data, size);
}

/* The lock is held over the call and its record: the log has things in the order in which they happened. */
#define RECORDED(condition, call, record) \
    do { \
        if (!(condition)) return call; \
        pthread_mutex_lock(&one_writes); \
        __typeof__(call) result = call; \
        if (result >= 0) { record; } \
        pthread_mutex_unlock(&one_writes); \
        return result; \
    } while (0)

ssize_t write(int descriptor, const void *data, size_t size) {
    char path[4096];
    if (descriptor == log_descriptor || !path_of(descriptor, path)) return plain_write(descriptor, data, size);
    pthread_mutex_lock(&one_writes);
    off_t before = lseek(descriptor, 0, SEEK_CUR);
    ssize_t result = plain_write(descriptor, data, size);
    if (result > 0) put('W', path, before, data, (uint32_t)result);
    pthread_mutex_unlock(&one_writes);
    return result;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    REAL(pwrite);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor, data, size, offset),
             put('W', path, offset, data, (uint32_t)result));
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    REAL(pwrite64);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor, data, size, offset),
             put('W', path, offset, data, (uint32_t)result));
}

int ftruncate(int descriptor, off_t size) {
    REAL(ftruncate);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor, size), put('T', path, size, "", 0));
}

int ftruncate64(int descriptor, off64_t size) {
    REAL(ftruncate64);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor, size), put('T', path, size, "", 0));
}

int fsync(int descriptor) {
    REAL(fsync);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor), put('S', path, 0, "", 0));
}

int fdatasync(int descriptor) {
    REAL(fdatasync);
    char path[4096];
    RECORDED(path_of(descriptor, path), real(descriptor), put('S', path, 0, "", 0));
}

int rename(const char *from, const char *to) {
    REAL(rename);
    RECORDED(is_ours(from) && is_ours(to), real(from, to), put('R', from, 0, to, (uint32_t)strlen(to)));
}

int unlink(const char *path) {
    REAL(unlink);
    RECORDED(is_ours(path), real(path), put('U', path, 0, "", 0));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    RECORDED(is_ours(path), real(path, mode), put('D', path, 0, "", 0));
}
