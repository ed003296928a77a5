"""``headstart view``: the page in a real browser, and who may ask for it."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.commands.view.pages import PAGE_FILES
from headstart.commands.view.server import Viewer
from headstart.core.errors import ConfigError, DataError
from headstart.core.nearest import nearest_rows
from headstart.core.progress import SilentReporter
from tests.commands.chromium import Tab, chromium
from tests.report.browser import browser
from tests.sound_models import save_model as save_sound_model
from tests.sound_models import save_sounds
from tests.text_models import save_model as save_text_model

QUIET = SilentReporter()
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="module")
def run(place: Path) -> headstart.Run:
    """A run on drawings of digits with a hostile class name, labels of some swapped."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    generator = np.random.default_rng(0)
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label > 2:
            continue
        label = (label + 1) % 3 if generator.random() < 0.1 else label
        name = {0: "zero", 1: "eins & one", 2: HOSTILE.replace("/", "")}[int(label)]
        folder = place / "data" / ("test" if i % 4 == 0 else "train") / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 - pixels * 15).astype(np.uint8)).save(folder / f"{i}.png")
    return headstart.fit(
        place / "data", "headstart/glyphs", cache=place / "cache", out=place / "run",
        reporter=QUIET, baselines=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def viewer(run: headstart.Run, place: Path) -> Iterator[Viewer]:
    with headstart.view(place / "run", cache=place / "cache", reporter=QUIET) as made:
        yield made


def ask(
    viewer: Viewer, path: str, *, method: str = "GET", host: str | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", f"127.0.0.1:{viewer.port}" if host is None else host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def inside(viewer: Viewer, name: str = "") -> str:
    return urlsplit(viewer.url).path + name


def test_the_page_is_for_this_machine_alone(viewer: Viewer) -> None:
    assert viewer.url.startswith("http://127.0.0.1:")
    assert viewer._server.server_address[0] == "127.0.0.1"
    own = f"http://127.0.0.1:{viewer.port}"
    assert ask(viewer, inside(viewer))[0] == 200
    assert ask(viewer, inside(viewer), host=f"localhost:{viewer.port}", Origin=own)[0] == 200
    assert ask(viewer, inside(viewer), host=f"rebound.example:{viewer.port}")[0] == 403
    assert ask(viewer, inside(viewer), host="")[0] == 403
    assert ask(viewer, inside(viewer, "scene.json"), Origin="http://evil.example")[0] == 403
    assert ask(viewer, inside(viewer, "scene.json"), Origin="null")[0] == 403
    assert ask(viewer, inside(viewer, "scene.json"), Sec_Fetch_Site="cross-site")[0] == 403
    for path in ("/", "/scene.json", "/" + "a" * 32 + "/", inside(viewer)[:-2] + "x/", "//x"):
        assert ask(viewer, path)[0] == 404, path
    assert ask(viewer, inside(viewer), method="POST")[0] == 501


@pytest.mark.parametrize(
    "name",
    ["../view.js", "..%2fview.js", "scene.py", "item/-1", "item/99999", "item/1e3", "item/%D9%A3",
     "item/", "items", "items?i=1,x", "thumbnail/1.5", "near/a"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(viewer: Viewer, name: str) -> None:
    assert ask(viewer, inside(viewer, name))[0] == 404


def test_every_answer_forbids_what_the_page_does_not_need(viewer: Viewer) -> None:
    for name in ("", "view.js", "view.css", "scene.json", "points.bin", "thumbnail/0", "gone"):
        headers = ask(viewer, inside(viewer, name))[2]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
    for name in PAGE_FILES:
        text = ask(viewer, inside(viewer, name))[1].decode()
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text


def test_points_are_those_of_the_items(viewer: Viewer, run: headstart.Run) -> None:
    scene = json.loads(ask(viewer, inside(viewer, "scene.json"))[1])
    body = ask(viewer, inside(viewer, "points.bin"))[1]
    n = scene["count"]
    assert n == run.n_train + run.n_test
    sizes = [4 * n] * 3 + [
        4 * ((n + 1) // 2) if field["kind"] == "category" else 4 * n for field in scene["fields"]
    ]
    assert len(body) == sum(sizes)
    names = [field["name"] for field in scene["fields"]]
    assert names == ["class", "result", "predicted", "confidence", "split"]
    wrong = np.frombuffer(body, "<f4", n, 8 * n)
    at = sum(sizes[: 3 + names.index("split")])
    tested = np.frombuffer(body, "<u2", n, at) == 1
    assert tested.sum() == run.n_test
    assert (wrong[tested] > 0).sum() == round(run.n_test * (1 - run.accuracy))


def test_names_of_labels_and_columns_are_not_taken_for_what_a_run_says(place: Path) -> None:
    """A label, or a column of the data, may be called what the page calls its own columns."""
    names = ["path,labels,split of,predicted,result"]
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"own{i}.png")
        names.append(f"own{i}.png,{('result', 'result|split', 'split')[i % 3]},a,p{i % 2},q{i % 2}")
    (place / "own.csv").write_text("\n".join(names))
    how = {"cache": place / "cache", "reporter": QUIET}
    made = headstart.fit(place / "own.csv", "headstart/glyphs", write=False, task="multi-label",
                         baselines=False, **how)  # fmt: skip
    for of, results in ((made, ["result"]), (place / "own.csv", [])):
        with headstart.view(
            of, **({} if of is made else {"backbone": "headstart/glyphs"}), **how
        ) as page:
            fields = json.loads(ask(page, inside(page, "scene.json"))[1])["fields"]
        found = [field["name"] for field in fields]
        assert len(set(found)) == len(found), found
        assert [field["name"] for field in fields if field.get("result")] == results
        assert {"result (column)"} <= set(found) or of is not made


def test_what_is_no_photograph_is_looked_at_too(place: Path, tmp_path: Path) -> None:
    """Images of other bands are rendered, of sounds there are spectra, and texts are read."""
    for i in range(4):
        scene = np.random.default_rng(i).integers(0, 9000, (16, 16, 5), dtype=np.uint16)
        np.save(tmp_path / f"{i}.npy", scene)
    how = {"cache": place / "cache", "reporter": QUIET}
    bands = {"bands": (5, 2, 1), "value_range": (0, 10_000)}
    with headstart.view(tmp_path, "headstart/glyphs", **bands, **how) as page:
        assert page.scene.describe()["pictures"] is True
        assert ask(page, inside(page, "thumbnail/2"))[1].startswith(b"\x89PNG")
        assert "text" not in json.loads(ask(page, inside(page, "item/2"))[1])
    for path, sounds in ((save_sounds(tmp_path / "sounds", 3, 3), True), (["one", "two"], False)):
        model = (save_sound_model if sounds else save_text_model)(tmp_path / f"model{sounds}")
        with headstart.view(path, f"hf/{model}", **how) as page:
            assert page.scene.describe()["pictures"] is sounds
            assert ask(page, inside(page, "thumbnail/1"))[0] == (200 if sounds else 404)
            assert ("text" in json.loads(ask(page, inside(page, "item/1"))[1])) is not sounds


def test_an_item_has_its_nearest_of_both_classes(viewer: Viewer) -> None:
    scene = viewer.scene
    bad = [
        i for i in np.flatnonzero(np.nan_to_num(scene.wrong) > 0) if scene.among.split_of[i] == 1
    ]
    i = int(bad[0])
    known = json.loads(ask(viewer, inside(viewer, f"item/{i}"))[1])
    assert known["label"] != known["predicted"]
    own, other = json.loads(ask(viewer, inside(viewer, f"near/{i}"))[1])
    assert own["title"].endswith("its own class")
    assert {each["label"] for each in own["items"]} == {known["label"]}
    assert {each["label"] for each in other["items"]} == {known["predicted"]}
    assert {each["split"] for each in (*own["items"], *other["items"])} == {"train"}
    similar = [each["similarity"] for each in own["items"]]
    assert similar == sorted(similar, reverse=True)
    status, picture, headers = ask(viewer, inside(viewer, f"thumbnail/{i}"))
    assert (status, headers["Content-Type"], picture[:4]) == (200, "image/png", b"\x89PNG")


def test_where_the_data_have_moved_all_but_the_thumbnails_is_there(
    run: headstart.Run, place: Path
) -> None:
    (place / "data").rename(place / "moved")
    try:
        with headstart.view(place / "run", cache=place / "cache", reporter=QUIET) as made:
            assert any("cannot be opened" in note for note in made.scene.notes)
            assert ask(made, inside(made, "thumbnail/0"))[0] == 404
            assert json.loads(ask(made, inside(made, "item/0"))[1])["item"]
        with headstart.view(
            place / "run", cache=place / "cache", reporter=QUIET, data=str(place / "moved")
        ) as made:
            assert ask(made, inside(made, "thumbnail/0"))[0] == 200
    finally:
        (place / "moved").rename(place / "data")


def test_what_has_no_meaning_is_refused(run: headstart.Run, place: Path, viewer: Viewer) -> None:
    quiet = {"cache": place / "cache", "reporter": QUIET}
    with pytest.raises(ConfigError, match="layer comes from the run"):
        headstart.view(place / "run", layer="stage2", **quiet)
    with pytest.raises(ConfigError, match="not a run"):
        headstart.view(place / "data", "headstart/glyphs", data="elsewhere", **quiet)
    with pytest.raises(ConfigError, match="cannot be used"):
        headstart.view(place / "run", port=viewer.port, **quiet)
    with pytest.raises(DataError):
        headstart.view(place / "nothing", "headstart/glyphs", **quiet)


# -- in the browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(viewer: Viewer, place: Path) -> Iterator[Tab]:
    if browser() is None:
        pytest.skip("needs Chromium, which is not installed here")
    with chromium(place) as started:
        tab = started.tab()
        tab.size(1280, 800)
        tab.go(viewer.url)
        tab.until("document.documentElement?.dataset.ready === 'yes'")
        yield tab


def test_a_legend_of_many_long_names_says_what_it_leaves_out(place: Path, tmp_path: Path) -> None:
    if browser() is None:
        pytest.skip("needs Chromium, which is not installed here")
    for i in range(70):
        folder = tmp_path / "many" / f"a class with a long name {i:02d}"
        folder.mkdir(parents=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "0.png")
    how = {"cache": place / "cache", "reporter": QUIET}
    with (
        headstart.view(tmp_path / "many", "headstart/glyphs", **how) as page,
        chromium(tmp_path) as started,
    ):
        tab = started.tab()
        for width in (1280, 390):
            tab.size(width, 844, touch=width < 500)
            tab.go("about:blank")
            tab.go(page.url)
            tab.until("document.documentElement?.dataset.ready === 'yes'")
            assert tab.run("document.querySelectorAll('.value').length") == 60
            left = "document.getElementById('values-left').textContent"
            assert tab.run(left) == "and 10 more: find them by name"
            names = "[...document.querySelectorAll('.value bdi')]"
            assert not tab.run(f"{names}.some((name) => name.scrollWidth > name.clientWidth)")
            tab.run(
                "(() => { const f = document.getElementById('find');"
                " f.value = 'NAME 69'; f.oninput(); })()"
            )
            assert tab.run("document.querySelectorAll('.value').length") == 1
            assert tab.run("document.documentElement.scrollWidth") == width


def test_it_zooms_with_the_wheel_with_keys_and_back(tab: Tab) -> None:
    before = tab.run("headstart.view.scale")
    tab.mouse("mouseWheel", 400, 400, deltaX=0, deltaY=-240)
    tab.until(f"headstart.view.scale > {before}")
    tab.run("document.getElementById('map').focus()")
    wheel = tab.run("headstart.view.scale")
    tab.press("+")
    tab.until(f"headstart.view.scale > {wheel}")
    tab.press("ArrowRight")
    tab.press("0")
    tab.until("headstart.view.scale === 1 && headstart.view.x === 0")
    x = tab.run("headstart.view.x")
    tab.drag((400, 300), (500, 350))
    tab.until(f"headstart.view.x < {x}")
    tab.run("document.getElementById('fit').click()")


def test_it_filters_by_class_and_by_mistake_and_takes_filters_back(
    tab: Tab, viewer: Viewer
) -> None:
    n = len(viewer.scene.among)
    assert tab.run("headstart.shown") == n
    assert tab.run("[...document.querySelectorAll('#values bdi')].map(e => e.textContent)") == list(
        viewer.scene.among.classes
    )
    tab.run("document.querySelectorAll('#values button')[1].click()")
    assert tab.run("headstart.shown") == int((viewer.scene.among.labels == 1).sum())
    tab.run("document.getElementById('mistakes').click()")
    wrong = np.nan_to_num(viewer.scene.wrong) > 0
    assert tab.run("headstart.shown") == int((wrong & (viewer.scene.among.labels == 1)).sum())
    assert tab.run("document.querySelectorAll('.chip').length") == 2
    tab.run("document.querySelector('.chip').click(); document.querySelector('.chip').click()")
    assert tab.run("headstart.shown") == n
    tab.run("const c = document.getElementById('colour'); c.value = 3; c.onchange()")
    assert tab.run("document.getElementById('range').hidden") is False
    tab.run("const l = document.getElementById('low'); l.value = 900; l.oninput()")
    assert 0 < tab.run("headstart.shown") < n
    tab.run("document.querySelector('.chip').click(); const d = document.getElementById('colour');"
            " d.value = 0; d.onchange()")  # fmt: skip


def test_a_brush_selects_and_hovering_shows_the_item(tab: Tab, viewer: Viewer) -> None:
    tab.drag((150, 150), (700, 700), modifiers=8)
    chosen = tab.run("headstart.shown")
    assert 0 < chosen <= len(viewer.scene.among)
    assert tab.run("headstart.selected !== null")
    x, y = tab.run(
        "(() => { const c = document.getElementById('map'), b = c.getBoundingClientRect(),"
        " s = 0.48 * Math.min(c.width, c.height), i = headstart.list[0];"
        " return [b.left + c.width / 2 + headstart.x[i] * s,"
        " b.top + c.height / 2 - headstart.y[i] * s]; })()"
    )
    tab.mouse("mouseMoved", x, y)
    tab.until("!document.getElementById('tip').hidden")
    tab.press("Escape")
    tab.until("headstart.selected === null")


def test_a_mistake_opens_with_its_neighbours_by_pointer_and_by_key(
    tab: Tab, viewer: Viewer
) -> None:
    wrong = np.nan_to_num(viewer.scene.wrong)
    worst = int(np.argmax(wrong))
    tab.until("document.querySelectorAll('#gallery .card').length > 0")
    first = tab.run("headstart.list[0]")
    assert wrong[first] == pytest.approx(wrong[worst])
    tab.run("document.querySelector('#gallery .card').click()")
    tab.until(f"headstart.near === {first}")
    titles = tab.run("[...document.querySelectorAll('#item-near h3')].map(e => e.textContent)")
    assert len(titles) == 2
    assert titles[0].endswith("its own class")
    assert tab.run("document.querySelectorAll('#item-near .card img').length") == 12
    assert tab.run("document.activeElement.id") == "item-title"
    tab.press("m")
    tab.until(f"headstart.open !== {first} && headstart.near === headstart.open")
    tab.press("Escape")
    tab.until("document.getElementById('item').hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_and_nothing_is_refused_at_any_width(
    tab: Tab, width: int, dark: bool
) -> None:
    tab.size(width, 844, dark=dark)
    tab.until(f"innerWidth === {width} && document.getElementById('map').width > 100")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert (
        tab.run(
            "[...document.querySelectorAll('button, select, bdi, h1, h2')].filter(e => {"
            " const b = e.getBoundingClientRect();"
            " return b.width && (b.right > innerWidth + 1 || b.left < -1); })"
            ".map(e => e.outerHTML)"
        )
        == []
    )
    paper = tab.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 24, 28)" if dark else "rgb(255, 255, 255)")
    assert tab.run("document.querySelectorAll('img[src=x], script:not([src])').length") == 0
    assert [each for each in tab.complaints() if "favicon" not in each] == []


@pytest.mark.slow
def test_umap_keeps_neighbours_together_and_is_laid_out_once(
    run: headstart.Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("umap")
    options = {"map": "umap", "cache": place / "cache", "reporter": QUIET}
    with headstart.view(place / "run", **options) as made:
        first = made.scene.map
    assert first.places.shape == (len(made.scene.among), 2)
    assert np.isfinite(first.places).all()
    rows = made.scene.among.rows[0 : len(made.scene.among)]
    nearest = nearest_rows(rows, rows, 2, "euclidean")[1][:, 1]
    apart = np.linalg.norm(first.places - first.places[nearest], axis=1)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    by_chance = np.linalg.norm(first.places - first.places[shuffled], axis=1)
    assert np.median(apart) < 0.2 * np.median(by_chance)
    monkeypatch.setitem(sys.modules, "umap", None)  # the map is kept: nothing is laid out
    with headstart.view(place / "run", **options) as made:
        np.testing.assert_array_equal(made.scene.map.places, first.places)
