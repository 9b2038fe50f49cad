"""The report page: what is in it, that nothing leaves it, and how it behaves in a browser."""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from chromium import CHROMIUM, Page, chromium
from mlflow import MlflowClient
from tiny import TINY, job_of

from mhiflab.cli.render import report as report_command
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import Plan, read_plan, reconcile
from mhiflab.record.artifacts import QUICKLOOK_FILE, artifact_file
from mhiflab.record.store import Store, open_store, tracking_uri
from mhiflab.record.studies import study_run
from mhiflab.render.report import drawings, sections, windows
from mhiflab.render.report.drawings import FIGURES
from mhiflab.render.report.page import report_page as report
from mhiflab.render.runs import collect
from mhiflab.render.tables.formats import formatted
from mhiflab.render.tables.table import study_table

EVIL = "</script><i>slanted</i> & \"'"
CASES = {
    "without": {"label": "Without", "set": {"model.fourier_branch": False}},
    "full": {"label": EVIL, "set": {}},
}


@dataclass(frozen=True)
class Made:
    """A lab with a study of two finished runs."""

    file: Path
    lab: Lab
    store: Store
    parent: str

    def plan(self, **changes: object) -> Plan:
        """Return the study's plan, of a file with changes, against the record."""
        text = yaml.safe_load(self.file.read_text())
        path = self.file.with_name("changed.yaml") if changes else self.file
        if changes:
            path.write_text(yaml.safe_dump({**text, **changes}, sort_keys=False))
        return reconcile(read_plan(path), self.store, self.lab)

    def artifact(self, case: int, name: str) -> dict[str, np.ndarray]:
        """Return the arrays that a case's run recorded."""
        run = self.plan().entries[case].run
        assert run is not None
        with artifact_file(self.store, run.id, name) as path, np.load(path) as arrays:
            return dict(arrays)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    path = folder / "tiny.yaml"
    study = {**TINY, "title": "<img src=x onerror=alert(1)>", "cases": CASES}
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    lab = Lab(folder / "lab")
    uri = tracking_uri(lab)
    store = open_store(lab, uri)
    parent = study_run(store, "tiny", path.read_text())
    for entry in read_plan(path).entries:
        about = {"case": entry.trial.case, "label": entry.trial.label}
        run_worker(job_of(entry, lab, uri, parent, **about), torch.device("cpu"), lambda _: None)
    return Made(path, lab, store, parent)


@pytest.fixture(scope="module")
def page(made) -> str:
    return report([made.plan()])


class Read(HTMLParser):
    """What a browser would make of a page: tags with attributes, texts, scripts by type."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[tuple[str, str | None, str]] = []
        self.text = ""
        self._raw: tuple[str, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += " " * (tag in ("td", "th"))
        if tag in ("script", "style"):
            self._raw = tag, dict(attrs).get("type")

    def handle_endtag(self, tag):
        self._raw = None

    def handle_data(self, data):
        if self._raw:
            self.code.append((*self._raw, data))
        else:
            self.text += data

    def pictures(self) -> list[dict[str, str | None]]:
        """Return the attributes of the pictures."""
        return [attributes for tag, attributes in self.tags if tag == "img"]

    def viewer(self) -> dict:
        """Return the viewer's data."""
        (found,) = [text for _, kind, text in self.code if kind == "application/json"]
        return json.loads(found)


def cube(one: dict, data: dict) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(one["data"]), "<u2")
    return flat.reshape(data["bands"], data["height"], data["width"])


def test_page_tells_what_the_record_tells(made, page):
    plan, text = made.plan(), " ".join(Read(page).text.split())
    headings = ["State", "Results", "Statistics", "Figures", "Images and spectra", "Provenance"]
    assert re.findall(r"<h2>(.*?)</h2>", page) == headings
    assert "2 of 2 runs finished" in text
    assert text.count("2/2 epochs") == 2
    table = formatted(study_table(collect(plan)), ".md")
    for number in re.findall(r"\d+\.\d+", "".join(table.splitlines(True)[2:-4])):
        assert number in text
    assert "No difference in PSNR between" in text
    assert "One seed: another training may differ" in text
    for entry in plan.entries:
        assert entry.key in text
        assert entry.run.id in text
    assert plan.entries[0].survey.fingerprint in text
    assert "model.fourier_branch false true" in text
    pictures = [a["src"] for a in Read(page).pictures()]
    assert len(pictures) == len(FIGURES) == 10
    for one in pictures:
        head, _, data = one.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_nothing_is_fetched_and_only_its_own_code_may_run(page):
    found = Read(page)
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in ("src", "href", "srcset", "action", "data", "poster"):
                assert value.startswith(("data:", "#")), (tag, value[:80])
    (policy,) = [a["content"] for _, a in found.tags if a.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        own = [text for t, kind, text in found.code if t == tag and kind is None]
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in own]
        assert rules[name] == " ".join(f"'sha256-{one}'" for one in hashes)
    assert "://" not in re.sub(
        r"http://www\.w3\.org/2000/svg",
        "",
        "".join(text for _, kind, text in found.code if kind is None),
    )


def test_texts_of_the_record_stay_texts(page):
    found = Read(page)
    assert "i" not in {tag for tag, _ in found.tags}
    assert all(a.get("src") != "x" for _, a in found.tags)
    assert "<img src=x onerror=alert(1)>" in found.text
    assert found.text.count(EVIL) >= 5
    assert found.viewer()["cubes"][-1]["label"] == f"{EVIL}, seed 1"


def test_viewer_holds_the_recorded_windows(made, page):
    data = Read(page).viewer()
    kinds = [one["kind"] for one in data["cubes"]]
    assert kinds == ["reference", "upsampled", "fused", "fused"]
    for case in (0, 1):
        recorded = made.artifact(case, QUICKLOOK_FILE)
        (name,) = [key.split("/")[0] for key in recorded if key.endswith("/window/fused")]
        for place, what in ((0, "reference"), (1, "upsampled"), (2 + case, "fused")):
            shown = cube(data["cubes"][place], data)
            np.testing.assert_array_equal(shown, recorded[f"{name}/window/{what}"])
        assert [data["row"], data["column"]] == recorded[f"{name}/window/place"].tolist()
        assert data["wavelengths_nm"] == recorded[f"{name}/window/wavelengths_nm"].tolist()


def test_same_records_give_the_same_bytes_and_the_page_joins_the_record(
    made, page, tmp_path, capsys
):
    path = tmp_path / "own.html"
    client = MlflowClient(tracking_uri=made.store.uri)
    report_command(str(made.file), out_file=path, no_log=True, lab=made.lab.root)
    assert path.read_text(encoding="utf-8") == page
    stored = [item.path for item in client.list_artifacts(made.parent)]
    assert "report.html" not in stored
    report_command(str(made.file), lab=made.lab.root)
    usual = made.lab.rendered("tiny") / "report.html"
    assert str(usual) in capsys.readouterr().out
    # What was stored changes nothing.
    report_command(str(made.file), out_file=path, lab=made.lab.root)
    with artifact_file(made.store, made.parent, "report.html") as artifact:
        assert artifact.read_bytes() == usual.read_bytes() == path.read_bytes() == page.encode()


def test_unfinished_study_shows_what_there_is(made):
    half = Read(report([made.plan(seeds=[1, 2])]))
    assert "2 of 4 runs are missing" in half.text
    assert "† Without lacks 1 of its runs (it has seed 1)" in half.text
    assert "2 of 4 trials to execute (2 done, 2 new)" in half.text
    assert len(half.viewer()["cubes"]) == 4
    # Pictures are of the first seed that has runs, and the same as of that seed alone.
    later = Read(report([made.plan(seeds=[2, 1])]))
    first = Read(report([made.plan(seeds=[1])]))
    titles = ["Fused images", "Spectral angles", "Spectra", "Training", "Training time", "Cost"]
    assert [a["alt"].partition(":")[0] for a in first.pictures()][:6] == titles
    assert later.pictures() == first.pictures()
    third = {**CASES, "third": {"label": "Third", "set": {"train.lr": 2e-3}}}
    more = report([made.plan(seeds=[1], cases=third)])
    assert "2 of 3 runs are missing" not in more
    assert "1 of 3 runs are missing" in more
    assert len(Read(more).viewer()["cubes"]) == 4
    told = " ".join(Read(more).text.split())
    assert "seed 1. Left out, without a finished run of seed 1: Third." in told
    assert "optimiser steps. Seed 1. Left out, without a finished run: Third." in told
    assert "Left out" not in " ".join(first.text.split())
    none = report([made.plan(seeds=[7])])
    assert none.count("No run is finished yet.") == 2


def test_large_windows_are_cut_and_cases_left_out(made, page, monkeypatch):
    assert len(page.encode()) < 15_000_000
    plan, cubes = made.plan(), Read(page).viewer()["cubes"]
    size = sum(len(one["data"]) for one in cubes)

    def within(room: int) -> str:
        monkeypatch.setattr(windows, "VIEWER_BYTES", room)
        return report([plan])

    small = within(size // 2)
    data = Read(small).viewer()
    assert sum(len(one["data"]) for one in data["cubes"]) <= size // 2
    assert 32 < data["height"] < 96
    assert f"cut from 96 x 96 to {data['height']} x {data['width']}" in small
    recorded = made.artifact(1, QUICKLOOK_FILE)
    (key,) = [key for key in recorded if key.endswith("/window/fused")]
    first = data["row"] - recorded[key.replace("fused", "place")][0]
    part = slice(first, first + data["height"])
    np.testing.assert_array_equal(cube(data["cubes"][3], data), recorded[key][:, part, part])
    for room in (280_000, 0):
        least = Read(within(room))
        shown = least.viewer()
        assert shown["height"] == 32
        assert [one["kind"] for one in shown["cubes"]] == ["reference", "upsampled", "fused"]
        assert f"Left out, so that this page does not grow too large: {EVIL}, seed 1." in least.text


def test_large_pictures_and_tables_are_replaced_by_where_they_are(made, page, monkeypatch):
    sizes = [len(base64.b64decode(a["src"].partition(",")[2])) for a in Read(page).pictures()]
    monkeypatch.setattr(drawings, "FIGURES_BYTES", sum(sizes[:4]))
    monkeypatch.setattr(sections, "IMAGE_ROWS", 3)
    few = report([made.plan()])
    drawn = [a["alt"].partition(":")[0] for a in Read(few).pictures()]
    left = re.findall(r"<li>(.*?): the page would grow too large; draw it by itself", few)
    assert drawn + left == [title for title, *_ in FIGURES]
    assert len(drawn) == 4
    assert f"mhiflab figure {made.plan().command} --kind errors --option map=sam" not in few
    assert f"mhiflab figure {made.plan().command} --kind curves --option over=minutes" in few
    assert "every run's metrics_test.csv holds them" in few


def test_runs_without_windows_and_equal_labels(made, monkeypatch):
    @contextmanager
    def without_windows(store: Store, run_id: str, name: str, folder_uri: str) -> Iterator[Path]:
        with artifact_file(store, run_id, name) as path:
            if name == QUICKLOOK_FILE:
                with np.load(path) as arrays:
                    kept = {key: x for key, x in arrays.items() if "/window/" not in key}
                np.savez(path, **kept)
            yield path

    monkeypatch.setattr("mhiflab.record.artifacts.artifact_file", without_windows)
    monkeypatch.setattr("mhiflab.render.report.drawings.FIGURES", ())
    plan = made.plan()
    same = [replace(e, trial=replace(e.trial, label="Same")) for e in plan.entries]
    found = Read(report([replace(plan, entries=tuple(same))]))
    for entry in plan.finished:
        assert f"{entry.run.name}: found a run without any image's bands" in found.text
    assert "No run has a window with all bands" in found.text
    assert "between Same (full) and Same (without)" in found.text


def test_a_truncated_file_of_pictures_is_told_on_the_page(made, monkeypatch):
    broken = made.plan().finished[1].run

    @contextmanager
    def truncated(store: Store, run_id: str, name: str, folder_uri: str) -> Iterator[Path]:
        with artifact_file(store, run_id, name) as path:
            if (run_id, name) == (broken.id, QUICKLOOK_FILE):
                path.write_bytes(path.read_bytes()[:5000])
            yield path

    monkeypatch.setattr("mhiflab.record.artifacts.artifact_file", truncated)
    found = Read(report([made.plan()]))
    told = f"{EVIL} seed 1 ({broken.key[:8]}): found a damaged {QUICKLOOK_FILE}"
    # Below the viewer, and in place of the pictures that need it.
    assert found.text.count(told) > 3
    assert [one["kind"] for one in found.viewer()["cubes"]] == ["reference", "upsampled", "fused"]
    assert "Training" in [a["alt"].partition(":")[0] for a in found.pictures()]


def test_pictures_say_in_words_what_they_show(made, page):
    alts = {a["alt"].partition(":")[0]: a["alt"] for a in Read(page).pictures()}
    assert f"Shown: Bicubic upsampling, Without, {EVIL}. Image " in alts["Fused images"]
    assert alts["Fused images"].endswith("_ms, seed 1.")
    assert alts["Training"].endswith(f"Shown: Without, {EVIL}. Seed 1.")
    assert alts["Gabor wavelet"].endswith("Shown: Without. Case Without, seed 1.")
    assert len(set(alts.values())) == len(alts) == 10


@pytest.fixture
def browse(page, tmp_path) -> Iterator[Callable[..., Page]]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian's package is named chromium)")
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    with chromium(tmp_path / "profile") as tab:

        def opened(fragment: str = "") -> Page:
            tab.open(path, fragment)
            return tab

        yield opened


PICTURE = "document.querySelector('.panel canvas').toDataURL()"
VALUES = (
    "[...document.querySelectorAll('#pixel-values tbody tr')]"
    ".map(row => [...row.querySelectorAll('td')].map(one => Number(one.textContent)))"
)


def test_browser_opens_it_at_once_and_asks_for_nothing(browse):
    tab = browse()
    # Seconds of work: those on the clock also tell what else the machine was doing.
    assert 0 < tab.work_s() < 2
    asked = tab.ask("performance.getEntriesByType('resource').map(one => one.name)")
    for url in (*asked, *tab.requests[1:]):
        assert url.startswith("data:"), url
    assert tab.requests[0].startswith("file:")
    assert tab.ask("document.querySelectorAll('.panel canvas').length") == 7
    # The policy itself forbids what nothing here tries.
    assert tab.ask("fetch('https://example.invalid/').then(() => '', one => one.name)")
    assert tab.ask("document.documentElement.scrollWidth <= innerWidth")


def test_browser_shows_bands_and_the_spectrum_of_a_clicked_pixel(browse, made):
    tab = browse("#band=5&x=1&y=2")
    assert tab.ask("document.getElementById('band-told').value").startswith("5 of 31, 440 nm")
    before = tab.ask(PICTURE)
    tab.ask("document.getElementById('band').focus()")
    tab.press("ArrowRight")
    assert tab.ask("document.getElementById('band').value") == "6"
    assert tab.ask(PICTURE) != before

    tab.click(".panel:nth-child(4) canvas", 30.5 / 96, 40.5 / 96)
    assert "x=30&y=40" in tab.ask("location.hash")
    recorded = made.artifact(1, QUICKLOOK_FILE)
    (key,) = [key for key in recorded if key.endswith("/window/fused")]
    steps = np.rint(np.array(tab.ask(VALUES)) * 65535)
    for column, what in ((0, "reference"), (1, "upsampled"), (3, "fused")):
        expected = recorded[key.replace("fused", what)][:, 40, 30]
        np.testing.assert_array_equal(steps[:, column], expected)
    assert tab.ask("document.querySelectorAll('#spectrum polyline').length") == 4
    a, b = (recorded[key.replace("fused", w)][:, 40, 30] / 65535 for w in ("fused", "reference"))
    angle = np.degrees(np.arccos(a @ b / np.sqrt((a @ a) * (b @ b))))
    cells = "[...document.querySelectorAll('#pixel-table tbody tr:last-child td')]"
    told = tab.ask(f"{cells}.map(one => Number(one.textContent))")
    assert told[0] == pytest.approx(angle, abs=5.1e-4)
    assert told[1] == pytest.approx(np.sqrt(np.mean((a - b) ** 2)), abs=5.1e-6)

    tab.press("ArrowDown")
    assert "x=30&y=41" in tab.ask("location.hash")


LOOKS = (
    "[...document.querySelectorAll('#spectrum polyline')].map(one => {"
    "const look = getComputedStyle(one); return [look.stroke, look.strokeDasharray]; })"
)


def luminance(colour: str) -> float:
    """Return the relative luminance of rgb(r, g, b), as WCAG 2 defines it."""
    shares = [int(n) / 255 for n in re.findall(r"\d+", colour)]
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_spectra_are_told_apart_and_from_the_ground(scheme, page, tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian's package is named chromium)")
    data = Read(page).viewer()
    many = {**data, "cubes": data["cubes"][:1] + data["cubes"][2:3] * 36}
    source = re.search(r'<script type="application/json".*?>(.*?)</script>', page, re.DOTALL)
    path = tmp_path / "page.html"
    path.write_text(page.replace(source[1], json.dumps(many).replace("<", "\\u003c")))
    with chromium(tmp_path / "profile") as tab:
        tab.open(path)
        preferred = {"name": "prefers-color-scheme", "value": scheme}
        tab.call("Emulation.setEmulatedMedia", features=[preferred])
        looks = [tuple(look) for look in tab.ask(LOOKS)]
        ground = luminance(tab.ask("getComputedStyle(document.body).backgroundColor"))
        roles = tab.ask("[...document.querySelectorAll('.panel canvas')].map(c => c.role)")
    assert len(looks) == len(set(looks)) == 37
    assert (ground > 0.5) == (scheme == "light")
    for colour, _ in looks:
        dim, bright = sorted((luminance(colour), ground))
        assert (bright + 0.05) / (dim + 0.05) >= 3, colour
    assert set(roles) == {"application"}


def test_browser_sorts_the_images(browse):
    tab = browse()
    column = (
        "[...document.querySelectorAll('table.sortable tbody tr')]"
        ".map(row => Number(row.cells[3].dataset.value))"
    )
    before = tab.ask(column)
    for reverse in (False, True):
        tab.click("table.sortable th:nth-child(4) button", 0.5, 0.5)
        assert tab.ask(column) == sorted(before, reverse=reverse) != before


def test_browser_keeps_long_names_in_their_cells_on_a_phone(browse):
    tab = browse("")
    tab.call(
        "Emulation.setDeviceMetricsOverride",
        width=390,
        height=800,
        deviceScaleFactor=1,
        mobile=True,
    )
    tab.ask(
        "document.querySelectorAll('tbody th.name').forEach(one => {"
        "one.textContent = 'a_name_of_many_letters_without_a_blank_ms'; })"
    )
    over = "[...document.querySelectorAll('th.name')].filter(x => x.scrollWidth > x.clientWidth)"
    assert tab.ask(f"{over}.length") == 0
    assert tab.ask("document.documentElement.scrollWidth - innerWidth") <= 0
