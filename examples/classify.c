// SPDX-License-Identifier: Apache-2.0
// Puts each line of stdin into one of several classes, by the probability that the model would name them.
//     cc classify.c $(pkg-config --cflags --libs mica) && ./a.out FOLDER_OR_GGUF sport,politics,science < lines.txt
#include <mica/classify.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16, BLOCK = 64 };

static void print_class(const mica_class *c, const char *text, const char *const *labels, size_t count) {
    if (c->error.code) printf("error: %s\n", c->error.msg);
    else {
        printf("%s\t%s\t(", c->text, text);
        for (size_t l = 0; l < count; l++) printf("%s%s %.2f", l ? ", " : "", labels[l], c->probabilities[l]);
        printf(")\n");
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: %s MODEL label,label,… < lines\n", argv[0]), 2;
    const char *labels[MOST];
    size_t label_count = 0;
    for (char *l = strtok(argv[2], ","); l && label_count < MOST; l = strtok(NULL, ",")) labels[label_count++] = l;

    mica_error err = {0};
    mica_model *model = mica_model_load(argv[1], NULL, &err);
    if (!model) return fprintf(stderr, "%s\n", err.msg), 1;
    mica_classify_options options = {.labels = labels, .label_count = label_count, .calibrate = true,
                                     .prompt = "Text: {text}\nThe topic of this text is:"};
    static char lines[BLOCK][1000];
    const char *texts[BLOCK];
    size_t count;
    bool ok = true;
    do { // a block of lines at a time: they are computed together
        for (count = 0; count < BLOCK && fgets(lines[count], sizeof lines[0], stdin); count++) {
            lines[count][strcspn(lines[count], "\n")] = 0;
            texts[count] = lines[count];
        }
        mica_classes classes;
        if (!(ok = mica_classify(model, texts, count, &options, &classes, &err))) break;
        for (size_t i = 0; i < count; i++) print_class(&classes.items[i], texts[i], labels, label_count);
        mica_classes_free(&classes);
    } while (count == BLOCK);
    if (!ok) fprintf(stderr, "%s\n", err.msg);
    mica_model_free(model);
    return !ok;
}
