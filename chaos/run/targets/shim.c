/* Preloaded into hactl: slow syncs and a wrong clock, as files in the process's data dir say at each moment.
 *
 * <data-dir>/chaos-sync-ms    milliseconds that each fsync and fdatasync takes longer
 * <data-dir>/chaos-clock-ms   milliseconds that the wall clock is wrong by; the monotonic clock stays right
 *
 * A process without --data-dir in its command line is left alone. The machine's clock is never touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static char dir[PATH_MAX];
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

__attribute__((constructor)) static void find(void) {
  char line[8192];
  real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  real_fsync = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  ssize_t len = read(fd, line, sizeof line - 1);
  close(fd);
  if (len <= 0) return;
  line[len] = 0;
  for (char *word = line; word < line + len; word += strlen(word) + 1) {
    char *next = word + strlen(word) + 1;
    if (strcmp(word, "--data-dir") == 0 && next < line + len && strlen(next) < sizeof dir - 32) strcpy(dir, next);
  }
}

static long number(const char *name) {
  char path[PATH_MAX + 32], text[32] = {0};
  if (!dir[0]) return 0;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t len = read(fd, text, sizeof text - 1);
  close(fd);
  return len > 0 ? atol(text) : 0;
}

/* Looked at again after a twentieth of a second. */
static long clock_ms(void) {
  static atomic_long looked, value;
  struct timespec now;
  if (!dir[0] || !real_clock_gettime) return 0;
  real_clock_gettime(CLOCK_MONOTONIC, &now);
  long at = now.tv_sec * 1000L + now.tv_nsec / 1000000L;
  if (at - atomic_load(&looked) >= 50) {
    atomic_store(&looked, at);
    atomic_store(&value, number("chaos-clock-ms"));
  }
  return atomic_load(&value);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_clock_gettime) find();
  int outcome = real_clock_gettime(clock, time);
  if (outcome == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    long ms = clock_ms();
    time->tv_sec += ms / 1000;
    time->tv_nsec += (ms % 1000) * 1000000L;
    if (time->tv_nsec < 0) time->tv_sec--, time->tv_nsec += 1000000000L;
    if (time->tv_nsec >= 1000000000L) time->tv_sec++, time->tv_nsec -= 1000000000L;
  }
  return outcome;
}

int gettimeofday(struct timeval *time, void *zone) {
  struct timespec now;
  (void)zone;
  int outcome = clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return outcome;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

static void slow(void) {
  long ms = number("chaos-sync-ms");
  struct timespec pause = {ms / 1000, (ms % 1000) * 1000000L};
  if (ms > 0) nanosleep(&pause, NULL);
}

int fsync(int fd) {
  if (!real_fsync) find();
  slow();
  return real_fsync(fd);
}

int fdatasync(int fd) {
  if (!real_fdatasync) find();
  slow();
  return real_fdatasync(fd);
}
