// SPDX-License-Identifier: Apache-2.0
// Which Python to run, and whether it has what is needed. The check starts the interpreter once and imports little, so that it takes a fraction of
// a second; its outcome is remembered for as long as this process lives.
#include "backend/mlx_lm/child.h"
#include "backend/mlx_lm/server.h"
#include "base/file.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KNOWN = 16, LEAST_MAJOR = 0, LEAST_MINOR = 26 };

// ---- finding it ---------------------------------------------------------------------------------------------
static char *search_path(const char *name, mica_error *err) {
    const char *path = getenv("PATH");
    for (const char *p = path ? path : "/usr/bin:/bin"; *p;) {
        size_t n = strcspn(p, ":");
        char *file = mica_strf("%.*s/%s", (int)(n ? n : 1), n ? p : ".", name);
        if (!file) return mica_fail_memory(err, n, "a path"), NULL;
        if (access(file, X_OK) == 0 && !mica_is_dir(file)) return file;
        mica_free(file);
        p += n + (p[n] == ':');
    }
    mica_fail(err, MICA_ERR_UNSUPPORTED,
              "there is no Python: no %s in PATH; install Python 3 with mlx-lm, or name its interpreter with the load option python or MICA_PYTHON", name);
    return NULL;
}

static char *as_given(const char *given, const char *by, mica_error *err) {
    if (!strchr(given, '/')) return search_path(given, err);
    if (access(given, X_OK) || mica_is_dir(given)) {
        mica_fail(err, MICA_ERR_UNSUPPORTED, "there is no Python: %s (%s) is no program", given, by);
        return NULL;
    }
    char *copy = mica_strdup(given);
    if (!copy) mica_fail_memory(err, strlen(given), "a path");
    return copy;
}

char *mica_mlx_python(const char *option, mica_error *err) {
    const char *by_env = getenv("MICA_PYTHON"), *venv = getenv("VIRTUAL_ENV");
    if (option && option[0]) return as_given(option, "option python", err);
    if (by_env && by_env[0]) return as_given(by_env, "MICA_PYTHON", err);
    if (!venv || !venv[0]) return search_path("python3", err);
    char *path = mica_strf("%s/bin/python", venv);
    if (!path) return mica_fail_memory(err, strlen(venv), "a path"), NULL;
    char *found = as_given(path, "VIRTUAL_ENV", err);
    mica_free(path);
    return found;
}

// ---- asking it ----------------------------------------------------------------------------------------------
// The folder that a program runs in must not lend it modules. The last line of what it prints is ours.
static const char script[] =
    "import sys\n"
    "sys.path[:] = [p for p in sys.path if p]\n"
    "try:\n"
    "    import importlib.metadata, importlib.util\n"
    "    if importlib.util.find_spec('mlx_lm') is None: raise ModuleNotFoundError(\"No module named 'mlx_lm'\")\n"
    "    version = importlib.metadata.version('mlx-lm')\n"
    "    import mlx.core\n"
    "    print('\\nmica-probe', version)\n"
    "except Exception as e:\n"
    "    print('\\nmica-probe -', type(e).__name__, str(e).replace('\\n', ' ')[:200])\n";

static bool judge(const char *python, const char *said, mica_error *why) {
    const char *answer = NULL;
    for (const char *p = said ? strstr(said, "mica-probe ") : NULL; p; p = strstr(p, "mica-probe ")) answer = p += strlen("mica-probe ");
    if (!answer) return mica_fail(why, MICA_ERR_UNSUPPORTED, "%s does not answer as Python does", python);
    int line = (int)strcspn(answer, "\n"), major = 0, minor = 0;
    if (answer[0] == '-')
        return mica_fail(why, MICA_ERR_UNSUPPORTED, "%s cannot import mlx_lm (%.*s); install it: %s -m pip install mlx-lm \"mlx[cpu]\"", python,
                         line - 2, answer + 2, python);
    if (sscanf(answer, "%d.%d", &major, &minor) < 1)
        return mica_fail(why, MICA_ERR_UNSUPPORTED, "%s has an mlx_lm of unknown version \"%.*s\"", python, line, answer);
    if (major > LEAST_MAJOR || (major == LEAST_MAJOR && minor >= LEAST_MINOR)) return true;
    return mica_fail(why, MICA_ERR_UNSUPPORTED, "%s has mlx_lm %.*s, and %d.%d or newer is needed; get it: %s -m pip install -U mlx-lm", python,
                     line, answer, LEAST_MAJOR, LEAST_MINOR, python);
}

static bool ask(const char *python, double seconds, mica_error *why) {
    const char *argv[] = {python, "-c", script, NULL};
    mica_buf said = {0};
    bool ok = mica_child_run(argv, seconds, &said, why);
    if (!ok) mica_error_prefix(why, "%s does not run as Python does", python);
    else ok = judge(python, said.data, why);
    mica_buf_free(&said);
    return ok;
}

// ---- remembering --------------------------------------------------------------------------------------------
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char path[512]; bool ok; mica_error why; } known[KNOWN];
static size_t known_count;

static bool recall(const char *python, bool *ok, mica_error *why) {
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < known_count && !found; i++)
        if ((found = strcmp(known[i].path, python) == 0)) {
            *ok = known[i].ok;
            if (!*ok && why) *why = known[i].why;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

static void remember(const char *python, bool ok, const mica_error *why) {
    pthread_mutex_lock(&lock);
    if (known_count < KNOWN && strlen(python) < sizeof known[0].path) {
        snprintf(known[known_count].path, sizeof known[0].path, "%s", python);
        known[known_count].ok = ok, known[known_count].why = *why;
        known_count++;
    }
    pthread_mutex_unlock(&lock);
}

bool mica_mlx_probe(const char *python, double seconds, mica_error *why) {
    bool ok;
    if (recall(python, &ok, why)) return ok;
    mica_error err = {0};
    ok = ask(python, seconds, &err);
    if (ok || err.code != MICA_ERR_NO_MEMORY) remember(python, ok, &err);
    if (!ok && why) *why = err;
    return ok;
}
