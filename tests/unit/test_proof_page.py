"""The report's page: what an operator and an auditor read of a run, safe to open and readable by everybody."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from gatehouse.proof import page, results, threat_report, threats
from gatehouse.proof.results import Check, Run
from gatehouse.site import Site
from tests.unit.test_site_model import description

WAIVER = {"reason": "it is replaced", "owner": "Ada", "expires": "2999-01-01", "compensated_by": "b.c"}
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and whether each that was opened is closed in its turn."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(name, verdict="proven", **more):
    reason = None if verdict == "proven" else "it answered"
    given = {"controls": ("OWASP-IoT-Top10-2018:I2",), **more}
    return Check(name, f"Title of {name}", "gw", "iot", verdict, reason=reason, **given)


def run_with(*checks):
    return Run("home", "1", checks=list(checks))


RUN = run_with(
    check("a.good", evidence=({"from": "iot", "sent": "TCP connection", "to": "10.0.0.1:22", "at": "12:00"},)),
    check("a.unsure", "not_proven"),
    check("a.bad", "failed"),
    check("a.waived", "failed", waiver=WAIVER),
    check("segments.iot-to-guest"),
)


@pytest.fixture(scope="module")
def text():
    return page.render(RUN, None, models=threats.models(Site(**description()), RUN))


def test_the_verdict_comes_first_and_failures_before_evidence(text):
    assert text.index("FAILED: 2 of 5") < text.index('id="failures"') < text.index('id="coverage"')
    assert text.index("Title of a.bad") < text.index("Title of a.unsure") < text.index("Title of a.good")


def test_a_waived_failure_is_shown_as_waived_with_its_owner_and_end(text):
    assert "Waived until 2999-01-01 by Ada" in text


def test_evidence_says_from_where_what_was_sent_and_when(text):
    assert all(part in text for part in ("TCP connection", "10.0.0.1:22", "12:00"))


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(text):
    found = Parsed(text)
    assert found.open == []
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    assert not any(key == "src" or key.startswith("on") for _, given in found.elements for key in given)
    assert "url(" not in text and "@import" not in text


def test_the_page_has_landmarks_a_language_and_headings_in_order(text):
    found = Parsed(text)
    tags = [tag for tag, _ in found.elements]
    assert all(tags.count(tag) == 1 for tag in ("header", "main", "footer", "nav", "h1"))
    assert text[: text.index("</head>")].count("<title>") == 1  # those of drawings come later
    assert ("html", {"lang": "en"}) in found.elements
    levels = [int(tag[1]) for tag in tags if tag in ("h1", "h2", "h3")]
    assert all(later <= before + 1 for before, later in zip(levels, levels[1:], strict=False))


def test_ids_are_unique_and_every_link_leads_somewhere(text):
    ids = [given["id"] for _, given in Parsed(text).elements if "id" in given]
    assert len(ids) == len(set(ids))
    for _, given in Parsed(text).elements:
        for target in (given.get("href", "").removeprefix("#"), given.get("aria-labelledby", "")):
            assert not target or target in ids


def test_every_heading_of_a_table_says_what_it_heads(text):
    assert all(given.get("scope") in ("col", "row") for tag, given in Parsed(text).elements if tag == "th")


def test_no_verdict_is_told_by_colour_alone(text):
    assert all(f"</span> {word}</span>" in text for word in ("proven", "failed", "not proven", "waived"))


def test_what_a_stranger_sent_is_text_and_no_markup():
    evil = "<script>alert(1)</script>"
    found = page.render(run_with(check("a.b", evidence=({"got": evil},), controls=())), None)
    assert evil not in found and "&lt;script&gt;" in found


def test_the_matrix_has_a_row_and_a_column_a_segment():
    names, cells = page.matrices(RUN)["gw"]
    assert names == ["iot", "guest"]
    assert cells["iot", "guest"].id == "segments.iot-to-guest"


def test_changes_tell_what_stands_otherwise_and_what_is_gone():
    before = run_with(check("a.good", "failed"), check("a.gone"), check("a.unsure", "not_proven"))
    after = run_with(check("a.good"), check("a.new"), check("a.unsure", "not_proven"))
    assert [(c.id, old, new) for c, old, new in page.changes(after, before)] == [
        ("a.good", "failed", "proven"),
        ("a.new", "not there", "proven"),
        ("a.gone", "proven", "not there"),
    ]
    assert page.changes(after, None) == [] and page.changes(after, after) == []


def test_a_failure_that_is_waived_now_is_a_change():
    found = page.changes(run_with(check("a.b", "failed", waiver=WAIVER)), run_with(check("a.b", "failed")))
    assert [(old, new) for _, old, new in found] == [("failed", "waived")]


def test_the_page_lies_beside_the_results_and_goes_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "KEPT", 1)
    folders = []
    for _ in range(2):
        folders.append(results.new_folder(tmp_path, RUN))
        results.write(folders[-1], RUN, page.render(RUN, None))
    assert (tmp_path / "home" / "latest" / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert not folders[0].exists()


def test_earlier_runs_are_told_newest_first_and_damaged_ones_left_out(tmp_path):
    folders = []
    for number in range(4):
        run = Run("home", str(number), checks=[check("a.b")])
        folders.append(results.new_folder(tmp_path, run))
        results.write(folders[-1], run)
    (folders[1] / "results.json").write_text("{")
    assert [run.version for run in results.earlier(folders[3])] == ["2", "0"]


def test_history_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "TOLD", 2)
    for _ in range(4):
        folder = results.new_folder(tmp_path, RUN)
        results.write(folder, RUN)
    assert len(results.earlier(folder)) == 1


def model(*checks):
    run = Run("home", "1", checks=[Check(name, name, "gw", None, verdict, reason="seen") for name, verdict in checks])
    return run, threats.models(Site(**description()), run)


def threats_of(text):
    return text[text.index('id="threats"') : text.index('id="controls"')]


def test_the_threat_model_has_its_picture_flows_threats_and_what_is_left_with_the_verdicts_of_this_run():
    run, models = model(("ssh.no-root", "proven"), ("ssh.keys-only", "failed"))
    found = threats_of(page.render(run, None, models=models))
    assert found.count("<svg") == 1 and found.count("<h3>gw</h3>") == 1
    assert all(f'<th scope="col">{name}</th>' in found for name in ("encrypted", "authenticated", "integrity"))
    assert "failed (2 checks: ssh.keys-only)" in found and "Residual risks" in found
    steady, models = model(("ssh.no-root", "proven"), ("ssh.keys-only", "proven"))
    found = threats_of(page.render(steady, None, models=models))
    assert "proven (2 checks)" in found and "failed" not in found


def test_the_report_shows_what_the_threat_models_own_page_shows():
    run, models = model(("ssh.no-root", "proven"))
    report, own = page.render(run, None, models=models), threat_report.shown(models, "html")
    shared = [part for part in own.split("<details")[1:] if "Residual" not in part]
    assert len(shared) == 5
    assert all(part.split(">", 1)[1] in report for part in shared)
    assert Parsed(own).open == []


def test_a_report_without_its_site_at_hand_says_where_the_threat_model_is():
    found = page.render(RUN, None)
    assert "./kit threat-model --site home" in threats_of(found) and "<svg" not in threats_of(found)


def test_devices_that_nothing_tells_apart_are_one_entry_of_the_threat_model():
    one, many = description(), description()
    many["devices"] = [{"name": f"sensor-{n:04}", "model": "esp32", "gateway": "gw"} for n in range(3000)]
    few, crowd = (threats.models(Site(**site), RUN) for site in (one, many))
    titles = [part.title for part in threat_report.view(crowd[0]).sections if part.title.startswith("device")]
    assert len(titles) == 1 and "and 2996 more" in titles[0]
    small, large = (page.render(RUN, None, models=models) for models in (few, crowd))
    assert len(large) < len(small) + 1000
