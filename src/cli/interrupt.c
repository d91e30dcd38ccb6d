// SPDX-License-Identifier: Apache-2.0
// Ctrl-C. While a stream is watched the handler only cancels it (one atomic store), or while a flag is only notes it, and the
// command ends in the ordinary way, with status 130, once it has printed what there is or cleaned up. A second Ctrl-C, or
// one at any other time, ends the program at once, unless it is to stay.
#include "cli/cli.h"
#include "mica/model.h"
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

static _Atomic(mica_stream *) watched;
static volatile sig_atomic_t stopped, noting, staying;

static void on_interrupt(int sig) {
    (void)sig;
    mica_stream *stream = atomic_load(&watched);
    if (!staying && ((!stream && !noting) || stopped)) _exit(MICA_EXIT_STOPPED);
    stopped = 1;
    if (stream) mica_stream_cancel(stream);
}

static void install(void) {
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

void mica_cli_watch(mica_stream *stream) {
    noting = 0;
    atomic_store(&watched, stream);
    install();
    if (stream && staying && stopped) mica_stream_cancel(stream); // pressed before there was anything to stop
}

void mica_cli_watch_flag(void) {
    noting = 1;
    install();
}

void mica_cli_stay(void) {
    staying = 1;
    install();
}

bool mica_cli_stopped(void) { return stopped; }
void mica_cli_forget_stop(void) { stopped = 0; }
