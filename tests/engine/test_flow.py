"""Backpressure, with sources that only note what they are told."""

from __future__ import annotations

from claudeproxy.engine.flow import Flow


class Source:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


def test_one_that_comes_later_is_paused_like_those_before_it() -> None:
    flow, first, later = Flow(), Source(), Source()
    flow.attach(first)
    flow.pause()
    flow.attach(later)
    flow.resume()
    assert first.told == later.told == ["pause", "resume"]


def test_one_that_comes_once_the_client_reads_again_is_not_paused() -> None:
    flow, source = Flow(), Source()
    flow.pause()
    flow.resume()
    flow.attach(source)
    assert source.told == []


def test_one_that_leaves_runs_and_is_left_alone() -> None:
    flow, running, paused = Flow(), Source(), Source()
    flow.attach(running)
    flow.detach(running)
    flow.attach(paused)
    flow.pause()
    flow.detach(paused)
    flow.resume()
    flow.pause()
    assert (running.told, paused.told) == ([], ["pause", "resume"])
