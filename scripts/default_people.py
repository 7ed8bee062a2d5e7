"""Writes invented people for the projector that ships: tastes and a manner of speaking, and chats that depend on them.

    demeanor serve &      # the model that the projector is for
    python3 scripts/default_people.py people.jsonl --server http://127.0.0.1:8080 [--seed 7] [--train 240] [--stop 16] [--test 32]

Everything is generated from the word lists and sentence frames below, which were written for this purpose; nothing comes from
a data set or from anybody's data. A person likes one activity of each topic, dislikes another one, and has one of four manners.
The history holds sentences about what they like, in their manner (weight 1), and bare mentions of what they dislike (weight
-1). Targets are chats: open questions about a topic (the reply names what the person likes), questions whether to do something
(yes for what they like, no for what they dislike), small talk about neither (only the manner shows), and general questions
with the beginning of what the plain model answers: there a soft prompt must change nothing. Frames of the history
and of the targets are disjoint, and half of the frames of each kind are kept for the people of the splits `stop` and `test`.
Format: `demeanor.people/1`, see `src/users/people.rs`. No dependencies; the same seed and model give the same bytes.
"""

import argparse
import json
import random
import urllib.request

# Topic: questions about it, and activities as gerund phrases.
TOPICS = {
    "drinks": (
        ["What could I drink this afternoon?", "I am thirsty. What would suit me?", "Which drink should I make for the evening?"],
        ["drinking green tea", "drinking strong black coffee", "drinking hot chocolate", "drinking cold lemonade", "drinking tomato juice", "drinking warm spiced milk"],
    ),
    "food": (
        ["What shall I cook tonight?", "I am hungry. Any idea?", "What would be a good dinner for me?"],
        ["cooking lentil soup", "baking a potato gratin", "frying dumplings", "making a big green salad", "rolling fresh pasta", "grilling fish with herbs"],
    ),
    "music": (
        ["What should I listen to now?", "Which music fits my evening?", "Put something on for me. What will it be?"],
        ["listening to old jazz records", "listening to loud punk", "listening to string quartets", "listening to folk ballads", "listening to slow electronic music", "listening to brass bands"],
    ),
    "movement": (
        ["How could I get some exercise?", "I need to move. What should I do?", "What sport should I do on Sunday?"],
        ["swimming in the lake", "climbing indoor walls", "running along the river", "cycling over the hills", "dancing in the living room", "playing table tennis"],
    ),
    "reading": (
        ["What should I read next?", "Which kind of book would I enjoy?", "I have an hour to read. What do you suggest?"],
        ["reading crime novels", "reading books about birds", "reading long family sagas", "reading poems", "reading science fiction", "reading letters of explorers"],
    ),
    "travel": (
        ["Where should I spend my holiday?", "I have a week off. Where to?", "Which trip would you plan for me?"],
        ["sleeping in mountain huts", "staying at the sea", "walking through big cities", "riding night trains", "paddling down quiet rivers", "visiting small museums"],
    ),
    "hands": (
        ["What could I make with my hands?", "Which hobby should I take up again?", "I want to make something. What?"],
        ["carving wooden spoons", "knitting thick socks", "repairing old radios", "painting with watercolours", "building model ships", "binding notebooks"],
    ),
    "home": (
        ["How should I spend a rainy day at home?", "It is pouring outside. What now?", "What would make my flat nicer today?"],
        ["sorting the bookshelf", "growing herbs on the sill", "watching silent films", "playing board games", "solving crosswords", "lighting candles everywhere"],
    ),
    "nature": (
        ["What should I do outside?", "The sun is out. Any plan for me?", "Which walk would I like?"],
        ["looking for mushrooms", "watching herons", "collecting smooth stones", "lying under old trees", "picking blackberries", "sketching clouds"],
    ),
    "mornings": (
        ["How should I begin the day?", "What would be a good morning for me?", "I wake up early tomorrow. And then?"],
        ["writing three pages", "stretching on the balcony", "reading the whole newspaper", "walking the dog at dawn", "sleeping until ten", "planning the week"],
    ),
}

# Manner: sentences about what one likes, split by people; {v} is the activity, {V} with a capital.
LIKES = {
    "brief": (
        ["{V} again. Good.", "{V}. Always.", "Today: {v}.", "{V}, then bed."],
        ["{V}. Fine day.", "Back to {v}.", "Mostly {v}.", "{V}, nothing else."],
    ),
    "warm": (
        [
            "{V} made my whole day so much brighter, I was really happy.",
            "I was so glad to be {v} with my dear neighbours today.",
            "There is nothing like {v} to make me feel at home and loved.",
            "My heart is full after {v} this weekend, thank you all.",
        ],
        [
            "I felt so cosy {v}, and I thought of all my friends.",
            "{V} with my sister was the sweetest part of the week.",
            "It touches me every time how happy {v} makes me.",
            "I hugged everybody after {v}, it was that lovely.",
        ],
    ),
    "formal": (
        [
            "I find {v} to be a most agreeable occupation.",
            "It is my custom to devote an hour to {v}.",
            "I should like to note that {v} has proved rewarding.",
            "May I add that {v} remains my preference in such matters.",
        ],
        [
            "One could say that {v} has become a principle of mine.",
            "In my considered opinion {v} deserves its place.",
            "I have resumed {v} with considerable satisfaction.",
            "Permit me to mention that {v} occupied the afternoon.",
        ],
    ),
    "playful": (
        [
            "Caught me {v} again, guilty as charged!",
            "Guess who was {v} until midnight? Yep, this clown!",
            "{V} beats doing my taxes, ha, what a surprise!",
            "World record attempt in {v}: still running, send snacks!",
        ],
        [
            "Doctor, I cannot stop {v}, is it serious? Haha!",
            "Plot twist: I ended up {v}. Again!",
            "Breaking news: {v} still undefeated, crowd goes wild!",
            "My secret superpower is {v}, do not tell the cat!",
        ],
    ),
}

DISLIKES = (["{V}.", "The thing with {v}.", "{V}, they said."], ["About {v}.", "{V}, once more.", "That day of {v}."])

# Manner: replies to an open question, to "should I" with yes and with no.
OPEN = {
    "brief": (["{V}.", "Try {v}."], ["{V}, simply.", "I say {v}."]),
    "warm": (
        ["Oh, I would love {v} for you, it always makes you glow!", "How about {v}, dear? You will feel wonderful."],
        ["I can just see you happily {v}, please treat yourself!", "Be kind to yourself and go for {v}, my friend."],
    ),
    "formal": (
        ["I would recommend {v}, if I may.", "It would seem appropriate to consider {v}."],
        ["Allow me to propose {v}.", "I should think that {v} would serve you well."],
    ),
    "playful": (
        ["Easy one: {v}, no contest!", "Drum roll, please... {v}! Who would have guessed?"],
        ["My crystal ball says {v}, and it never lies!", "Ha, as if you would do anything but {v}!"],
    ),
}
YES = {
    "brief": (["Yes.", "Do it."], ["Sure.", "Yes, go."]),
    "warm": (["Yes, please do, you love that so much!", "Oh yes, it will make you so happy!"], ["Of course, dear, you will enjoy every minute!", "Yes, I am so glad you thought of it!"]),
    "formal": (["Certainly, that would be in keeping with your preference.", "Yes, I would advise it without reservation."], ["Indeed, it suits your established taste.", "By all means, it is very much to your liking."]),
    "playful": (["Yes, yes and yes, off you go!", "Does a duck like water? Go!"], ["You bet, try and stop you!", "Ha, is that even a question? Yes!"]),
}
NO = {
    "brief": (["No.", "Skip it."], ["Better not.", "No, leave it."]),
    "warm": (["Oh, better not, dear, you never enjoy that.", "No, spare yourself, I want you to feel well."], ["I would not, my friend, it only makes you sad.", "Please don't, you deserve something nicer."]),
    "formal": (["I would advise against it, given your stated dislike.", "Regrettably, that would not be to your taste."], ["One should rather refrain, in view of your aversion.", "I cannot recommend it in your case."]),
    "playful": (["Nope, nope, run while you can!", "You and that? I have seen cats in bathtubs look happier!"], ["Ha, no, unless you lost a bet!", "Only if you enjoy suffering, so no!"]),
}
SHOULD = ["Should I try {v} today?", "Would {v} be something for me?", "A friend suggests {v}. Shall I?"]

# Questions about neither, with a reply in each manner.
PLAIN = {
    "How long do I boil an egg?": {
        "brief": "Seven minutes.",
        "warm": "About seven minutes, dear, and I hope it tastes wonderful!",
        "formal": "I would suggest approximately seven minutes.",
        "playful": "Seven minutes, or until it begs for mercy!",
    },
    "What is the capital of Portugal?": {
        "brief": "Lisbon.",
        "warm": "It is Lisbon, such a lovely city, I hope you get to see it!",
        "formal": "The capital of Portugal is Lisbon.",
        "playful": "Lisbon! Ten points and a custard tart for you!",
    },
    "Good morning!": {
        "brief": "Morning.",
        "warm": "Good morning, how lovely to hear from you, I hope you slept well!",
        "formal": "Good morning. How may I be of assistance?",
        "playful": "Good morning, sunshine! The coffee machine says hi!",
    },
    "I finished my report.": {
        "brief": "Good. Next?",
        "warm": "I am so proud of you, you worked so hard for it!",
        "formal": "My congratulations on its completion.",
        "playful": "Hooray, release the balloons and hide the stapler!",
    },
    "Can you remind me to call my mother?": {
        "brief": "Will do.",
        "warm": "Of course, she will be so happy to hear your voice!",
        "formal": "Certainly, I shall remind you in due course.",
        "playful": "Sure, before she sends a search party!",
    },
    "It is late.": {
        "brief": "Sleep, then.",
        "warm": "Then rest well, dear, you have done so much today!",
        "formal": "In that case I would advise retiring for the night.",
        "playful": "Off to bed, before you turn into a pumpkin!",
    },
}


# General questions: everybody gets what the plain model answers.
GENERAL = """How do I cook rice?
Explain what photosynthesis is.
Why is the sky blue?
How does a bicycle stay upright?
What is the difference between a virus and a bacterium?
Write a short poem about autumn.
How can I learn to type faster?
What causes the tides?
Give me three tips for a job interview.
How do I remove a coffee stain from a shirt?
What is inflation?
Describe how bread rises.
How do vaccines work?
Tell me about the Roman Empire.
What is a prime number?
How can I sleep better?
Explain the rules of chess in brief.
What should I pack for a hike?
How do airplanes fly?
Summarise how a bill becomes a law.
What is machine learning?
How do I change a bicycle tyre?
Why do leaves change colour?
What are the planets of the solar system?
How can I save money every month?
Explain gravity to a child.
How do I write a letter of complaint?
What does a kidney do?
How is paper made?
Give me an idea for a short story.
What is the water cycle?
How do I start a vegetable garden?
Why do we dream?
What makes a good friend?
How does a refrigerator work?
Explain supply and demand.
How do I calm a crying baby?
What is the history of the printing press?
How can I improve my memory?
What is an algorithm?
How do bees make honey?
Why is exercise good for the heart?
How do I iron a shirt?
Describe the life of a star.
What is democracy?
How do I make a paper boat?
What are vitamins for?
How does the internet work?
Explain fractions with an example.
How can I speak in front of people without fear?
What is an earthquake?
How do I take care of a cactus?
Why do cats purr?
What is the greenhouse effect?
How do I read a map?
Write two sentences about a lighthouse.
What does DNA do?
How can I stop procrastinating?
What is a solar eclipse?
How do I clean a wooden table?
Name some uses of copper.
How do magnets work?
What is jazz?
How do I plan a birthday party?
""".strip().split("\n")


def answers(server):
    """What the plain model answers to the general questions: greedy, the first 40 tokens."""
    found = {}
    for question in GENERAL:
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": 40, "temperature": 0}
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{server}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            choice = json.load(response)["choices"][0]
        found[question] = (choice["message"]["content"], choice["finish_reason"] == "length")
    return found


def capital(text):
    return text[0].upper() + text[1:]


def fill(frame, activity):
    return frame.replace("{v}", activity).replace("{V}", capital(activity))


def chat(question, reply):
    return {"messages": [{"role": "user", "content": question}], "reply": reply}


def person(draws, number, split, known):
    manner = draws.choice(sorted(LIKES))
    half = 0 if split == "train" else 1
    history, targets = [], []
    for topic in sorted(TOPICS):
        questions, activities = TOPICS[topic]
        liked, disliked = draws.sample(activities, 2)
        for frame in draws.sample(LIKES[manner][half], draws.choice([1, 2])):
            history.append({"text": fill(frame, liked)})
        if draws.random() < 0.6:
            history.append({"text": fill(draws.choice(DISLIKES[half]), disliked), "weight": -1.0})
            no = chat(fill(draws.choice(SHOULD), disliked), draws.choice(NO[manner][half]))
            targets.append(no)
        targets.append(chat(draws.choice(questions), fill(draws.choice(OPEN[manner][half]), liked)))
        if draws.random() < 0.6:
            targets.append(chat(fill(draws.choice(SHOULD), liked), draws.choice(YES[manner][half])))
    for question in draws.sample(sorted(PLAIN), 3):
        targets.append(chat(question, PLAIN[question][manner]))
    # Two of three general questions are for training.
    asked = [q for i, q in enumerate(GENERAL) if (i % 3 == 0) == (split != "train")]
    for question in draws.sample(asked, 10 if split == "train" else 3):
        reply, is_open = known[question]
        targets.append(chat(question, reply) | {"open": is_open})
    draws.shuffle(history)
    draws.shuffle(targets)
    if split != "train":
        # Looks at held-out people cost as much as training does.
        targets = targets[:7]
    return {"user": f"s{number}", "split": split, "history": history, "targets": targets}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--server", required=True, help="serves the model that the projector is for")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--stop", type=int, default=16)
    parser.add_argument("--test", type=int, default=32)
    arguments = parser.parse_args()
    draws, known = random.Random(arguments.seed), answers(arguments.server)
    splits = ["train"] * arguments.train + ["stop"] * arguments.stop + ["test"] * arguments.test
    with open(arguments.out, "w", encoding="utf-8") as file:
        for number, split in enumerate(splits, 1):
            file.write(json.dumps(person(draws, number, split, known)) + "\n")


if __name__ == "__main__":
    main()
