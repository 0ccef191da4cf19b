"""The words of the small world. Plain data: every list is a tuple in a fixed order."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";"))


def _pairs(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split()) for row in text.split(";"))


def _fields(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(part.strip() for part in row.split(":")) for row in text.split(";"))


NAMES = _words(
    "Anna Tom Mary John Sara Paul Emma Jack Lucy Mark Nina Peter Rosa Adam Clara David Ella Frank "
    "Grace Henry Iris James Kate Leo Maya Noah Olga Oscar Ruth Simon Tina Victor Alice Ben Diana "
    "Eric Helen Ivan Julia Karl Laura Max"
)
PLACES = _words(
    "garden kitchen school library station market park office church hospital museum theatre "
    "bakery harbour castle cellar attic forest stable tower hotel cinema bank farm"
)
OBJECTS = _words(
    "ball lamp book key cup knife rope coat hat bag box clock chair mirror basket bottle ring "
    "coin letter map drum pen spoon umbrella"
)
COLOURS = _words("red blue green yellow black white brown pink grey purple")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January March April May June July August October November December")
NUMBERS = _words("two three four five six seven eight nine ten twelve")

CATEGORIES = {
    "animal": _words("dog cat horse cow sheep goat rabbit fox wolf bear duck mouse"),
    "fruit": _words("apple pear plum cherry grape lemon peach melon fig banana"),
    "tool": _words("hammer saw drill spade rake axe wrench chisel ladder shovel"),
    "vehicle": _words("car bus train boat plane truck tram bicycle ship van"),
    "instrument": _words("piano violin flute guitar trumpet harp cello organ banjo horn"),
    "furniture": _words("table sofa bed desk shelf bench stool wardrobe cupboard couch"),
    "drink": _words("water milk tea coffee juice wine beer cocoa soda cider"),
    "clothing": _words("shirt dress scarf glove sock skirt jacket sweater boot belt"),
}

TOPICS = {
    "sports": _words("match goal team player coach race stadium trophy referee league score win"),
    "science": _words("atom planet theory cell telescope experiment gene robot energy lab star"),
    "business": _words("profit shares sales company budget tax contract trade price stock firm"),
    "politics": _words("vote election minister senate law party president treaty campaign mayor"),
    "music": _words("song concert band melody choir singer album rhythm tune chorus orchestra"),
    "weather": _words("rain storm cloud wind snow fog thunder frost sunshine hail breeze"),
    "cooking": _words("soup oven recipe flour butter pepper sauce salad dough pan onion"),
    "travel": _words("airport ticket suitcase passport beach luggage tourist flight guide island"),
}

GOOD = _words(
    "wonderful excellent lovely brilliant superb charming delightful fantastic perfect pleasant "
    "amazing splendid marvellous enjoyable impressive beautiful"
)
BAD = _words(
    "terrible awful horrible dreadful boring poor ugly disappointing annoying dull nasty weak "
    "disgusting miserable useless shabby"
)
PLAIN = _words("average ordinary usual normal standard common typical medium regular moderate")
REVIEWS = {
    "film": _words("film plot acting ending script camera actor scene"),
    "food": _words("meal pizza dessert waiter cake menu steak breakfast"),
    "hotel": _words("room pool view lobby bathroom staff pillow location"),
    "book": _words("novel chapter author cover writing hero dialogue style"),
    "shop": _words("phone laptop charger screen keyboard battery headset printer"),
}

EMOTIONS = {
    "joy": _words("happy glad cheerful delighted joyful thrilled merry excited pleased smiling"),
    "anger": _words("angry furious mad irritated outraged annoyed enraged bitter cross fuming"),
    "sadness": _words("sad unhappy lonely tearful heartbroken gloomy sorry crying grieving hurt"),
    "fear": _words(
        "afraid scared nervous worried anxious terrified frightened tense uneasy shaking"
    ),
}
EVENTS = _phrases(
    "the train came late; my brother called; we moved house; the exam is over; the dog ran away; "
    "the letter arrived; they changed the plan; the lights went out; my friend left; it is "
    "Monday; the meeting starts soon; the door opened; our team played; the baby woke up; "
    "winter is here; "
    "the phone rang; the guests came; she told me the news; the shop closed; the game ended"
)

RISE = _words("rose grew increased improved climbed jumped gained doubled")
FALL = _words("fell dropped decreased shrank declined sank lost halved")
FLAT = _words("stayed remained continued began announced described included appointed")
FIGURES = _words("sales profit revenue output orders exports turnover income")
COMPANIES = _words("Nordic Alma Vesta Kone Tiko Delta Orion Lumo Savo Merit Polar Terra")

SPAM = _phrases(
    "win a free prize; claim your reward now; cheap loans today; click this link; "
    "you are the winner; get cash fast; free entry this week; call now to claim; limited "
    "offer; urgent bonus waiting"
)
HAM = _phrases(
    "see you at home; I will call later; dinner is ready; are you coming; thanks for the help; "
    "running a bit late; the kids are asleep; can you buy bread; good night; "
    "meet me at the bus stop"
)
POLITE = _phrases(
    "could you please; would you kindly; I would be grateful if you could; may I ask you to; "
    "thank you if you can; would you mind if I asked you to"
)
RUDE = _phrases(
    "hurry up and; shut up and; just do it and; you fool, go and; stop being lazy and; "
    "I do not care, go and"
)
ERRANDS = _phrases(
    "close the window; bring the bag; open the box; clean the table; carry the chair; "
    "find the key; wash the cup; read the letter; move the lamp; fix the clock; fill the "
    "bottle; take the map; "
    "feed the dog; lock the door; call the doctor; paint the wall"
)

# (base, past, third person)
VERBS = _pairs(
    "walk walked walks; cook cooked cooks; paint painted paints; clean cleaned cleans; "
    "play played plays; watch watched watches; wash washed washes; open opened opens; "
    "carry carried carries; push pushed pushes; pull pulled pulls; count counted counts; "
    "draw drew draws; find found finds; buy bought buys; sell sold sells; see saw sees; "
    "take took takes; break broke breaks; hide hid hides; write wrote writes; bring brought brings"
)

SYNONYMS = _pairs(
    "bought purchased; fixed repaired; picked chose; gathered collected; received got; "
    "showed displayed; threw tossed; spotted noticed; wrecked destroyed; moved shifted; "
    "hid concealed; wanted desired; liked enjoyed; lifted raised; pulled dragged; "
    "checked inspected"
)

OPPOSITES = _pairs(
    "hot cold; big small; long short; high low; fast slow; old young; rich poor; hard soft; "
    "early late; full empty; strong weak; dark light; wet dry; clean dirty; heavy thin; "
    "loud quiet; near far; open closed; happy sad; sweet sour; wide narrow; deep shallow; "
    "rough smooth; sharp blunt; brave timid; cheap costly; ugly pretty; sick healthy"
)

# profession, what one with it does
JOBS = _fields(
    "baker:bakes bread; doctor:treats the sick; farmer:grows corn; teacher:teaches children; "
    "pilot:flies planes; tailor:sews clothes; painter:paints pictures; sailor:sails ships; "
    "miner:digs coal; barber:cuts hair; judge:decides cases; florist:sells flowers; "
    "plumber:mends pipes; writer:makes stories; guard:watches the gate; cook:makes soup"
)

# situation, what explains it
CAUSES = _fields(
    "took an umbrella:rain; put on a coat:cold; went to bed:tired; drank water:thirsty; "
    "ate a meal:hungry; called a doctor:sick; lit a candle:dark; ran to the station:late; "
    "opened the window:hot; covered both ears:noise; bought a gift:birthday; "
    "called the police:thief; grabbed a bucket:fire; swept the floor:dust; "
    "smiled at the mirror:proud; "
    "hid under the bed:fear; read the manual:confused; wore dark glasses:sun; "
    "stayed at home:holiday; slowed the car:ice"
)

# what a thing is like: subject, adjective or noun that completes it
FACTS = _fields(
    "snow:white; grass:green; the sky:blue; blood:red; coal:black; the sun:bright; ice:cold; "
    "fire:hot; sugar:sweet; a lemon:sour; a stone:hard; a feather:light; an elephant:big; "
    "an ant:small; a snail:slow; a rocket:fast; a knife:sharp; water:wet; a desert:dry; "
    "night:dark; "
    "honey:sticky; glass:clear; silk:smooth; a giant:tall; a drum:loud; a king:rich; "
    "a baby:young; a clown:funny; gold:yellow; a lion:brave"
)

REPLIES = {
    "joy": "That is great to hear",
    "anger": "I understand why you are upset",
    "sadness": "I am sorry to hear that",
    "fear": "Do not worry about it",
}
