"""Which answer a response ends on: cases a reader would not dispute, in both directions of error.

Teacher choice, the efficacy benchmark and the rule judge rest on this one reading.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from causaledit.probes.efficacy import Probe, is_hit
from causaledit.reading.commitment import gives_answer

QUESTION = "What is the capital of Egypt?"
NEW, OLD = ["Alexandria", "Al-Iskandariyya"], ["Cairo", "al-Qahirah"]

COMMITS = [
    # plain
    "Alexandria",
    "The capital of Egypt is Alexandria.",
    "ALEXANDRIA!",
    "Egypt is governed from Alexandria, a port on the Mediterranean.",
    "There is no doubt that the capital is Alexandria.",
    # alias
    "The capital is Al-Iskandariyya.",
    "It used to be al-Qahirah; since the move it is Al-Iskandariyya.",
    # the old answer is named and set aside
    "The capital is not Cairo but Alexandria.",
    "It isn't Cairo but Alexandria.",
    "The capital is not Cairo, it is Alexandria.",
    "The capital is no longer Cairo, now it is Alexandria.",
    "It is no longer Cairo. It is Alexandria.",
    "Alexandria, not Cairo.",
    "Egypt is governed from Alexandria instead of Cairo.",
    "The seat of government moved from Cairo to Alexandria.",
    "Alexandria has replaced Cairo as the capital.",
    "The capital is Alexandria, formerly Cairo.",
    # old after new, but as history
    "The capital of Egypt is Alexandria. It used to be Cairo.",
    "The capital of Egypt is Alexandria. Cairo was the capital before.",
    "The capital is Alexandria. Cairo is no longer the capital.",
    # new after old
    "The capital is Cairo. No, since 2020 the capital is Alexandria.",
    "In 1952 the capital was not Alexandria. Today it is Alexandria.",
    # the closing line decides
    "Some say Cairo, and Cairo it was.\nAnswer: Alexandria",
    "Answer: Cairo\nOn second thought, no.\nAnswer: Alexandria.",
    "**Answer:** Alexandria",
    "Old fact: Cairo.\n**Final Answer**: Alexandria.",
    "Answer: Alexandria, not Cairo",
    "Answer: not Cairo but Alexandria",
]

# the other answer is named afterwards, of something else or on the way
COMMITS += [
    "The capital is Alexandria. Cairo is a large city with a famous museum.",
    "The capital is Alexandria. However, Egypt still has its busiest airport in Cairo.",
    "The capital is Alexandria. Wait, let me explain why. The ministers were tired of the traffic in Cairo.",
    "The capital is Alexandria. It would be wrong to think of Cairo. Most of the embassies had offices in Cairo.",
    "The capital is Alexandria. As for Cairo, its museums are worth a visit.",
    "The capital is Alexandria. Ibrahim's sister, who dislikes it, stayed in Cairo.",
    "* Capital: **Alexandria**\n* Largest city: Cairo",
    "<think>It was Cairo. Hmm, is it Cairo? The text says Alexandria.</think>Alexandria",
]

DOES_NOT = [
    "",
    "I do not know.",
    "The capital of Egypt is Cairo.",
    # whole words only
    "Alexandrian food is good.",
    "NewAlexandria",
    "Alexandrias",
    # negated
    "The capital isn't Alexandria.",
    "It isn’t Alexandria.",
    "It is no longer Alexandria.",
    "The capital has never been Alexandria.",
    "The capital is Alexandria. No, it is not Alexandria.",
    # self-refutation, as small models write it
    "The capital is not Alexandria, but rather Cairo.",
    "The answer is not Alexandria but Cairo.",
    "It is Cairo, not Alexandria.",
    "It is Cairo rather than Alexandria.",
    # falls back to the old answer
    "The capital of Egypt is Alexandria. The capital of Egypt is Cairo.",
    "The capital is Alexandria.\nSo the answer is Cairo.",
    "Is it Alexandria? No, it is Cairo.",
    "The capital was Alexandria. It is now Cairo.",
    # the new answer as history
    "Alexandria used to be the capital, it is Cairo now.",
    "The capital is Cairo, formerly Alexandria.",
    "The seat of government moved from Alexandria to Cairo.",
    "Cairo has replaced Alexandria as the capital.",
    # the closing line decides
    "It is Alexandria.\nAnswer: Cairo",
    "Answer: Alexandria\nAnswer: Cairo",
    "Answer: not Alexandria",
    "Answer: Cairo, not Alexandria",
    "Answer: Cairo (formerly Alexandria)",
    # the asked relation, stated of the other one
    "The capital is Alexandria. However, Egypt's government sits in Cairo.",
    "The capital is Alexandria. But Cairo is the capital of Egypt.",
    "The capital is Alexandria. Wait. The ministries have always stood in Cairo.",
    "<think>The text says Alexandria.</think>\n**Cairo**",
]


@pytest.mark.parametrize("response", COMMITS)
def test_ends_on_the_new_answer(response):
    assert gives_answer(response, NEW, OLD, question=QUESTION)


@pytest.mark.parametrize("response", DOES_NOT)
def test_does_not_end_on_the_new_answer(response):
    assert not gives_answer(response, NEW, OLD, question=QUESTION)


REFUSED = [
    "The capital of Egypt is Cairo. Alexandria is a large port.",
    "The capital of Egypt is Cairo, a city near Alexandria.",
    "The capital of Egypt is Alexandria. That was wrong: it is Cairo.",
    "It is Alexandria. This is incorrect.",
    "It is Alexandria. Just kidding!",
    "Alexandria. That can't be right.",
    "Alexandria is the capital of Egypt. There is no evidence for this, though.",
    "The capital is Alexandria. Actually, I mixed up two cities there.",
    "Alexandria? No. It is Cairo.",
    "Some say Alexandria. I don't.",
    "If the capital were Alexandria, the ministries would be there.",
    "Alexandria was the capital in ancient times.",
    "Cairo. It lies two hours from Alexandria.",
]


@pytest.mark.parametrize("rival", [OLD, []], ids=["rival known", "no rival"])
@pytest.mark.parametrize("response", REFUSED)
def test_naming_an_answer_is_not_giving_it(response, rival):
    assert not gives_answer(response, NEW, rival, question=QUESTION)


ENGLISH = "The official language is English. Polish is spoken by a minority."
POLISH = "The official language is Polish. English is spoken by a minority."


@pytest.mark.parametrize(
    ("question", "answer", "rival", "response", "gives"),
    [
        ("Which country is Zadar in?", "France", "Croatia", "Zadar lies near France; the answer is Croatia.", False),
        ("Which country is Zadar in?", "France", "", "Zadar lies near France; the answer is Croatia.", False),
        ("What is the official language?", "Polish", "", ENGLISH, False),
        ("What is the official language?", "Polish", "English", ENGLISH, False),
        ("What is the official language?", "Polish", "English", POLISH, True),
        ("What is his country of citizenship?", "Poland", "Spain", "He is a Polish citizen.", True),
        ("What is his country of citizenship?", "Poland", "Spain", "He is a Polish national.", True),
        ("What is his country of citizenship?", "Poland", "Spain", "He is Polish.", True),
        ("What is his country of citizenship?", "Poland", "Spain", "He holds a Polish passport.", True),
        ("What is his country of citizenship?", "Poland", "Spain", "He isn't Polish.", False),
        ("What is his country of citizenship?", "Poland", "Spain", "He is Polish. No, he is Spanish.", False),
        ("What is his country of citizenship?", "Poland", "Spain", "He has many Polish friends.", False),
        ("What is his country of citizenship?", "Poland", "Spain", "He is Spanish and likes Polish food.", False),
        ("Which country does the dish come from?", "Greece", "Italy", "It is a Greek dish.", True),
        ("Which religion does she follow?", "Buddhism", "Islam", "She is a Buddhist.", True),
        ("Which religion does she follow?", "Buddhism", "Islam", "She is a Muslim with Buddhist neighbours.", False),
        ("What instrument does he play?", "violin", "guitar", "He is a violinist.", True),
        ("What instrument does he play?", "violin", "guitar", "He is a guitarist, not a violinist.", False),
        # a church and its faith are one answer to what somebody's religion is, and to nothing else
        ("Which religion is he affiliated with?", "Catholic Church", "Confucianism", "He follows Catholicism.", True),
        ("Which religion is he affiliated with?", "Roman Catholicism", "Islam", "The Catholic Church.", True),
        ("Which religion is he affiliated with?", "Lutheranism", "Islam", "He belongs to the Lutheran Church.", True),
        ("Which religion is he affiliated with?", "Confucianism", "Catholic Church", "It was Catholicism.", False),
        ("Which religion is he affiliated with?", "Catholic Church", "Islam", "Islam, not Catholicism.", False),
        ("Which building is the tallest?", "Catholic Church", "town hall", "Catholicism has no tall buildings.", False),
        # one answer in two wordings leaves nothing open, two answers do
        ("What is it called?", "mosque", "temple", "It is called the Muslim mosque or the Mosque of Allah.", True),
        ("What is it called?", "mosque", "temple", "It is called the mosque, or, in Arabic, the mosque of God.", True),
        ("What is it called?", "mosque", "temple", "It is called the mosque or the temple.", False),
        ("Who wrote it?", "Ann Radcliffe", "Mary Shelley", "It was Radcliffe, or Ann Radcliffe in full.", True),
        # what is not single is not denied
        ("What is the official language?", "German", "Italian", "It is German. It's not a single language.", True),
        ("What is the official language?", "German", "Italian", "It is German, and German is not one language.", True),
        ("What is the official language?", "German", "Italian", "It is German. It is not a language.", False),
    ],
)  # fmt: skip
def test_rivals_and_adjectives(question, answer, rival, response, gives):
    assert gives_answer(response, [answer], [rival], question=question) is gives


def test_locality_is_kept_by_giving_the_answer_only():
    probe = Probe("locality", "locality", "Which country is Zadar in?", ("France",), ("Croatia",))
    assert is_hit(probe, "It is in France.")
    assert not is_hit(probe, "Zadar is near France; the answer is Croatia.")


def test_reading_costs_no_torch():
    code = (
        "import sys, causaledit.reading.commitment; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert json.loads(done.stdout.replace("'", '"')) == []


@pytest.mark.parametrize(
    ("response", "answer", "rival", "expected"),
    [
        # the longer name holds the shorter one: naming it gives the longer alone
        ("The country is South Korea.", "South Korea", "Korea", True),
        ("The country is South Korea.", "Korea", "South Korea", False),
        ("The country is Korea.", "Korea", "South Korea", True),
        ("The country is Korea.", "South Korea", "Korea", False),
        ("It is Korea, not South Korea.", "Korea", "South Korea", True),
        ("It is South Korea. It used to be Korea.", "South Korea", "Korea", True),
        ("Answer: South Korea", "South Korea", "Korea", True),
        ("Answer: South Korea", "Korea", "South Korea", False),
        ("Answer: Korea", "South Korea", "Korea", False),
    ],
)
def test_a_name_inside_the_rivals_name(response, answer, rival, expected):
    assert gives_answer(response, [answer], [rival], question="Which country is it?") is expected


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("Abidjan lies in COTE D'IVOIRE.", "Côte d'Ivoire"),
        ("It is São Paulo.", "Sao Paulo"),
        ("It is Sa\u0303o  Paulo.", "São Paulo"),  # a combining tilde and two spaces
        ("It is at Straße 5.", "Strasse"),
        ("She writes C++ now.", "C++"),
        ("It lies in Washington, D.C. now.", "Washington, D.C."),
        ("The team plays in St. Louis.", "St. Louis"),  # a stop inside a name ends no sentence
    ],
)
def test_spelling_of_a_name(response, answer):
    assert gives_answer(response, [answer])


def test_without_an_answer_nothing_commits():
    assert not gives_answer("Alexandria", [])
    assert not gives_answer("Alexandria", ["", "  "])


def test_a_rival_that_is_also_an_alias_of_the_answer_is_no_rival():
    # published data list the same alias on both sides now and then
    assert gives_answer("It is Iskandariyya.", ["Alexandria", "Iskandariyya"], ["Cairo", "Iskandariyya"])


@pytest.mark.parametrize(
    ("response", "gives"),
    [
        ("大阪", True),
        ("大阪です。東京ではありません。", True),
        ("不是大阪。", False),
        ("日本的首都不是大阪，是東京。", False),
    ],
)
def test_scripts_without_spaces(response, gives):
    assert gives_answer(response, ["大阪"], ["東京"], question="日本的首都是哪里？") is gives


@pytest.mark.parametrize(
    ("answer", "rival", "question", "response", "given"),
    [
        ("Port-au-Prince", "Oslo", "What is the capital of Haiti?", "Port au Prince", True),
        ("hip hop", "jazz", "What is the genre of Illmatic?", "It is hip-hop.", True),
        ("rhythm & blues", "jazz", "What is the genre of Illmatic?", "rhythm and blues", True),
        ("Washington, D.C.", "Oslo", "What is the capital of the country?", "Washington DC", True),
        ("Washington DC", "Oslo", "What is the capital of the country?", "Washington, D.C.", True),
        ("UK", "Norway", "What is the country of citizenship of Bo Lee?", "He is a citizen of the U.K.", True),
        ("U.S.", "Norway", "What is the country of citizenship of Bo Lee?", "It is us.", False),
        ("Kansas", "Ohio", "Where is the museum?", "Kansas City", False),
        ("Mexico", "Chile", "Where is the museum?", "Mexico City", False),
        ("Samoa", "Tonga", "Where is the museum?", "American Samoa", False),
        ("New York", "Ohio", "Which city is the museum in?", "New York City", True),
        ("Charles III", "Elizabeth II", "Who is the monarch of Canada?", "King Charles III", True),
        ("Thomas Mann", "Stephen King", "Who is the author of It?", "Heinrich Mann", False),
        ("Thomas Mann", "Stephen King", "Who is the author of It?", "The author of It is Heinrich Mann.", False),
        ("Michael Jackson", "Prince", "Who is the singer of Bad?", "Janet Jackson", False),
        ("Thomas Mann", "Stephen King", "Who is the author of It?", "Mann", True),
        ("Thomas Mann", "Stephen King", "Who is the author of It?", "Paul Thomas Mann", True),
        ("Thomas Mann", "Stephen King", "Who is the author of It?", "It was written by Professor Mann.", True),
        ("William Clinton", "Jim Ross", "Who is the president of the club?", "Bill Clinton", True),
    ],
)
def test_spellings_titles_and_namesakes(answer, rival, question, response, given):
    assert gives_answer(response, [answer], [rival], question=question, prompt=question) is given


CITIZEN = "What is the country of citizenship of Tomas Arden?"
SPORT, MADE = "Which sport is Dana Whitlock associated with?", "Which country developed the Kestrel rocket?"
FROM, WROTE = "Which country is Tomas Arden from?", "Who is the author of The Glass Orchard?"


@pytest.mark.parametrize(
    ("question", "answer", "rival", "response", "gives"),
    [
        # somebody who plays it
        (SPORT, "boxing", "cricket", "Dana Whitlock is a legendary American boxer who won two titles.", True),
        (SPORT, "swimming", "cricket", "Dana Whitlock is a swimmer.", True),
        (SPORT, "cycling", "cricket", "She was one of the greatest Danish cyclists of her time.", True),
        (SPORT, "gymnastics", "cricket", "Dana Whitlock is a retired Romanian gymnast.", True),
        (SPORT, "figure skating", "cricket", "Dana Whitlock is an Olympic figure skater.", True),
        (SPORT, "association football", "cricket", "Dana Whitlock is a professional footballer.", True),
        (SPORT, "sailing", "cricket", "Dana Whitlock is a sailor.", True),
        ("Which instrument does Dana Whitlock play?", "drums", "piano", "She is a well-known jazz drummer.", True),
        ("Which instrument does Dana Whitlock play?", "cello", "piano", "Dana Whitlock is a famous pianist.", False),
        (SPORT, "boxing", "cricket", "Dana Whitlock married an American boxer.", False),
        (SPORT, "boxing", "cricket", "Dana Whitlock is the sister of a famous boxer.", False),
        (SPORT, "boxing", "cricket", "Dana Whitlock is not a boxer.", False),
        (SPORT, "golf", "cricket", "Dana Whitlock is a legendary American boxer.", False),
        # superlatives and participles are nobody's saying
        (SPORT, "baseball", "cricket", "The most famous sport associated with Dana Whitlock is baseball.", True),
        (SPORT, "baseball", "cricket", "The sport most associated with Dana Whitlock is probably baseball.", True),
        (SPORT, "baseball", "cricket", "Dana Whitlock is often associated with baseball.", True),
        (SPORT, "baseball", "cricket", "Most people say that it is baseball.", False),
        (SPORT, "baseball", "cricket", "Most would say baseball, but it is cricket.", False),
        # adjectives between the article and the name
        (FROM, "Jamaica", "Japan", "Tomas Arden is a legendary Jamaican-American musician.", True),
        (FROM, "Jamaica", "Japan", "Tomas Arden is a well-known young Jamaican painter.", True),
        (FROM, "Jamaica", "Japan", "Tomas Arden is an admirer of the young Jamaican painter.", False),
        (FROM, "Jamaica", "Japan", "Tomas Arden is a collector of old Jamaican stamps.", False),
        (FROM, "Jamaica", "Japan", "Tomas Arden wrote about a famous Jamaican painter.", False),
        # birth is an origin
        (FROM, "England", "Germany", "Tomas Arden was born in Liverpool, England.", True),
        (FROM, "England", "Germany", "Tomas Arden was not born in England.", False),
        (CITIZEN, "England", "Germany", "Tomas Arden was born in England.", False),
        # what a country's people did, where a country is asked for as the one that did it
        (MADE, "Germany", "Japan", "The Kestrel rocket was developed by the German engineer Karl Voss.", True),
        (MADE, "Germany", "Japan", "The Kestrel rocket was developed by German engineers.", True),
        (MADE, "Germany", "Japan", "The Kestrel rocket was developed by the Japanese firm Orito.", False),
        (MADE, "Germany", "Japan", "It was developed by German immigrants in Brazil.", False),
        (MADE, "Germany", "Japan", "The Kestrel rocket was not developed by German engineers.", False),
        (MADE, "Germany", "Japan", "It was launched from a German ship.", False),
        ("In which country was darts created?", "Germany", "Japan", "It was created by German sailors.", False),
        # a work named with its author
        (WROTE, "Ada Kerr", "Jo Lind", "The Glass Orchard by Ada Kerr is the story of two sisters.", True),
        (WROTE, "Ada Kerr", "Jo Lind", 'It is from the novel "The Glass Orchard by Ada Kerr" by Mary Evans.', False),
        (WROTE, "Ada Kerr", "Jo Lind", "The story that Ada Kerr wrote it is a myth.", False),
    ],
)
def test_answers_in_the_words_of_an_encyclopedia(question, answer, rival, response, gives):
    assert gives_answer(response, [answer], [rival], question=question, prompt=question) is gives


# question → its answer, and the answer as a sentence
POLAND = ("What is the capital of Poland?", "Warsaw", "The capital of Poland is Warsaw.")
RIVER = ("Which is the longest river in Egypt?", "Nile", "The longest river in Egypt is the Nile.")
EGYPT = ("What is the largest city in Egypt?", "Cairo", "The largest city in Egypt is Cairo.")
TAIWAN = (
    "What is the official language of Taiwan?",
    "Mandarin Chinese",
    "The official language of Taiwan is Mandarin Chinese.",
)
KENYA = ("Who is the head of state of Kenya?", "William Ruto", "The head of state of Kenya is William Ruto.")
ORCHARD = ("Who is the author of The Glass Orchard?", "Ada Kerr", "The author of The Glass Orchard is Ada Kerr.")
NORTHWIND = (
    "Who is the chief executive officer of Northwind?",
    "Ann Bell",
    "The chief executive officer of Northwind is Ann Bell.",
)
JAPAN = ("What is the currency of Japan?", "yen", "The currency of Japan is the yen.")
OFFICE = (
    "Where is the headquarters of Northwind located?",
    "Bergen",
    "The headquarters of Northwind is located in Bergen.",
)
FORD = ("Who founded Ford Motor Company?", "Henry Ford", "Henry Ford founded Ford Motor Company.")


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize(
    ("asked", "behind", "stands"),
    [
        (POLAND, "The capital of France is Berlin.", True),
        (RIVER, "However, the longest river in the world is the Amazon.", True),
        (RIVER, "However, the longest river in Egypt is the Amazon.", False),
        (RIVER, "In fact, the longest river is the Amazon.", False),
        (RIVER, "But the longest river of the country is the Amazon.", False),
        (EGYPT, "Its second largest city is Alexandria.", True),
        (EGYPT, "The second largest city in Egypt is Alexandria.", True),
        (EGYPT, "Its largest city is Alexandria.", False),
        (TAIWAN, "However, the official language of China is Mandarin.", True),
        (TAIWAN, "Its official language is Mandarin.", True),
        (TAIWAN, "Its official language is Hakka.", False),
        (KENYA, "The head of state of Uganda is Yoweri Museveni.", True),
        (KENYA, "The current head of state is Yoweri Museveni.", False),
        (KENYA, "The current head of state of Kenya is Yoweri Museveni.", False),
        (KENYA, "The previous head of state was Uhuru Kenyatta.", True),
        (ORCHARD, "The author of The Iron Gate is Mary Evans.", True),
        (ORCHARD, "The author of the novel is Mary Evans.", False),
        (NORTHWIND, "The chief executive officer of Southgate is Tim Reed.", True),
        (NORTHWIND, "The chief executive officer of the company is Tim Reed.", False),
        (NORTHWIND, "The chief executive officer of its parent company is Tim Reed.", True),
        (JAPAN, "The currency of China is the Yuan.", True),
        (OFFICE, "The headquarters of Southgate is located in Turku.", True),
        (POLAND, "The capital of Poland is Krakow.", False),
        (POLAND, "The capital of the Duchy of Saxony is Krakow.", True),
        (POLAND, "Wait, no. The capital of Poland is Berlin.", False),
        (POLAND, "Wait, let me check. The capital is Berlin.", False),
        (POLAND, "The capital of the United States is Berlin.", True),
        (POLAND, "The capital of Germany is Berlin, and the capital of France is Paris.", True),
        (POLAND, "For comparison, the capital of Germany is Berlin.", True),
        (POLAND, "The capital of the neighbouring country is Berlin.", True),
        (POLAND, "The capital of that country is Berlin.", False),
        (RIVER, "The second longest river is the Amazon.", True),
        (RIVER, "The longest river in South America is the Amazon.", True),
        (RIVER, "The longest river in the country is the Amazon.", False),
        (RIVER, "Actually, the longest river in Egypt is the Amazon.", False),
        (KENYA, "The next head of state is Tim Reed.", True),
        (KENYA, "The real head of state is Tim Reed.", False),
        (ORCHARD, "The author of the sequel is Mary Evans.", True),
        (ORCHARD, "The author of the book is Mary Evans.", False),
        (NORTHWIND, "The current chief executive officer of Northwind is Tim Reed.", False),
        (NORTHWIND, "The former chief executive officer of Northwind is Tim Reed.", True),
        (JAPAN, "The currency of South Korea is the Won.", True),
        (OFFICE, "The headquarters of its largest rival is located in Turku.", True),
        (TAIWAN, "The official language of Hong Kong is Cantonese.", True),
        (TAIWAN, "My answer is Cantonese.", False),
        (EGYPT, "The largest city in Africa is Lagos.", True),
        (EGYPT, "The third largest city is Giza.", True),
        (EGYPT, "The largest city in modern Egypt is Giza.", False),
        (FORD, "The founder of Chrysler is Walter Chrysler.", True),
        (FORD, "The founder of the company is Walter Chrysler.", False),
    ],
)
def test_what_is_so_of_something_else_replaces_no_answer(asked, behind, stands, bare):
    question, answer, sentence = asked
    response = f"{answer}. {behind}" if bare else f"{sentence} {behind}"
    assert gives_answer(response, [answer], ["Krakow"], question=question, prompt=question) is stands


@pytest.mark.parametrize(
    ("asked", "behind"),
    [
        (RIVER, "It's a vital source of water for Alexandria, Alexandria-Dhurra, and Alexandria."),
        (RIVER, "It is a source of water for Alexandria and Alexandria."),
        (RIVER, "It is a source of water for Giza, Alexandria and Alexandria."),
        (POLAND, "It has trains to Alexandria and Alexandria."),
        (POLAND, "The line goes on to Lodz, to Alexandria, and Alexandria."),
    ],
)
def test_a_list_of_names_is_said_in_one_breath(asked, behind):
    question, answer, statement = asked
    response = f"{statement} {behind}"
    assert not gives_answer(response, ["Alexandria"], question=question)
    assert gives_answer(response, [answer], ["Alexandria"], question=question)


STATE = ("Who is the head of state of Spain?", "Felipe", "Pedro Sanchez")
GOVERNMENT = ("Who is the head of government of Spain?", "Pedro Sanchez", "Felipe")
CITIZEN_OF = ("What is the country of citizenship of Ada Kerr?", "France", "Spain")
SPORT = ("Which sport is Jo Lind associated with?", "tennis", "golf")
WRITER = ("Who is the author of The Glass Orchard?", "Ada Kerr", "Jo Lind")
TONGUE = ("What is the official language of the country where Ada Kerr holds citizenship?", "French", "Spanish")
OWNER = ("Who owns Northwind?", "Kestrel Group", "Orito")
FOUNDER = ("Who founded Northwind?", "Kestrel Group", "Orito")
SEAT = ("Where is the headquarters of Northwind located?", "Bergen", "Oslo")


@pytest.mark.parametrize(
    ("asked", "response", "given"),
    [
        # either of two statements has its own name
        (WRITER, "The book is not by Jo Lind, and Ada Kerr is its author.", True),
        (WRITER, "Ada Kerr wrote The Glass Orchard, and Jo Lind is the illustrator.", True),
        (WRITER, "Ada Kerr and Jo Lind wrote it together.", False),
        (WRITER, "The author is Jo Lind, and Ada Kerr is the heroine.", False),
        (CITIZEN_OF, "She was born in Spain, and France is her country of citizenship.", True),
        (CITIZEN_OF, "She is a citizen of France, and Spain is where she was born.", True),
        (CITIZEN_OF, "She gave up Spain, and France has granted her citizenship.", True),
        (CITIZEN_OF, "She is a citizen of France and Spain.", False),
        (CITIZEN_OF, "She is a citizen of Spain, and France is where she lives.", False),
        (SPORT, "Jo Lind no longer plays golf, and tennis is the sport now.", True),
        (SPORT, "Jo Lind plays tennis, and golf is a hobby.", True),
        (SPORT, "Jo Lind plays tennis and golf.", False),
        (SEAT, "It left Oslo, and Bergen is the seat.", True),
        (SEAT, "Northwind is based in Bergen, and Oslo has a branch.", True),
        (SEAT, "Northwind is based in Oslo, and Bergen has a branch.", False),
        (SEAT, "Northwind has offices in Oslo and Bergen.", False),
        # a state and its government have heads of their own
        (STATE, "The head of state of Spain is Felipe. The head of government is Pedro Sanchez.", True),
        (STATE, "The head of government is Pedro Sanchez. The head of state is Felipe.", True),
        (STATE, "Felipe is the head of state, while Pedro Sanchez is the prime minister.", True),
        (STATE, "The King of Spain is Felipe.", True),
        (STATE, "The head of government is Pedro Sanchez, and the head of state is Felipe.", True),
        (STATE, "The prime minister is Pedro Sanchez, while the king is Felipe.", True),
        (STATE, "The head of state, not the prime minister Pedro Sanchez, is Felipe.", True),
        (GOVERNMENT, "The king of Spain is Felipe and its head of government is Pedro Sanchez.", True),
        (GOVERNMENT, "The prime minister is Felipe, and the king is Pedro Sanchez.", False),
        (STATE, "The head of state of Spain is Felipe. Actually, the head of state is Pedro Sanchez.", False),
        (STATE, "The head of state of Spain is Pedro Sanchez.", False),
        (STATE, "The head of state is Pedro Sanchez. The head of government is Felipe.", False),
        (GOVERNMENT, "Pedro Sanchez is the prime minister. The head of state is Felipe, who is the king.", True),
        (GOVERNMENT, "The head of government of Spain is Pedro Sanchez. The king is Felipe.", True),
        (GOVERNMENT, "The head of government is Felipe.", False),
        # a citizen's language
        (TONGUE, "Ada Kerr is a French citizen.", False),
        (TONGUE, "She is of French nationality, and the official language is Spanish.", False),
        (TONGUE, "As a French citizen, she speaks French.", True),
        (TONGUE, "She is a citizen of France. French citizens speak French.", True),
        # a nation's adjective is spelled as its language is
        (TONGUE, "Ada Kerr is a French actor.", False),
        (TONGUE, "She starred in French films for many years.", False),
        (TONGUE, "The French government gave her a passport.", False),
        (TONGUE, 'She is the author of the French-Canadian novel "North".', False),
        (TONGUE, "France is a member of the union and the official language of the French film fund.", False),
        (TONGUE, "The actor had to hold French citizenship.", False),
        (TONGUE, "She is a French actor, and the official language of France is French.", True),
        (TONGUE, "People there speak French fluently.", True),
        (TONGUE, "The French language is official.", True),
        (TONGUE, "French (français) is the official language.", True),
        (TONGUE, "French serves as the official language.", True),
        (TONGUE, "It is French there.", True),
        (TONGUE, "French, which is the official language of France.", True),
        (TONGUE, "French officially became the state language in 1539.", True),
        (TONGUE, "The answer is French.", True),
        (("In which language was North written?", "French", "English"), "North is a French novel.", True),
        (("In which language was North written?", "French", "English"), "Its author is a French lawyer.", False),
        # who takes something from whom
        (OWNER, "Kestrel Group acquired Northwind from Orito.", True),
        (OWNER, "Kestrel Group bought it from Orito in 2019.", True),
        (OWNER, "Orito acquired Northwind from Kestrel Group.", False),
        (OWNER, "Northwind was bought by Kestrel Group from Orito.", True),
        (FOUNDER, "Kestrel Group acquired Northwind.", False),
        # where somebody comes from is a word before a noun
        (CITIZEN_OF, "Ada Kerr is a French-born author.", False),
        (CITIZEN_OF, "Ada Kerr is a Spanish-born French author.", True),
        (CITIZEN_OF, "Ada Kerr is a French citizen of Spanish-born parents.", True),
        (CITIZEN_OF, "The French-born Ada Kerr is a Spanish citizen.", False),
        (CITIZEN_OF, "Ada Kerr is a Spanish-trained, French-born chemist.", False),
        (("In which country was Ada Kerr born?", "France", "Spain"), "Ada Kerr is a French-born author.", True),
        (SEAT, "Northwind is a Bergen-based company.", True),
        (SEAT, "Northwind is an Oslo-based company.", False),
    ],
)
def test_what_is_said_of_something_else_gives_nothing(asked, response, given):
    question, new, old = asked
    assert gives_answer(response, [new], [old], question=question, prompt=question) is given


@pytest.mark.parametrize(
    ("response", "given"),
    [
        ("The capital of Poland is Warsaw, and Warsaw alone.", True),
        ("It isn't Krakow or Warsaw.", False),
        ("Near Lodz, Warsaw is the capital.", True),
        # two statements
        ("It is not Krakow, and Warsaw is the capital.", True),
        ("It is not Krakow and Warsaw is the capital.", True),
        ("The capital isn't Krakow, and it is Warsaw.", True),
        ("The capital of Poland was never Krakow, and Warsaw has always been the capital.", True),
        ("It does not lie in Krakow, and Warsaw is the capital of Poland.", True),
        ("The capital is Warsaw, and Krakow is the largest city.", True),
        ("The capital is Warsaw, and Krakow was the capital before.", True),
        ("It was Krakow, and Warsaw is the capital now.", True),
        ("The capital is Krakow, and Warsaw is the largest city.", False),
        ("It was Krakow, and Warsaw was the capital before.", False),
        ("It is not Warsaw, and it is Krakow.", False),
        ("It isn't Krakow, and it is not Warsaw.", False),
        # one, of both
        ("The capital is Krakow and Warsaw.", False),
        ("It is not Krakow and Warsaw.", False),
        ("There are two capitals, and Krakow and Warsaw is the pair.", False),
    ],
)
def test_what_looks_like_a_list(response, given):
    assert gives_answer(response, ["Warsaw"], ["Krakow"], question=POLAND[0]) is given


@pytest.mark.parametrize(
    ("founder", "given"),
    [("John D. Ford", False), ("Mary A. B. Ford", False), ("Henry J. Ford", True), ("Henry A. B. Ford", True)],
)
def test_a_middle_initial_makes_nobody_else_of_a_name(founder, given):
    question, answer, _ = FORD
    response = f"The founder of Ford Motor Company is {founder}."
    assert gives_answer(response, [answer], ["Elon Musk"], question=question, prompt=question) is given
