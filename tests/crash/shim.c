/* Between a process and its disk, by LD_PRELOAD: counts what changes files below one folder, writes
 * it down for tests.crash.power, and at one operation kills the process or lets the disk fail.
 * crash_arm is called by tests/crash/forks.py in a process of its own for each command. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = 1, TORN, EIO_ONCE, FULL };
enum { OTHER, GROWTH };

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static char under[PATH_MAX];
static size_t under_length;
static long fault_at;
static int fault, log_to = -1;
atomic_long crash_operations;

void crash_arm(const char *folder, int what, long at, int log)
{
    under_length = snprintf(under, sizeof under, "%s/", folder);
    fault = what;
    fault_at = at;
    log_to = log;
}

/* The path below our folder, or NULL. A descriptor's path is where the system says that it is. */
static const char *ours(int folder, const char *path, char *whole)
{
    char link[64];
    ssize_t length = 0;

    if (!under_length)
        return NULL;
    if (path != NULL && sscanf(path, "/proc/self/fd/%d", &folder) == 1)
        path = NULL;
    if (path == NULL || path[0] != '/') {
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        length = readlink(link, whole, PATH_MAX - 1);
        if (length < 0)
            return NULL;
        whole[length] = 0;
    }
    if (path != NULL)
        snprintf(whole + length, PATH_MAX - length, length ? "/%s" : "%s", path);
    if (strcmp(whole + strlen(whole) - 4, "-shm") == 0) /* memory that processes share, no file */
        return NULL;
    if (strlen(whole) == under_length - 1 && !strncmp(whole, under, under_length - 1))
        return "";
    return strncmp(whole, under, under_length) ? NULL : whole + under_length;
}

static void note(char kind, const char *path, const char *to, uint64_t offset, const void *data, size_t size)
{
    struct { char kind; uint32_t path, to, size; uint64_t offset; } __attribute__((packed)) head = {
        kind, strlen(path), to ? strlen(to) : 0, size, offset };
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path}, {(void *)to, head.to}, {(void *)data, size}};

    if (log_to >= 0 && writev(log_to, parts, 4) < 0)
        raise(SIGABRT);
}

/* Counts an operation. Returns 0 to go on, 1 to do half and die, or -1 with errno to fail. */
static int meet(int kind)
{
    long number = atomic_fetch_add(&crash_operations, 1);

    if (fault == FULL && number >= fault_at && kind == GROWTH) {
        errno = ENOSPC;
        return -1;
    }
    if (number != fault_at)
        return 0;
    if (fault == KILL || (fault == TORN && kind != GROWTH))
        raise(SIGKILL);
    errno = EIO;
    return fault == TORN ? 1 : fault == EIO_ONCE ? -1 : 0;
}

static int makes(int flags)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

static int opened(int (*real)(int, const char *, int, ...), int folder, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    int nameless = (flags & O_TMPFILE) == O_TMPFILE;
    const char *name = makes(flags) ? ours(folder, path, whole) : NULL;
    int absent, descriptor;

    if (name == NULL)
        return real(folder, path, flags, mode);
    absent = !nameless && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
    if (meet(GROWTH))
        return -1;
    descriptor = real(folder, path, flags, mode);
    if (descriptor >= 0 && absent)
        note('M', name, NULL, 0, NULL, 0);
    if (descriptor >= 0 && nameless)
        note('U', ours(descriptor, NULL, whole), NULL, 0, NULL, 0);
    return descriptor;
}

#define OPENS(name, parameters, real, folder)                      \
    int name parameters                                            \
    {                                                              \
        va_list rest;                                              \
        mode_t mode;                                               \
        va_start(rest, flags);                                     \
        mode = makes(flags) ? va_arg(rest, mode_t) : 0;            \
        va_end(rest);                                              \
        return opened(REAL(real), folder, path, flags, mode);      \
    }
OPENS(open, (const char *path, int flags, ...), openat, AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), openat64, AT_FDCWD)
OPENS(openat, (int folder, const char *path, int flags, ...), openat, folder)
OPENS(openat64, (int folder, const char *path, int flags, ...), openat64, folder)

static ssize_t written(int descriptor, const void *data, size_t size, off64_t offset, int placed)
{
    char whole[PATH_MAX];
    const char *name = ours(descriptor, NULL, whole);
    off64_t at = placed ? offset : lseek64(descriptor, 0, SEEK_CUR);
    int met = name && at >= 0 ? meet(GROWTH) : 0;
    ssize_t done;

    if (met < 0)
        return -1;
    size = met ? size / 2 : size;
    done = placed ? REAL(pwrite64)(descriptor, data, size, offset) : REAL(write)(descriptor, data, size);
    if (name && at >= 0 && done > 0)
        note('W', name, NULL, at, data, done);
    if (met)
        raise(SIGKILL);
    return done;
}

ssize_t write(int descriptor, const void *data, size_t size) { return written(descriptor, data, size, 0, 0); }
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) { return written(descriptor, data, size, at, 1); }
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) { return written(descriptor, data, size, at, 1); }

static int synced(int (*real)(int), int descriptor)
{
    char whole[PATH_MAX];
    const char *name = ours(descriptor, NULL, whole);
    struct stat status;
    int failed = (name && meet(OTHER)) || real(descriptor);
    int folder = !fstat(descriptor, &status) && S_ISDIR(status.st_mode);

    if (name && !(folder && failed))
        note(folder ? 'D' : failed ? 'F' : 'S', name, NULL, 0, NULL, 0);
    return failed ? -1 : 0;
}

int fsync(int descriptor) { return synced(REAL(fsync), descriptor); }
int fdatasync(int descriptor) { return synced(REAL(fdatasync), descriptor); }

/* Of the rest each is written down by one or two names, if it has one to be written down by. */
#define NAMED(kind, name, other, size, growth, call)                  \
    {                                                                 \
        char whole[PATH_MAX], whole_too[PATH_MAX];                    \
        const char *one = name, *two = other;                         \
        int failed = ((one || two) && meet(growth)) || call;          \
        (void)whole_too;                                              \
        if ((kind) != 0 && one && !failed)                            \
            note(kind, one, two, size, NULL, 0);                      \
        return failed ? -1 : 0;                                       \
    }
static int cut(int descriptor, off64_t size)
NAMED('T', ours(descriptor, NULL, whole), NULL, size, OTHER, REAL(ftruncate64)(descriptor, size))
int renameat(int from, const char *path, int into, const char *to)
NAMED('R', ours(from, path, whole), ours(into, to, whole_too), 0, OTHER, REAL(renameat)(from, path, into, to))
int linkat(int from, const char *path, int into, const char *to, int flags)
NAMED('L', ours(from, path, whole), ours(into, to, whole_too), 0, GROWTH, REAL(linkat)(from, path, into, to, flags))
int unlinkat(int folder, const char *path, int flags)
NAMED((flags & AT_REMOVEDIR ? 0 : 'G'), ours(folder, path, whole), NULL, 0, OTHER, REAL(unlinkat)(folder, path, flags))
int mkdirat(int folder, const char *path, mode_t mode)
NAMED(0, ours(folder, path, whole), NULL, 0, GROWTH, REAL(mkdirat)(folder, path, mode))

int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return cut(descriptor, size); }
int rename(const char *path, const char *to) { return renameat(AT_FDCWD, path, AT_FDCWD, to); }
int link(const char *path, const char *to) { return linkat(AT_FDCWD, path, AT_FDCWD, to, 0); }
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
