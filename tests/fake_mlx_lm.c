// SPDX-License-Identifier: Apache-2.0
// Stands in for a Python with mlx_lm, and misbehaves on demand. How it answers the check and starts is told by its name, what follows a "-" (tests make
// links to it); how it answers a request by the prompt's text. Its tokens are 1, 2, 3, … with texts "t1 ", "t2 ", …; as ids of the prompt
// it gives its own process id.
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STREAMS = 256 };
static struct { long id; int sent, most; char scenario[32]; } streams[STREAMS];
static const char *start = "";

static void pause_ms(int ms) { poll(NULL, 0, ms); }

static void hang(void) {
    for (;;) pause();
}

static void put(const char *text) {
    fputs(text, stdout);
    fflush(stdout);
}

static long number(const char *line, const char *key, long otherwise) {
    const char *at = strstr(line, key);
    return at ? strtol(at + strlen(key), NULL, 10) : otherwise;
}

// ---- the check, and starting --------------------------------------------------------------------------------
static int answer_probe(void) {
    if (!strcmp(start, "old")) put("\nmica-probe 0.10.0\n");
    else if (!strcmp(start, "none")) put("\nmica-probe - ModuleNotFoundError No module named 'mlx_lm'\n");
    else if (!strcmp(start, "odd")) put("what?\n");
    else if (!strcmp(start, "probe_hang")) hang();
    else if (!strcmp(start, "probe_exit")) return fputs("no such thing as -c\n", stderr), 3;
    else put("some banner\n\nmica-probe 0.32.2\n");
    return 0;
}

static void greet(void) {
    if (!strcmp(start, "start_hang")) hang();
    if (!strcmp(start, "start_exit")) fputs("cannot be\n", stderr), exit(4);
    if (!strcmp(start, "start_error")) put("{\"mica\":1,\"id\":0,\"error\":\"ImportError: mlx is broken\",\"kind\":\"io\"}\n"), exit(0);
    if (!strcmp(start, "start_mute")) close(1), hang();
    if (!strcmp(start, "slow")) pause_ms(700);
    if (!strcmp(start, "banner")) put("Loading...");
    put(!strcmp(start, "version") ? "{\"mica\":2,\"hello\":2}\n" : "\n{\"mica\":1,\"id\":0,\"hello\":1,\"mlx_lm\":\"0.32.2\"}\n");
}

static void load(long id) {
    if (!strcmp(start, "load_hang")) return;
    if (!strcmp(start, "load_exit")) fputs("MemoryError\n", stderr), exit(5);
    if (!strcmp(start, "load_error")) {
        printf("{\"mica\":1,\"id\":%ld,\"error\":\"ValueError: Model type odd not supported.\",\"kind\":\"unsupported\"}\n", id);
    } else if (!strcmp(start, "load_odd")) {
        printf("{\"mica\":1,\"id\":%ld,\"info\":{\"vocab_size\":\"many\"}}\n", id);
    } else {
        printf("{\"mica\":1,\"id\":%ld,\"info\":{\"architecture\":\"fake\",\"vocab_size\":100000,\"num_layers\":2,\"hidden_size\":8,\"dtype\":\"f32\"}}\n", id);
    }
    fflush(stdout);
}

// ---- answers ------------------------------------------------------------------------------------------------
static void token(long id, int n) {
    printf("{\"mica\":1,\"id\":%ld,\"token\":%d,\"text\":\"t%d \",\"logprob\":-0.5,\"top\":[[%d,-0.5],[7,-2]],\"seconds\":0.001,\"active\":10,\"peak\":20}\n", id, n, n, n);
    fflush(stdout);
}

static void in_pieces(long id, int n) {
    char line[128];
    int len = snprintf(line, sizeof line, "{\"mica\":1,\"id\":%ld,\"token\":%d,\"text\":\"t%d \"}\n", id, n, n);
    for (int i = 0; i < len; i++) {
        if (write(1, line + i, 1) != 1) exit(1);
        if (i % 10 == 0) pause_ms(1);
    }
}

static void huge_line(void) {
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    printf("{\"mica\":1,\"id\":1,\"text\":\"");
    for (int i = 0; i < 70; i++) fwrite(block, 1, sizeof block, stdout);
    put("\"}\n");
}

static void flood_stderr(void) {
    for (int i = 0; i < 20000; i++) fprintf(stderr, "warning number %d: something may be wrong, or not, who knows\n", i);
    fputs("\x1b[31mthe last words\xff\n", stderr);
}

static void garbage(void) {
    put("Fetching 3 files: 100%|####|\n\n\n{\"mica\":\n{}\nnull\n[1,2\n{\"mica\":1}\n{\"mica\":1,\"id\":}\n\xff\xfe\xfd\n{\"mica\":1,\"id\":99999,\"token\":1}\n");
    if (write(1, "\0\0\0\n", 4) != 4) exit(1);
}

// What a scenario does instead of, or besides, its n-th token; true: no token.
static bool misbehave(const char *scenario, long id, int n) {
    if (!strcmp(scenario, "garbage")) garbage();
    if (!strcmp(scenario, "stderr") && n == 2) flood_stderr();
    if (!strcmp(scenario, "stderr_exit") && n == 2) flood_stderr(), exit(6);
    if (!strcmp(scenario, "pieces")) return in_pieces(id, n), true;
    if (!strcmp(scenario, "slow")) pause_ms(2);
    if (n < 3) return false;
    if (!strcmp(scenario, "silent")) return true;
    if (!strcmp(scenario, "freeze")) hang();
    if (!strcmp(scenario, "exit")) fputs("I am leaving\n", stderr), exit(3);
    if (!strcmp(scenario, "done")) exit(0);
    if (!strcmp(scenario, "kill")) raise(SIGKILL);
    if (!strcmp(scenario, "mute")) close(1), hang();
    if (!strcmp(scenario, "deaf")) close(0), hang();
    if (!strcmp(scenario, "huge")) huge_line();
    if (!strcmp(scenario, "broken")) printf("{\"mica\":1,\"id\":%ld,\"token\":\n", id);
    if (!strcmp(scenario, "types")) printf("{\"mica\":1,\"id\":%ld,\"token\":\"three\",\"text\":5}\n", id);
    if (!strcmp(scenario, "range")) printf("{\"mica\":1,\"id\":%ld,\"token\":123456789,\"text\":\"\"}\n", id);
    if (!strcmp(scenario, "version")) puts("{\"mica\":3,\"id\":1}");
    if (!strcmp(scenario, "late")) printf("{\"mica\":1,\"id\":%ld,\"error\":\"RuntimeError: out of\\nmemory\",\"kind\":\"memory\"}\n", id);
    fflush(stdout);
    return strcmp(scenario, "slow") != 0 && strcmp(scenario, "plain") != 0 && strcmp(scenario, "garbage") != 0 && strcmp(scenario, "stderr") != 0;
}

static void begin(long id, const char *line) {
    const char *text = strstr(line, "\"text\":\"");
    size_t place = (size_t)id % STREAMS, n = text ? strcspn(text + 8, "\"") : 0;
    streams[place].id = id, streams[place].sent = 0, streams[place].most = (int)number(line, "\"max_tokens\":", 256);
    snprintf(streams[place].scenario, sizeof streams[place].scenario, "%.*s", (int)n, text ? text + 8 : "");
    if (!strcmp(streams[place].scenario, "refuse")) printf("{\"mica\":1,\"id\":%ld,\"error\":\"chat: TemplateError: no\",\"kind\":\"argument\"}\n", id);
    else printf("{\"mica\":1,\"id\":%ld,\"prompt\":[%ld]}\n", id, (long)getpid());
    fflush(stdout);
}

static void more(long id, int count) {
    size_t place = (size_t)id % STREAMS;
    if (streams[place].id != id) return;
    for (int i = 0; i < count && streams[place].sent < streams[place].most; i++) {
        int n = ++streams[place].sent;
        if (!misbehave(streams[place].scenario, id, n)) token(id, n);
        else if (n >= 3 && strcmp(streams[place].scenario, "pieces") != 0) return;
    }
    if (streams[place].sent == streams[place].most) printf("{\"mica\":1,\"id\":%ld,\"text\":\"end\",\"end\":\"length\"}\n", id);
    fflush(stdout);
}

// The second label is the likelier one, with calibration because it is unlikely after the empty text. A text may be wrong, or the end.
static void classify(long id, const char *line) {
    const char *text = strstr(line, "\"texts\":[") + 9;
    printf("{\"mica\":1,\"id\":%ld,\"accepted\":1}\n", id);
    for (int i = 0; *text != ']'; i++) {
        size_t n = strcspn(++text + 1, "\"");
        if (!strncmp(text + 1, "die", n)) exit(1);
        if (!strncmp(text + 1, "bad", n)) printf("{\"mica\":1,\"id\":%ld,\"index\":%d,\"problem\":\"no good\",\"kind\":\"argument\"}\n", id, i);
        else printf("{\"mica\":1,\"id\":%ld,\"index\":%d,\"token\":5,\"text\":\"t\",\"prompt_tokens\":3,\"logprobs\":[%d,-2]%s}\n", id, i,
                    strstr(line, "\"calibrate\"") ? -1 : -3, strstr(line, "\"calibrate\"") ? ",\"calibration\":[-1,-6]" : "");
        fflush(stdout);
        text += n + 2;
    }
    printf("{\"mica\":1,\"id\":%ld,\"end\":\"stop\"}\n", id);
    fflush(stdout);
}

int main(int argc, char **argv) {
    const char *dash = strrchr(argv[0], '-');
    char *line = NULL;
    size_t room = 0;
    start = dash ? dash + 1 : "";
    if (argc > 1 && strstr(argv[argc - 1], "mica-probe")) return answer_probe();
    greet();
    while (getline(&line, &room, stdin) > 0) {
        long id = number(line, "\"id\":", 0);
        if (strstr(line, "\"cmd\":\"load\"")) load(id);
        else if (strstr(line, "\"cmd\":\"generate\"")) begin(id, line);
        else if (strstr(line, "\"cmd\":\"more\"")) more(id, (int)number(line, "\"tokens\":", 0));
        else if (strstr(line, "\"cmd\":\"classify\"")) classify(id, line);
        else if (strstr(line, "\"cmd\":\"ping\"")) printf("{\"mica\":1,\"id\":%ld,\"pong\":true}\n", id), fflush(stdout);
        else if (strstr(line, "\"cmd\":\"cancel\"")) streams[(size_t)id % STREAMS].id = -1;
    }
    free(line);
    return 0;
}
