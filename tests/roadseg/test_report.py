import dataclasses
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from roadseg.calib import Point
from roadseg.report import (
    EngineRow,
    LatencyRow,
    Picture,
    ReportData,
    Scale,
    Search,
    Stage,
    dots,
    judge,
    render,
    shared_conditions,
    trade,
    worst_class,
    write_report,
)
from roadseg.runtime import MissingDependencyError, ModelSpec

SPEC = ModelSpec("tiny", height=4, width=6, classes=("road", "sky", "car"))
REFERENCE = Stage("PyTorch FP32", 60.0, {"road": 80.0, "sky": 40.0, "car": None})
INT8 = Stage(
    "ONNX INT8",
    58.5,
    {"road": 79.0, "sky": 38.0, "car": None},
    pixel_agreement=97.5,
    miou_drop=1.5,
    ci95=(1.25, 1.75),
    budget=2.0,
    within_budget=True,
)
POINTS = (
    Point("m.ranges", 0, "none", 1.0, 0.5, (0.4, 0.6), 2.0),
    Point("m.ranges", 4, "none", 0.9, 0.3, (0.2, 0.4), 2.5),
    Point("m.ranges", 2, "biases", 0.95, 0.1, (float("nan"),) * 2, 2.25),
)
SEARCH = Search(50, 0.25, "T4", POINTS, POINTS[2], {"/stem/Conv": 0.1, "/body/": 0.4})
BEYOND = dataclasses.replace(INT8, budget=1.0, within_budget=False)
VOID = {"area", "base", "br", "hr", "img", "input", "link", "meta", "circle", "image", "line", "rect", "use"}
"""Elements that the page leaves without an end tag, or ends at once (SVG)."""


class Reader(HTMLParser):
    """Collects a page's words, its table rows and its attributes, and checks that elements are closed in turn."""

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.rows, self.attributes = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.words += data.split()
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = " ".join([*self.rows[-1][-1].split(), *data.split()])

    @property
    def text(self):
        return " ".join(self.words)

    def rows_of(self, first):
        return [row[1:] for row in self.rows if row[0] == first]


@pytest.fixture
def data(tmp_path):
    """A report with something in each of its sections."""
    labels = np.random.default_rng(0).integers(0, 3, (2, 4, 6), np.uint8)
    video = tmp_path / "labelled.mp4"
    video.write_bytes(b"video")
    return ReportData(
        "Roads",
        SPEC,
        {"Checkpoint": "tiny.safetensors"},
        "2 frames",
        (REFERENCE, INT8),
        (EngineRow("int8.plan", "rtx", "1.7.1", "8.6", "int8", 1_500_000),),
        (
            LatencyRow("PyTorch FP32", (10.0, 20.0, 30.0), {"batch": "1", "backend": "torch"}),
            LatencyRow("ONNX INT8", (5.0,), {"batch": "1", "backend": "onnxruntime"}),
        ),
        (
            Picture(
                "first",
                np.zeros((4, 6, 3), np.uint8),
                labels[0],
                dict(zip(("PyTorch FP32", "ONNX INT8"), labels, strict=True)),
            ),
        ),
        video,
        {"frames": 88, "dropped": 0, "fps": 20.5, "p50_ms": 14.0, "p90_ms": 15.0, "p99_ms": 16.0},
        ("make demo", "roadseg parity a b"),
        SEARCH,
    )


@pytest.fixture
def bare():
    """A report with nothing but one unlabelled model."""
    return ReportData("Roads", SPEC, {}, "2 frames", (Stage("PyTorch FP32", None, {}),))


def test_a_candidate_within_its_budget_is_said_to_have_passed(data):
    page = Reader(render(data)).text
    assert "passed ONNX INT8 keeps 58.50 of 60.00 mIoU: within its budget of 2.0." in page
    assert "failed" not in page


def test_a_candidate_beyond_its_budget_is_said_to_have_failed(data):
    page = Reader(render(dataclasses.replace(data, stages=(REFERENCE, BEYOND))))
    assert "ONNX INT8 keeps 58.50 of 60.00 mIoU: failed, beyond its budget of 1.0." in page.text
    assert page.rows_of("ONNX INT8")[0] == ["58.50", "97.500 %", "1.500", "1.250 to 1.750", "1.0", "failed"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"miou_drop": -0.2, "miou": 60.2}, "ONNX INT8 keeps all 60.00 mIoU: within its budget of 2.0."),
        (
            {"miou": None},
            "ONNX INT8 comes within 1.500 mIoU of the answers of PyTorch FP32: within its budget of 2.0.",
        ),
        ({"budget": None, "within_budget": None}, "ONNX INT8 keeps 58.50 of 60.00 mIoU: no budget was set."),
        (
            {"miou_drop": None, "within_budget": False},
            "ONNX INT8 was not compared with PyTorch FP32: failed, beyond its budget of 2.0.",
        ),
    ],
)
def test_a_verdict_says_what_was_measured(change, sentence):
    assert judge(dataclasses.replace(INT8, **change), REFERENCE).sentence == sentence


def test_classes_show_their_change_and_the_worst_is_marked(data):
    page = Reader(render(data))
    assert page.rows_of("road") == [["80.00", "79.00", "\u22121.00"]]
    assert page.rows_of("sky") == [["40.00", "38.00", "worst \u22122.00"]]


def test_a_class_that_never_occurred_is_shown_as_a_dash(data):
    assert Reader(render(data)).rows_of("car") == [["\u2013", "\u2013", "\u2013"]]


def test_no_class_is_worst_where_none_lost():
    assert worst_class(dataclasses.replace(INT8, per_class_iou={"road": 80.0, "sky": 40.5}), REFERENCE) is None


def test_latencies_are_percentiles_of_their_samples(data):
    page = Reader(render(data))
    # Linear between order statistics: p90 lies 0.8, p99 0.98 of the way from 20 to 30.
    assert ["20.00", "28.00", "29.80", "3", "backend torch"] in page.rows_of("PyTorch FP32")
    assert ["5.00", "5.00", "5.00", "1", "backend onnxruntime"] in page.rows_of("ONNX INT8")
    assert "For all: batch 1." in page.text


def test_conditions_are_shared_only_if_every_model_has_them():
    rows = [LatencyRow("a", (1.0,), {"batch": "1", "cores": "2"}), LatencyRow("b", (1.0,), {"batch": "1"})]
    assert shared_conditions(rows) == {"batch": "1"}
    assert shared_conditions([]) == {}


def test_many_samples_are_drawn_as_percentiles():
    drawn = dots(LatencyRow("a", tuple(float(i) for i in range(1000, -1, -1)), {}))
    assert len(drawn) == 200
    assert (drawn[0], drawn[-1]) == (0.0, 1000.0)


def test_a_scale_starts_at_zero_unless_a_value_is_lower():
    assert Scale.over([50.0]).at(0) == "0.00%"
    below = Scale.over([-1.0, 1.0])
    assert (below.at(0), below.between(-1, 1)) == ("50.00%", "89.29%")  # 2 of 2 + 2 * 0.06 * 2
    assert Scale.over([0.0]).at(0) == "0.00%"


def test_a_search_shows_what_nothing_beats_and_where_int8_does_harm(data):
    page = Reader(render(data))
    assert page.rows_of("0") == [["none", "m.ranges", "100.00 %", "0.500", "2.000"]]
    assert page.rows_of("2") == [["biases", "m.ranges", "95.00 %", "0.100", "2.250"]]
    assert page.rows_of("4") == []
    assert [row for row in page.rows if row[0] in SEARCH.parts] == [["/body/", "0.400"], ["/stem/Conv", "0.100"]]
    assert "measured on 50 calibration frames" in page.text
    dots = ("chosen", "best", "beaten")
    assert [value for name, value in page.attributes if value in dots] == ["chosen", "best", "beaten", "best"]


def test_a_search_is_drawn_with_good_models_low_and_fast_ones_left():
    shown = trade(dataclasses.replace(SEARCH, budget=0.5))
    # From 0 to 0.5 and 6 % more upwards, from 2 to 2.5 and 6 % more on either side.
    assert [shown.losses.from_top(loss) for loss in (0, 0.1, 0.5)] == ["100.00%", "81.13%", "5.66%"]
    assert [shown.times.at(point.estimated_ms) for point in POINTS] == ["5.36%", "94.64%", "50.00%"]


def test_the_model_that_was_taken_is_shown_though_another_beats_it():
    shown = trade(dataclasses.replace(SEARCH, chosen=POINTS[1]))
    assert [point.kept for point in shown.shown] == [0, 2, 4]
    assert [point.kept for point in shown.frontier] == [0, 2]


def test_a_search_that_tried_no_part_alone_has_no_table_of_them(data):
    html = render(
        dataclasses.replace(
            data, search=dataclasses.replace(SEARCH, points=POINTS[:1], chosen=POINTS[0], parts={})
        )
    )
    assert "Where it is lost" not in html
    assert Reader(html).rows_of("0")


def test_the_page_shows_engines_video_origin_and_how_to_repeat_it(data):
    page = Reader(render(data))
    assert page.rows_of("int8.plan") == [["int8", "8.6", "rtx", "1.7.1", "1.50 MB"]]
    assert "88 frames at 20.5 frames per second" in page.text
    assert "Checkpoint tiny.safetensors" in page.text
    assert "make demo roadseg parity a b" in page.text


def test_what_there_is_not_has_no_section(bare):
    page = Reader(render(bare))
    assert [value for name, value in page.attributes if name == "id"] == ["accuracy", "accuracy-note", "origin"]


def test_text_from_outside_is_escaped(data):
    evil = "<script>\"&'"
    (picture,) = data.pictures
    html = render(
        dataclasses.replace(
            data,
            title=evil,
            spec=dataclasses.replace(SPEC, name=evil, classes=(evil, "sky", "car")),
            provenance={evil: evil},
            data=evil,
            stages=(REFERENCE, dataclasses.replace(INT8, name=evil)),
            engines=(EngineRow(evil, evil, evil, evil, evil, 1),),
            latencies=(LatencyRow(evil, (1.0,), {evil: evil}),),
            pictures=(dataclasses.replace(picture, title=evil),),
            commands=(evil,),
            search=dataclasses.replace(SEARCH, gpu=evil, parts={evil: 1.0}),
        )
    )
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert evil in Reader(html).text


def test_the_page_loads_nothing(data):
    html = render(data)
    targets = [v for n, v in Reader(html).attributes if n in ("src", "href", "srcset", "poster", "action", "data")]
    assert targets
    assert all(target.startswith(("data:", "#")) for target in targets)
    assert "://" not in html
    assert not re.search(r"@import|url\(", html)


def test_every_picture_is_described_and_every_table_has_headers(data):
    html = render(data)
    drawings = re.findall(r"<svg[^>]*>", html)
    assert all('aria-label="' in tag or 'aria-hidden="true"' in tag for tag in drawings)
    assert 'aria-label="ONNX INT8&#39;s labels of first"' in html
    assert html.count("<thead>") == html.count("<table") == 6
    assert "<th>" not in html  # each says whether it heads a row or a column


def test_a_frame_is_embedded_once_and_used_by_every_view_of_it(data):
    html = render(data)
    assert html.count("data:image/jpeg") == 1
    # Frame, truth, reference, candidate, differences.
    assert html.count('<use href="#frame-1"/>') == 5
    assert "pixels differ" in html


def test_the_same_data_give_the_same_bytes(data, tmp_path):
    write_report(data, tmp_path / "a.html")
    write_report(data, tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes() == render(data).encode()


def test_a_missing_library_is_named_when_a_report_is_written(bare, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"needs jinja2.*roadseg\[report\]"):
        render(bare)
