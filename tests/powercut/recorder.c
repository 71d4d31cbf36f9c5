/* A preloaded library that writes down, in their order, all changes that a program makes to the files below
 * RECORD_FOLDER, its syncs, and what it says to sockets and terminals. RECORD_TO names the file for it.
 *
 * One record: op (1 byte), sizes of path, second path and data (4 bytes each), offset (8 bytes), then these three.
 * Build: cc -shared -fPIC -O1 -o recorder.so recorder.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* the order on paper is the order on the disk */
static const char *folder;
static int paper = -1;

__attribute__((constructor)) static void begin(void) {
  const char *to = getenv("RECORD_TO");
  folder = getenv("RECORD_FOLDER");
  if (!to || !folder) return;
  int fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  paper = fcntl(fd, F_DUPFD_CLOEXEC, 500); /* out of the way of who closes what it does not know */
  close(fd);
}

static void note(char op, const char *path, const char *second, int64_t at, const void *data, size_t size) {
  REAL(ssize_t, writev, int, const struct iovec *, int);
  char head[21];
  uint32_t first_size = path ? strlen(path) : 0, second_size = second ? strlen(second) : 0, data_size = size;
  head[0] = op;
  memcpy(head + 1, &first_size, 4);
  memcpy(head + 5, &second_size, 4);
  memcpy(head + 9, &data_size, 4);
  memcpy(head + 13, &at, 8);
  struct iovec parts[] = {
      {head, sizeof head}, {(void *)path, first_size}, {(void *)second, second_size}, {(void *)data, size}};
  if (real(paper, parts, 4) < 0) abort();
}

static int ours(const char *path) {
  size_t size = strlen(folder);
  return !strncmp(path, folder, size) && path[size] == '/';
}

/* The absolute path of *name* (relative to *dirfd*), whether it is there or not. */
static int absolute(int dirfd, const char *name, char *out) {
  if (paper < 0 || !name) return 0;
  if (name[0] == '/') {
    snprintf(out, 4096, "%s", name);
  } else {
    char link[64], base[2048];
    if (dirfd == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    ssize_t length = readlink(link, base, sizeof base - 1);
    if (length < 0) return 0;
    base[length] = 0;
    snprintf(out, 4096, "%s/%s", base, name);
  }
  return ours(out);
}

static int of_fd(int fd, char *out) {
  char link[64];
  if (paper < 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, out, 4095);
  if (length < 0) return 0;
  out[length] = 0;
  return 1;
}

static int opened(const char *symbol, int dirfd, const char *name, int flags, mode_t mode) {
  int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, symbol);
  char path[4096];
  if (!(flags & (O_CREAT | O_TRUNC)) || !absolute(dirfd, name, path)) return real(dirfd, name, flags, mode);
  pthread_mutex_lock(&turn);
  int was_there = !faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW);
  int fd = real(dirfd, name, flags, mode);
  int kept = errno;
  if (fd >= 0 && !was_there) note('c', path, NULL, 0, NULL, 0);
  else if (fd >= 0 && (flags & O_TRUNC)) note('t', path, NULL, 0, NULL, 0);
  pthread_mutex_unlock(&turn);
  errno = kept;
  return fd;
}

#define OPEN(name, at_name) \
  int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; va_end(more); \
    return opened(#at_name, AT_FDCWD, path, flags, mode); \
  } \
  int at_name(int dirfd, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; va_end(more); \
    return opened(#at_name, dirfd, path, flags, mode); \
  }
OPEN(open, openat)
OPEN(open64, openat64)

/* What is written to a file is noted with its place, to a terminal as something said. */
static void written(int fd, const void *data, ssize_t size, int64_t at) {
  char path[4096];
  if (size <= 0 || !of_fd(fd, path)) return;
  if (ours(path)) note('w', path, NULL, at < 0 ? lseek(fd, 0, SEEK_CUR) - size : at, data, size);
  else if (!strncmp(path, "/dev/pts/", 9)) note('s', path, NULL, 0, data, size);
}

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (paper < 0) return real(fd, data, size);
  pthread_mutex_lock(&turn);
  ssize_t done = real(fd, data, size);
  int kept = errno;
  written(fd, data, done, -1);
  pthread_mutex_unlock(&turn);
  errno = kept;
  return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  if (paper < 0) return real(fd, data, size, at);
  pthread_mutex_lock(&turn);
  ssize_t done = real(fd, data, size, at);
  int kept = errno;
  written(fd, data, done, at);
  pthread_mutex_unlock(&turn);
  errno = kept;
  return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t send(int fd, const void *data, size_t size, int flags) {
  REAL(ssize_t, send, int, const void *, size_t, int);
  if (paper < 0) return real(fd, data, size, flags);
  pthread_mutex_lock(&turn); /* before it is out: nobody may see what was not on paper */
  note('s', "socket", NULL, fd, data, size);
  pthread_mutex_unlock(&turn);
  return real(fd, data, size, flags);
}

static int changed(char op, int result, const char *path, const char *second, int64_t at) {
  int kept = errno;
  if (!result) note(op, path, second, at, NULL, 0);
  pthread_mutex_unlock(&turn);
  errno = kept;
  return result;
}

int ftruncate64(int fd, off64_t size) {
  REAL(int, ftruncate64, int, off64_t);
  char path[4096];
  if (!of_fd(fd, path) || !ours(path)) return real(fd, size);
  pthread_mutex_lock(&turn);
  return changed('t', real(fd, size), path, NULL, size);
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

#define SYNC(name) \
  int name(int fd) { \
    REAL(int, name, int); \
    char path[4096]; \
    if (!of_fd(fd, path) || strncmp(path, folder, strlen(folder))) return real(fd); \
    pthread_mutex_lock(&turn); \
    return changed('f', real(fd), path, NULL, 0); \
  }
SYNC(fsync)
SYNC(fdatasync)

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
  REAL(int, renameat2, int, const char *, int, const char *, unsigned);
  char path[4096], second[4096];
  if (!absolute(from, old, path) | !absolute(to, new, second)) return real(from, old, to, new, flags);
  pthread_mutex_lock(&turn);
  return changed('r', real(from, old, to, new, flags), path, second, 0);
}

int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }
int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
  REAL(int, linkat, int, const char *, int, const char *, int);
  char path[4096], second[4096];
  if (!absolute(from, old, path) | !absolute(to, new, second)) return real(from, old, to, new, flags);
  pthread_mutex_lock(&turn);
  return changed('l', real(from, old, to, new, flags), path, second, 0);
}

int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int dirfd, const char *name, int flags) {
  REAL(int, unlinkat, int, const char *, int);
  char path[4096];
  if (!absolute(dirfd, name, path)) return real(dirfd, name, flags);
  pthread_mutex_lock(&turn);
  return changed('u', real(dirfd, name, flags), path, NULL, 0);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int mkdirat(int dirfd, const char *name, mode_t mode) {
  REAL(int, mkdirat, int, const char *, mode_t);
  char path[4096];
  if (!absolute(dirfd, name, path)) return real(dirfd, name, mode);
  pthread_mutex_lock(&turn);
  return changed('m', real(dirfd, name, mode), path, NULL, 0);
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

void *mmap64(void *where, size_t size, int may, int flags, int fd, off64_t at) {
  REAL(void *, mmap64, void *, size_t, int, int, int, off64_t);
  char path[4096];
  if (fd >= 0 && (may & PROT_WRITE) && (flags & MAP_SHARED) && of_fd(fd, path) && ours(path)) {
    pthread_mutex_lock(&turn);
    note('a', path, NULL, at, NULL, 0);
    pthread_mutex_unlock(&turn);
  }
  return real(where, size, may, flags, fd, at);
}

void *mmap(void *where, size_t size, int may, int flags, int fd, off_t at) {
  return mmap64(where, size, may, flags, fd, at);
}
