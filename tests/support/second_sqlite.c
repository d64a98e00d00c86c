/* A second SQLite library in a process, for LD_PRELOAD. As soon as the file `$SECOND_SQLITE-open` exists it opens the database
 * `$SECOND_SQLITE` and reads it, makes the file `$SECOND_SQLITE-opened` (or `-failed`), and keeps the database open. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char *path;

static void make(const char *suffix) {
    char name[4096];
    snprintf(name, sizeof name, "%s%s", path, suffix);
    FILE *file = fopen(name, "w");
    if (file) fclose(file);
}

static void *run(void *unused) {
    char name[4096];
    snprintf(name, sizeof name, "%s-open", path);
    while (access(name, F_OK) != 0) usleep(1000);
    void *library = dlopen("libsqlite3.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        make("-failed");
        return unused;
    }
    int (*open)(const char *, void **) = (int (*)(const char *, void **))dlsym(library, "sqlite3_open");
    int (*exec)(void *, const char *, void *, void *, char **) =
        (int (*)(void *, const char *, void *, void *, char **))dlsym(library, "sqlite3_exec");
    void *database;
    int failed = open(path, &database) || exec(database, "SELECT * FROM sqlite_master", 0, 0, 0);
    make(failed ? "-failed" : "-opened");
    return unused;
}

__attribute__((constructor)) static void start(void) {
    pthread_t thread;
    path = getenv("SECOND_SQLITE");
    if (path) pthread_create(&thread, 0, run, 0);
}
