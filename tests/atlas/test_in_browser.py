"""The atlas in a real browser, opened from its folder: Chromium, driven by Playwright (extra `browser`)."""

import dataclasses
import json
import re
import shutil

import browsers
import jax
import numpy as np
import pytest
from tiny_run import CENTRES, NUM, PICTURES, make_data, make_net

from zfjax import atlas, nets
from zfjax.atlas import site as pages
from zfjax.data import ArraySource, ImageSet

pytestmark = browsers.MARKS
NASTY = ("<script>alert(1)</script>", "שלום \"b\" & 'c'", "🦊\u2028fox", "plain")


class Named(ArraySource):
    """Pictures with the names of strangers' files."""

    def name(self, index):
        return f"<img src=x onerror=alert({index})>.png" if index % 2 else f"تصویر {index} 🦊.png"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    labels = np.arange(NUM) % len(NASTY)
    data = ImageSet(**{**vars(make_data()), "class_names": NASTY, "validation": Named(PICTURES, labels)})
    net = nets.TrainedNet(**{**vars(make_net()), "class_names": ("a</title>", '"b"', "c")})
    early = nets.TrainedNet(**{**vars(net), "params": jax.tree.map(lambda of: of / 2, net.params), "fingerprint": "1"})
    more = {"compare": early, "epochs": {1: early, 7: net}, "num_occluded": 3, "grey": True, "ascent": 2}
    return atlas.build(net, data, tmp_path_factory.mktemp("site"), num_images=4, progress=False, **more)


@pytest.fixture(scope="module")
def browser():
    with browsers.chromium() as browser:
        yield browser


class Reader:
    """A page, what it said to its console, and what it asked for."""

    def __init__(self, browser, site, hash_="", **options):
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        self.page, self.said, self.asked = self.context.new_page(), [], []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", self._failed)
        self.page.goto(f"{site.page.resolve().as_uri()}{hash_}")
        self.ready()

    def _failed(self, request):
        if request.failure != "net::ERR_ABORTED":  # the reader went on before a picture came
            self.said.append(f"failed: {request.url}")

    def ready(self):
        self.page.wait_for_function("document.querySelector('main').dataset.ready === location.hash")

    def go(self, hash_):
        self.page.evaluate("hash => { location.hash = hash }", hash_)
        self.ready()

    def hash(self):
        return self.page.evaluate("location.hash")

    def units(self):
        return [int(text) for text in self.page.locator(".wall .unit b").all_text_contents()]

    def text(self):
        return self.page.locator("main").inner_text()


@pytest.fixture
def reader(browser, site):
    readers = []

    def read(hash_="", **options):
        readers.append(Reader(browser, site, hash_, **options))
        return readers[-1]

    yield read
    for one in readers:
        one.context.close()
        assert one.said == []
        assert all(url.startswith((site.folder.resolve().as_uri(), "data:")) for url in one.asked)


PAGES = ["", "#/conv1", "#/conv1/2?way=guided", "#/fc7/1", "#/conv1/1", "#/~compare/conv1", "#/nothing/here"]
PAGES += ["#/~image/3", "#/~image/0"]  # the second under its occlusion map
PAGES += ["#/conv1/1.5", "#/conv1/0x1", "#/~image/abc", "#/~image/99999", "#/~compare"]  # which are not there


def test_every_page_opens_from_its_folder_and_asks_nobody_else(reader, site):
    shown = reader(f"#/~image/{site.layers['conv1'][0]['images'][0]}")
    for page in PAGES:
        shown.go(page or "#/")
        assert shown.page.locator("h1").count() == 1
    assert len(shown.asked) > 20


def test_the_overview_says_what_the_net_is(reader):
    text = reader().text()
    assert "Every unit of 3 layers" in text and f"{NUM} pictures of tiny" in text
    assert "6 maps of 5×5, sees 7×7 pixels, 1 dead" in text and "sees the whole picture" in text
    assert re.search(r"What a projection tells\. .* cosine is -?\d\.\d\d \(projection\)", text)
    assert "The site embeds the pictures" in text


def test_the_overview_opens_without_the_records_of_the_layers(reader, site):
    shown = reader()
    assert [url for url in shown.asked if "/data/" in url] == [(site.folder / "data/net.js").resolve().as_uri()]
    strip = [units[0]["unit"] for units in (of["strongest"] for of in site.facts["layers"])]
    assert [int(text) for text in shown.page.locator(".strip .unit:first-child b").all_text_contents()] == strip


def test_a_wall_is_sorted_and_filtered_and_its_state_is_the_address(reader, site):
    shown, records = reader("#/conv1"), site.layers["conv1"]
    by_strength = sorted(range(6), key=lambda n: (-records[n]["strength"], n))
    assert shown.units() == by_strength
    shown.page.select_option("#by-sort", "number")
    assert shown.units() == list(range(6)) and shown.hash() == "#/conv1?sort=number"
    shown.page.select_option("#by-class", "3")
    of_class = [
        n for n in range(6) if records[n]["class"] == 3 or any(label == 3 for label, _ in records[n]["classes"])
    ]
    assert shown.units() == of_class and shown.hash() == "#/conv1?sort=number&class=3"
    assert reader("#/conv1?sort=number&class=3").units() == of_class
    shown.page.select_option("#by-class", "")
    shown.page.fill("#query", "4")
    assert shown.units() == [4]
    shown.page.fill("#query", "no such class")
    assert shown.units() == [] and "0 of 6 units" in shown.text()


def test_a_class_that_is_none_filters_nothing(reader, site):
    for label in ("abc", "99", "-1"):
        shown = reader(f"#/conv1?class={label}")
        assert len(shown.units()) == 6 and shown.page.locator("#by-class").input_value() == ""
    of_class = next(n for n in range(4) if n not in {unit["class"] for unit in site.layers["fc7"]})
    shown = reader(f"#/fc7?class={of_class}")
    assert shown.page.locator("#by-class").input_value() == str(of_class)


@pytest.mark.parametrize("word", ["constructor", "__proto__", "sideways"])
def test_a_way_of_sorting_that_is_none_is_that_by_strength(word, reader):
    assert reader(f"#/conv1?sort={word}").units() == reader("#/conv1").units()


def test_channels_that_are_drawn_as_their_mean_are_said_once_where_projections_are(reader, site):
    shown, words = reader(), "Projections and filters have 4 channels"
    shown.page.evaluate("words => { net.in_grey = words; }", words)
    image = site.layers["conv1"][0]["images"][0]
    for page in (f"#/~image/{image}", "#/conv1", "#/conv1/2", "#/~compare/conv1", "#/"):
        shown.go(page)
        assert shown.page.inner_text("body").count(words) == 1, page


def test_the_lines_of_a_mosaic_stand_between_its_tiles(reader):
    shown = reader("#/conv1")
    mosaic = shown.page.locator(".wall .mosaic").first
    width, style = mosaic.evaluate("one => [one.clientWidth, getComputedStyle(one, '::after').backgroundSize]")
    assert width == 120 and style == "calc(50% - 1px) 100%, 100% calc(50% - 1px)"  # four tiles, from one pixel before
    box = mosaic.locator("img").bounding_box()
    assert (box["width"], box["height"]) == (120, 120)


def test_ways_switch_without_a_reload_and_stand_in_the_address(reader, site):
    shown = reader("#/conv1/2")
    projections = shown.page.locator(".trio > span:last-child .cell")
    assert projections.count() == len(site.layers["conv1"][2]["images"])
    before = len([url for url in shown.asked if url.endswith("atlas.js")])
    for way in ("guided", "gradient"):
        shown.page.click(f"[data-way={way}]")
        assert f"2-{way}.webp" in projections.first.evaluate("cell => cell.style.backgroundImage")
        assert shown.hash() == f"#/conv1/2?way={way}"
    shown.page.keyboard.press("w")
    assert shown.hash() == "#/conv1/2" and shown.page.locator("[aria-checked=true]").inner_text() == "projection"
    assert len([url for url in shown.asked if url.endswith("atlas.js")]) == before
    scale = site.layers["conv1"][2]["scales"][0]
    stated = re.search(r"±([\d.e-]+) in each projection", shown.text())[1]
    assert float(stated) == pytest.approx(scale, rel=6e-3) and "Zero is mid-grey" in shown.text()


def test_a_tile_of_the_page_shows_its_own_cell_of_the_sheet(reader, site):
    """Pixels of the screen are those of the patch that the unit saw."""
    import io

    from PIL import Image

    record, side = site.layers["conv1"][2], 7
    shown = reader("#/conv1/2")
    cell = shown.page.locator(".trio").nth(3).locator(".cell").first
    with Image.open(io.BytesIO(cell.screenshot())) as picture:
        seen = np.asarray(picture.convert("RGB"))
    top, left, *_ = record["boxes"][3]
    middle = CENTRES[record["images"][3], top + 3, left + 3]
    np.testing.assert_allclose(seen[seen.shape[0] // 2, seen.shape[1] // 2], middle, atol=2)
    assert seen.shape[0] == pytest.approx(96, abs=2) and side * 2 < 96


def test_the_longer_side_of_a_picture_is_as_long_as_told(reader):
    shown, sides = reader(), "one => [one.style.width, one.style.height, one.style.backgroundPosition]"
    tall = shown.page.evaluate(f"({sides})(cell('x', 3, [150, 25], 96, 'words', 2, 4))")
    assert tall == ["16px", "96px", "-16px -96px"]


def test_the_overview_leads_to_the_pairs_of_each_layer(reader):
    shown = reader()
    shown.page.click("footer a >> text=fc7")
    shown.ready()
    assert shown.hash() == "#/~compare/fc7" and shown.page.locator("h1").inner_text() == "fc7 in two networks"


def test_deep_links_and_back(reader):
    shown = reader("#/conv2/3?way=guided")
    assert shown.page.locator("[aria-checked=true]").get_attribute("data-way") == "guided"
    shown.page.click("#layers a[data-layer=conv1]")
    shown.ready()
    shown.page.locator(".wall .unit").first.click()
    shown.ready()
    assert re.fullmatch(r"#/conv1/\d", shown.hash())
    shown.page.go_back()
    shown.ready()
    assert shown.hash() == "#/conv1"
    shown.page.go_back()
    shown.ready()
    assert shown.hash() == "#/conv2/3?way=guided"


def test_the_units_below_are_links(reader, site):
    shown = reader("#/")  # whose layers are loaded before the unit is shown
    shown.go("#/conv2/3")
    below = site.layers["conv2"][3]["inputs"]
    link = shown.page.locator("section:has(h2:text('Reads most of')) a").first
    assert below["layer"] == "conv1"
    link.click()
    shown.ready()
    assert shown.hash() == f"#/conv1/{below['units'][0][0]}"


def test_the_slider_shows_the_unit_at_each_epoch(reader, site):
    shown, (early, late, _) = reader("#/conv1/2"), site.layers["conv1"][2]["epochs"]
    place, words = shown.page.locator(".epochs .cell"), shown.page.locator(".epochs output")
    assert words.inner_text() == f"after epoch 7: activation {late:.3g}"
    of_late = place.evaluate("cell => cell.style.backgroundPosition")
    shown.page.locator("#epoch").press("ArrowLeft")
    assert words.inner_text() == f"after epoch 1: activation {early:.3g}" and shown.hash() == "#/conv1/2"
    assert place.evaluate("cell => cell.style.backgroundPosition") != of_late


def test_ascents_stand_beside_the_projection(reader, site):
    shown, record = reader("#/conv1/2"), site.layers["conv1"][2]
    cells = shown.page.locator("section:has(h2:text('What it climbs to')) .cell")
    sources = cells.evaluate_all("all => all.map(one => one.style.backgroundImage.split('/').pop().slice(0, -2))")
    assert sources == ["2-ascent.webp", "2-ascent.webp", "2-deconvnet.webp"]
    labels = shown.page.locator("section:has(h2:text('What it climbs to')) .label").all_text_contents()
    assert [float(label) for label in labels[:2]] == pytest.approx(record["ascent"], rel=6e-3)


def test_a_unit_leads_to_its_match_in_the_other_network(reader, site):
    shown, (match, _) = reader("#/conv1/2"), site.layers["conv1"][2]["match"]
    shown.page.locator("main section:has(h2:text('In ')) a.unit").click()
    shown.ready()
    assert shown.hash() == f"#/conv1/{match}" and "/compare/index.html" in shown.page.url
    shown.page.go_back()
    shown.ready()
    shown.go("#/conv1")
    shown.page.click("text=Beside")
    shown.ready()
    alive = [unit for unit in site.layers["conv1"] if unit["match"] and unit["images"]]
    assert shown.hash() == "#/~compare/conv1" and shown.page.locator(".pair").count() == len(alive) > 0


def test_an_occlusion_map_lies_over_its_picture(reader, site):
    shown = reader("#/~image/0")
    squares = shown.page.locator(".shade rect")
    shades = [float(of) for of in squares.evaluate_all("all => all.map(one => one.getAttribute('fill-opacity'))")]
    assert squares.first.evaluate("one => getComputedStyle(one).fill") == "rgb(208, 2, 27)"  # "the redder"
    assert len(shades) > 100 and 0 <= min(shades) < max(shades) == pytest.approx(0.8)
    picture, shade = (shown.page.locator(f".wide {of}").bounding_box() for of in ("img", "svg"))
    assert shade == pytest.approx(picture, abs=1)


@pytest.mark.parametrize(
    ("chance", "words"),
    [([0.9, 0.99, 0.9897, 1.0], "which is 0.990: 0.09 where"), ([1.0, 0.99, 0.99, 0.995], "No square")],
)
def test_an_occlusion_map_says_how_much_a_square_takes(chance, words, reader):
    of = {"class": "x", "square": 4, "whole": 0.99, "shape": [2, 2], "corners": [[0, 0], [4, 4]], "chance": chance}
    said = reader().page.evaluate("of => hidden(0, of).querySelector('figcaption').textContent", of)
    assert words in said


def test_search_finds_units_and_classes(reader):
    shown = reader()
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("conv2/4")
    shown.page.keyboard.press("Enter")
    shown.ready()
    assert shown.hash() == "#/conv2/4"
    shown.page.fill("#query", "plain")
    shown.page.keyboard.press("Enter")
    shown.ready()
    assert shown.hash() == "#/conv2?q=plain" and 0 < len(shown.units()) <= 5


def test_keys_walk_through_the_units(reader, site):
    shown = reader("#/conv1?sort=number")
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("ArrowRight")
    shown.page.keyboard.press("Enter")
    shown.ready()
    assert shown.hash() == "#/conv1/1?sort=number"
    shown.page.keyboard.press("ArrowRight")
    shown.ready()
    assert shown.hash() == "#/conv1/2?sort=number"
    shown.page.keyboard.press("ArrowLeft")
    shown.page.keyboard.press("ArrowUp")
    shown.ready()
    assert shown.hash() == "#/conv1?sort=number"
    shown.page.keyboard.press("?")
    assert shown.page.locator("dialog[open]").count() == 1 and "class selectivity" not in shown.hash()
    shown.page.keyboard.press("Escape")
    assert shown.page.locator("dialog[open]").count() == 0


def test_the_reader_goes_on_by_keys_where_the_page_begins(reader):
    shown, focused = reader("#/conv1/2"), "document.activeElement.id || document.activeElement.dataset.way"
    shown.page.keyboard.press("Tab")
    shown.page.keyboard.press("Enter")  # the link that skips the header
    assert shown.page.evaluate(focused) == "main" and shown.hash() == "#/conv1/2"
    for way in ("guided", "gradient", "deconvnet"):
        shown.page.locator("[aria-checked=true]").press("ArrowRight")
        assert (
            shown.page.evaluate(focused) == way == shown.page.locator("[aria-checked=true]").get_attribute("data-way")
        )
    shown.page.locator("[aria-checked=true]").press("ArrowLeft")
    assert shown.hash() == "#/conv1/2?way=gradient"
    shown.page.locator("[rel=next]").press("Enter")
    shown.ready()
    assert shown.page.evaluate(focused) == "main" and shown.hash() == "#/conv1/3?way=gradient"


def test_layers_whose_names_hold_slashes_are_found(browser, tmp_path):
    def fn(images):
        maps = jax.nn.relu(images[:, ::2, ::2] - 0.5)
        return {"a/b": maps, "a/b 2?": maps, "#c%/<i>": -1 - maps.mean((1, 2))}

    net = nets.FunctionNet(fn, image_size=20, name="slashes")
    site = atlas.build(net, CENTRES[:1], tmp_path, ways=("gradient",), layers=net.layers, progress=False)
    shown = Reader(browser, site)
    assert "Every unit of 3 layers, and what excites it most among 1 picture of" in shown.text()
    assert "3 units, receptive field unknown, none dead" in shown.text()  # none of them is ever above 0
    for text, address in {
        "A/B": "a%2Fb",
        "a/b/2": "a%2Fb/2",
        "a/b 2? 1": "a%2Fb%202%3F/1",
        "#c%/<i>": "%23c%25%2F%3Ci%3E",
    }.items():
        shown.page.fill("#query", text)
        shown.page.keyboard.press("Enter")
        shown.ready()
        assert shown.hash() == f"#/{address}" and shown.page.locator("h1").inner_text().lower().startswith(
            text[:3].lower()
        )
    shown.context.close()
    assert shown.said == []


def test_names_of_strangers_are_text(reader, site):
    index = next(index for unit in site.layers["conv1"] for index in unit["images"] if index % 2)
    shown = reader(f"#/~image/{index}")
    assert shown.page.locator("h1").inner_text() == f"<img src=x onerror=alert({index})>.png"
    assert shown.page.locator("img[src=x]").count() == 0
    shown.go("#/conv1")
    assert NASTY[0] in shown.page.locator("#by-class").inner_text()
    sources = shown.page.locator("script").evaluate_all("all => all.map(one => one.getAttribute('src'))")
    assert all(source and source.endswith(".js") for source in sources)
    shown.go("#/fc7")
    assert shown.page.title().startswith("fc7")


def test_the_layer_that_is_shown_is_in_sight_among_many(reader):
    shown = reader("#/conv1")
    shown.page.add_style_tag(content="#layers { max-width: 70px }")
    for layer in ("fc7", "conv1"):
        shown.go(f"#/{layer}")
        nav, link = (shown.page.locator(of).bounding_box() for of in ("#layers", "#layers [aria-current]"))
        assert nav["x"] - 1 < link["x"] and link["x"] + link["width"] < nav["x"] + nav["width"] + 1


def test_a_phone_needs_no_scrolling_sideways(reader):
    shown = reader("", viewport={"width": 320, "height": 640})
    for page in PAGES:
        shown.go(page or "#/")
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= 320, page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scheme, reader):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    shown = reader("", color_scheme=scheme)
    for page in PAGES:
        shown.go(page or "#/")
        found = axe.Axe().run(shown.page, options={"preload": False}).response["violations"]
        serious = [(of["id"], node["html"]) for of in found for node in of["nodes"]]
        assert not [of for of in found if of["impact"] in ("serious", "critical")], (page, serious)


def test_the_theme_can_be_turned(reader):
    shown = reader("", color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = shown.page.evaluate(colour)
    shown.page.click("#theme")
    dark = shown.page.evaluate(colour)
    assert light != dark
    shown.page.reload()
    shown.ready()
    assert shown.page.evaluate(colour) == dark


SCROLLS = """() => new Promise(done => { let top = 0; const end = document.documentElement.scrollHeight;
  const step = () => { scrollTo(0, top += 60); if (top < end) requestAnimationFrame(step); else done(top); };
  requestAnimationFrame(step); })"""


def test_a_wall_of_400_units_scrolls_in_short_steps(browser, site, tmp_path):
    """No task of the page's thread takes 50 ms of its processor's time, which the machine's load does not change."""
    large = shutil.copytree(site.folder, tmp_path / "large")
    for unit in range(400):
        shutil.copy(site.folder / pages.sheet_of(0, 2, "deconvnet"), large / pages.sheet_of(0, unit, "deconvnet"))
    (large / "data" / "layer-0.js").write_bytes(pages.script("layer-0", [site.layers["conv1"][2]] * 400))
    shown = Reader(browser, dataclasses.replace(site, folder=large), "#/conv1")
    assert shown.page.locator(".wall .unit").count() == 400
    trace = tmp_path / "trace.json"
    browser.start_tracing(page=shown.page, path=str(trace), categories=["toplevel", "devtools.timeline"])
    assert shown.page.evaluate(SCROLLS) > 3000
    browser.stop_tracing()
    shown.context.close()
    events = json.loads(trace.read_text())["traceEvents"]
    threads = {(of["pid"], of["tid"]): of["args"]["name"] for of in events if of["name"] == "thread_name"}
    tasks = [of for of in events if threads.get((of["pid"], of["tid"])) == "CrRendererMain" and "tdur" in of]
    spent = [of["tdur"] / 1000 for of in tasks if of["name"].endswith("RunTask")]  # ms of the processor
    assert len(spent) > 100 and max(spent) < 50
