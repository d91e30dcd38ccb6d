#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A small data set for the tutorial (docs/tutorial-finetune.md): orders in plain words, and the JSON they should become.

    examples/orders.py FOLDER         writes train.jsonl (200 lines), valid.jsonl (24) and test.jsonl (50), always the same, and
                                      prompts.jsonl: the test's prompts for `mica batch`
    examples/orders.py --score FILE ANSWERS     how many answers (of `mica batch`) are exactly what FILE wants
"""
import json
import os
import random
import sys

GOODS = {"coffee": "coffees", "tea": "teas", "bagel": "bagels", "sandwich": "sandwiches", "salad": "salads", "muffin": "muffins", "soup": "soups",
         "cookie": "cookies", "lemonade": "lemonades", "pancake": "pancakes", "burger": "burgers", "omelette": "omelettes"}
SIZES = ["", "", "small ", "large "]
EXTRAS = ["", "", "", " with milk", " with extra cheese", " without onions", " to go"]
COUNTS = {1: ("a", "one"), 2: ("two", "2"), 3: ("three", "3"), 4: ("four", "4")}
NAMES = ["Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Karin", "Leo", "Mia", "Noah", "Olga", "Paul"]
FRAMES = ["Hi, this is {name}. I would like {items}, please. I'll be there at {time}.", "{items} for {name}, ready by {time}, please.",
          "Could I get {items}? The name is {name}, pick-up at {time}.", "At {time} {name} comes for {items}.",
          "Good morning! {name} here, I need {items} at {time}.", "Order for {name}: {items}. Time: {time}."]


def order(rng):
    wanted, words = [], []
    for good in rng.sample(sorted(GOODS), rng.choice([1, 2, 2, 3])):
        count, size, extra = rng.choice([1, 1, 2, 3, 4]), rng.choice(SIZES), rng.choice(EXTRAS)
        word = rng.choice(COUNTS[count])
        if word == "a" and (size + good)[0] in "aeiou":
            word = "an"
        words.append(f"{word} {size}{good if count == 1 else GOODS[good]}{extra}")
        wanted.append({"count": count, "what": f"{size}{good}{extra}"})
    items = words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
    name, time = rng.choice(NAMES), f"{rng.randint(7, 19)}:{rng.choice(['00', '15', '30', '45'])}"
    text = rng.choice(FRAMES).format(name=name, items=items, time=time)
    return {"prompt": text[0].upper() + text[1:], "completion": json.dumps({"name": name, "time": time, "items": wanted})}


def write(folder):
    rng, seen = random.Random(7), set()
    os.makedirs(folder, exist_ok=True)
    for name, count in (("train", 200), ("valid", 24), ("test", 50)):
        with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as f:
            while count:
                line = order(rng)
                if line["prompt"] in seen:
                    continue
                seen.add(line["prompt"])
                f.write(json.dumps(line) + "\n")
                count -= 1
    with open(os.path.join(folder, "test.jsonl"), encoding="utf-8") as test, open(os.path.join(folder, "prompts.jsonl"), "w", encoding="utf-8") as f:
        for i, line in enumerate(test):
            f.write(json.dumps({"id": i, "messages": [{"role": "user", "content": json.loads(line)["prompt"]}]}) + "\n")


def score(file, answers):
    with open(file, encoding="utf-8") as f:
        wanted = [json.loads(line)["completion"] for line in f]
    with open(answers, encoding="utf-8") as f:
        got = {line["id"]: line.get("text", "") for line in map(json.loads, f)}
    right = sum(got.get(i, "").strip() == want for i, want in enumerate(wanted))
    print(f"{right} of {len(wanted)} answers are exactly right")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--score":
        score(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        write(sys.argv[1])
    else:
        sys.exit(__doc__)
