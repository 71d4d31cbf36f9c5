/* A preloaded library: a disk and a clock that misbehave on command, below one folder and for one process.
 *
 * CHAOS_WEATHER names a file of struct weather, which whoever torments the process writes into; CHAOS_FOLDER is the
 * folder whose files fail. Build: cc -shared -fPIC -O1 -o weather.so weather.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct weather {
  volatile int32_t write_errno; /* ENOSPC, EIO; 0: writes reach the disk */
  volatile int32_t sync_errno;
  volatile int64_t clock_s; /* added to the wall clock */
  volatile int64_t struck;  /* calls that were refused, for who must know that it really happened */
};

static struct weather calm, *now = &calm;
static const char *folder;

__attribute__((constructor)) static void look_out(void) {
  const char *path = getenv("CHAOS_WEATHER");
  folder = getenv("CHAOS_FOLDER");
  if (!path || !folder) return;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *mapped = mmap(NULL, sizeof calm, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) now = mapped;
  close(fd);
}

/* Whether the call on *fd* shall fail with *error*. */
static int strikes(int fd, int error) {
  char link[32], path[4096];
  if (!error) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  size_t size = strlen(folder);
  if (strncmp(path, folder, size) || path[size] != '/') return 0;
  __sync_fetch_and_add(&now->struck, 1);
  errno = error;
  return 1;
}

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
  REAL(ssize_t, write, int, const void *, size_t);
  if (strikes(fd, now->write_errno)) {
    /* a disk that fills up takes a part, and refuses the rest */
    return now->write_errno == ENOSPC && size > 1 && now->struck % 2 ? real(fd, data, size / 2) : -1;
  }
  return real(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
  REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
  if (strikes(fd, now->write_errno)) {
    return now->write_errno == ENOSPC && size > 1 && now->struck % 2 ? real(fd, data, size / 2, at) : -1;
  }
  return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

int fsync(int fd) {
  REAL(int, fsync, int);
  return strikes(fd, now->sync_errno) ? -1 : real(fd);
}

int fdatasync(int fd) {
  REAL(int, fdatasync, int);
  return strikes(fd, now->sync_errno) ? -1 : real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  REAL(int, clock_gettime, clockid_t, struct timespec *);
  int result = real(clock, at);
  if (!result && clock == CLOCK_REALTIME) at->tv_sec += now->clock_s;
  return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  REAL(int, gettimeofday, struct timeval *restrict, void *restrict);
  int result = real(at, zone);
  if (!result) at->tv_sec += now->clock_s;
  return result;
}

time_t time(time_t *at) {
  struct timespec moment;
  clock_gettime(CLOCK_REALTIME, &moment);
  if (at) *at = moment.tv_sec;
  return moment.tv_sec;
}
