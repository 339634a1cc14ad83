"""Kills of a container are published once, whichever of report and exit comes first."""

from innkeeper.shim.oom_reports import OomReports


def test_each_is_published_once() -> None:
    published: list[str] = []
    reports = OomReports(lambda: published.append("oom"))
    reports.reported()
    assert len(published) == 1
    reports.counted(3)  # with the exit: two reports are still under way
    assert len(published) == 3
    reports.reported()
    reports.reported()
    assert len(published) == 3
    reports.counted(0)
    reports.reported()
    assert len(published) == 4
