"""Write the items of the bundled ability set (`causaledit/ability/bundled/*.jsonl`), always the same ones.

    python benchmarks/ability_items.py

All facts, passages and sentences are written here. An item is one line: `question` (and `passage`), `choices` and
`answer` (the index of the right one); an instruction is `instruction`, `check` and what the check needs. A change of
an item raises `VERSION` in `causaledit/ability/bundled/__init__.py`.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from arguments import run_benchmark

FOLDER = Path(__file__).resolve().parents[1] / "causaledit" / "ability" / "bundled"
SEED = 20

# question, right answer, three wrong ones
FACTS = """
Which planet is known as the red planet?|Mars|Venus|Saturn|Neptune
What do bees make?|honey|milk|silk|bread
In which city does the Eiffel Tower stand?|Paris|Rome|Madrid|Vienna
What is the largest ocean?|the Pacific|the Atlantic|the Indian Ocean|the Arctic Ocean
How many legs does a spider have?|eight|six|ten|four
Which gas do plants take in from the air?|carbon dioxide|oxygen|helium|methane
Who wrote the play Hamlet?|William Shakespeare|Charles Dickens|Mark Twain|Jane Austen
What is the capital of Japan?|Tokyo|Beijing|Seoul|Bangkok
Which metal is attracted by a magnet?|iron|gold|copper|silver
What is frozen water called?|ice|steam|fog|dew
Which animal is the largest on Earth?|the blue whale|the elephant|the giraffe|the hippopotamus
What is the chemical symbol of oxygen?|O|N|C|H
Which star is nearest to the Earth?|the Sun|Sirius|Polaris|Vega
In which country are the pyramids of Giza?|Egypt|Mexico|Peru|India
How many days are there in a week?|seven|five|six|eight
Which language is mostly spoken in Brazil?|Portuguese|Spanish|French|Italian
What is the capital of Germany?|Berlin|Munich|Hamburg|Cologne
Which organ pumps blood through the body?|the heart|the liver|the lungs|the stomach
At what temperature in degrees Celsius does water boil?|100|50|150|200
Which bird cannot fly?|the penguin|the swallow|the eagle|the sparrow
Who painted the Mona Lisa?|Leonardo da Vinci|Vincent van Gogh|Pablo Picasso|Claude Monet
What is the hardest natural material?|diamond|chalk|wood|glass
Which continent is Kenya in?|Africa|Asia|Europe|South America
What is the young of a cat called?|a kitten|a puppy|a foal|a calf
Which season comes after winter?|spring|summer|autumn|winter
What do caterpillars turn into?|butterflies|spiders|worms|beetles
Which river flows through London?|the Thames|the Seine|the Danube|the Rhine
What is the currency of the United States?|the dollar|the euro|the yen|the pound
Which instrument has black and white keys?|the piano|the violin|the drum|the flute
How many continents are there?|seven|five|nine|eleven
Which vitamin does sunlight help the body to make?|vitamin D|vitamin C|vitamin K|vitamin A
What is the capital of Italy?|Rome|Milan|Naples|Venice
Which planet has the most striking rings?|Saturn|Mars|Mercury|Venus
What is the main ingredient of bread?|flour|rice|sugar|butter
Which sense do we use our ears for?|hearing|sight|taste|smell
In which country was football's World Cup of 2014 held?|Brazil|Germany|Russia|Japan
What is the opposite of north?|south|east|west|up
Which animal produces wool?|the sheep|the cow|the pig|the horse
What does a thermometer measure?|temperature|weight|distance|time
Which country is shaped like a boot?|Italy|Norway|Chile|Poland
How many sides does a triangle have?|three|four|five|six
What is the tallest mountain above the sea?|Mount Everest|Mont Blanc|Kilimanjaro|Mount Fuji
Which fruit is dried to make raisins?|grapes|plums|apples|figs
Who developed the theory of relativity?|Albert Einstein|Isaac Newton|Marie Curie|Charles Darwin
Which force pulls things towards the ground?|gravity|magnetism|friction|electricity
What is the capital of Russia?|Moscow|Kiev|Warsaw|Minsk
Which part of a plant takes up water from the soil?|the roots|the leaves|the flowers|the seeds
What colour do you get by mixing blue and yellow?|green|purple|orange|brown
Which ocean lies between Europe and America?|the Atlantic|the Pacific|the Indian Ocean|the Arctic Ocean
What is the largest desert of hot sand?|the Sahara|the Gobi|the Kalahari|the Atacama
Which insect spreads malaria?|the mosquito|the bee|the ant|the moth
How many minutes are there in an hour?|60|100|24|30
Which animal is known for its black and white stripes?|the zebra|the lion|the bear|the camel
What is the study of the stars called?|astronomy|biology|geology|history
Which country gave the Statue of Liberty to the United States?|France|Spain|England|Canada
What do we call a scientist who studies plants?|a botanist|a chemist|a linguist|an astronomer
Which metal is liquid at room temperature?|mercury|iron|lead|zinc
Which is the longest bone of the human body?|the thigh bone|the shin bone|the collarbone|the jaw
In which direction does the Sun rise?|in the east|in the west|in the north|in the south
Which country has the maple leaf on its flag?|Canada|Australia|Switzerland|Denmark
What is the capital of Spain?|Madrid|Barcelona|Seville|Lisbon
Which gas makes up most of the air?|nitrogen|oxygen|hydrogen|carbon dioxide
""".strip().splitlines()

# question, right answer, wrong answer
THINGS = """
Which is heavier, a feather or a piano?|a piano|a feather
Which is faster, a snail or a car?|a car|a snail
Which is hotter, ice or fire?|fire|ice
Which is longer, a minute or an hour?|an hour|a minute
Which is taller, a house or a chair?|a house|a chair
Which is older, a grandmother or a baby?|a grandmother|a baby
Which is louder, a whisper or a shout?|a shout|a whisper
Which is bigger, the Moon or a football?|the Moon|a football
Which is wider, a river or a thread?|a river|a thread
Which is softer, a stone or a pillow?|a pillow|a stone
Which is colder, the desert at noon or a freezer?|a freezer|the desert at noon
Which is deeper, a puddle or the sea?|the sea|a puddle
Which is sweeter, sugar or salt?|sugar|salt
Which is lighter, a leaf or a brick?|a leaf|a brick
Which is shorter, a week or a year?|a week|a year
Which is smaller, an ant or a horse?|an ant|a horse
Which is slower, a train or a tortoise?|a tortoise|a train
Which is brighter, the Sun or a candle?|the Sun|a candle
Which is nearer to us, the Moon or the Sun?|the Moon|the Sun
Which is drier, a towel in the cupboard or a wet sponge?|a towel in the cupboard|a wet sponge
Which is more expensive, a pencil or a ship?|a ship|a pencil
Which is younger, a puppy or an old dog?|a puppy|an old dog
Which is thicker, a sheet of paper or a wall?|a wall|a sheet of paper
Which has more legs, a cow or a bird?|a cow|a bird
Which has more wheels, a bicycle or a car?|a car|a bicycle
Which lives longer, a fly or an elephant?|an elephant|a fly
Which comes first, breakfast or dinner?|breakfast|dinner
Which comes later, Monday or Friday of one week?|Friday|Monday
Which is sharper, a knife or a spoon?|a knife|a spoon
Which holds more water, a cup or a bathtub?|a bathtub|a cup
""".strip().splitlines()

# sentence, feeling
SENTIMENTS = """
The soup was cold and the waiter ignored us all evening.|negative
I have not laughed so much at a film in years.|positive
The train leaves at ten from the second platform.|neutral
This is the worst phone I have ever owned.|negative
My daughter loves her new school and cannot wait to go back.|positive
The box holds twelve pencils.|neutral
We waited two hours and then they lost our order.|negative
The garden was lovely and the staff could not have been kinder.|positive
The meeting has been moved to Tuesday.|neutral
The paint peeled off within a week.|negative
An excellent book: I read it in one night.|positive
The library is next to the town hall.|neutral
He broke his promise again, and I am tired of it.|negative
The concert was magnificent from the first note to the last.|positive
The report has forty pages.|neutral
The hotel room smelled of smoke and the bed was broken.|negative
I am delighted with the bicycle; it rides beautifully.|positive
Water is sold in bottles of one litre.|neutral
The software crashes whenever I save my work.|negative
What a wonderful surprise it was to see you!|positive
The shop opens at nine.|neutral
The actors seemed bored, and so was I.|negative
The cake was delicious and everybody asked for more.|positive
The road is thirty kilometres long.|neutral
They charged us twice and refused to pay it back.|negative
The teacher explains everything patiently, and the children adore her.|positive
The form must be signed on page two.|neutral
My flight was cancelled and nobody told us why.|negative
This jacket is warm, light and worth every penny.|positive
The parcel weighs two kilograms.|neutral
The plot made no sense and the ending was dreadful.|negative
The view from the balcony took our breath away.|positive
The bus stops in front of the museum.|neutral
The shoes fell apart after three days.|negative
I finally passed the exam and could not be happier.|positive
The committee has nine members.|neutral
The neighbours were rude and the flat was filthy.|negative
Her speech was moving and full of hope.|positive
The printer is on the first floor.|neutral
I regret buying this machine; it never worked.|negative
The new café serves the best coffee in town.|positive
The course lasts six weeks.|neutral
The music was far too loud and gave me a headache.|negative
The doctor was gentle and took all the time we needed.|positive
The letter was posted on Monday.|neutral
It rained all week and our holiday was ruined.|negative
The team played brilliantly and deserved to win.|positive
The table is made of oak.|neutral
The customer service is useless and slow.|negative
I am grateful for your help; you made my day.|positive
The river flows into the lake.|neutral
The food made all of us ill.|negative
The puppy is adorable and brings us joy every day.|positive
The hall has two hundred seats.|neutral
A boring lecture that taught me nothing.|negative
The children had a marvellous time at the zoo.|positive
The museum is closed on Mondays.|neutral
The repair cost a fortune and the car still does not start.|negative
A charming little inn with superb breakfasts.|positive
The ticket is valid for one month.|neutral
""".strip().splitlines()

PEOPLE = ["Anna", "Peter", "Maria", "David", "Laura", "Thomas", "Emma", "Daniel", "Sarah", "Robert", "Julia", "Simon"]
TOWNS = ["Paris", "London", "Berlin", "Madrid", "Chicago", "Boston", "Dublin", "Vienna", "Denver", "Oslo"]
JOBS = ["teacher", "doctor", "farmer", "painter", "lawyer", "baker", "driver", "writer", "nurse", "singer"]
FOODS = ["bread", "rice", "fish", "soup", "cheese", "salad", "cake", "pasta"]
COLOURS = ["red", "blue", "green", "white", "black", "yellow"]
ANIMALS = ["dog", "cat", "horse", "rabbit", "goat", "parrot"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def arithmetic(draw: random.Random) -> list[dict[str, Any]]:
    """Sums, differences, products and quotients with a result of one digit."""
    items, seen = [], set()
    while len(items) < 62:
        kind = "+-*/"[len(items) % 4]
        result = draw.randint(1, 9)
        a, b = {
            "+": lambda r: (x := draw.randint(0, r), r - x),
            "-": lambda r: (r + (x := draw.randint(2, 11)), x),
            "*": lambda r: draw.choice([(d, r // d) for d in range(1, r + 1) if r % d == 0]),
            "/": lambda r: (r * (x := draw.randint(2, 6)), x),
        }[kind](result)
        if (kind, a, b) in seen:
            continue
        seen.add((kind, a, b))
        sign = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[kind]
        wrong = draw.sample([n for n in range(1, 10) if n != result], 3)
        items.append(_item(draw, f"What is {a} {sign} {b}?", str(result), [str(n) for n in wrong]))
    return items


def comparison(draw: random.Random) -> list[dict[str, Any]]:
    """Numbers, and everyday things."""
    items = []
    for line in THINGS:
        question, right, wrong = line.split("|")
        items.append(_item(draw, question, right, [wrong]))
    seen = set()
    while len(items) < 62:
        a, b = draw.sample(range(10, 99), 2)
        larger = len(items) % 2 == 0
        if (a, b) in seen or abs(a - b) < 5:
            continue
        seen.add((a, b))
        right = max(a, b) if larger else min(a, b)
        question = f"Which number is {'larger' if larger else 'smaller'}, {a} or {b}?"
        items.append(_item(draw, question, str(right), [str(a + b - right)]))
    return items


def facts(draw: random.Random) -> list[dict[str, Any]]:
    """Common knowledge."""
    return [_item(draw, question, right, wrong) for question, right, *wrong in (line.split("|") for line in FACTS)]


def reading(draw: random.Random) -> list[dict[str, Any]]:
    """A passage of two or three sentences about made-up people, and a question that it answers."""
    items = []
    for number in range(60):
        one, two = draw.sample(PEOPLE, 2)
        here, there, away = draw.sample(TOWNS, 3)
        form = number % 6
        if form == 0:
            job, other, none = draw.sample(JOBS, 3)
            passage = f"{one} and {two} grew up in {here}. {one} became a {job}, while {two} works as a {other}."
            item = _item(draw, f"What is {two}'s job?", other, [job, none])
        elif form == 1:
            passage = f"{one} lived in {here} until last year. Then {one} moved to {there} to be near {two}."
            item = _item(draw, f"Where does {one} live now?", there, [here, away])
        elif form == 2:
            food, other, none = draw.sample(FOODS, 3)
            passage = f"At the market {one} bought {food} and {two} bought {other}. Both of them walked home together."
            item = _item(draw, f"What did {one} buy?", food, [other, none])
        elif form == 3:
            animal, other, none = draw.sample(ANIMALS, 3)
            colour = draw.choice(COLOURS)
            passage = f"{one} has a {colour} {animal}. {two} would like one too, but already has a {other}."
            item = _item(draw, f"Which animal does {two} have?", other, [animal, none])
        elif form == 4:
            day, other, none = draw.sample(DAYS, 3)
            passage = (
                f"The meeting in {here} was planned for {day}. As {one} was ill, it took place on {other} instead."
            )
            item = _item(draw, "On which day was the meeting held?", other, [day, none])
        else:
            three = draw.choice([name for name in PEOPLE if name not in (one, two)])
            passage = f"{one} is taller than {two}. {two} is taller than {three}."
            item = _item(draw, "Who is the tallest?", one, [two, three])
        items.append({"passage": passage, **item})
    return items


def entailment(draw: random.Random) -> list[dict[str, Any]]:
    """Whether a second sentence follows from a first, is excluded by it, or neither."""
    items: list[dict[str, Any]] = []
    while len(items) < 60:
        number = len(items)
        one, two = draw.sample(PEOPLE, 2)
        town, other = draw.sample(TOWNS, 2)
        animal, pet = draw.sample(ANIMALS, 2)
        job, _ = draw.sample(JOBS, 2)
        food, _ = draw.sample(FOODS, 2)
        forms = [
            (f"{one} and {two} both live in {town}.", f"{two} lives in {town}.", f"{two} has never been to {town}.",
             f"{two} likes {town}."),
            (f"{one} bought a {animal} and a {pet}.", f"{one} bought a {pet}.", f"{one} bought nothing.",
             f"{one} gave the {pet} to {two}."),
            (f"{one} is a {job} from {town}.", f"{one} comes from {town}.", f"{one} does not come from {town}.",
             f"{one} is the best {job} in {town}."),
            (f"All the shops in {town} are closed today.", f"No shop in {town} is open today.",
             f"A shop in {town} is open today.", f"The shops in {other} are closed today."),
            (f"{one} ate {food} before {two} came home.", f"{two} came home after {one} had eaten {food}.",
             f"{one} ate nothing before {two} came home.", f"{two} ate {food} too."),
        ]  # fmt: skip
        premise, follows, excluded, open_one = forms[number % len(forms)]
        label = ("yes", "no", "maybe")[number % 3]
        hypothesis = {"yes": follows, "no": excluded, "maybe": open_one}[label]
        item = {
            "passage": premise, "question": hypothesis, "choices": ["yes", "no", "maybe"],
            "answer": ("yes", "no", "maybe").index(label),
        }  # fmt: skip
        if item not in items:
            items.append(item)
    return items


def sentiment(draw: random.Random) -> list[dict[str, Any]]:
    """Positive, negative or neutral."""
    labels = ["positive", "negative", "neutral"]
    found = [line.split("|") for line in SENTIMENTS]
    return [{"question": text, "choices": labels, "answer": labels.index(label)} for text, label in found]


def instructions(draw: random.Random) -> list[dict[str, Any]]:
    """Instructions whose following a rule can check."""
    topics = ["the sea", "winter", "a good breakfast", "trains", "your favourite season", "friendship", "the city",
              "cats", "the night sky", "gardens"]  # fmt: skip
    questions = ["What colour is grass?", "What do cows drink?", "What is the capital of France?",
                 "What falls from clouds?", "What do we breathe?", "What is the opposite of hot?",
                 "What do birds use to fly?", "What shines at night?", "What do fish live in?",
                 "What comes out of a volcano?"]  # fmt: skip
    lists = ["fruits", "animals", "colours", "countries", "tools", "sports", "vegetables", "rivers", "jobs", "drinks"]
    openings = ["Yesterday", "Perhaps", "Today", "Sometimes", "However", "Nobody", "Everyone", "Once", "Indeed", "Here"]
    words = ["river", "window", "candle", "garden", "music", "stone", "market", "winter", "mirror", "bridge"]
    items: list[dict[str, Any]] = []
    for number in range(10):
        topic = topics[number]
        items += [
            {"instruction": f"{questions[number]} Answer with one word only.", "check": "one_word"},
            {"instruction": f"Write one sentence about {topic} in capital letters only.", "check": "capitals"},
            {"instruction": f"Name exactly three {lists[number]}, separated by commas. Write nothing else.",
             "check": "three_items"},
            {"instruction": f'Write one sentence about {topic} that begins with the word "{openings[number]}".',
             "check": "begins", "word": openings[number]},
            {"instruction": f'Write one sentence about {topic} that contains the word "{words[number]}".',
             "check": "contains", "word": words[number]},
            {"instruction": f"Write a question about {topic}. End it with a question mark.", "check": "question"},
        ]  # fmt: skip
    del draw
    return items


def _item(draw: random.Random, question: str, right: str, wrong: list[str]) -> dict[str, Any]:
    choices = draw.sample([right, *wrong], len(wrong) + 1)
    return {"question": question, "choices": choices, "answer": choices.index(right)}


def main() -> None:
    """Write every kind's file."""
    for make in (arithmetic, comparison, facts, reading, entailment, sentiment, instructions):
        items = make(random.Random(f"{SEED} {make.__name__}"))
        lines = [json.dumps(item, ensure_ascii=False) for item in items]
        (FOLDER / f"{make.__name__}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{make.__name__}: {len(items)} items")


if __name__ == "__main__":
    run_benchmark(main)
