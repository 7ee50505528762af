/* Preloaded into hactl by tests: delays syncs, and notes what was synced.
 *
 * DISK_SHIM names a directory with one directory per process below it. A file below <dir>/<name>/ is synced after as many
 * milliseconds as <dir>/<name>/sync-ms says. For files of the log and manifests of databases, which are only appended to,
 * the length at the sync is written to <dir>/<name>/synced/<name of the file>: what lies behind it a power cut may lose.
 *
 * With DISK_SHIM_DIE_AT=n the process is gone at its n-th step: before a sync, a rename or a removal of a file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int one_line(const char *path, long *value) {
  char text[32] = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t len = read(fd, text, sizeof text - 1);
  close(fd);
  if (len <= 0) return 0;
  *value = atol(text);
  return 1;
}

static int appended_only(const char *path) {
  const char *name = strrchr(path, '/');
  size_t len = strlen(path);
  if (!name) return 0;
  return strncmp(name, "/MANIFEST-", 10) == 0 || (len > 4 && strcmp(path + len - 4, ".log") == 0);
}

static void sync_begins(int fd, char *own, char *path, long *length) {
  const char *dir = getenv("DISK_SHIM");
  char link[64];
  struct stat stat;
  long ms;
  own[0] = 0;
  *length = -1;
  if (!dir) return;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, PATH_MAX - 1);
  size_t prefix = strlen(dir);
  if (len <= 0) return;
  path[len] = 0;
  if (strncmp(path, dir, prefix) != 0 || path[prefix] != '/') return;
  const char *rest = strchr(path + prefix + 1, '/');
  if (!rest) return;
  snprintf(own, PATH_MAX, "%.*s", (int)(rest - path), path);
  if (appended_only(path) && fstat(fd, &stat) == 0) *length = stat.st_size;
  char file[PATH_MAX + 16];
  snprintf(file, sizeof file, "%s/sync-ms", own);
  if (one_line(file, &ms)) {
    struct timespec pause = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&pause, NULL);
  }
}

static void sync_ended(const char *own, const char *path, long length) {
  if (!own[0] || length < 0) return;
  char file[PATH_MAX * 2];
  char text[32];
  /* state/1/MANIFEST-5 and log/MANIFEST-5 are told apart: slashes become colons. */
  int at = snprintf(file, sizeof file, "%s/synced/", own);
  snprintf(file + at, sizeof file - at, "%s", path + strlen(own) + 1);
  for (char *c = file + at; *c; c++)
    if (*c == '/') *c = ':';
  int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  int len = snprintf(text, sizeof text, "%020ld", length);
  if (pwrite(fd, text, len, 0) != len) abort();
  close(fd);
}

static void step(void) {
  static atomic_long steps;
  const char *at = getenv("DISK_SHIM_DIE_AT");
  if (at && atomic_fetch_add(&steps, 1) + 1 == atol(at)) _exit(137);
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
  step();
  return real(from, to);
}

int unlink(const char *path) {
  static int (*real)(const char *);
  if (!real) real = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  step();
  return real(path);
}

#define SYNC(NAME)                                                     \
  int NAME(int fd) {                                                   \
    static int (*real)(int);                                           \
    char own[PATH_MAX], path[PATH_MAX];                                \
    long length;                                                       \
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #NAME);           \
    step();                                                            \
    sync_begins(fd, own, path, &length);                               \
    int outcome = real(fd);                                            \
    if (outcome == 0) sync_ended(own, path, length);                   \
    return outcome;                                                    \
  }

SYNC(fsync)
SYNC(fdatasync)
