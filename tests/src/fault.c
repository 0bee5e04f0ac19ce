/* Faults of disk and clock for a process that loads this before libc: file operations below one
 * folder fail as told, and the wall clock is off as told. Who tells is another process, through a
 * small file that both map (see fault.rs, which has the same layout). */

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
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* One kind of operation: the error it ends with (0: none), after how many that still succeed, and
 * how many have failed so far. */
struct fault {
  int64_t error;
  int64_t passes;
  int64_t n_failed;
};

struct control {
  struct fault writes;
  struct fault syncs;
  int64_t clock_off_ms;
};

static volatile struct control *control;
static char folder[4096];
static size_t folder_length;

__attribute__((constructor)) static void begin(void) {
  const char *file = getenv("TOLLMESH_FAULT_CONTROL");
  const char *below = getenv("TOLLMESH_FAULT_FOLDER");
  if (file == NULL || below == NULL || realpath(below, folder) == NULL) return;
  folder_length = strlen(folder);
  int fd = open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void *map = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (map != MAP_FAILED) control = map;
}

static int is_below(int fd) {
  char link[64];
  char path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = '\0';
  return strncmp(path, folder, folder_length) == 0 && path[folder_length] == '/';
}

/* The error that this operation is to end with, or 0. */
static int told(volatile struct fault *fault, int fd) {
  int64_t error = fault->error;
  if (error == 0 || !is_below(fd)) return 0;
  if (__atomic_fetch_sub(&fault->passes, 1, __ATOMIC_SEQ_CST) > 0) return 0;
  __atomic_fetch_add(&fault->n_failed, 1, __ATOMIC_SEQ_CST);
  return (int)error;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (real == NULL) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define UNLESS_TOLD(kind) \
  do { \
    int error = control == NULL ? 0 : told(&control->kind, fd); \
    if (error != 0) { \
      errno = error; \
      return -1; \
    } \
  } while (0)

ssize_t write(int fd, const void *bytes, size_t n) {
  REAL(write);
  UNLESS_TOLD(writes);
  return real(fd, bytes, n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) {
  REAL(pwrite);
  UNLESS_TOLD(writes);
  return real(fd, bytes, n, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
  REAL(pwrite64);
  UNLESS_TOLD(writes);
  return real(fd, bytes, n, at);
}

int fsync(int fd) {
  REAL(fsync);
  UNLESS_TOLD(syncs);
  return real(fd);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  UNLESS_TOLD(syncs);
  return real(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  REAL(clock_gettime);
  int outcome = real(clock, now);
  if (outcome == 0 && control != NULL && clock == CLOCK_REALTIME) {
    int64_t ns = now->tv_nsec + control->clock_off_ms % 1000 * 1000000;
    int64_t carry = ns < 0 ? -1 : ns / 1000000000;
    now->tv_sec += control->clock_off_ms / 1000 + carry;
    now->tv_nsec = ns - carry * 1000000000;
  }
  return outcome;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec fine;
  int outcome = clock_gettime(CLOCK_REALTIME, &fine);
  now->tv_sec = fine.tv_sec;
  now->tv_usec = fine.tv_nsec / 1000;
  return outcome;
}
