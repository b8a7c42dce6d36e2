"""Errors of a scenario name the line of the TOML; the scanner that finds it agrees with tomllib."""

import random
import tomllib
from pathlib import Path

import pytest

from edgellm import cli
from edgellm.cost.toml_lines import key_lines, line_of, parse_toml
from edgellm.sim import ScenarioError, load_scenario

ROOT = Path(__file__).parents[2]
NAMES = (
    "a",
    "b-1",
    "x_y",
    "q4:0",
    "ä",
    "0",
    "with.dot",
    'quo"te',
    "tab\tbed",
    "sp ace",
    "#no",
    "[no]",
    "=",
    "{",
)
VALUES = (
    "1", "-0.5", "true", "1979-05-27 07:32:00", '"text"', "'lit # [x]'", '"esc \\" ] }"',
    '"""\nlong = 1\n[no]\n"""', "'''\n[[no]]\n'quote' '''", '"""a\\"""" b"""',
    "[1, 2]", "[\n  1, # ] comment\n  [2, 3],\n]", "[]", "{}",
    '["]", "}"]', '""""q"""""',
)  # fmt: skip


def paths(value, path=()):
    """Every key path that tomllib reports."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, below in entries:
        yield (*path, key)
        yield from paths(below, (*path, key))


class Writer:
    """Random TOML in every way of writing keys."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def key(self, name):
        bare = name.replace("-", "").replace("_", "").isalnum() and name.isascii()
        escaped = name.replace('"', '\\"').replace("\t", "\\t")
        ways = [f'"{escaped}"'] + [name] * 3 * bare + [f"'{name}'"] * (name != 'quo"te' and "\t" not in name)
        return self.random.choice(ways)

    def dotted(self, names):
        return self.random.choice([".", " . ", "."]).join(self.key(name) for name in names)

    def value(self, depth=0):
        if depth < 2 and self.random.random() < 0.25:
            names = self.random.sample(NAMES, self.random.randint(1, 3))
            inside = ", ".join(f"{self.key(n)} = {self.value(depth + 1)}" for n in names)
            return "{ " + inside + " }"
        if depth < 2 and self.random.random() < 0.2:
            return "[" + ",\n ".join(self.value(depth + 1) for _ in range(self.random.randint(1, 3))) + "]"
        return self.random.choice(VALUES)

    def document(self):
        lines = []
        for _ in range(self.random.randint(0, 6)):
            lines.append(
                f"{self.dotted(self.random.sample(NAMES, self.random.randint(1, 2)))} = {self.value()}"
            )
        for _ in range(self.random.randint(0, 6)):
            head = self.dotted(self.random.sample(NAMES, self.random.randint(1, 3)))
            lines.append(f"[[{head}]]" if self.random.random() < 0.4 else f"[ {head} ] # [x]")
            for _ in range(self.random.randint(0, 4)):
                names = self.random.sample(NAMES, self.random.randint(1, 2))
                lines.append(f"{self.random.choice(['', '  '])}{self.dotted(names)} = {self.value()}")
                lines += self.random.choice([[], ["# comment = [", ""]])
        return self.random.choice(["\n", "\r\n"]).join(lines)


def test_scanner_finds_every_key_that_tomllib_reports_where_its_text_stands():
    valid = 0
    for seed in range(3000):
        text = Writer(seed).document()
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError:  # a key twice: random documents do that
            continue
        valid += 1
        lines, rows = key_lines(text), text.split("\n")
        for path in paths(data):
            assert path in lines, (seed, path)
            if isinstance(path[-1], str):
                written = path[-1].replace('"', '\\"').replace("\t", "\\t")
                assert written in rows[lines[path] - 1] or path[-1] in rows[lines[path] - 1], (seed, path)
        assert set(lines) == set(paths(data)), seed
    assert valid > 500


def test_scanner_agrees_on_every_toml_file_of_the_repository():
    files = [
        ROOT / "pyproject.toml",
        *ROOT.glob("scenarios/*.toml"),
        *ROOT.glob("edgellm/cost/profiles/**/*.toml"),
    ]
    assert len(files) > 20
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert set(key_lines(text)) == set(paths(tomllib.loads(text))), file


def test_scanner_never_raises_on_broken_text():
    chooser = random.Random(1)
    whole = (ROOT / "scenarios" / "first_steps.toml").read_text(encoding="utf-8")
    for _ in range(1500):
        start = chooser.randrange(len(whole))
        text = list(whole[start : start + 400])
        for _ in range(chooser.randint(1, 6)):
            text[chooser.randrange(len(text))] = chooser.choice("[]{}\"'=.,#\n\\a1\0 ")
        broken = "".join(text)
        lines = key_lines(broken)
        assert all(1 <= line <= broken.count("\n") + 1 for line in lines.values())
        line_of(broken, "fleet.home.device: x")
    for deep in (
        "a = " + "[" * 20_000,
        "a = " + "{b=" * 20_000,
        "a" + ".a" * 20_000,
        "[" * 20_000,
        '"' * 9_999,
    ):
        key_lines(deep)


SCENARIO = """\
schema = 1
name = "lines"
duration = "1 h"
[models."m:q4_0"]
profile = "smollm2-135m"
quant = "q4_0"

[fleet.home]
count = 3
[fleet.home.device]
device = "raspberry-pi-5"
models = ["m:q4_0"]
uplink = { to = "gateway", link = "wifi-5" }
[fleet.home.gateway]
device = "n100-mini-pc"
uplink.to = "cloud/server"
uplink.link = "home-broadband"
[fleet.cloud.server]
device = "cloud-cpu"
[workload.day]
at = "home/device"
arrivals = { process = "poisson", rate = "2 /h" }
kinds.command.model = "m:q4_0"
kinds.command.prompt_tokens = 10
kinds.command.output_tokens = { dist = "uniform", low = 3, high = 9 }
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("count = 3", "coutn = 3", 9, "fleet.home.coutn: unknown key; did you mean 'count'"),
        ("count = 3", "count = -3", 9, "fleet.home.count: must be a whole number"),
        ('"1 h"', '"1 parsec"', 3, "duration: '1 parsec' has unit"),
        ('"1 h"', '"-1 h"', 3, "duration: must be positive"),
        ('"1 h"', '"1e300 d"', 3, "duration: '1e300 d' is absurd"),
        ('"raspberry-pi-5"', '"raspbery-pi-5"', 11, "fleet.home.device.device: unknown device"),
        ('link = "wifi-5"', 'link = "wifi-99"', 13, "fleet.home.device.uplink.link: unknown link"),
        ('to = "gateway"', 'to = "gatway"', 13, "fleet.home.device.uplink.to: no node"),
        ('uplink.link = "home-broadband"', "", 16, "fleet.home.gateway.uplink.link: missing"),
        ('"cloud-cpu"', '"cloud-cpu"\nuplink = { to = "edge", link = "4g" }', 20, "to: no node 'edge'"),
        ("[fleet.cloud.server]", "[fleet.cloud.sensor]", 16, "fleet.home.gateway.uplink.to"),
        ("[workload.day]", '[fleet.far.pi]\ndevice = "raspberry-pi-5"\n[workload.day]', 20,
         "fleet.far: unreachable"),
        ('[models."m:q4_0"]', '[models."m:q4_0"]\nquality = 3', 5,
         'models."m:q4_0".quality: unknown key'),
        ("low = 3", "low = 30", 25, "kinds.command.output_tokens.high"),
        ('rate = "2 /h"', "rate = 2", 22, "workload.day.arrivals.rate: 2 has no unit"),
        ("[workload.day]", "[slo]\ntarget = 3\n[workload.day]", 21, "slo.target: must be at most 1"),
        ('kinds.command.model = "m:q4_0"', "", 24, "workload.day.kinds.command.model: missing"),
        ('name = "lines"', 'name = "lines', 2, "not valid TOML"),
        ('name = "lines"', 'name = "lines"\nname = 2', 3, "not valid TOML"),
        ("schema = 1", "schema = 1\nstudy.strategies = ['no-such']", 2,
         "study.strategies: no strategy 'no-such'"),
    ],
)  # fmt: skip
def test_error_names_file_line_and_key_in_one_line(tmp_path, capsys, old, new, line, words):
    assert old in SCENARIO
    path = tmp_path / "bad.toml"
    path.write_text(SCENARIO.replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:{line}: ")
    assert words in text
    assert "\n" not in text
    assert cli.main(["simulate", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"bad.toml:{line}: " in error
    assert len(error.strip().splitlines()) == 1


def test_unchanged_scenario_of_these_tests_is_good(tmp_path):
    path = tmp_path / "good.toml"
    path.write_text(SCENARIO)
    assert len(load_scenario(path).fleet.nodes) == 7


def test_cycle_names_its_line_and_the_way_round(tmp_path):
    path = tmp_path / "bad.toml"
    text = SCENARIO.replace("count = 3\n", "").replace(
        '"cloud-cpu"', '"cloud-cpu"\nuplink = { to = "home/gateway", link = "wifi-5" }'
    )
    path.write_text(text)
    message = "uplinks form a cycle: home/gateway -> cloud/server -> home/gateway"
    with pytest.raises(ScenarioError, match=rf"bad\.toml:15: fleet\.home\.gateway\.uplink: {message}"):
        load_scenario(path)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[idle_w]\nvalue = 2.7", "[idle_w]\nvalue = -2.7", -1, "idle_w.value: must be 0 or more"),
        ("[idle_w]", "[idel_w]", -2, "idel_w: unknown key"),
        ('title = "Mine"', 'title = "Mine', 4, "not valid TOML"),
    ],
)
def test_error_in_a_profile_names_its_line_too(tmp_path, old, new, line, words):
    shipped = ROOT / "edgellm" / "cost" / "profiles" / "devices" / "raspberry-pi-5.toml"
    others = [f"{key} = {{ value = {constant['value']!r}, source = 'a' }}\n"
              for key, constant in tomllib.loads(shipped.read_text(encoding="utf-8")).items()
              if isinstance(constant, dict) and "value" in constant and key != "idle_w"]  # fmt: skip
    head = 'schema = 1\nkind = "device"\nname = "mine"\ntitle = "Mine"\n'
    text = head + "".join(others) + "[idle_w]\nvalue = 2.7\nsource = 'a'\n"
    line += 0 if line > 0 else text.count("\n")
    assert old in text
    (tmp_path / "mine.toml").write_text(text.replace(old, new, 1))
    scenario = tmp_path / "s.toml"
    scenario.write_text(SCENARIO.replace('"raspberry-pi-5"', '"./mine.toml"'))
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario)
    assert str(caught.value).startswith(f"{scenario}:11: fleet.home.device.device: ")
    assert f"mine.toml:{line}: " in str(caught.value)
    assert words in str(caught.value)


def test_bytes_that_are_no_utf8_are_found_by_line():
    with pytest.raises(ValueError, match=r"x:3: not valid TOML: not UTF-8"):
        parse_toml(b"a = 1\nb = 2\nc = '\xff'\n", "x")
