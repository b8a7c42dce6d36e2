"""Dialogues of a small house: a request, then an answer and one line per action.

The phrases come from the piles of the home-llm project (https://github.com/acon96/home-llm, MIT, Copyright
2024 Alex O'Connell); the names of most devices, the colours and the small talk are made here.

    user       Turn the reading lamp blue please
    assistant  Changing reading lamp to blue now.
               light.turn_on(reading lamp, color=blue)
"""

import csv
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["Dialogues", "action_lines"]

AREAS = (
    "kitchen|bedroom|living room|bathroom|hallway|garage|attic|basement|office|nursery|patio|"
    "porch|garden|dining room|guest room|study|laundry room|pantry|playroom|library|workshop|"
    "balcony|cellar|terrace|sunroom|closet|entrance|staircase|gym|studio|driveway|pool|shed|"
    "deck|den|lobby|loft|sauna|greenhouse|corridor|main bedroom"
)
MARKS = (
    "left|right|front|back|small|big|old|new|upper|lower|north|south|east|west|first|"
    "second|third|main|side|corner|center|far|near|outer|inner|green|white|round|long|"
    "quiet|bright|smart|anna's|tom's|maria's|grandma's|dad's|lucy's|omar's|mei's|kids'|guest|"
    "summer|winter|little|spare|upstairs|downstairs|ground floor|top"
)
NOUNS = {
    "light": "light|lights|lamp|floor lamp|ceiling light|reading lamp|lantern|spotlight|night light"
    "|chandelier",
    "switch": "switch|outlet|plug|heater|fountain|pump|coffee maker|kettle|sprinkler|humidifier|oven|toaster",
    "fan": "fan|ceiling fan|fans|ventilator|desk fan",
    "blinds": "blinds|curtains|shades|shutters|window blinds",
    "garage_door": "garage door|garage|gate|garage doors",
    "lock": "lock|door lock|door|front door|back door|gate lock",
    "media_player": "tv|speaker|radio|soundbar|television|stereo|music player|speakers",
    "vacuum": "vacuum|robot|cleaner|mop|vacuum cleaner",
    "todo": "shopping list|to-do list|chores|grocery list|task list|list|reminders",
    "timer": "timer|egg timer|oven timer|laundry timer|tea timer|alarm",
}
COLORS = (
    "red|blue|green|yellow|orange|purple|pink|white|turquoise|violet|warm white|cool white|gold|teal|magenta"
)
HVAC = "heat|cool|auto|off|dry|fan only"
FAN_MODES = "low|medium|high|auto|on"
TALK = [
    ("Hello", "Hello! What can I do for you?"),
    ("Hi", "Hi! What can I do for you?"),
    ("Good morning", "Good morning! What can I do for you?"),
    ("Good night", "Good night! Sleep well."),
    ("Thank you", "You are welcome."),
    ("Thanks a lot", "You are welcome."),
    ("Who are you?", "I am a small language model that looks after your home."),
    ("What can you do?", "I turn lights and fans on and off, move blinds, lock doors, set timers and more."),
    ("How are you?", "All is well here. What can I do for you?"),
    ("What is the capital of France?", "I am sorry, I only know about this home."),
    ("Tell me a joke", "I am sorry, I only know about this home."),
    ("What is the weather like?", "I am sorry, I only know about this home."),
]
# Placeholders of a phrase that go into its action, and what the argument is called there.
ARGUMENTS = {
    "brightness": "brightness",
    "color": "color",
    "temp_f": "temperature",
    "temp_c": "temperature",
    "humidity": "humidity",
    "fan_mode": "mode",
    "hvac_mode": "mode",
    "duration": "duration",
    "todo": "item",
}
_SLOT = re.compile(r"<(\w+)>")


def action_lines(answer: str) -> list[str]:
    """The lines of an answer that are actions."""
    return [line for line in answer.splitlines() if re.fullmatch(r"[a-z_]+\.[a-z_]+\(.*\)", line)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _tidy(text: str) -> str:
    """One typography, and names that do not say twice what they are."""
    text = text.replace("\u2019", "'").strip()
    text = re.sub(r"\b(\w+) \1\b", r"\1", text)
    text = re.sub(r"\b([Tt]he|my) ((?!kids)\w+'s)\b", r"\2", text)
    return re.sub(r"\ba (?=orange|lime)", "an ", text).replace('"', "")


class Dialogues:
    """A source of dialogues; the same for the same seed.

    Parameters
    ----------
    piles : Path
        The folder data/piles/english of home-llm.
    """

    def __init__(self, piles: Path) -> None:
        self._phrases: list[tuple[list[str], list[str], str]] = []
        weights = []
        for row in _rows(piles / "pile_of_templated_actions.csv"):
            types, services = row["device_type"].split("|"), row["service"].split("|")
            self._phrases.append((types, services, row["phrase"]))
            weights.append(min(float(row["multiplier"]), 4.0) if len(types) == 1 else 1.0)
        self._weights = weights
        self._answers: dict[str, list[str]] = defaultdict(list)
        for row in _rows(piles / "pile_of_responses.csv"):
            if row["persona"] == "assistant" and row["short"] == "0":
                self._answers[row["service"]].append(row["response_starting"])
        self._names: dict[str, list[str]] = defaultdict(list)
        for row in _rows(piles / "pile_of_device_names.csv"):
            name = row["description"].lower().replace("\u2019", "'")
            if row["description"] and name.isascii():
                self._names[row["device_name"].split(".")[0]].append(name)
        self._durations = [(r["name"].lower(), r["duration"]) for r in _rows(piles / "pile_of_durations.csv")]
        todo = (piles / "pile_of_todo_items.txt").read_text(encoding="utf-8").splitlines()
        self._todo = [line.strip().lower() for line in todo if line.strip().isascii() and line.strip()]

    def _name(self, kind: str, rng: random.Random) -> str:
        if rng.random() < 0.3 and self._names[kind]:
            return rng.choice(self._names[kind])
        parts = []
        if rng.random() < 0.5:
            parts.append(rng.choice(MARKS.split("|")))
        if rng.random() < 0.75:
            parts.append(rng.choice(AREAS.split("|")))
        return " ".join([*parts, rng.choice(NOUNS[kind].split("|"))])

    def _value(self, slot: str, rng: random.Random) -> tuple[str, str]:
        """What stands in a phrase, and in its action."""
        if slot == "duration":
            return rng.choice(self._durations)
        made: dict[str, Callable[[], object]] = {
            "brightness": lambda: rng.randint(1, 100),
            "color": lambda: rng.choice(COLORS.split("|")),
            "temp_f": lambda: rng.randint(58, 84),
            "temp_c": lambda: rng.randint(14, 28),
            "humidity": lambda: rng.randint(15, 85),
            "fan_mode": lambda: rng.choice(FAN_MODES.split("|")),
            "hvac_mode": lambda: rng.choice(HVAC.split("|")),
            "todo": lambda: rng.choice(self._todo),
        }
        value = str(made[slot]())
        return value, value

    def _answer(self, service: str, slots: set[str], rng: random.Random) -> str:
        """An answer of this service whose slots the phrase fills, naming as much of them as it can."""
        known = [a for a in self._answers[service] if set(_SLOT.findall(a)) <= slots]
        most = max((len(_SLOT.findall(a)) for a in known), default=0)
        full = [a for a in known if len(_SLOT.findall(a)) == most]
        return rng.choice(full) if full else "All right."

    def _request(self, rng: random.Random) -> tuple[str, str]:
        types, services, phrase = rng.choices(self._phrases, self._weights)[0]
        slots = set(_SLOT.findall(phrase))
        values = {slot: self._value(slot, rng) for slot in sorted(slots) if slot in ARGUMENTS}
        said, answers, actions = phrase, [], []
        for i, (kind, service) in enumerate(zip(types, services, strict=True), 1):
            slot = "device_name" if len(types) == 1 else f"device_name{i}"
            own = set(values) if len(types) == 1 else set()
            arguments = []
            answer = self._answer(
                f"{kind}.{service}", own | ({"device_name"} if slot in slots else set()), rng
            )
            if slot in slots:
                name = self._name(kind, rng)
                said = said.replace(f"<{slot}>", name)
                answer = answer.replace("<device_name>", name)
                arguments.append(name)
            for key in sorted(own):
                answer = answer.replace(f"<{key}>", values[key][0])
                arguments.append(f"{ARGUMENTS[key]}={values[key][1]}")
            answers.append(answer[:1].upper() + answer[1:].rstrip(".!") + ".")
            actions.append(f"{kind}.{service}({', '.join(arguments)})")
        for key, value in values.items():
            said = said.replace(f"<{key}>", value[0])
        said = _tidy(said)
        if rng.random() < 0.3 and not re.match(r"I\b", said):
            said = said[:1].lower() + said[1:]
        if rng.random() < 0.5:
            said = said.rstrip(".")
        return said, "\n".join([_tidy(" ".join(answers)), *actions])

    def __call__(self, seed: int) -> Iterator[tuple[str, str]]:
        """Yield (request, answer) without end."""
        rng = random.Random(seed)
        while True:
            if rng.random() < 0.03:
                yield rng.choice(TALK)
            else:
                yield self._request(rng)
