"""The fixed texts that every reference figure is made on; all written for this project.

`RAW` are prompts for plain completion, `CHATS` are lists of messages for a model with a chat template,
`EXTRA` are further texts for teacher forcing. Changing a text changes the fixtures: run the scripts again.
"""

LONG = """The lighthouse keeper's logbook began on a Tuesday, because the boat that carried him, two crates of lamp oil, a goat and a sack of flour could not land before then. The sea had been rough for nine days, and on the tenth it lay down like a tired dog. He wrote the date, the wind, the height of the water against the painted stripe on the rock, and then, after some thought, the word "arrived".

For the first week he counted things. There were one hundred and forty-four steps from the door to the lamp, and he counted them going up and coming down, in case the number changed. There were eleven panes of glass in the lantern room, of which one was cracked in the shape of a river seen from very high above. There were six spoons. The goat had two horns, one straight and one that curled a little to the left, so that she always seemed to be listening to somebody standing behind her.

In the second week he began to count other things. He counted ships: three fishing boats from the village, a collier with a red funnel, a yacht whose owner waved a hat. He counted how long the fog lasted, and how many times he had to wind the clockwork that turned the lamp, and how many letters he started and did not finish. He wrote these numbers in the logbook as well, in a column of their own, although nobody had asked for them. A supervisor came once a quarter to read the book, and he wondered what the man would say about the column of letters.

The supervisor, when he came, said nothing about it at all. He was a thin person in a coat that was too warm for the season, and he read standing up, with his finger under each line. He asked about the oil. He asked about the cracked pane, and he measured it with a folding ruler, and he said that cracks of that kind either stay as they are for thirty years or else go all at once in the first frost. Then he drank a cup of tea, remarked that the goat was in good condition, and went back down the one hundred and forty-four steps to the boat.

After that the keeper wrote more freely. He described the colour of the water at different hours: slate in the morning, bottle green at noon, and in the evening a brown that was almost copper, as if somebody had left a kettle out in the rain. He described the sound the tower made in a gale, which was not a howl, as people suppose, but a low steady note, like a cello tuned by a patient child. He drew the curled horn of the goat from four sides. When the first frost came he sat up all night beside the cracked pane with a lantern and a blanket, and at six in the morning, when the sun rose, the pane was still whole, and the river in it had not grown by so much as a finger's width.

He wrote that down too. Then he turned back through the book to the first page, and read the word "arrived", and thought about it for a while, and finally took up his pen and added, in smaller letters beside it, the hour at which he had"""

RAW = [
    LONG,
    "Water boils at a lower temperature on a mountain than at the sea, because",
    "def mean(values):\n    \"\"\"Return the arithmetic mean of a non-empty list.\"\"\"\n    total = 0.0\n    for value in values:\n",
    "Shopping list:\n- 2 litres of milk\n- 6 eggs\n- 500 g of flour\n-",
    "\"Where did you leave the keys?\" asked Mira.\n\"On the shelf, next to the blue bowl,\" said Tom.\n\"I looked there.\"\n\"Then look",
    "1, 1, 2, 3, 5, 8, 13, 21,",
    "La bibliothèque du village ouvre à neuf heures du matin, et les enfants attendent déjà devant la porte. Quand la porte",
    "SELECT name, city\nFROM customers\nWHERE country = 'Norway'\nORDER BY",
    "The three primary colours of paint are red, yellow and",
    "Dear Ms Okafor,\n\nThank you for your letter of 3 March. We are sorry to hear that the parcel arrived with a broken seal.",
    "Der Zug nach Hamburg fährt um 14:35 Uhr von Gleis 7 ab. Wer ihn verpasst,",
    "fn largest(numbers: &[i32]) -> Option<i32> {\n    let mut best = None;\n    for &number in numbers {\n",
    "Q: How many legs does a spider have?\nA: Eight.\n\nQ: How many legs does an ant have?\nA:",
    "# Walking in the hills\n\n## What to bring\n\n1. A map, even if you have a telephone.\n2. More water than you think you need.\n3.",
    "El río baja despacio en verano, y los viejos del pueblo dicen que",
    "Once upon a time there was a tailor who could sew anything except a straight line. One winter, the mayor",
    "{\"id\": 17, \"name\": \"lamp\", \"price\": 24.50, \"tags\": [\"home\", \"light\"]},\n{\"id\": 18, \"name\": \"chair\", \"price\":",
    "昔々、山の近くの小さな村に、",
    "To make a paper boat, first fold the sheet in half. Next, fold the two upper corners to the middle so that",
    "The meeting was moved from 10:30 to 11:15, so it will last 45 minutes and end at",
]

CHATS = [
    [{"role": "user", "content": "Give me three ideas for a rainy afternoon with two small children."}],
    [
        {"role": "system", "content": "You are a patient gardener. Answer in one short paragraph."},
        {"role": "user", "content": "Why do the leaves of my tomato plants curl?"},
    ],
    [
        {"role": "user", "content": "What is the capital of Portugal?"},
        {"role": "assistant", "content": "The capital of Portugal is Lisbon."},
        {"role": "user", "content": "And which river does it lie on?"},
    ],
    [{"role": "user", "content": "Write a Python function that counts the vowels in a string."}],
    [{"role": "user", "content": "Explain in simple words why the sky is blue."}],
    [
        {"role": "system", "content": "Answer as a pirate."},
        {"role": "user", "content": "How do I get from the station to the museum?"},
    ],
    [{"role": "user", "content": "Translate into French: The cat sleeps on the warm roof."}],
    [
        {"role": "user", "content": "I feel a bit lost since I moved to a new city."},
        {"role": "assistant", "content": "That is understandable. A new place takes time. What do you miss most?"},
        {"role": "user", "content": "My friends, and knowing where everything is."},
    ],
]

# Whole dialogues and passages, for distributions over texts that nobody sampled.
EXTRA_CHATS = [
    [
        {"role": "user", "content": "How long should I boil an egg?"},
        {"role": "assistant", "content": "For a soft yolk, six minutes in boiling water; for a firm one, ten. Put the egg in cold water afterwards, so that it stops cooking and the shell comes off more easily."},
        {"role": "user", "content": "And if it comes straight from the fridge?"},
        {"role": "assistant", "content": "Then add about one minute, and let it warm up a little first, otherwise the shell may crack."},
    ],
    [
        {"role": "system", "content": "You are a careful assistant for a small museum."},
        {"role": "user", "content": "When is the museum open on Sundays?"},
        {"role": "assistant", "content": "On Sundays the museum is open from eleven in the morning until five in the afternoon. The last tour starts at a quarter past four."},
    ],
]

EXTRA = [
    "Bread needs only four things: flour, water, salt and time. The yeast is already in the flour and in the air, and a bowl of dough that is left alone for a day will begin to bubble by itself. Bakers who work this way keep a small piece of each dough for the next one, so that a loaf eaten today is in some sense a descendant of a loaf eaten a hundred years ago.",
    "import csv\n\ndef read_prices(path):\n    prices = {}\n    with open(path, newline=\"\") as handle:\n        for row in csv.DictReader(handle):\n            prices[row[\"item\"]] = float(row[\"price\"])\n    return prices\n\nif __name__ == \"__main__\":\n    for item, price in sorted(read_prices(\"prices.csv\").items()):\n        print(f\"{item:20} {price:8.2f}\")\n",
    "A triangle with sides of 3, 4 and 5 has a right angle, because 9 + 16 = 25. The same holds for 5, 12 and 13, since 25 + 144 = 169. Any multiple of such a triple is a triple again: 6, 8 and 10 give 36 + 64 = 100.",
]
